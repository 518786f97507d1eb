"""The picture of the figure `facets`: a table of measured facets, and the numbers behind it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

ROWS = {"state": ("Prediction shapes\nthe inner state", "loss with that cut,\nless the whole loss"),
        "score": ("Predictions are\nevaluated", "AUROC of the score\nagainst true error"),
        "compute": ("Compute follows\ndifficulty", "rank correlation,\nsteps and error"),
        "modes": ("Two modes are\nrecovered", "share of samples at\nthe less visited mode")}
NAMES = {"ebt": "EBT"}  # as in the text


class Facets(NamedTuple):
    """Tables and statistics of the figure."""

    kinds: Mapping[str, str]  # models with their titles
    intervals: Mapping[tuple[str, str], Interval]  # by model and measure
    own: Mapping[str, Sequence[str]]  # models that have a facet of their own, by facet
    adaptive: Sequence[str]  # models with adaptive compute
    held: Mapping[str, Mapping[str, bool]]  # whether a facet holds, by model
    measured: pd.DataFrame  # one row for each model, measure, clip and seed
    steps: pd.DataFrame  # error by steps used
    weights: float  # parameters of the layers


def draw(
    found: Facets,  # tables and statistics
    seeds: Sequence[int],  # of the run
) -> Any:  # the figure
    """The table and four panels."""
    pyplot = require("matplotlib.pyplot", "figures")
    figure = pyplot.figure(figsize=(8.6, 11.8))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    _table(top.subplots(), found)
    grid = bottom.subplots(2, 2).ravel()
    _cut(grid[0], found)
    _auroc(grid[1], found)
    _steps(grid[2], found, pyplot)
    _modes(grid[3], found)
    what = f"Four facets, four architectures of {found.weights / 1e3:.0f} thousand weights in their layers"
    panels.heading(top, what, seeds, "95 % intervals over seeds and clips\ntinted cell: the facet holds for the model; grey: it does not, or is not decided", "forking digits, a stand-in, small models")
    bottom.suptitle("Points: seeds. * substitutes, see the text. Bars, from below: left future, right future, neither",
                    fontsize=9)
    return figure


def _number(found: Facets, kind: str, name: str, percent: bool = False) -> str:
    value, low, high = found.intervals[kind, name].values()
    places = 2 + sum(abs(value) < least for least in (0.1, 0.001))
    show = (lambda x: f"{100 * x:.0f}") if percent else (lambda x: f"{x:z.{places}f}".replace("-", "\N{MINUS SIGN}"))
    span = f" ({show(low)} to {show(high)})" if low is not None else ""
    return f"{show(value)}{' %' if percent else ''}{span}"


def _cell(found: Facets, kind: str, facet: str) -> tuple[str, str, str]:
    """Number, second number and note of a cell."""
    own, number = kind in found.own[facet], lambda name, percent=False: _number(found, kind, name, percent)
    note = "measured" if own else "none of its own; substitute"
    if facet == "state" and not own:
        return "0", f"next step, fed back:\n{number('change')}", "by construction"
    if facet == "state":
        moved = number("change").partition(" ")[0]
        return number("gain"), f"to the nearer future:\n{number('nearer_gain')}\ninner state moves by {moved}", note
    if facet == "score" and (kind, "across") not in found.intervals:
        return "none", "one seed", "none"
    if facet == "score":
        return number("across"), f"truth ahead of noise:\n{number('within', True)}", note
    if facet == "compute" and kind in found.adaptive:
        return number("follows"), f"gain over random items:\n{number('adaptive_gain')}", note
    if facet == "compute":
        return "none", "one pass for each item", "by construction"
    second = f"near no mode:\n{number('neither', True)}"
    if not own:
        return "0 %", second, "one answer, by construction"
    bell, known = (_number(found, *key, True).split(" %")[0] for key in ((kind, "bell"), ("truth", "rarer")))
    return number("rarer", True), second, f"measured; bell {bell} %, known {known} %"


def _table(panel: Any, found: Facets) -> None:
    patches = require("matplotlib.patches", "figures")
    panel.set(xlim=(0, 5.0), ylim=(4.35, 0))
    panel.axis("off")
    for column, (kind, name) in enumerate({**found.kinds, **NAMES, "diffusion": "diffusion transf."}.items()):
        panel.text(column + 1.5, 0.24, name, color=colour(kind), weight="bold", ha="center", va="center", size=11)
    for row, (facet, (name, test)) in enumerate(ROWS.items()):
        top = row + 0.4
        panel.text(0.02, top + 0.1, name, weight="bold", va="top", size=9.5)
        panel.text(0.02, top + 0.52, test, va="top", size=8, color=colour("floor"))
        for left, kind in enumerate(found.kinds, start=1):
            first, second, note = _cell(found, kind, facet)
            holds = found.held[kind][facet]
            panel.add_patch(patches.Rectangle((left + 0.02, top), 0.96, 0.94, lw=0, alpha=0.22 if holds else 0.5,
                                              color=colour(kind) if holds else colour("grid")))
            value, _, span = first.partition(" (")
            middle = dict(x=left + 0.5, ha="center")
            panel.text(y=top + 0.09, s=value, va="top", size=12, weight="bold", **middle)
            panel.text(y=top + 0.29, s=span and f"({span}", va="top", size=8, **middle)
            panel.text(y=top + 0.43, s=second, va="top", size=7.5, **middle)
            panel.text(y=top + 0.91, s=note, va="bottom", size=7, style="italic", color=colour("floor"), **middle)


def _means(found: Facets, kind: str, name: str) -> np.ndarray:
    return select(found.measured, model=kind, measure=name).groupby("seed").value.mean().to_numpy()


def _mark(panel: Any, place: float, found: Facets, kind: str, name: str, face: str | None = None) -> None:
    values, paint = _means(found, kind, name), colour(kind if kind in found.kinds else "truth")
    panel.plot(np.full(len(values), place), values, "o", ms=5.5, mfc=face or paint, mec=paint, ls="")


def _cut(panel: Any, found: Facets) -> None:
    for place, kind in enumerate(found.kinds):
        _mark(panel, place, found, kind, "loss")
        if kind in found.own["state"]:
            _mark(panel, place - 0.25, found, kind, "loss_cut", colour("background"))
    panel.set(title="Loss, whole (full) and cut (open)", ylabel="test SmoothL1", ylim=(0, None))
    panels.named_ticks(panel.xaxis, {**found.kinds, **NAMES}.values())


def _auroc(panel: Any, found: Facets) -> None:
    for place, kind in enumerate(found.kinds):
        _mark(panel, place - 0.12, found, kind, "across")
        _mark(panel, place + 0.12, found, kind, "within", colour("background"))
    panels.level(panel, 0.5, lw=1)
    panel.set(title="AUROC across (full), within (open)", ylabel="AUROC of the score", ylim=(None, 1.03))
    panels.named_ticks(panel.xaxis, ["Transf.++ *", "GRU *", "diffusion", "EBT"])


def _steps(panel: Any, found: Facets, pyplot: Any) -> None:
    for kind in found.adaptive:
        part = select(found.steps, model=kind)
        for number, (_, rows) in enumerate(part.groupby("seed")):
            panel.plot(rows.used, rows["mean"], "-", color=colour(kind), lw=0.8, alpha=0.7)
            areas = rows["size"] / part["size"].max() * 70 + 3
            panel.scatter(rows.used, rows["mean"], areas, color=colour(kind), alpha=0.7, lw=0,
                          label=None if number else NAMES.get(kind, found.kinds[kind]))
    panel.xaxis.set_major_locator(pyplot.MaxNLocator(integer=True))
    panel.set(title="Error by steps used", xlabel="steps used (area: number of items)", ylabel="SmoothL1 at usual steps",
              ylim=(0, None))
    for mark in panel.legend(loc="upper left").legend_handles:
        mark.set_sizes([30])


def _modes(panel: Any, found: Facets) -> None:
    for place, kind in enumerate((*found.kinds, "truth")):
        base, paint = 0.0, colour(kind)
        for name, alpha in (("left", 0.9), ("right", 0.55), ("neither", 0.15)):
            share = 100 * _means(found, kind, name)
            panel.bar(place, share.mean(), 0.6, base, color=paint, alpha=alpha, lw=0)
            base += share.mean()
        edges = np.cumsum([_means(found, kind, name) for name in ("left", "right")], 0)
        panel.plot(np.full(edges.size, place), 100 * edges.ravel(), "o", ms=3, color=colour("truth"))
    panel.set(title="Samples at open forks", ylabel="share of samples (%)", ylim=(0, 100))
    panels.named_ticks(panel.xaxis, ["Transf.++", "GRU", "diffusion", "EBT", "true\nprobabilities"])
