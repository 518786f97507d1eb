"""Records of figures: data, pictures, and a manifest with parameters, inputs, versions and digests."""

import functools
import itertools
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ebwm import __version__, checks, settings
from ebwm.compat import require
from ebwm.evaluation.cost import cpu_model, peak_memory
from ebwm.figures.errors import FigureError
from ebwm.figures.manifest import JOB, MANIFEST, read_manifest, sealed
from ebwm.figures.notebook import parameter_defaults, read_registry, registry_path
from ebwm.figures.style import style
from ebwm.files import sha256, write_json, write_whole
from ebwm.settings import SCALES, Settings

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

__all__ = ["Record"]

FILE_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Record:
    """Writer of a figure's data, pictures and manifest."""

    def __init__(
        self,
        id: str,  # id of the figure
        names: Mapping[str, Any],  # the notebook's `globals()`, for the values of its parameters
    ):
        self.started = time.monotonic()
        self.config = settings.load()
        self.id = id
        self.names = names
        self.parameters = _effective(id, names, self.config)
        self.folder = self._folder(self.parameters.pop("out", None))
        self.folder.mkdir(parents=True, exist_ok=True)
        job = self.folder / JOB
        self.job = json.loads(job.read_text(encoding="utf-8")) if job.is_file() else {}
        self.digests: dict[str, str] = {}
        self.pictures: dict[str, str] = {}
        self.parts: list[dict[str, Any]] = []
        self.part_tables: dict[str, list[str]] = {}  # columns that name the item, by file

    def _folder(self, out: str | None) -> Path:
        """The folder that the runner set; without a runner, that of the scale's run."""
        if out:
            return Path(out).resolve()
        checks.one_of("scale", self.parameters["scale"], SCALES, FigureError)
        return self.config.figures / self.id / "runs" / self.parameters["scale"]

    def each(
        self,
        work: Callable[..., dict[str, "pandas.DataFrame"]],  # function of one item of each list, by name
        **lists: Sequence[Any],  # items; each combination is one job of a batch
    ) -> dict[str, "pandas.DataFrame"]:  # concatenated results of `work`, with the items as columns
        """Call `work` for each combination of items, and write the results; a batch runs the items in parallel."""
        items = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
        if self.job.get("parts"):
            made = [self._load(folder, item) for folder, item in zip(self.job["parts"], items, strict=True)]
        else:
            made = [_with_columns(work(**item), item) for item in items]
        concat = require("pandas", "figures").concat
        joined = {name: concat([frames[name] for frames in made], ignore_index=True) for name in made[0]}
        self.part_tables = {self.data(name, frame).name: [*lists] for name, frame in joined.items()}
        if self.job.get("part"):
            self.close()
        return joined

    def _load(self, folder: str, item: dict[str, Any]) -> dict[str, "pandas.DataFrame"]:
        """The data frames of the job over one item."""
        path = self.config.root / folder
        manifest = read_manifest(path)
        effective = manifest["parameters"]["effective"]
        if [effective[name][0] for name in self.job["each"]] != list(item.values()):
            raise FigureError(f"{path} is not the part for {item}")
        cost = {name: manifest[name] for name in ("key", "seconds", "peak_memory_mib")}
        self.parts.append({"part": path.name, **cost})
        read = require("pandas", "figures").read_parquet
        return {Path(name).stem: read(path / name) for name in manifest["data"]}

    def data(
        self,
        name: str,  # file name without suffix
        frame: "pandas.DataFrame",  # data of the picture; the index is not stored
    ) -> Path:
        """Write a data frame as NAME.parquet."""
        path = self.folder / f"{_file_name(name)}.parquet"
        write_whole(path, lambda draft: frame.to_parquet(draft, index=False))
        self.digests[path.name] = sha256(path)
        return path

    def picture(
        self,
        name: str,  # file name without suffix
        draw: Callable[[], "matplotlib.figure.Figure"],  # called for each theme, inside its style
    ) -> "matplotlib.figure.Figure":  # the light one
        """Save a picture as NAME.png, NAME.svg, NAME-dark.png and NAME-dark.svg; at scale smoke only as NAME.png."""
        pyplot = require("matplotlib.pyplot", "figures")
        smoke = self.parameters["scale"] == "smoke"
        for theme, ending in (("light", ""),) if smoke else (("dark", "-dark"), ("light", "")):
            with style(theme):
                figure = draw()
                for kind in ("png",) if smoke else METADATA:
                    path = self.folder / f"{_file_name(name)}{ending}.{kind}"
                    write_whole(path, _saver(figure, kind))
                    figure.set_layout_engine("none")  # keeps the layout of the first file
                    self.pictures[path.name] = sha256(path)
                pyplot.close(figure)
        return figure

    def close(
        self,
        seeds: Sequence[int] | None = None,  # seeds of the run; default: the parameter `seeds`
        dataset_digest: str | dict[str, str] | None = None,  # SHA-256 of the data set, or of each split
        **results: Any,  # statistics, as JSON
    ) -> dict[str, Any]:
        """Write manifest.json, the last file of a record."""
        self._check_parameters()
        manifest = {
            "id": self.id,
            "scale": self.parameters["scale"],
            "seeds": list(self.parameters.get("seeds", []) if seeds is None else seeds),
            "parameters": {"asked": self.job.get("asked"), "effective": self.parameters},
            "key": self.job.get("key"),
            "inputs": self.job.get("inputs"),
            "parts": self.parts,
            "part_tables": self.part_tables,
            "results": results,
            "data": self.digests,
            "pictures": self.pictures,
            "dataset": dataset_digest,
            "git": _git(self.config.root),
            "versions": _versions(),
            **_machine(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **self._cost(),
        }
        manifest = sealed(json.loads(json.dumps(manifest, default=_json_value)))
        write_json(self.folder / MANIFEST, manifest)
        return manifest

    def _check_parameters(self) -> None:
        """Raise if a parameter has changed since the start."""
        for name, value in _effective(self.id, self.names, self.config).items():
            if name != "out" and value != self.parameters[name]:
                raise FigureError(f"figure {self.id!r}: parameter {name!r} changed from {self.parameters[name]!r} to "
                                  f"{value!r}; a notebook must not assign its parameters")

    def _cost(self) -> dict[str, Any]:
        """Seconds of all jobs together, and the largest memory of a job."""
        own = round(time.monotonic() - self.started, 1)
        peaks = [peak_memory(), *(part["peak_memory_mib"] for part in self.parts)]
        return {"seconds": round(own + sum(part["seconds"] for part in self.parts), 1),
                "peak_memory_mib": max(filter(None, peaks), default=None)}


def _effective(id: str, names: Mapping[str, Any], config: Settings) -> dict[str, Any]:
    path = registry_path(config)
    entries = {entry["id"]: entry for entry in read_registry(path)["figures"]}
    checks.one_of("figure", id, entries, FigureError)
    wanted = parameter_defaults(config.root / entries[id]["notebook"])
    if missing := [name for name in wanted if name not in names]:
        raise FigureError(f"figure {id!r}: parameter {missing[0]!r} has no value; pass the notebook's globals() to Record")
    return {name: names[name] for name in wanted}


def _with_columns(frames: dict[str, "pandas.DataFrame"], item: dict[str, Any]) -> dict[str, "pandas.DataFrame"]:
    return {name: frame.assign(**item)[[*item, *(c for c in frame if c not in item)]]
            for name, frame in frames.items()}


METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def _saver(figure: "matplotlib.figure.Figure", kind: str) -> Callable[[Path], None]:
    return lambda draft: figure.savefig(draft, format=kind, metadata=METADATA[kind])


def _file_name(name: str) -> str:
    if not FILE_NAME.fullmatch(name):
        raise checks.refusal("name", name, "must consist of lower-case letters, digits and underscores", error=FigureError)
    return name


def _json_value(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


OUTPUTS = [f":(exclude,glob)figures/{name}" for name in (
    "report.md", "*/runs/**", "*/*.png", "*/*.svg", "*/*.parquet", "*/.partial.*/**", f"*/{MANIFEST}")]


def _git(root: Path) -> dict[str, Any] | None:
    """The commit, and whether a file other than the figures' outputs differs from it; None outside git."""
    git = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        changes = git(["git", "status", "--porcelain", "--", ".", *OUTPUTS]).stdout
        return {"commit": commit, "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return None


MODULES = ("av", "datasets", "diffusers", "matplotlib", "mujoco", "pandas", "pyarrow", "safetensors",
           "scipy", "sklearn", "timm", "tokenizers", "torchvision", "transformers")


def _versions() -> dict[str, str]:
    loaded = {name: sys.modules[name] for name in MODULES if name in sys.modules}
    fixed = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
             "ebwm": __version__}
    return {name: str(v) for name, v in fixed.items()} | {
        name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items()}


def _machine() -> dict[str, Any]:
    device = settings.device()
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(device) / 2**20) if cuda else None,
    }
