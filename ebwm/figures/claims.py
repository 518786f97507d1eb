"""The papers' claims: the measured statistic, the expectation and the verdict of each."""

import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ebwm import settings
from ebwm.figures.carried import carried
from ebwm.figures.errors import FigureError
from ebwm.figures.manifest import MANIFEST, load_manifest
from ebwm.figures.notebook import fits
from ebwm.figures.registry import Claim, Figure, Planned, Registry, registry
from ebwm.settings import SCALES, Settings

__all__ = ["VERDICTS", "Verdict", "report", "verdict", "verdicts"]

VERDICTS = ("holds", "fails", "undecided", "not tested", "not made", "planned")


@dataclass(frozen=True)
class Verdict:
    """Verdict on a claim."""

    claim: Claim  # entry of the registry
    figure: str  # id of its figure
    verdict: str  # one of VERDICTS
    measured: tuple[float, float, float] | None = None  # value, low and high; equal without an interval
    record: str = ""  # scale and seeds of the record, and whether it was carried


def verdict(
    claim: Claim,  # entry of the registry
    figure: Figure | Planned,  # its figure
    manifest: dict[str, Any] | None,  # manifest on record
) -> Verdict:
    """Decide a claim by the record: by the whole interval if there is one, else by the number."""
    if isinstance(figure, Planned):
        return Verdict(claim, figure.id, "planned")
    if manifest is None:
        return Verdict(claim, figure.id, "not made")
    seeds = ", ".join(map(str, manifest["seeds"]))
    record = f"scale {manifest['scale']}" + (f", seeds {seeds}" if seeds else "")
    record += f", {text}" if (text := carried(manifest)) else ""
    measured = _measured(claim, figure.id, manifest["results"]) if claim.statistic else None
    if claim.not_tested or not claim.statistic or manifest["scale"] == SCALES[0]:
        return Verdict(claim, figure.id, "not tested", measured, record)
    decided = "undecided" if measured is None else _decided(claim.expect, *measured[1:])
    return Verdict(claim, figure.id, decided, measured, record)


def _measured(claim: Claim, id: str, results: dict[str, Any]) -> tuple[float, float, float] | None:
    """The claim's statistic; None if the figure has no value, as for an interval over one seed."""
    found: Any = results
    for name in claim.statistic.split("."):
        if not isinstance(found, dict) or name not in found:
            raise FigureError(f"claim {claim.name!r}: figure {id!r} has no result {claim.statistic!r} "
                              "on record; promote a run that has, or correct the registry")
        found = found[name]
    known = found if isinstance(found, dict) else dict.fromkeys(INTERVAL, found)
    if known.get("value", "") is None:
        return None
    value, low, high = (OPEN[name] if known.get(name, "") is None else known.get(name) for name in INTERVAL)
    if not all(fits(number, 0.0) for number in (value, low, high)):
        raise FigureError(f"claim {claim.name!r}: result {claim.statistic!r} of figure {id!r} is {found!r}; "
                          "it must be a number, or have value, low and high")
    return value, low, high


INTERVAL = ("value", "low", "high")
OPEN = {"low": float("-inf"), "high": float("inf")}  # value of a bound that is None


def _decided(expect: dict[str, float], low: float, high: float) -> str:
    """The verdict on an interval, given the expectation."""
    if "below" in expect:
        inside, outside = high < expect["below"], low >= expect["below"]
    elif "above" in expect:
        inside, outside = low > expect["above"], high <= expect["above"]
    else:
        least, most = expect["equals"] - expect["within"], expect["equals"] + expect["within"]
        inside, outside = least <= low and high <= most, high < least or low > most
    return "holds" if inside else "fails" if outside else "undecided"


def verdicts(
    config: Settings | None = None,  # default: the settings in effect
) -> list[Verdict]:  # in the order of the registry
    """Decide all claims of the registry."""
    config = config or settings.load()
    known = registry(config)
    return [verdict(claim, figure, manifest)
            for figure, manifest in _recorded(known, config) for claim in figure.claims]


def _recorded(known: Registry, config: Settings) -> Iterator[tuple[Figure | Planned, dict[str, Any] | None]]:
    for id, figure in (known.figures | known.planned).items():
        path = config.figures / id / MANIFEST
        yield figure, load_manifest(path.parent) if path.is_file() else None


# The report


def report(
    config: Settings | None = None,  # default: the settings in effect
) -> str:  # Markdown
    """Every claim of the papers with its verdict, then every figure and table of the papers with its figure here."""
    config = config or settings.load()
    known, decided = registry(config), verdicts(config)
    counts = Counter(row.verdict for row in decided)
    summary = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
    parts = ["# Claims of the papers", f"{len(decided)} claims: {summary}.", RULES]
    for name in VERDICTS:
        if rows := [row for row in decided if row.verdict == name]:
            parts += [f"## {name.capitalize()}", *map(_paragraph, rows)]
    parts += ["## Figures and tables of the papers", *_coverage(known)]
    return "\n\n".join(parts)


RULES = textwrap.fill(
    "A claim holds where the whole interval of our statistic lies where the claim expects it, fails where "
    "none of it does, and is undecided otherwise; a statistic without an interval decides as a number. Not tested "
    "means that the figure, as it can be made here, is a stand-in that decides nothing, as is a run at scale "
    "smoke. Only what is on record counts.", 100)


def _paragraph(row: Verdict) -> str:
    """A claim as an item of a list."""
    claim = row.claim
    lines = [f"**{claim.name}** ({claim.source}): {claim.says}."]
    if row.measured:
        lines.append(f"Ours: `{claim.statistic}` = {shown(row.measured)}, expected {expected(claim.expect)} "
                     f"(figure `{row.figure}`, {row.record}).")
    elif row.verdict == "planned":
        lines.append(f"Planned figure: `{row.figure}`.")
    elif row.verdict == "undecided":
        lines.append(f"Ours: `{claim.statistic}` is left open, as an interval over one seed is "
                     f"(figure `{row.figure}`, {row.record}).")
    else:
        lines.append(f"Figure `{row.figure}`, {row.record or 'nothing on record'}.")
    if claim.not_tested:
        lines.append(f"Not tested: {claim.not_tested}. What would: `{claim.command}`.")
    text = " ".join(lines)
    return textwrap.fill(text, 100, initial_indent="- ", subsequent_indent="  ", break_long_words=False,
                         break_on_hyphens=False)


def shown(
    measured: tuple[float, float, float],  # value, low, high
) -> str:
    """A number, with its interval if it has one."""
    value, low, high = measured
    return f"{value:.4g}" if low == high else f"{value:.4g} (95 % interval {low:.4g} to {high:.4g})"


def expected(
    expect: dict[str, float],  # expectation of a claim
) -> str:
    """The expectation of a claim, in words."""
    if "equals" in expect:
        return f"{expect['equals']:g} within {expect['within']:g}"
    return ", ".join(f"{name} {bound:g}" for name, bound in expect.items())


def _coverage(known: Registry) -> Iterator[str]:
    for paper in known.papers:
        yield f"### {paper.name} (arXiv:{paper.arxiv})"
        lines = ["| there | what it shows | here |", "|---|---|---|"]
        for item in paper.items:
            state = "" if item.figure in known.figures else " (planned)"
            here = f"`{item.figure}`{state}" if item.figure else item.reason
            lines.append(f"| {item.item} | {item.shows} | {here} |")
        yield "\n".join(lines)
