"""Curves of training runs, read from their folders: smoothed and thinned, also while a run is written."""

import functools
import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter

from .. import settings as machine
from ..checks import between, refusal, whole
from ..training.history import LogReader, Run, find, known, names, read
from ..usage import UsageError

__all__ = ["MAX_RUNS", "MAX_SHOWN", "QUANTITIES", "Curve", "RunCurves", "TrainingResult", "TrainingSettings", "compute",
           "smoothed", "summary_lines", "warning"]

MAX_RUNS, MAX_SHOWN = 6, 6  # runs and quantities at once
MAX_POINTS = 500  # of a curve
SMOOTHEST = 0.99
QUANTITIES = {  # of the log, by label
    "loss": "loss", "energy gap": "energy_gap", "inner gradient norm": "inner_gradient",
    "share of walks that rise": "rising", "step size": "step_size", "learning rate": "learning_rate",
    "gradient norm": "grad_norm", "items per second": "items_per_second", "FLOPs utilisation": "flops_utilisation",
    "memory in MiB": "peak_mib",
}
ENTRIES = {*QUANTITIES.values(), "valid_loss"}
FAULTS = ("alarm", "skipped", "spike", "rolled back", "gave up", "refused", "loader")  # kinds of events


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training explorer."""

    folder: str = ""  # of runs; empty: that of the machine's settings
    runs: tuple[str, ...] = ()  # names of runs; none: the last ones
    shown: tuple[str, ...] = ("loss", "energy gap", "inner gradient norm", "step size")  # keys of QUANTITIES
    smoothing: float = 0.0  # weight of the mean before each value, from 0 to SMOOTHEST
    log: bool = False  # logarithmic ordinates


class Curve(NamedTuple):
    """A quantity by update."""

    updates: list[int]
    values: list[float | None]  # as in the log; None: not finite
    smooth: list[float | None]  # exponential moving average


class RunCurves(NamedTuple):
    """A run with its curves."""

    name: str
    run: Run
    held: tuple[str, ...]  # labels of the quantities that the log holds
    curves: dict[str, Curve]  # by label, those of them that are shown
    valid: Curve  # validation loss; empty if there is none
    faults: list[dict[str, Any]]  # events that are faults or warnings, oldest first


class TrainingResult(NamedTuple):
    """Curves of some runs."""

    settings: TrainingSettings
    folder: Path  # of runs
    known: tuple[str, ...]  # names of all runs in the folder
    runs: tuple[RunCurves, ...]  # the chosen ones

    @property
    def available(self) -> tuple[str, ...]:
        """Labels of the quantities that the logs of the chosen runs hold."""
        return tuple(label for label in QUANTITIES if any(label in run.held for run in self.runs))

    @property
    def shown(self) -> tuple[str, ...]:
        """Labels of the quantities that are shown."""
        return tuple(label for label in self.available if label in self.settings.shown)


# Curves


class _Columns:
    """The entries of a log by name, read as it grows; updates before a rollback are dropped."""

    def __init__(self, path: Path):
        self.reader, self.columns, self.last = LogReader(path), {}, 0

    def refreshed(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Updates and values of each entry."""
        anew, rows = self.reader.read()
        if anew:
            self.columns, self.last = {}, 0
        for row in rows:
            self._add(row)
        return {name: tuple(map(np.array, column)) for name, column in self.columns.items()}

    def _add(self, row: dict[str, Any]) -> None:
        update = row["update"]
        if update <= self.last:
            for updates, values in self.columns.values():
                kept = bisect_left(updates, update)
                del updates[kept:], values[kept:]
        self.last = update
        for name in ENTRIES.intersection(row):
            updates, values = self.columns.setdefault(name, (array("q"), array("d")))
            updates.append(update), values.append(row[name])


_columns = functools.lru_cache(maxsize=32)(_Columns)


def smoothed(
    values: Float[np.ndarray, " n"],  # by update
    weight: float,  # of the mean of earlier values, from 0 (no smoothing) to below 1
) -> Float[np.ndarray, " n"]:
    """Exponential moving average without a bias to the first value; values that are not finite are left out."""
    good, result = np.isfinite(values), np.full(len(values), np.nan)
    recent = lambda numbers: lfilter([1 - weight], [1, -weight], numbers)
    result[good] = recent(values[good]) / recent(np.ones(good.sum()))
    return result


def _curve(column: tuple[np.ndarray, np.ndarray] | None, weight: float) -> Curve:
    """A curve with at most MAX_POINTS points, the last one among them."""
    if column is None:
        return Curve([], [], [])
    updates, values = column
    every = math.ceil(len(updates) / MAX_POINTS)
    kept = slice((len(updates) - 1) % every, None, every)
    finite = lambda numbers: [number if math.isfinite(number) else None for number in numbers[kept].tolist()]
    return Curve(updates[kept].tolist(), finite(values), finite(smoothed(values, weight)))


def _curves(name: str, path: Path, settings: TrainingSettings) -> RunCurves:
    columns, run = _columns(path.absolute()).refreshed(), read(path)
    held = tuple(label for label, entry in QUANTITIES.items() if entry in columns)
    curves = {label: _curve(columns[QUANTITIES[label]], settings.smoothing) for label in held if label in settings.shown}
    return RunCurves(name, run, held, curves, _curve(columns.get("valid_loss"), 0.0),
                     [event for event in run.events if event["kind"] in FAULTS])


def _check(settings: TrainingSettings) -> Path:
    """Refuse settings that are not allowed; return the folder of runs."""
    between("smoothing", settings.smoothing, 0, SMOOTHEST)
    for name, most in (("runs", MAX_RUNS), ("shown", MAX_SHOWN)):
        whole(f"len({name})", len(getattr(settings, name)), 0, most)
    folder = Path(settings.folder).expanduser() if settings.folder else machine.load().runs
    if not folder.is_dir():
        raise refusal("folder", str(folder), "must be a folder of runs", "train a run: ebwm train", UsageError)
    return folder


def compute(
    settings: TrainingSettings,  # runs and quantities
) -> TrainingResult:
    """Read the curves of some runs; equal settings and equal files give equal results."""
    folder = _check(settings)
    found = names(known(folder), folder)
    if settings.runs:
        chosen = {name: found.get(name) or find(name, folder) for name in settings.runs}
    else:
        chosen = dict(list(found.items())[-MAX_RUNS:])
    runs = tuple(_curves(name, path, settings) for name, path in chosen.items())
    return TrainingResult(settings, folder, tuple(found), runs)


# Summary


def summary_lines(
    result: TrainingResult,  # to summarise
) -> dict[str, str]:  # two lines for each run
    """State, updates and last losses of each run."""
    lines = {}
    for one in result.runs:
        lines[one.name] = f"{one.run.state}, update {one.run.made} of {one.run.total}"
        losses = {"training": one.run.last.get("loss"), "valid": one.run.last.get("valid_loss"), "test": one.run.test_loss}
        known_losses = [f"{label} {value:.3g}" for label, value in losses.items() if value is not None]
        lines[f"{one.name}\N{NO-BREAK SPACE}loss"] = ", ".join(known_losses) or "not logged yet"
    return lines


def warning(
    result: TrainingResult,  # to inspect
) -> str:  # one line; empty if there is no problem
    """A folder without runs, or the last fault of each run."""
    if not result.known:
        return f"folder={str(result.folder)!r}: has no runs yet; train one: ebwm train"
    faults = [(one.name, one.faults[-1]) for one in result.runs if one.faults]
    return "; ".join(f"{name}, update {event['update']}: {event['kind']}" + (
        f", {event['what']}" if "what" in event else "") for name, event in faults)
