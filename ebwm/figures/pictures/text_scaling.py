"""The picture of the figure `text_scaling`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.evaluation.statistics import PowerLaw, power_law
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.scaling import axis_of
from ebwm.figures.style import colour

ROLES = {"transformer": "transformer", "s1": "ebt", "s2": "diffusion"}
LABELS = {"data": "tokens seen in training", "batch": "tokens in a batch", "depth": "layers",
          "parameters": "weights in the layers", "flops": "training FLOPs, as the paper counts", "width": "width (features)"}
TITLES = {"data": "Data", "batch": "Batch", "depth": "Depth", "parameters": "Parameters", "flops": "FLOPs",
          "width": "Width", "data_late": "Data, later half", "fineweb": "Data, FineWeb"}
BEYOND = 4  # extrapolation of lines, relative to the last point
UNITS = {"data": 1e9, "batch": 1e3, "parameters": 1e6}  # of the paper's points
REACH = (-250, 250)  # of the percentages
MARKS = (("o-", "ebt", "ours, over seeds and windows"), ("|-", "floor", "ours, bootstrap (too narrow)"),
         ("d-", "truth", "the paper's points refitted, of the fit"), ("x", "transformer", "printed"))


class Scaling(NamedTuple):
    """Tables and statistics of the figure."""

    names: Mapping[str, str]  # models with their titles
    points: Mapping[str, Mapping[str, pd.DataFrame]]  # scores of single seeds, by axis and model
    laws: Mapping[str, Mapping[str, PowerLaw]]  # by axis and model
    percent: Mapping[str, Any]  # intervals by axis and model
    counts: Mapping[str, float]  # perplexities of token counts
    most: float  # largest perplexity that is shown
    bits: float  # bits per byte of a nat per token
    paper: Mapping[str, str]  # figures of the paper, by axis
    paper_laws: Mapping[str, Mapping[str, PowerLaw]]  # by axis and model
    paper_percent: Mapping[str, Mapping[str, float]]  # by axis


def draw(
    found: Scaling,  # tables and statistics
    lines: Sequence[str],  # of the heading
) -> Any:  # the figure
    """Perplexity by each axis, ours and the paper's, and percentages."""
    axes = [axis for axis in found.laws if axis != "data_late"]
    rows = sum(len(part) for part in found.percent.values()) + len(found.paper)
    heights = 2.4 * len(axes) + 1.0, 1.2 + 0.21 * rows
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.0, sum(heights)))
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    grid = top.subplots(len(axes), 2, squeeze=False)
    for pair, axis in zip(grid, axes, strict=True):
        _ours(pair[0], found, axis)
        _theirs(pair[1], found, axis)
    grid[0, 0].plot([], [], "--", color=colour("floor"), label="extrapolated (band: 95 % of the fit)")
    panels.legend_below(top, grid[0, 0], 6, fontsize=8)
    _percentages(bottom.subplots(), found)
    top.suptitle("\n".join(lines), fontsize=9.5)
    figure.get_layout_engine().set(w_pad=0.1, wspace=0.03)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def written(
    value: float,  # a number above 0
) -> str:
    """A number with a unit prefix."""
    if value >= 1e15:
        power = math.floor(math.log10(value))
        times = "" if value < 1.05 * 10**power else f"{value / 10**power:.2g}·"
        return f"{times}$10^{{{power}}}$"
    for least, ending in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:.3g}{ending}"
    return f"{value:g}"


def _ticks(axis: Any, low: float, high: float) -> None:
    """A few round places from low to high on a logarithmic axis."""
    tens = 10.0 ** np.arange(math.floor(math.log10(low)), math.log10(high) + 1)
    choices = ([10], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7], np.arange(1, 10, 0.5), np.arange(1, 10, 0.2))
    places: list[float] = []
    for leading in choices:
        places = [place for place in np.outer(tens, leading).ravel() if low <= place <= high]
        if len(places) > 2:
            break
    places = places[::math.ceil(len(places) / 5)]
    axis.set_ticks(places, [written(float(f"{place:.3g}")) for place in places])
    axis.set_ticks([], minor=True)


def _law(panel: Any, law: PowerLaw, role: str, label: str | None) -> None:
    x = np.geomspace(min(law.x), max(law.x), 30)
    further = np.geomspace(max(law.x), BEYOND * max(law.x), 10)
    band = np.array([law.interval(place)[1:] for place in further]).T
    panel.plot(x, law(x), color=colour(role), lw=1.4, label=label)
    panel.plot(further, law(further), "--", color=colour(role), lw=1.2)
    panel.fill_between(further, *band, color=colour(role), alpha=0.12, lw=0)


def _finish(panel: Any, laws: Iterable[PowerLaw], shown: Sequence[float], most: float) -> None:
    """Scales and limits from points and lines, not from bands."""
    laws = list(laws)
    x = [place for law in laws for place in law.x]
    ends = lambda law: law(np.array([min(law.x), BEYOND * max(law.x)]))
    y = [min(place, most) for place in (*shown, *(place for law in laws for place in (*law.y, *ends(law))))]
    panel.set(xscale="log", yscale="log", xlim=(min(x) / 1.2, 1.2 * BEYOND * max(x)))
    room = (max(y) / min(y)) ** 0.06
    panel.set_ylim(min(y) / room, max(y) * room)
    _ticks(panel.xaxis, *panel.get_xlim())
    _ticks(panel.yaxis, *panel.get_ylim())


def _ours(panel: Any, found: Scaling, axis: str) -> None:
    x, shown = axis_of(axis), list(found.counts.values()) if axis == "data" else []
    for kind, law in found.laws[axis].items():
        role, rows = ROLES[kind], found.points[axis][kind]
        _law(panel, law, role, found.names[kind])
        inside, above = (rows[far] for far in (rows.perplexity <= found.most, rows.perplexity > found.most))
        panel.plot(inside[x], inside.perplexity, "o", color=colour(role), ms=3.5, alpha=0.75, mew=0)
        panel.plot(above[x], [found.most] * len(above), "^", color=colour(role), ms=5, mew=0)
        for place, perplexity in zip(above[x], above.perplexity, strict=True):
            panel.annotate(f"  {written(perplexity)}", (place, found.most), va="center", fontsize=7)
        shown += rows.perplexity.tolist()
    panel.set(title=f"{TITLES[axis]}: ours", xlabel=LABELS[axis], ylabel="test perplexity")
    for (name, value), dots in zip(found.counts.items() if axis == "data" else (), (":", "-."), strict=False):
        panels.level(panel, value, ls=dots, label=f"{name}, counted")
    _finish(panel, found.laws[axis].values(), shown, found.most)
    bits = panel.twinx()
    bits.set_ylim(*(np.log(panel.get_ylim()) * found.bits))
    bits.set_ylabel("bits per byte")
    bits.spines["right"].set_visible(True)
    bits.grid(False)


def _theirs(panel: Any, found: Scaling, axis: str) -> None:
    unit = UNITS.get(axis, 1)
    laws = {kind: power_law(np.multiply(law.x, unit), law.y) for kind, law in found.paper_laws[axis].items()}
    for kind, law in laws.items():
        _law(panel, law, ROLES[kind], None)
        panel.plot(law.x, law.y, "d", color=colour(ROLES[kind]), ms=4, mew=0)
    _finish(panel, laws.values(), [], found.most)
    panel.set(title=f"{TITLES[axis]}: the paper's Figure {found.paper[axis]}", xlabel=LABELS[axis],
              ylabel="validation perplexity")


def _bar(panel: Any, place: float, interval: Mapping[str, Any], mark: str, role: str) -> None:
    """One value; an end that is infinite or off the panel is drawn to the edge."""
    panel.plot(np.clip(interval["value"], *REACH), place, mark, color=colour(role), ms=6, zorder=3)
    if interval["low"] is not None:
        panel.plot(np.clip([interval["low"], interval["high"]], *REACH), [place, place], color=colour(role), lw=1.6)


def _percentages(panel: Any, found: Scaling) -> None:
    names = {(axis, kind): f"{TITLES[axis]}: ours, {kind.upper()}" for axis, part in found.percent.items() for kind in part}
    names |= {(axis,): f"{TITLES[axis]}: paper, {figure}" for axis, figure in found.paper.items()}
    for place, key in zip(range(len(names), 0, -1), names, strict=True):
        if len(key) == 2:
            intervals = found.percent[key[0]][key[1]]
            _bar(panel, place, intervals["seeds_and_windows"], "o", ROLES[key[1]])
            if intervals["bootstrap"]:
                _bar(panel, place - 0.28, intervals["bootstrap"], "|", "floor")
        else:
            _bar(panel, place, found.paper_percent[key[0]], "d", "truth")
            panel.plot(found.paper_percent[key[0]]["printed"], place, "x", color=colour("transformer"), ms=6, zorder=4)
    panels.zero(panel, across=False)
    panel.set_yticks(range(len(names), 0, -1), list(names.values()), fontsize=8.5)
    panel.set(title="Percent faster than Transformer++")
    panel.set_xlabel(f"100 (ratio of exponents - 1); values and ends beyond ±{REACH[1]} are at the edge")
    panel.grid(axis="x")
    panel.grid(False, axis="y")
    for mark, role, label in MARKS:
        panel.plot([], [], mark, color=colour(role), ms=6, lw=1.6, label=label)
    panels.legend_below(panel.figure, panel, 4, fontsize=8)
