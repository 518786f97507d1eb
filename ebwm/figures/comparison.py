"""Replay: run a figure again and compare every array of its data with the recorded one."""

import dataclasses
import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ebwm import settings
from ebwm.compat import require
from ebwm.figures.batch import make
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.manifest import MANIFEST, read_manifest
from ebwm.figures.plan import checked_scale, plan, short
from ebwm.figures.registry import ANY, registry
from ebwm.settings import Settings

if TYPE_CHECKING:
    import pandas

__all__ = ["Compared", "compare", "replay"]


class Compared(NamedTuple):
    """Comparison of one array of a replay with the recorded one."""

    array: str  # FILE.COLUMN
    verdict: str  # "exact", "within tolerance", "drifted" or "not compared"
    difference: float | None  # largest difference, relative to the largest recorded value
    tolerance: float | str  # allowed difference, or "any"


def replay(
    id: str,  # a figure of the registry
    scale: str | None = None,  # scale of the run to compare with; default: the record
    config: Settings | None = None,  # default: the settings in effect
    threads: int | None = None,  # of each job; default: as recorded
    **options: Any,  # options of `make`
) -> list[Compared]:
    """Run a figure again with the recorded parameters and threads, and compare every array of its data.

    Another number of threads sums in another order, which tells how far results depend on rounding.
    """
    config = config or settings.load()
    figure, folder = registry(config)[id], config.figures / id
    folder = folder / "runs" / checked_scale(scale) if scale else folder
    if not (folder / MANIFEST).is_file():
        raise FigureError(f"figure {id!r} has nothing in {short(folder, config.root)} to compare with; "
                          f"run it first: ebwm figures run {id}")
    manifest = read_manifest(folder)
    effective = {n: v for n, v in manifest["parameters"]["effective"].items() if n != "scale"}
    again = plan(id, manifest["scale"], effective, config)
    again = dataclasses.replace(again, suffix=".replay", threads=threads or manifest.get("threads") or 0)
    outcome = make([again], force=True, **options)
    if outcome.failed:
        raise NotebookError("; ".join(outcome.failed.values()))
    return compare(folder, again.folder, figure.tolerances)


def compare(
    recorded: Path,  # folder of a run
    again: Path,  # folder of another run of the same figure
    tolerances: dict[str, float | str],  # by pattern of FILE.COLUMN; the last match counts
) -> list[Compared]:
    """Compare every column of every data file, first for equality, then by tolerance."""
    read = require("pandas", "figures").read_parquet
    old, new = ({Path(name).stem: read(folder / name) for name in read_manifest(folder)["data"]}
                for folder in (recorded, again))
    return [_compared(f"{name}.{column}", _column(old, name, column), _column(new, name, column), tolerances)
            for name, column in _columns(old, new)]


def _columns(*frames: dict[str, "pandas.DataFrame"]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((name, column) for by_name in frames for name, f in by_name.items() for column in f))


def _column(frames: dict[str, "pandas.DataFrame"], name: str, column: str) -> np.ndarray | None:
    """The values of a column; None if there is no such column."""
    return frames[name][column].to_numpy() if name in frames and column in frames[name] else None


def _flattened(values: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """The concatenated lists of a column's cells, and their lengths at each level of nesting."""
    if not any(isinstance(value, np.ndarray) for value in values):
        return values, []
    lengths = [len(value) if isinstance(value, np.ndarray) else -1 for value in values]
    flat, deeper = _flattened(np.concatenate([np.atleast_1d(value) for value in values]))
    return flat, [lengths, *deeper]


def _compared(array: str, old: np.ndarray | None, new: np.ndarray | None, tolerances: dict[str, Any]) -> Compared:
    allowed = next((v for pattern, v in reversed(tolerances.items()) if fnmatch.fnmatch(array, pattern)), 0.0)
    if allowed == ANY:
        return Compared(array, "not compared", None, allowed)
    if old is None or new is None:
        return Compared(array, "drifted", None, allowed)
    (old, lengths), (new, lengths_now) = _flattened(old), _flattened(new)
    if old.shape != new.shape or lengths != lengths_now:
        return Compared(array, "drifted", None, allowed)
    if not all(np.issubdtype(values.dtype, np.floating) for values in (old, new)):
        return Compared(array, "exact" if _same(old, new) else "drifted", None, allowed)
    if np.array_equal(old, new, equal_nan=True):
        return Compared(array, "exact", 0.0, allowed)
    difference = _difference(old.astype(float), new.astype(float))
    return Compared(array, "within tolerance" if 0 < allowed >= difference else "drifted", difference, allowed)


def _same(old: np.ndarray, new: np.ndarray) -> bool:
    """Whether columns that are not floating-point are equal; values missing in both count as equal."""
    isna = require("pandas", "figures").isna
    return bool(((old.astype(object) == new.astype(object)) | (isna(old) & isna(new))).all())


def _difference(old: np.ndarray, new: np.ndarray) -> float:
    """The largest difference relative to the largest recorded value; infinite if non-finite values differ."""
    finite = np.isfinite(old) & np.isfinite(new)
    if not np.array_equal(old[~finite], new[~finite], equal_nan=True):
        return float("inf")
    scale = np.abs(old[finite]).max(initial=0.0) or 1.0
    return float(np.abs(new[finite] - old[finite]).max(initial=0.0) / scale)
