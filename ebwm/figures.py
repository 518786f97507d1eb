"""Figures: their registry, running their notebooks, the record that each leaves, and one plotting style."""

import ast
import contextlib
import contextvars
import dataclasses
import difflib
import functools
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import ArrayLike

from ebwm import __version__, settings
from ebwm.compat import require
from ebwm.files import sha256, write_json, write_whole
from ebwm.settings import SCALES, Settings

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.lines
    import pandas

__all__ = [
    "COLOURS",
    "Figure",
    "FigureError",
    "NotebookError",
    "Plan",
    "Planned",
    "Record",
    "Registry",
    "colour",
    "effective",
    "cpu_model",
    "execute",
    "extras",
    "lacking",
    "parameter_defaults",
    "plan",
    "promote",
    "registry",
    "run",
    "spread",
    "style",
    "suggest",
    "table",
]

NAME = re.compile(r"[a-z][a-z0-9_]*")
MANIFEST = "manifest.json"
RESERVED = ("scale", "out")  # parameters that only the runner sets


class FigureError(ValueError):
    """A request about figures that cannot be met; the message is one line and says what is allowed."""


class NotebookError(RuntimeError):
    """A figure's notebook failed; the message is one line and says where the partial notebook lies."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, and all of them."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(name, allowed, n=1)
    question = f"did you mean {near[0]!r}? " if near else ""
    return f"{question}allowed: {', '.join(allowed) or 'none'}"


def extras() -> dict[str, list[str]]:
    """The packages that each extra of ebwm brings."""
    try:
        lines = importlib.metadata.requires("ebwm") or []
    except importlib.metadata.PackageNotFoundError:
        lines = _extras_of_checkout()
    found: dict[str, list[str]] = {}
    for line in lines:
        extra = re.search(r"""extra == ["'](\w+)["']""", line)
        package = re.match(r"[\w.-]+", line)[0]
        if extra and package != "ebwm":
            found.setdefault(extra[1], []).append(package)
    return found


def _extras_of_checkout() -> list[str]:
    path = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    groups = project.get("optional-dependencies", {})
    return [f'{package}; extra == "{extra}"' for extra, packages in groups.items() for package in packages]


def lacking(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [package for package in extras().get(extra, []) if not _installed(package)]


def _installed(package: str) -> bool:
    return next(iter(importlib.metadata.distributions(name=package)), None) is not None


# The registry


@dataclass(frozen=True)
class Figure:
    """One entry of the registry: a notebook and what each scale changes in it."""

    id: str
    title: str
    notebook: Path  # absolute
    headline: bool = False  # whether it belongs to the few that a visitor makes first
    device: dict[str, str] = field(default_factory=dict)  # by scale: "any" or "cuda"
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)  # by scale
    seeds: dict[str, list[int]] = field(default_factory=dict)  # by scale, before the settings' seeds
    minutes: dict[str, int | float] = field(default_factory=dict)  # by scale, expected
    memory: int | float = 1  # GiB
    extras: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A figure that is named but has no notebook yet."""

    id: str
    title: str
    paper: str


@dataclass(frozen=True)
class Registry:
    """All figures of the repository, by id."""

    figures: dict[str, Figure]
    planned: dict[str, Planned] = field(default_factory=dict)

    def __getitem__(self, id: str) -> Figure:
        if id in self.planned:
            raise FigureError(f"figure {id!r} is planned, it has no notebook yet; "
                              f"allowed: {', '.join(sorted(self.figures))}")
        if id not in self.figures:
            raise FigureError(f"unknown figure {id!r}; {suggest(id, self.figures)}")
        return self.figures[id]


def registry(
    config: Settings | None = None,  # settings in effect by default
) -> Registry:
    """Read and check figures.yaml in the figures folder."""
    config = config or settings.load()
    path = config.figures / "figures.yaml"
    content = _mapping(_read_yaml(path), path.name)
    _check_keys(content, {"figures", "planned"}, set(), path.name)
    figures = [_figure(entry, config.root, path.name) for entry in _entries(content, "figures", path.name)]
    planned = [_planned(entry, path.name) for entry in _entries(content, "planned", path.name)]
    ids = [entry.id for entry in (*figures, *planned)]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise FigureError(f"{path.name}: two entries have the id {twice[0]!r}; ids must differ")
    return Registry({f.id: f for f in figures}, {p.id: p for p in planned})


def _read_yaml(path: Path) -> Any:
    yaml = require("yaml", "figures")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FigureError(f"no figures.yaml in {path.parent}; run this inside a checkout of ebwm") from None
    except yaml.YAMLError as error:
        raise FigureError(f"{path.name}: {' '.join(str(error).split())}") from None


def _mapping(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise FigureError(f"{where}: {value!r} is given where names and values are needed")
    return value


def _entries(content: dict, key: str, where: str) -> list[dict]:
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise FigureError(f"{where}: {key!r} must be a list of entries")
    return [_mapping(entry, f"{where}: {key}") for entry in entries]


def _check_keys(entry: dict, allowed: set[str], required: set[str], where: str) -> None:
    if unknown := sorted(entry.keys() - allowed, key=str):
        raise FigureError(f"{where}: unknown key {unknown[0]!r}; {suggest(str(unknown[0]), allowed)}")
    if missing := sorted(required - entry.keys()):
        raise FigureError(f"{where}: the key {missing[0]!r} is missing")


def _checked_id(entry: dict, where: str) -> str:
    id = entry.get("id")
    if not (isinstance(id, str) and NAME.fullmatch(id)):
        raise FigureError(f"{where}: id {id!r} must be of lower-case letters, digits and underscores")
    return id


def _planned(entry: dict, where: str) -> Planned:
    where = f"{where}: {_checked_id(entry, where)}"
    _check_keys(entry, {"id", "title", "paper"}, {"id", "title", "paper"}, where)
    return Planned(**{key: str(value) for key, value in entry.items()})


def _figure(entry: dict, root: Path, where: str) -> Figure:
    where = f"{where}: {_checked_id(entry, where)}"
    _check_keys(entry, {f.name for f in dataclasses.fields(Figure)}, {"id", "title", "notebook"}, where)
    notebook = root / str(entry["notebook"])
    if not notebook.is_file():
        raise FigureError(f"{where}: its notebook {entry['notebook']} does not exist under {root}")
    values = {key: _by_scale(entry[key], f"{where}: {key}") for key in BY_SCALE if key in entry}
    values |= {key: _listed(entry[key], f"{where}: {key}") for key in ("extras", "claims") if key in entry}
    entry = {**entry, **values, "title": str(entry["title"]), "notebook": notebook}
    _check_parameters(entry.get("parameters", {}), f"{where}: parameters")
    for key, (right, allowed) in CHECKS.items():
        if key in entry and not right(entry[key]):
            raise FigureError(f"{where}: {key} is {entry[key]!r}; it must be {allowed}")
    return Figure(**entry)


BY_SCALE = ("device", "parameters", "seeds", "minutes")


def _by_scale(value: Any, where: str) -> dict:
    _check_keys(_mapping(value, where), set(SCALES), set(), where)
    return value


def _listed(value: Any, where: str) -> tuple[str, ...]:
    if not _fits(value, [""]):
        raise FigureError(f"{where} is {value!r}; it must be a list of texts")
    return tuple(value)


def _check_parameters(parameters: dict[str, Any], where: str) -> None:
    for scale, names in parameters.items():
        if set_by_runner := sorted(_mapping(names, f"{where}: {scale}").keys() & {"seeds", *RESERVED}):
            raise FigureError(f"{where}: {scale}: {set_by_runner[0]!r} is set by the runner")


def _numbers(values: dict[str, Any]) -> bool:
    return all(_fits(value, 0.0) for value in values.values())


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "headline": (lambda value: isinstance(value, bool), "true or false"),
    "device": (lambda value: all(v in ("any", "cuda") for v in value.values()), "any or cuda for each scale"),
    "seeds": (lambda value: all(v and _fits(v, [0]) for v in value.values()), "whole numbers for each scale"),
    "minutes": (_numbers, "a number for each scale"),
    "memory": (lambda value: _fits(value, 0.0), "a number of GiB"),
    "extras": (lambda value: set(value) <= extras().keys(), "among the extras of pyproject.toml"),
}


# The notebook's parameters


def parameter_defaults(
    notebook: Path,
) -> dict[str, Any]:  # name to default
    """The parameters of a notebook: the assignments in its cell tagged `parameters`."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError):
        raise FigureError(f"{notebook.name} is no notebook: its JSON cannot be read") from None
    tagged = ["".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        count = len(tagged) or "no"
        raise FigureError(f"{notebook.name} has {count} cells tagged 'parameters'; it needs exactly one")
    return _assignments(tagged[0], notebook.name)


def _assignments(source: str, where: str) -> dict[str, Any]:
    try:
        return dict(_assignment(statement) for statement in ast.parse(source).body)
    except (ValueError, SyntaxError) as error:
        line = getattr(error, "lineno", None) or error.args[-1]
        found = f"{where}: line {line} of its cell tagged 'parameters'"
        raise FigureError(f"{found} is not a name = a literal value") from None


def _assignment(statement: ast.stmt) -> tuple[str, Any]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if len(targets) != 1 or not isinstance(targets[0], ast.Name):
        raise ValueError(statement.lineno)
    try:
        return targets[0].id, _plain(ast.literal_eval(statement.value))
    except (ValueError, TypeError):
        raise ValueError(statement.lineno) from None


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        return value is None or isinstance(value, str)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, list):
        return isinstance(value, list) and all(any(_fits(v, d) for d in default or [v]) for v in value)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


def _kind(default: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text",
             list: "a list", type(None): "a text or None"}
    return kinds.get(type(default), f"a {type(default).__name__}")


# Running


@dataclass(frozen=True)
class Plan:
    """A run that has been checked: nothing about it is left to guess."""

    figure: Figure
    scale: str
    parameters: dict[str, Any]  # all that the notebook is given, but `out`
    config: Settings

    @property
    def folder(self) -> Path:
        """Where the run will lie."""
        return self.config.figures / self.figure.id / "runs" / self.scale


def plan(
    id: str,  # a figure of the registry
    scale: str | None = None,  # the settings' scale by default
    overrides: Mapping[str, Any] | None = None,  # parameters by name, before the registry's
    config: Settings | None = None,  # settings in effect by default
) -> Plan:
    """Check a run before anything of it starts: figure, scale, parameters, device and extras."""
    config = config or settings.load()
    scale = _checked_scale(scale or config.scale)
    figure = registry(config)[id]
    defaults = parameter_defaults(figure.notebook)
    if missing := [name for name in RESERVED if name not in defaults]:
        raise FigureError(f"{figure.notebook.name}: its cell tagged 'parameters' must define {missing[0]!r}")
    asked = _registered(figure, scale, config, defaults)
    asked |= {name: _folder(id, name, _plain(value)) for name, value in (overrides or {}).items()}
    for name, value in asked.items():
        _check_parameter(figure.id, name, value, defaults)
    _check_means(figure, scale, config)
    return Plan(figure, scale, {"scale": scale, **asked}, config)


def _registered(figure: Figure, scale: str, config: Settings, defaults: dict[str, Any]) -> dict[str, Any]:
    """What the registry and the settings make of a figure's parameters at a scale."""
    seeds = {"seeds": figure.seeds.get(scale, list(config.seeds))} if "seeds" in defaults else {}
    return figure.parameters.get(scale, {}) | seeds


def _checked_scale(scale: str) -> str:
    if scale not in SCALES:
        raise FigureError(f"unknown scale {scale!r}; {suggest(scale, SCALES)}")
    return scale


def _folder(id: str, name: str, value: Any) -> Any:
    """A parameter called *_dir names a folder: sought from here, given to the notebook as a whole path."""
    if not (name.endswith("_dir") and isinstance(value, str)):
        return value
    if not Path(value).is_dir():
        raise FigureError(f"figure {id!r}: parameter {name!r} is {value!r}, which is no folder here")
    return str(Path(value).resolve())


def _check_parameter(id: str, name: str, value: Any, defaults: dict[str, Any]) -> None:
    allowed = [known for known in defaults if known not in RESERVED]
    if name in RESERVED:
        raise FigureError(f"figure {id!r}: parameter {name!r} is set by the runner, the scale by --scale")
    if name not in defaults:
        raise FigureError(f"figure {id!r}: unknown parameter {name!r}; {suggest(name, allowed)}")
    if name == "seeds" and isinstance(value, list) and (not value or len(set(map(str, value))) < len(value)):
        raise FigureError(f"figure {id!r}: seeds are {value}; at least one is needed, and no two alike")
    if not _fits(value, defaults[name]):
        raise FigureError(f"figure {id!r}: parameter {name!r} is {value!r}; "
                          f"it must be {_kind(defaults[name])}, like its default {defaults[name]!r}")


ENGINE = ("papermill", "ipykernel", "matplotlib", "pandas", "pyarrow")


def _check_means(figure: Figure, scale: str, config: Settings) -> None:
    kind = settings.device(config.device).type
    if figure.device.get(scale) == "cuda" and kind != "cuda":
        raise FigureError(f"figure {figure.id!r} at scale {scale!r} needs a GPU, and the device here is {kind!r}; "
                          "use a smaller --scale")
    needed = {"figures": [package for package in ENGINE if not _installed(package)]}
    for extra, absent in (needed | {extra: lacking(extra) for extra in figure.extras}).items():
        if absent:
            raise FigureError(f"figure {figure.id!r} needs {', '.join(absent)}: pip install 'ebwm[{extra}]'")


def run(
    id: str,  # a figure of the registry
    scale: str | None = None,  # the settings' scale by default
    overrides: Mapping[str, Any] | None = None,  # parameters by name, before the registry's
    config: Settings | None = None,  # settings in effect by default
) -> Path:  # folder of the run
    """Make a figure: execute its notebook with checked parameters."""
    return execute(plan(id, scale, overrides, config))


def execute(plan: Plan) -> Path:
    """Execute a checked run beside its final place, and move it there once it is complete."""
    partial = plan.folder.with_name(f".{plan.scale}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _execute_notebook(plan, partial)
        _check_effective(plan, partial)
    except BaseException as error:
        kept = _replace(partial, plan.folder.with_name(f"{plan.scale}.failed"))
        if not isinstance(error, Exception):
            raise
        raise NotebookError(f"figure {plan.figure.id!r} failed: {_one_line(error)}; the partial notebook is "
                            f"{_short(kept / f'{plan.figure.id}.ipynb', plan.config.root)}") from error
    return _replace(partial, plan.folder)


def _execute_notebook(plan: Plan, folder: Path) -> None:
    log = folder / "kernel.log"
    with open(log, "wb") as stream:
        require("papermill", "figures").execute_notebook(
            plan.figure.notebook,
            folder / f"{plan.figure.id}.ipynb",
            parameters={**plan.parameters, "out": _short(folder, plan.config.root)},
            kernel_name="python3",
            kernel_manager_class=_kernel_manager(plan.config.threads, stream),
            cwd=plan.config.root,
            progress_bar=False,
            stdout_file=sys.stderr,
            stderr_file=sys.stderr,
        )
    log.unlink()


def _kernel_manager(threads: int, log: BinaryIO) -> type:
    """A kernel of the running interpreter, whatever kernels the machine offers, that imports this ebwm."""
    client, kernel = require("jupyter_client", "figures"), require("ipykernel.kernelspec", "figures")
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    spec = client.kernelspec.KernelSpec(**kernel.get_kernel_dict())
    spec.argv = [sys.executable, *spec.argv[1:]]
    spec.env = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    if threads:
        spec.env["OMP_NUM_THREADS"] = str(threads)

    class KernelManager(client.AsyncKernelManager):
        kernel_spec = spec

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(stderr=log, **options)

    return KernelManager


def _check_effective(plan: Plan, folder: Path) -> None:
    path = folder / MANIFEST
    if not path.is_file():
        raise FigureError("the notebook wrote no manifest.json; it must call close() on its Record")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    effective = manifest["parameters"]["effective"]
    for name, asked in plan.parameters.items():
        if name not in effective:
            raise FigureError(f"the notebook did not record its parameter {name!r}")
        if effective[name] != asked:
            raise FigureError(f"the notebook ran with {name} = {effective[name]!r}, asked was {asked!r}")
    manifest["parameters"]["asked"] = plan.parameters
    _write_json(path, manifest)


def _replace(folder: Path, place: Path) -> Path:
    """Rename a folder to its place, where an earlier one may lie."""
    earlier = folder.with_name(f"{folder.name}.earlier")
    shutil.rmtree(earlier, ignore_errors=True)
    if place.exists():
        place.rename(earlier)
    folder.rename(place)
    shutil.rmtree(earlier, ignore_errors=True)
    return place


def _one_line(error: Exception) -> str:
    name, text = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error))
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
    message = text.splitlines()[0] if text else "no message"
    return message if isinstance(error, FigureError) else f"{name}: {message}"


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


# What a notebook leaves


def effective(
    id: str,  # a figure of the registry
    names: Mapping[str, Any],  # the notebook's `globals()`
) -> dict[str, Any]:
    """The values in effect of a notebook's parameters, whoever set them."""
    return {name: names[name] for name in parameter_defaults(registry()[id].notebook)}


class Record:
    """Where a figure's notebook leaves its data, its pictures and its manifest."""

    def __init__(
        self,
        id: str,  # the figure
        parameters: dict[str, Any],  # the values in effect, `scale` among them
        out: str | None = None,  # folder to write to; by hand None: the folder of the scale's run
    ):
        self.started = time.monotonic()
        self.config = settings.load()
        self.id, self.scale = id, _checked_scale(str(parameters.get("scale")))
        self.parameters = {name: value for name, value in parameters.items() if name != "out"}
        self.folder = Path(out).resolve() if out else self.config.figures / id / "runs" / self.scale
        self.folder.mkdir(parents=True, exist_ok=True)
        self.digests: dict[str, str] = {}
        self.pictures: list[str] = []

    def data(
        self,
        name: str,  # file name without ending
        frame: "pandas.DataFrame",  # what the picture shows; its index is not kept
    ) -> Path:
        """Write a data frame as NAME.parquet."""
        path = self.folder / f"{_file_name(name)}.parquet"
        write_whole(path, lambda draft: frame.to_parquet(draft, index=False))
        self.digests[path.name] = sha256(path)
        return path

    def picture(
        self,
        name: str,  # file name without ending
        draw: Callable[[], "matplotlib.figure.Figure"],  # called once a theme, inside its style
    ) -> "matplotlib.figure.Figure":  # the light one
        """Save a picture as NAME.png, NAME.svg, NAME-dark.png and NAME-dark.svg."""
        pyplot = require("matplotlib.pyplot", "figures")
        drawn = {}
        for theme, ending in (("dark", "-dark"), ("light", "")):
            with style(theme):
                drawn[theme] = draw()
                for kind, metadata in METADATA.items():
                    path = self.folder / f"{_file_name(name)}{ending}.{kind}"
                    write_whole(path, _saver(drawn[theme], kind, metadata))
                pyplot.close(drawn[theme])
        self.pictures = [*(p for p in self.pictures if p != name), name]
        return drawn["light"]

    def close(
        self,
        seeds: Sequence[int] | None = None,  # the seeds that were run; the parameter `seeds` by default
        dataset_digest: str | dict[str, str] | None = None,  # SHA-256 of the data set, or of each split
        **results: Any,  # what is worth reading without opening the data, as JSON
    ) -> dict[str, Any]:
        """Write manifest.json, the last file of a record."""
        manifest = {
            "id": self.id,
            "scale": self.scale,
            "seeds": list(self.parameters.get("seeds", []) if seeds is None else seeds),
            "parameters": {"asked": None, "effective": self.parameters},
            "results": results,
            "data": self.digests,
            "dataset": dataset_digest,
            "pictures": self.pictures,
            "git": _git(self.config.root),
            "versions": _versions(),
            **_machine(),
            "seconds": round(time.monotonic() - self.started, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _write_json(self.folder / MANIFEST, manifest)
        return manifest


METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def _saver(figure: "matplotlib.figure.Figure", kind: str, metadata: dict) -> Callable[[Path], None]:
    return lambda draft: figure.savefig(draft, format=kind, metadata=metadata)


def _file_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise FigureError(f"file name {name!r} must be lower-case letters, digits and underscores")
    return name


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_json(path, json.loads(json.dumps(content, default=_json_value)))


def _json_value(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _git(root: Path) -> dict[str, Any] | None:
    """The commit, and whether anything but the figures' own outputs differs from it; None outside git."""
    git = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        changes = git(["git", "status", "--porcelain", "--", ".", ":(exclude,glob)figures/*/**"]).stdout
        return {"commit": commit, "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return None


MODULES = ("av", "datasets", "diffusers", "matplotlib", "mujoco", "pandas", "pyarrow", "safetensors",
           "sklearn", "timm", "tokenizers", "torchvision", "transformers")


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
        "peak_memory_mib": _peak_memory(),
        "peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(device) / 2**20) if cuda else None,
    }


def cpu_model() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", path.read_text()) if path.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def _peak_memory() -> int | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


# Putting a run on record


def promote(
    id: str,  # a figure of the registry
    scale: str | None = None,  # which run; the settings' scale by default
    config: Settings | None = None,  # settings in effect by default
) -> list[Path]:  # the files on record
    """Copy a run's pictures, data and manifest to figures/ID, unless a larger scale is on record there."""
    config = config or settings.load()
    scale = _checked_scale(scale or config.scale)
    figure, record = registry(config)[id], config.figures / id
    manifest = _complete_manifest(record / "runs" / scale, id, scale)
    _check_registered(figure, scale, config, manifest["parameters"]["effective"])
    _check_larger(record / MANIFEST, scale)
    if (manifest["git"] or {}).get("dirty"):
        raise FigureError(f"figure {id!r} was run from uncommitted changes; commit them and run it again")
    names = _files(manifest)
    _copy(record / "runs" / scale, record, names)
    return [record / name for name in names]


def _complete_manifest(run: Path, id: str, scale: str) -> dict[str, Any]:
    if not (run / MANIFEST).is_file():
        command = f"ebwm figures run {id} --scale {scale}"
        raise FigureError(f"figure {id!r} has no run at scale {scale!r}; make one: {command}")
    manifest = json.loads((run / MANIFEST).read_text(encoding="utf-8"))
    for name in _files(manifest):
        if not (run / name).is_file():
            raise FigureError(f"figure {id!r}: {name} is missing from its run at scale {scale!r}; run it again")
        if manifest["data"].get(name) not in (None, sha256(run / name)):
            raise FigureError(f"figure {id!r}: {name} is not the file that its manifest names; run it again")
    return manifest


def _check_registered(figure: Figure, scale: str, config: Settings, effective: dict[str, Any]) -> None:
    """What goes on record was run with the registry's parameters, so that its command makes it again."""
    defaults = parameter_defaults(figure.notebook)
    expected = defaults | {"scale": scale} | _registered(figure, scale, config, defaults)
    for name, value in effective.items():
        if value != expected.get(name, value):
            raise FigureError(f"figure {figure.id!r} was run with {name} = {value!r}, the registry has "
                              f"{expected[name]!r}; run it again without -p")


def _files(manifest: dict[str, Any]) -> list[str]:
    endings = (".png", ".svg", "-dark.png", "-dark.svg")
    return [*manifest["data"], *(name + ending for name in manifest["pictures"] for ending in endings), MANIFEST]


def _check_larger(path: Path, scale: str) -> None:
    recorded = json.loads(path.read_text(encoding="utf-8"))["scale"] if path.is_file() else SCALES[0]
    if SCALES.index(scale) < SCALES.index(recorded):
        raise FigureError(f"{path.parent.name!r} is on record at scale {recorded!r}; "
                          f"a run at the smaller scale {scale!r} does not replace it")


def _copy(source: Path, target: Path, names: list[str]) -> None:
    """Copy files to a folder beside the target's, then rename each into place, the manifest last."""
    partial = target / f".partial.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name in names:
            shutil.copyfile(source / name, partial / name)
        for name in names:
            (partial / name).replace(target / name)
    finally:
        shutil.rmtree(partial)
    for stale in target.iterdir():
        if stale.suffix in (".png", ".svg", ".parquet") and stale.name not in names:
            stale.unlink()


# One style for all pictures

COLOURS = {  # Okabe and Ito's palette, darker or lighter where the background asks for it
    "light": {"ebt": "#0072b2", "transformer": "#d55e00", "gru": "#009e73", "diffusion": "#b5588f",
              "floor": "#6b7280", "truth": "#111827",
              "background": "#ffffff", "text": "#1f2937", "grid": "#e5e7eb"},
    "dark": {"ebt": "#56b4e9", "transformer": "#f08a3c", "gru": "#2fc79a", "diffusion": "#dd9bc0",
             "floor": "#9ca3af", "truth": "#f9fafb",
             "background": "#0d1117", "text": "#d1d5db", "grid": "#2a313c"},
}
ROLES = ("ebt", "transformer", "gru", "diffusion", "floor")  # the order of colours when none is named
_theme = contextvars.ContextVar("theme", default="light")


def colour(
    role: str,  # what is drawn: "ebt", "transformer", "floor", ...
) -> str:
    """The colour of a role under the theme in force."""
    palette = COLOURS[_theme.get()]
    if role not in palette:
        raise FigureError(f"unknown colour role {role!r}; {suggest(role, palette)}")
    return palette[role]


@contextlib.contextmanager
def style(
    theme: str = "light",  # "light" or "dark"
) -> Iterator[None]:
    """Draw under the project's style: readable at page width, in colours that the colour-blind can tell."""
    if theme not in COLOURS:
        raise FigureError(f"unknown theme {theme!r}; {suggest(theme, COLOURS)}")
    matplotlib, token = require("matplotlib", "figures"), _theme.set(theme)
    try:
        with matplotlib.rc_context(_rc(matplotlib)):
            yield
    finally:
        _theme.reset(token)


def _rc(matplotlib: ModuleType) -> dict[str, Any]:
    families = r"^(axes|figure|font|grid|legend|lines|patch|savefig|svg|text|[xy]tick)\."
    cycle = matplotlib.cycler(color=[colour(role) for role in ROLES])
    return {**matplotlib.rcParamsDefault.find_all(families), **SHAPES, **_painted(), "axes.prop_cycle": cycle}


SHAPES = {
    "figure.figsize": (7.2, 4.0), "figure.constrained_layout.use": True, "savefig.dpi": 150,
    "svg.hashsalt": "ebwm", "svg.fonttype": "path",
    "font.size": 10.5, "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "legend.fontsize": 9.5, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "legend.frameon": False,
    "lines.linewidth": 1.8, "axes.linewidth": 0.8, "grid.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
}


def _painted() -> dict[str, str]:
    painted = {
        "background": ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "savefig.edgecolor"),
        "text": ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"),
        "grid": ("grid.color",),
    }
    return {name: colour(role) for role, names in painted.items() for name in names}


def spread(
    ax: "matplotlib.axes.Axes",
    x: ArrayLike,  # points
    ys: ArrayLike,  # one row of values a seed
    colour: str,  # a role's colour
    label: str,  # for the legend
) -> "matplotlib.lines.Line2D":  # the line of means
    """Draw the mean over seeds, each seed as a thin line, and a band from the least to the largest."""
    rows = np.atleast_2d(np.asarray(ys, dtype=float))
    if len(rows) > 1:
        ax.fill_between(x, rows.min(0), rows.max(0), color=colour, alpha=0.15, linewidth=0)
        for row in rows:
            ax.plot(x, row, color=colour, alpha=0.45, linewidth=0.7)
    return ax.plot(x, rows.mean(0), color=colour, label=label)[0]


# The printed table

COLUMNS = 100


def table(
    made: Mapping[str, Path],  # figures made now, with the folders of their runs
    scale: str | None = None,  # whose minutes are shown; the settings' scale by default
    config: Settings | None = None,  # settings in effect by default
) -> str:
    """All figures that the repository knows: where those made now lie, how to make the others."""
    config = config or settings.load()
    scale, known = _checked_scale(scale or config.scale), registry(config)
    rows = [_row(figure, made.get(figure.id), scale, config) for figure in known.figures.values()]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    lines = [line for row in rows for line in _lines(row, widths)]
    if known.planned:
        names = f"planned: {', '.join(known.planned)}"
        lines += ["", *textwrap.wrap(names, COLUMNS, subsequent_indent=" " * len("planned: "))]
    return "\n".join(lines)


def _row(figure: Figure, folder: Path | None, scale: str, config: Settings) -> tuple[str, str, str, str]:
    if folder:
        return figure.id, "made", _short(folder, config.root), figure.title
    command = f"ebwm figures run {figure.id}" + (f" --scale {scale}" if scale != config.scale else "")
    return figure.id, _duration(figure.minutes.get(scale)), command, figure.title


def _lines(row: tuple[str, str, str, str], widths: list[int]) -> list[str]:
    id, state, where, title = row
    head = f"{id:<{widths[0]}}  {state:<{widths[1]}}  {where}"
    return [head, *textwrap.wrap(title, COLUMNS, initial_indent="    ", subsequent_indent="    ")]


def _duration(minutes: int | float | None) -> str:
    if minutes is None:
        return "time unknown"
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
