"""What is on record: putting a run there, checking it, and running it again to compare."""

import dataclasses
import fnmatch
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ebwm import settings
from ebwm.compat import require
from ebwm.figures.batch import make
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.inputs import changed
from ebwm.figures.notebook import parameter_defaults
from ebwm.figures.plan import checked_scale, jobs_of, plan, registered, short
from ebwm.figures.record import MANIFEST, files_of, read_manifest
from ebwm.figures.registry import ANY, Figure, registry
from ebwm.settings import SCALES, Settings

if TYPE_CHECKING:
    import pandas

__all__ = ["Checked", "Compared", "check", "compare", "promote", "replay", "staleness"]

SHOWN = (".png", ".svg", ".parquet")  # endings of what a record holds


# Putting a run on record


def promote(
    id: str,  # a figure of the registry
    scale: str | None = None,  # which run; the settings' scale by default
    config: Settings | None = None,  # settings in effect by default
) -> list[Path]:  # the files on record
    """Copy a run's pictures, data and manifest to figures/ID, unless a larger scale is on record there."""
    config = config or settings.load()
    scale = checked_scale(scale or config.scale)
    figure, record = registry(config)[id], config.figures / id
    run = record / "runs" / scale
    if not (run / MANIFEST).is_file():
        raise FigureError(f"figure {id!r} has no run at scale {scale!r}; make one: "
                          f"ebwm figures run {id} --scale {scale}")
    manifest = read_manifest(run)
    _check_registered(figure, scale, config, manifest["parameters"]["effective"])
    _check_larger(record / MANIFEST, scale)
    if (manifest["git"] or {}).get("dirty"):
        raise FigureError(f"figure {id!r} was run from uncommitted changes; commit them and run it again")
    names = files_of(manifest)
    _copy(run, record, names)
    return [record / name for name in names]


def _check_registered(figure: Figure, scale: str, config: Settings, effective: dict[str, Any]) -> None:
    """What goes on record was run with the registry's parameters, so that its command makes it again."""
    defaults = parameter_defaults(figure.notebook)
    expected = defaults | {"scale": scale} | registered(figure, scale, config, defaults)
    for name, value in effective.items():
        if value != expected.get(name, value):
            raise FigureError(f"figure {figure.id!r} was run with {name} = {value!r}, the registry has "
                              f"{expected[name]!r}; run it again without -p")


def _check_larger(path: Path, scale: str) -> None:
    recorded = _scale_of(path)
    if SCALES.index(scale) < SCALES.index(recorded):
        raise FigureError(f"{path.parent.name!r} is on record at scale {recorded!r}; "
                          f"a run at the smaller scale {scale!r} does not replace it")


def _scale_of(path: Path) -> str:
    """The scale that a manifest names, also a damaged one; the smallest where it names none."""
    try:
        scale = json.loads(path.read_text(encoding="utf-8"))["scale"]
        return SCALES[SCALES.index(scale)]
    except (OSError, ValueError, KeyError, TypeError):
        return SCALES[0]


def _copy(source: Path, target: Path, names: list[str]) -> None:
    """Copy files to a folder beside the target's, then rename each into place, the manifest last."""
    partial = target / f".partial.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name in names:
            shutil.copyfile(source / name, partial / name)
        read_manifest(partial)  # a batch may have replaced the run meanwhile
        for name in names:
            (partial / name).replace(target / name)
    finally:
        shutil.rmtree(partial)
    for stale in target.iterdir():
        if stale.suffix in SHOWN and stale.name not in names:
            stale.unlink()


# Checking what is there


class Checked(NamedTuple):
    """What a check of one figure found."""

    id: str
    scale: str  # on record; empty where nothing is, or nothing that can be read
    wrong: tuple[str, ...]  # digests that don't fit, files that are missing or too many: these fail
    stale: tuple[str, ...]  # inputs that have changed since: these are listed


def check(
    ids: Sequence[str] = (),  # figures; all by default
    config: Settings | None = None,  # settings in effect by default
) -> list[Checked]:
    """Compare what is on record with its digests, and with the code as it is now."""
    config = config or settings.load()
    known = registry(config)
    return [_check(known[id], config) for id in (ids or known.figures)]


def _check(figure: Figure, config: Settings) -> Checked:
    record = config.figures / figure.id
    if not (record / MANIFEST).is_file():
        orphans = [p.name for p in record.glob("*") if p.suffix in SHOWN]
        return Checked(figure.id, "", tuple(f"{name} lies there without a manifest" for name in sorted(orphans)), ())
    try:
        manifest = read_manifest(record)
    except FigureError as error:
        told = str(error).rpartition(";")[0].replace(f"{config.root}{os.sep}", "")
        return Checked(figure.id, "", (told,), ())
    listed = set(files_of(manifest))
    extra = sorted(p.name for p in record.iterdir() if p.suffix in SHOWN and p.name not in listed)
    return Checked(figure.id, manifest["scale"], tuple(f"{name} is not in the manifest" for name in extra),
                   tuple(staleness(figure, manifest, config)))


def staleness(
    figure: Figure,
    manifest: dict[str, Any],  # of a run of it
    config: Settings,
) -> list[str]:  # names of inputs
    """What has changed since the run, of all that it was made from."""
    if not manifest.get("inputs"):
        return ["it was made by hand: what it was made from isn't known"]
    then = manifest["inputs"]
    try:
        now = jobs_of(plan(figure.id, manifest["scale"], None, config, means=False))[-1].inputs
    except FigureError as error:
        return [str(error)]
    return changed(then, {**now, "device": then["device"]})


# Running it again


class Compared(NamedTuple):
    """One array of a replay beside the one on record."""

    array: str  # FILE.COLUMN
    verdict: str  # exact, within tolerance, drifted, or not compared
    difference: float | None  # the largest, as a share of the largest recorded value
    tolerance: float | str


def replay(
    id: str,  # a figure of the registry
    scale: str | None = None,  # compare with the last run at this scale; by default with what is on record
    config: Settings | None = None,  # settings in effect by default
    **options: Any,  # of `make`
) -> list[Compared]:
    """Run a figure again with the recorded parameters and threads, and compare every array of its data."""
    config = config or settings.load()
    figure, folder = registry(config)[id], config.figures / id
    folder = folder / "runs" / checked_scale(scale) if scale else folder
    if not (folder / MANIFEST).is_file():
        raise FigureError(f"figure {id!r} has nothing in {short(folder, config.root)} to compare with; "
                          f"run it first: ebwm figures run {id}")
    manifest = read_manifest(folder)
    effective = {n: v for n, v in manifest["parameters"]["effective"].items() if n != "scale"}
    again = plan(id, manifest["scale"], effective, config)
    again = dataclasses.replace(again, suffix=".replay", threads=manifest["threads"])
    outcome = make([again], force=True, **options)
    if outcome.failed:
        raise NotebookError("; ".join(outcome.failed.values()))
    return compare(folder, again.folder, figure.tolerances)


def compare(
    recorded: Path,  # folder of a run
    again: Path,  # folder of another run of the same figure
    tolerances: dict[str, float | str],  # by pattern of FILE.COLUMN; the last that fits counts
) -> list[Compared]:
    """Compare every column of every data file, exactly first, then by tolerance."""
    read = require("pandas", "figures").read_parquet
    old, new = ({Path(name).stem: read(folder / name) for name in read_manifest(folder)["data"]}
                for folder in (recorded, again))
    return [_compared(f"{name}.{column}", _column(old, name, column), _column(new, name, column), tolerances)
            for name, column in _columns(old, new)]


def _columns(*frames: dict[str, "pandas.DataFrame"]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((name, column) for by_name in frames for name, f in by_name.items() for column in f))


def _column(frames: dict[str, "pandas.DataFrame"], name: str, column: str) -> np.ndarray | None:
    """The values of a column; nothing where there is no such column."""
    return frames[name][column].to_numpy() if name in frames and column in frames[name] else None


def _laid_out(values: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """The lists in a column's cells laid end to end, and how long each was, level by level."""
    if not any(isinstance(value, np.ndarray) for value in values):
        return values, []
    lengths = [len(value) if isinstance(value, np.ndarray) else -1 for value in values]
    flat, deeper = _laid_out(np.concatenate([np.atleast_1d(value) for value in values]))
    return flat, [lengths, *deeper]


def _compared(array: str, old: np.ndarray | None, new: np.ndarray | None, tolerances: dict[str, Any]) -> Compared:
    allowed = next((v for pattern, v in reversed(tolerances.items()) if fnmatch.fnmatch(array, pattern)), 0.0)
    if allowed == ANY:
        return Compared(array, "not compared", None, allowed)
    if old is None or new is None:
        return Compared(array, "drifted", None, allowed)
    (old, lengths), (new, lengths_now) = _laid_out(old), _laid_out(new)
    if old.shape != new.shape or lengths != lengths_now:
        return Compared(array, "drifted", None, allowed)
    if not all(np.issubdtype(values.dtype, np.floating) for values in (old, new)):
        return Compared(array, "exact" if _same(old, new) else "drifted", None, allowed)
    if np.array_equal(old, new, equal_nan=True):
        return Compared(array, "exact", 0.0, allowed)
    difference = _difference(old.astype(float), new.astype(float))
    return Compared(array, "within tolerance" if 0 < allowed >= difference else "drifted", difference, allowed)


def _same(old: np.ndarray, new: np.ndarray) -> bool:
    """Whether texts, or whatever is no number, are alike; what is missing in both is."""
    isna = require("pandas", "figures").isna
    return bool(((old.astype(object) == new.astype(object)) | (isna(old) & isna(new))).all())


def _difference(old: np.ndarray, new: np.ndarray) -> float:
    """The largest difference as a share of the largest recorded value; infinite where what is not finite differs."""
    finite = np.isfinite(old) & np.isfinite(new)
    if not np.array_equal(old[~finite], new[~finite], equal_nan=True):
        return float("inf")
    scale = np.abs(old[finite]).max(initial=0.0) or 1.0
    return float(np.abs(new[finite] - old[finite]).max(initial=0.0) / scale)
