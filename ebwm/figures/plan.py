"""Plans and jobs: the checks before a run starts, and its division into processes."""

import dataclasses
import hashlib
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebwm import checks, settings
from ebwm.compat import installed, lacking
from ebwm.figures.errors import FigureError
from ebwm.figures.inputs import inputs, key_of
from ebwm.figures.notebook import cells_of, code_of, fits, parameter_defaults, plain
from ebwm.figures.registry import RESERVED, Figure, registry
from ebwm.files import check_temporary
from ebwm.settings import SCALES, Settings

__all__ = ["Job", "Plan", "as_json", "checked_scale", "cores", "from_json", "gpus", "jobs_of", "plan",
           "registered", "short", "suffix"]


@dataclass(frozen=True)
class Plan:
    """Checked settings of one run of a figure."""

    figure: Figure  # entry of the registry
    scale: str  # one of SCALES
    parameters: dict[str, Any]  # parameters of the notebook, except `out`
    config: Settings  # settings in effect
    suffix: str = ""  # suffix of the folder's name; "": replace the last run
    threads: int = 0  # threads of each job; 0: as in the registry
    device: str = "cpu"  # kind of device: "cpu" or "cuda"

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.config.figures / self.figure.id / "runs" / f"{self.scale}{self.suffix}"


def plan(
    id: str,  # a figure of the registry
    scale: str | None = None,  # default: the settings' scale
    overrides: Mapping[str, Any] | None = None,  # parameters by name; they override the registry's
    config: Settings | None = None,  # default: the settings in effect
    means: bool = True,  # check that this machine can run the figure
    cluster: bool = False,  # whether the jobs run on other machines
) -> Plan:
    """Check a run before it starts: figure, scale, parameters, device and extras."""
    config = config or settings.load()
    scale = checked_scale(scale or config.scale)
    figure = registry(config)[id]
    if not figure.has(scale):
        raise FigureError(f"figure {id!r} has no scale {scale!r}: nothing would differ from cpu; use --scale cpu")
    defaults = parameter_defaults(figure.notebook)
    for name in (*RESERVED, *figure.each):
        _check_defined(figure, name, defaults)
    asked = registered(figure, scale, config, defaults) | dict(overrides or {})
    asked = {name: _folder(id, name, plain(value)) for name, value in asked.items()}
    for name, value in asked.items():
        _check_parameter(figure, name, value, defaults)
    for name in figure.each:
        _check_items(figure.id, name, asked.get(name, defaults[name]))
    kind = _kind_of_device(figure, scale, config, cluster)
    if means:
        _check_means(figure, scale, kind, defaults | asked)
    return Plan(figure, scale, {"scale": scale, **asked}, config, device=kind)


def _kind_of_device(figure: Figure, scale: str, config: Settings, cluster: bool) -> str:
    """The kind of this machine's device; on a cluster, that of the registry."""
    if cluster:
        return "cuda" if figure.device.get(scale) == "cuda" else "cpu"
    return settings.device_kind(config.device)


def registered(
    figure: Figure,  # entry of the registry
    scale: str,  # one of SCALES
    config: Settings,  # settings in effect
    defaults: dict[str, Any],  # defaults of the notebook's parameters
) -> dict[str, Any]:
    """The parameters of a figure at a scale that the registry and the settings set."""
    seeds = {"seeds": figure.seeds.get(scale, list(config.seeds))} if "seeds" in defaults else {}
    return figure.parameters.get(scale, {}) | seeds


def checked_scale(
    scale: str,  # name of a scale
) -> str:
    """The scale, if it is one of SCALES."""
    checks.one_of("scale", scale, SCALES, FigureError)
    return scale


def _check_defined(figure: Figure, name: str, defaults: dict[str, Any]) -> None:
    if name not in defaults:
        raise FigureError(f"{figure.notebook.name}: the cell tagged 'parameters' must define {name!r}")
    if name in figure.each and not isinstance(defaults[name], list):
        raise checks.refusal(f"{figure.notebook.name}: {name}", defaults[name],
                             "a parameter that the registry names in `each` must be a list", error=FigureError)


def _folder(id: str, name: str, value: Any) -> Any:
    """The absolute path of a parameter *_dir, relative to the working folder."""
    if not (name.endswith("_dir") and isinstance(value, str)):
        return value
    if not Path(value).is_dir():
        raise checks.refusal(f"figure {id!r}: {name}", value, "must be an existing folder", error=FigureError)
    return str(Path(value).resolve())


def _check_parameter(figure: Figure, name: str, value: Any, defaults: dict[str, Any]) -> None:
    id, allowed = figure.id, [known for known in defaults if known not in RESERVED]
    if name in RESERVED:
        raise FigureError(f"figure {id!r}: parameter {name!r} is set by the runner; set the scale with --scale")
    checks.one_of(f"figure {id!r}: parameter", name, allowed, FigureError)
    if name == "seeds" and isinstance(value, list):
        _check_items(id, name, value)
    if not (fits(value, defaults[name]) or (defaults[name] is None and _as_registered(figure, name, value))):
        raise checks.refusal(f"figure {id!r}: {name}", value,
                             f"must be {_kind(defaults[name])}, like the default {defaults[name]!r}", error=FigureError)
    if not _finite(value):
        raise checks.refusal(f"figure {id!r}: {name}", value, "must be finite", error=FigureError)
    if name == "level":
        checks.fraction(f"figure {id!r}: level", value, FigureError)


def _as_registered(figure: Figure, name: str, value: Any) -> bool:
    """Whether a value is of the kind of one that the registry has for this parameter at some scale."""
    return any(fits(value, plain(chosen[name])) for chosen in figure.parameters.values() if name in chosen)


def _finite(value: Any) -> bool:
    """Whether all numbers of a parameter are finite."""
    return all(map(_finite, value)) if isinstance(value, list) else not isinstance(value, float) or math.isfinite(value)


def _check_items(id: str, name: str, values: list[Any]) -> None:
    if not values or len(set(map(_file_part, values))) < len(values):
        raise checks.refusal(f"figure {id!r}: {name}", values, "must be different items, at least one", error=FigureError)


def _kind(default: Any) -> str:
    kinds = {bool: "true or false", int: "an integer", float: "a number", str: "a string",
             list: "a list", type(None): "a string or None"}
    return kinds.get(type(default), f"a {type(default).__name__}")


SIMULATORS = ("metaworld:", "robosuite:")  # beginnings of names of simulators that need the extra "policy"
ENGINE = ("matplotlib", "pandas", "pyarrow", "psutil", "filelock")


def _check_means(figure: Figure, scale: str, kind: str, values: Mapping[str, Any]) -> None:
    check_temporary(FigureError)
    if figure.device.get(scale) == "cuda" and kind != "cuda":
        raise FigureError(f"figure {figure.id!r} at scale {scale!r} needs a GPU, but the device is {kind!r}; "
                          "use a smaller --scale")
    needed = {"figures": [package for package in ENGINE if not installed(package)]}
    for extra, absent in (needed | {extra: lacking(extra) for extra in _extras(figure, values)}).items():
        if absent:
            raise FigureError(f"figure {figure.id!r} needs {', '.join(absent)}: pip install 'ebwm[{extra}]'")


def _extras(figure: Figure, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The figure's extras, and that of the robots' simulators if a parameter names one."""
    named = [values.get("simulator") or "", *values.get("simulators", ())]
    return figure.extras + ("policy",) * any(name.startswith(SIMULATORS) for name in named)


# Jobs


@dataclass(frozen=True)
class Job:
    """One process: a whole notebook, or its first cells for one item; can be written as JSON."""

    name: str  # "next_frame", or "next_frame.seeds-0" for an item
    figure: str  # id of the figure
    notebook: str  # path of the notebook
    root: str  # root of the repository, the working folder of the notebook
    folder: str  # folder of the results
    parameters: dict[str, Any]  # parameters of the notebook
    inputs: dict[str, Any]  # inputs by digest, from `inputs`
    part: bool = False  # whether it ends at the cell tagged `parts`
    each: Sequence[str] = ()  # parameters whose items are separate jobs
    parts: Sequence[str] = ()  # folders of the parts that it joins
    needs: Sequence[str] = ()  # names of the jobs of these parts
    threads: int = 1  # threads of each process
    processes: int = 1  # number of processes; more than 1 under torchrun
    gpus: int = 0  # number of GPUs
    minutes: float = 1.0  # expected time
    timeout: float = 15.0  # minutes without output after which it is stopped
    memory: float = 4.0  # GiB
    data: Sequence[str] = ()  # files that the notebook reads, relative to the root

    @property
    def key(self) -> str:
        """The key of the job's inputs."""
        return key_of(self.inputs)


def jobs_of(
    plan: Plan,  # from `plan`
) -> list[Job]:  # parts first; the last job makes the figure
    """Divide a run into jobs: one for each item of the parameters in `each`, and one that joins them."""
    figure = plan.figure
    values = parameter_defaults(figure.notebook) | plan.parameters
    items = list(itertools.product(*(values[name] for name in figure.each))) if figure.each else []
    if len(items) < 2:
        return [_job(plan, figure.id, plan.folder, plan.parameters, threads=_threads(plan))]
    threads, share = _threads(plan), 1 / (len(items) + 1)
    first = _part(plan, items[0], threads=threads, share=share)
    parts = [first, *(_part(plan, item, threads=threads, share=share, same=first.inputs) for item in items[1:])]
    whole = _job(plan, figure.id, plan.folder, plan.parameters, threads=threads, share=share,
                 each=figure.each, parts=tuple(p.folder for p in parts), needs=tuple(p.name for p in parts))
    return [*parts, whole]


def _part(plan: Plan, item: Sequence[Any], **options: Any) -> Job:
    each = plan.figure.each
    label = "_".join(f"{name}-{_file_part(value)}" for name, value in zip(each, item, strict=True))
    folder = plan.folder.with_name(f"{plan.folder.name}.parts") / label
    parameters = plan.parameters | {name: [value] for name, value in zip(each, item, strict=True)}
    return _job(plan, f"{plan.figure.id}.{label}", folder, parameters, part=True, each=each, **options)


def suffix(
    overrides: Mapping[str, Any],  # parameters by name
) -> str:  # empty without any
    """The end of a run folder's name, as in "cpu-updates=100": a run with other parameters replaces no run."""
    shown = {name: ",".join(map(str, value)) if isinstance(value, list | tuple) else value
             for name, value in overrides.items()}
    text = "".join(f"-{name}={_file_part(value)}" for name, value in sorted(shown.items()))
    return text if len(text) < 100 else f"-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _file_part(value: Any) -> str:
    return re.sub(r"[^\w.+-]", "_", str(value))


def _job(plan: Plan, name: str, folder: Path, parameters: dict[str, Any], *, threads: int, share: float = 1,
         part: bool = False, same: dict[str, Any] | None = None, **options: Any) -> Job:
    """A job; its inputs are computed, or those in `same` with other parameters."""
    figure = plan.figure
    made_from = _inputs(plan, parameters, part) if same is None else {**same, "parameters": parameters}
    processes = figure.processes.get(plan.scale, 1)
    minutes = figure.minutes.get(plan.scale, 1)
    return Job(
        name, figure.id, str(figure.notebook), str(plan.config.root), str(folder), parameters, made_from,
        part=part, threads=threads, processes=processes, gpus=processes if plan.device == "cuda" else 0,
        minutes=minutes * share, timeout=figure.timeout.get(plan.scale, max(15, 5 * minutes)),
        memory=figure.memory.get(plan.scale, 4), data=figure.data, **options,
    )


def _inputs(plan: Plan, parameters: dict[str, Any], part: bool) -> dict[str, Any]:
    figure = plan.figure
    code = code_of(cells_of(figure.notebook, part))
    try:
        return inputs(code, parameters, plan.device, plan.config.root, figure.data)
    except FigureError as error:
        raise FigureError(f"figure {figure.id!r}: {error}") from None


def _threads(plan: Plan) -> int:
    """Threads of each process, as the user or the registry set them.

    The default is one, because threads of several jobs delay each other on a busy machine.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    wanted = plan.threads or plan.config.threads or (int(asked) if asked.isdecimal() else 0)
    return wanted or plan.figure.threads.get(plan.scale) or 1


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """The number of GPUs that this process may use."""
    import torch

    return torch.cuda.device_count()


def short(
    path: Path,  # a path
    root: Path,  # root of the repository
) -> str:
    """The path relative to the root, if it is below the root."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def as_json(
    job: Job,  # a job
) -> dict[str, Any]:
    """The fields of a job."""
    return dataclasses.asdict(job)


def from_json(
    fields: dict[str, Any],  # fields of a job, from JSON
) -> Job:
    """The job with these fields."""
    return Job(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
