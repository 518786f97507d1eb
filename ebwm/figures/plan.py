"""Checking a run before anything of it starts, and cutting it into jobs."""

import dataclasses
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ebwm import settings
from ebwm.compat import installed, lacking
from ebwm.figures.errors import FigureError, suggest
from ebwm.figures.inputs import inputs, key_of
from ebwm.figures.notebook import cells_of, code_of, fits, parameter_defaults, plain
from ebwm.figures.registry import RESERVED, Figure, registry
from ebwm.settings import SCALES, Settings

__all__ = ["Job", "Plan", "as_json", "checked_scale", "cores", "from_json", "gpus", "jobs_of", "plan",
           "registered", "short", "threads_for"]


@dataclass(frozen=True)
class Plan:
    """A run that has been checked: nothing about it is left to guess."""

    figure: Figure
    scale: str
    parameters: dict[str, Any]  # all that the notebook is given, but `out`
    config: Settings
    suffix: str = ""  # of the folder's name, where the run is not to replace the last one
    threads: int = 0  # of each job; 0: as many as its share of the cores
    device: str = "cpu"  # kind of device that it will run on
    cluster: bool = False  # whether it runs on machines other than this one

    @property
    def folder(self) -> Path:
        """Where the run will lie."""
        return self.config.figures / self.figure.id / "runs" / f"{self.scale}{self.suffix}"


def plan(
    id: str,  # a figure of the registry
    scale: str | None = None,  # the settings' scale by default
    overrides: Mapping[str, Any] | None = None,  # parameters by name, before the registry's
    config: Settings | None = None,  # settings in effect by default
    means: bool = True,  # whether this machine must be able to run it
    cluster: bool = False,  # whether it runs on machines other than this one
) -> Plan:
    """Check a run before anything of it starts: figure, scale, parameters, device and extras."""
    config = config or settings.load()
    scale = checked_scale(scale or config.scale)
    figure = registry(config)[id]
    defaults = parameter_defaults(figure.notebook)
    for name in (*RESERVED, *figure.each):
        _check_defined(figure, name, defaults)
    asked = registered(figure, scale, config, defaults) | dict(overrides or {})
    asked = {name: _folder(id, name, plain(value)) for name, value in asked.items()}
    for name, value in asked.items():
        _check_parameter(figure.id, name, value, defaults)
    for name in figure.each:
        _check_items(figure.id, name, asked.get(name, defaults[name]))
    kind = _kind_of_device(figure, scale, config, cluster)
    if means:
        _check_means(figure, scale, kind)
    return Plan(figure, scale, {"scale": scale, **asked}, config, device=kind, cluster=cluster)


def _kind_of_device(figure: Figure, scale: str, config: Settings, cluster: bool) -> str:
    """This machine's device; on a cluster a GPU for what needs one."""
    if cluster:
        return "cuda" if figure.device.get(scale) == "cuda" else "cpu"
    return settings.device(config.device).type


def registered(
    figure: Figure,
    scale: str,
    config: Settings,
    defaults: dict[str, Any],  # of its notebook's parameters
) -> dict[str, Any]:
    """What the registry and the settings make of a figure's parameters at a scale."""
    seeds = {"seeds": figure.seeds.get(scale, list(config.seeds))} if "seeds" in defaults else {}
    return figure.parameters.get(scale, {}) | seeds


def checked_scale(
    scale: str,  # perhaps one of SCALES
) -> str:
    """The scale, if there is such a one."""
    if scale not in SCALES:
        raise FigureError(f"unknown scale {scale!r}; {suggest(scale, SCALES)}")
    return scale


def _check_defined(figure: Figure, name: str, defaults: dict[str, Any]) -> None:
    if name not in defaults:
        raise FigureError(f"{figure.notebook.name}: its cell tagged 'parameters' must define {name!r}")
    if name in figure.each and not isinstance(defaults[name], list):
        raise FigureError(f"{figure.notebook.name}: {name!r} is {defaults[name]!r}; "
                          "a parameter whose items are jobs must be a list")


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
    if name == "seeds" and isinstance(value, list):
        _check_items(id, name, value)
    if not fits(value, defaults[name]):
        raise FigureError(f"figure {id!r}: parameter {name!r} is {value!r}; "
                          f"it must be {_kind(defaults[name])}, like its default {defaults[name]!r}")


def _check_items(id: str, name: str, values: list[Any]) -> None:
    if not values or len(set(map(_file_part, values))) < len(values):
        raise FigureError(f"figure {id!r}: {name} are {values}; at least one is needed, and no two alike")


def _kind(default: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text",
             list: "a list", type(None): "a text or None"}
    return kinds.get(type(default), f"a {type(default).__name__}")


ENGINE = ("papermill", "ipykernel", "matplotlib", "pandas", "pyarrow", "psutil", "filelock", "snakemake")


def _check_means(figure: Figure, scale: str, kind: str) -> None:
    if figure.device.get(scale) == "cuda" and kind != "cuda":
        raise FigureError(f"figure {figure.id!r} at scale {scale!r} needs a GPU, and the device here is {kind!r}; "
                          "use a smaller --scale")
    needed = {"figures": [package for package in ENGINE if not installed(package)]}
    for extra, absent in (needed | {extra: lacking(extra) for extra in figure.extras}).items():
        if absent:
            raise FigureError(f"figure {figure.id!r} needs {', '.join(absent)}: pip install 'ebwm[{extra}]'")


# Jobs


@dataclass(frozen=True)
class Job:
    """One process: a whole notebook, or its beginning for one item; all of it can be written as JSON."""

    name: str  # "next_frame", or "next_frame.seeds-0" for an item
    figure: str
    notebook: str
    root: str  # of the repository: the notebook's working folder
    folder: str  # where what it makes will lie
    parameters: dict[str, Any]
    inputs: dict[str, Any]
    part: bool = False  # whether it ends at the cell tagged `parts`
    each: Sequence[str] = ()  # parameters whose items are jobs of their own
    parts: Sequence[str] = ()  # folders of the parts that it joins
    needs: Sequence[str] = ()  # names of the jobs that make those
    threads: int = 1
    processes: int = 1  # more than 1 under torchrun
    gpus: int = 0
    minutes: float = 1.0  # expected
    timeout: float = 10.0  # minutes
    memory: float = 4.0  # GiB
    data: Sequence[str] = ()  # files that the notebook reads, from the root

    @property
    def key(self) -> str:
        """The name of the job's inputs."""
        return key_of(self.inputs)


def jobs_of(
    plan: Plan,  # from `plan`
    count: int | None = None,  # cores that the jobs share; all of this machine by default
) -> list[Job]:  # parts first; the last one makes the figure
    """Cut a run into jobs: one for each item of the parameters named by `each`, and one that joins them."""
    figure = plan.figure
    values = parameter_defaults(figure.notebook) | plan.parameters
    items = list(itertools.product(*(values[name] for name in figure.each))) if figure.each else []
    if len(items) < 2:
        return [_job(plan, figure.id, plan.folder, plan.parameters, threads=_threads(plan, 1, count))]
    threads, share = _threads(plan, len(items), count), 1 / (len(items) + 1)
    parts = [_part(plan, item, threads=threads, share=share) for item in items]
    whole = _job(plan, figure.id, plan.folder, plan.parameters, threads=threads, share=share,
                 each=figure.each, parts=tuple(p.folder for p in parts), needs=tuple(p.name for p in parts))
    return [*parts, whole]


def _part(plan: Plan, item: Sequence[Any], **options: Any) -> Job:
    each = plan.figure.each
    label = "_".join(f"{name}-{_file_part(value)}" for name, value in zip(each, item, strict=True))
    folder = plan.folder.with_name(f"{plan.folder.name}.parts") / label
    parameters = plan.parameters | {name: [value] for name, value in zip(each, item, strict=True)}
    return _job(plan, f"{plan.figure.id}.{label}", folder, parameters, part=True, each=each, **options)


def _file_part(value: Any) -> str:
    return re.sub(r"[^\w.+-]", "_", str(value))


def _job(plan: Plan, name: str, folder: Path, parameters: dict[str, Any], *, threads: int, share: float = 1,
         part: bool = False, **options: Any) -> Job:
    figure, config = plan.figure, plan.config
    code = code_of(cells_of(figure.notebook, part))
    processes = figure.processes.get(plan.scale, 1)
    minutes = figure.minutes.get(plan.scale, 1)
    try:
        made_from = inputs(code, parameters, plan.device, config.root, figure.data)
    except FigureError as error:
        raise FigureError(f"figure {figure.id!r}: {error}") from None
    return Job(
        name, figure.id, str(figure.notebook), str(config.root), str(folder), parameters, made_from,
        part=part, threads=threads, processes=processes, gpus=processes if plan.device == "cuda" else 0,
        minutes=minutes * share, timeout=figure.timeout.get(plan.scale, max(10, 5 * minutes)),
        memory=figure.memory.get(plan.scale, 4), data=figure.data, **options,
    )


def _threads(plan: Plan, jobs: int, count: int | None) -> int:
    """Threads of each of the figure's jobs, the same whichever of them are up to date."""
    known = plan.threads or plan.figure.threads.get(plan.scale) or plan.config.threads
    return known or (1 if plan.cluster else threads_for(jobs, count or cores()))


SPEED_UP = 0.75  # t threads are taken to do the work of t ** 0.75


def threads_for(
    count: int,  # jobs of equal length
    cores: int,  # that they share
) -> int:
    """Threads a job so that all jobs end soonest, in as many rounds as it takes; the fewest of equals."""
    rounds = {threads: math.ceil(count / (cores // threads)) for threads in range(1, cores + 1)}
    return min(rounds, key=lambda threads: rounds[threads] / threads**SPEED_UP)


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """The GPUs that this process may use."""
    return torch.cuda.device_count()


def short(
    path: Path,  # any path
    root: Path,  # of the repository
) -> str:
    """The path from the root, where it lies below."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def as_json(
    job: Job,
) -> dict[str, Any]:
    """All fields of a job."""
    return dataclasses.asdict(job)


def from_json(
    fields: dict[str, Any],  # of a job, as JSON has them
) -> Job:
    """The job again."""
    return Job(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
