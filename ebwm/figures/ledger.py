"""Figures on record: promotion of runs, checks of digests, and staleness."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ebwm import settings
from ebwm.figures.carried import carried
from ebwm.figures.errors import FigureError
from ebwm.figures.findings import answer_cell, opening, write_answer
from ebwm.figures.inputs import changed
from ebwm.figures.manifest import MANIFEST, files_of, read_manifest
from ebwm.figures.notebook import parameter_defaults
from ebwm.figures.plan import checked_scale, jobs_of, plan, registered
from ebwm.figures.registry import Figure, registry
from ebwm.settings import SCALES, Settings

__all__ = ["Checked", "check", "promote", "replace_record", "staleness"]

RECORDED = (".png", ".svg", ".parquet")  # suffixes of the files of a record


# Putting a run on record


def promote(
    id: str,  # a figure of the registry
    scale: str | None = None,  # scale of the run; default: the settings' scale
    config: Settings | None = None,  # default: the settings in effect
) -> list[Path]:  # the files on record
    """Copy a run's pictures, data and manifest to figures/ID, unless a larger scale is on record.

    Then the answer of the figure is written into its notebook; raises if it does not follow from the new record.
    """
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
    if (manifest.get("git") or {}).get("dirty"):
        raise FigureError(f"figure {id!r} was run from uncommitted changes; commit them and run it again")
    names = files_of(manifest)
    replace_record(run, record, names)
    write_answer(figure, config)
    return [record / name for name in names]


def _check_registered(figure: Figure, scale: str, config: Settings, effective: dict[str, Any]) -> None:
    """Raise if a run has other parameters than the registry: the figure's command would not reproduce it."""
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
    """The scale in a manifest, even a damaged one; the smallest scale if there is none."""
    try:
        scale = json.loads(path.read_text(encoding="utf-8"))["scale"]
        return SCALES[SCALES.index(scale)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return SCALES[0]


def replace_record(
    source: Path,  # folder with the new files
    target: Path,  # folder of the record
    names: list[str],  # of all files of the record, the manifest last
) -> None:
    """Copy files to a temporary folder in the target, then rename each into place, the manifest last."""
    partial = target / f".partial.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name in names:
            shutil.copyfile(source / name, partial / name)
        read_manifest(partial)  # a batch may have replaced the run during the copy
        for name in names:
            (partial / name).replace(target / name)
    finally:
        shutil.rmtree(partial)
    for stale in target.iterdir():
        if stale.suffix in RECORDED and stale.name not in names:
            stale.unlink()


# Checks


class Checked(NamedTuple):
    """Result of checking one figure."""

    id: str
    scale: str  # scale on record; empty if there is no readable record
    wrong: tuple[str, ...]  # mismatched digests, missing or additional files, a wrong answer in the notebook: errors
    stale: tuple[str, ...]  # inputs that have changed since the run: information
    carried: str = ""  # over how many changes of code the record was carried


def check(
    ids: Sequence[str] = (),  # figures; default: all
    config: Settings | None = None,  # default: the settings in effect
) -> list[Checked]:
    """Compare records with their digests and with the present code."""
    config = config or settings.load()
    known = registry(config)
    return [_check(known[id], config) for id in (ids or known.figures)]


def _check(figure: Figure, config: Settings) -> Checked:
    record = config.figures / figure.id
    if not (record / MANIFEST).is_file():
        orphans = [p.name for p in record.glob("*") if p.suffix in RECORDED]
        return Checked(figure.id, "", tuple(f"{name} has no manifest" for name in sorted(orphans)), ())
    try:
        manifest = read_manifest(record)
    except FigureError as error:
        reason = str(error).rpartition(";")[0].replace(f"{config.root}{os.sep}", "")
        return Checked(figure.id, "", (reason,), ())
    listed = set(files_of(manifest))
    extra = sorted(p.name for p in record.iterdir() if p.suffix in RECORDED and p.name not in listed)
    wrong = (*(f"{name} is not in the manifest" for name in extra), *_wrong_answer(figure, config))
    return Checked(figure.id, manifest["scale"], wrong, tuple(staleness(figure, manifest, config)), carried(manifest))


def _wrong_answer(figure: Figure, config: Settings) -> list[str]:
    """The answer's contradiction to the record, or the difference of the notebook's text from it."""
    try:
        same = figure.answer is None or opening(figure) == answer_cell(figure, config)
    except FigureError as error:
        return [str(error)]
    return [] if same else [f"{figure.notebook.name}: the answer differs from the record; run: make readme"]


def staleness(
    figure: Figure,  # a figure of the registry
    manifest: dict[str, Any],  # manifest of one of its runs
    config: Settings,  # settings in effect
) -> list[str]:  # names of inputs
    """The inputs of a run that have changed since."""
    if not manifest.get("inputs"):
        return ["made without the runner: its inputs are unknown"]
    then = manifest["inputs"]
    try:
        now = jobs_of(plan(figure.id, manifest["scale"], None, config, means=False))[-1].inputs
    except FigureError as error:
        return [str(error)]
    return changed(then, {**now, "device": then["device"]})
