"""Summary of a batch: for each figure its picture, its answer with the numbers of this run, and the record."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebwm.figures.batch import Outcome
from ebwm.figures.carried import carried
from ebwm.figures.comparison import compare
from ebwm.figures.errors import FigureError
from ebwm.figures.findings import answer_of
from ebwm.figures.manifest import MANIFEST, load_manifest
from ebwm.figures.plan import Plan, short
from ebwm.settings import SCALES

__all__ = ["summary"]

WIDTH, INDENT = 100, "    "
FREE = ("scale", "out")  # parameters on which data do not depend


def summary(
    plans: Sequence[Plan],  # of a batch that has ended
    outcome: Outcome,  # its result
) -> str:
    """Three lines for each figure that is there."""
    done = outcome.made | outcome.fresh
    return "\n".join(_figure(plan, done[plan.figure.id], plan.figure.id in outcome.made)
                     for plan in plans if plan.figure.id in done)


def _figure(plan: Plan, folder: Path, made: bool) -> str:
    try:
        manifest = load_manifest(folder)
        lines = [_answer(plan, manifest), _agreement(plan, folder, manifest)]
    except FigureError as error:
        lines = [str(error)]
    pictures = [path for path in sorted(folder.glob("*.png")) if not path.stem.endswith("-dark")]
    picture = next((path for path in pictures if path.stem == plan.figure.id), next(iter(pictures), folder))
    head = f"{plan.figure.id}: {'made' if made else 'up to date'}: {short(picture, plan.config.root)}"
    wrapped = (textwrap.fill(line, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT) for line in lines if line)
    return "\n".join([head, *wrapped])


def _answer(plan: Plan, manifest: dict[str, Any]) -> str:
    """The answer with the numbers of this run; a run at the smallest scale answers nothing."""
    if manifest["scale"] == SCALES[0]:
        return f"Scale {SCALES[0]} only shows that the figure can be made: its numbers mean nothing."
    if plan.figure.answer is None:
        return ""
    try:
        text, contradicted = answer_of(plan.figure, manifest["results"])
    except FigureError:
        return "The recorded answer names results that this run, with other parameters, does not have."
    doubt = f" But the recorded answer does not hold for this run: {'; '.join(contradicted)}." if contradicted else ""
    return text + doubt


def _agreement(plan: Plan, folder: Path, manifest: dict[str, Any]) -> str:
    """How the data of a run compare with those on record."""
    place = plan.config.figures / plan.figure.id
    if not (place / MANIFEST).is_file():
        return f"Nothing is on record; record this run: ebwm figures promote {plan.figure.id}"
    recorded = load_manifest(place)
    if recorded["scale"] != manifest["scale"]:
        return f"Not comparable with the record, which is at scale {recorded['scale']}."
    if names := _changed(recorded["parameters"]["effective"], manifest["parameters"]["effective"]):
        return f"Not comparable with the record, which has other parameters: {', '.join(names)}."
    rows = compare(place, folder, plan.figure.tolerances)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(row.verdict for row in rows).items())
    record = f"the record, {text}," if (text := carried(recorded)) else "the record"
    worst = max((row for row in rows if row.verdict == "drifted"), key=lambda row: row.difference or 0, default=None)
    if worst is None:
        return f"Agrees with {record} (arrays: {counts})."
    amount = "" if worst.difference is None else f" by {worst.difference:.2g} of its largest value"
    return f"Differs from {record} (arrays: {counts}); most in {worst.array}{amount}."


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if name not in FREE and old.get(name) != new.get(name))
