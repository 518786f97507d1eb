"""The picture of the figure `ablation`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.style import colour

SETS = {"shift": ("ebt", "o", -0.15, "faster digits than in training"), "same": ("transformer", "s", 0.15, "as in training")}
RANKED = {"single": ("floor", "a random start"), "best": ("ebt", "the lowest energy"), "oracle": ("gru", "the least error")}
SIZED = {"s2": ("ebt", "o"), "s1": ("gru", "s")}
COSTS = {"ratio": ("ebt", "time"), "flops": ("transformer", "FLOPs"), "memory": ("gru", "memory")}


class Ablation(NamedTuple):
    """Tables and statistics of the figure."""

    titles: Mapping[str, str]  # of the variants
    measures: Mapping[str, tuple[str, str]]  # shown measures, with title and unit
    values: Mapping[str, Any]  # [seeds clips] by set, measure and variant
    own: Mapping[str, Any]  # intervals of the values
    to_full: Mapping[str, Any]  # intervals of the differences to the full recipe
    floor: Mapping[str, Mapping[str, float]]  # trivial baselines by set
    ranked: pd.DataFrame  # losses without descent, by set, variant and start
    ways: pd.DataFrame  # cost of an update, by way to attend
    sizes: pd.DataFrame  # columns set, variant, parameters, seed, single (loss)


def draw(
    found: Ablation,  # tables and statistics
    what: str,  # first line of the heading
    starts: int,  # that are ranked
    seeds: list[int],  # of the run
) -> Any:  # the figure
    """Measures of all variants, their differences to the full recipe, ranking without descent, costs, and sizes."""
    pyplot = require("matplotlib.pyplot", "figures")
    figure = pyplot.figure(figsize=(11, 15))
    top, bottom, last = figure.subfigures(3, 1, height_ratios=[3.1, 1, 1.1])
    grid = top.subplots(2, len(found.measures))
    for column, (measure, (title, unit)) in zip(grid.T, found.measures.items(), strict=True):
        _rows(column[0], found, measure, found.own)
        _rows(column[1], found, measure, found.to_full, "s2")
        column[0].set(title=title, xlabel=unit)
        column[1].set(title="Less that of S2, full", xlabel=unit.replace("%", "percentage points"))
    for name, (role, *_) in SETS.items():
        grid[0, 0].axvline(min(found.floor[name].values()), color=colour(role), lw=1.2, ls=":")
    for panel in grid[:, 1:].flat:
        panel.set_yticklabels([])
    left, right = bottom.subplots(1, 2)
    rows = found.ranked.loc["shift"]
    models = [f"{found.titles[variant].split(',')[0]}, {'noise' if start == 'noise' else 'last state + noise'}"
              for variant, start in rows.index]
    left.axvline(found.own["shift"]["loss"]["s2"]["value"], color=colour("truth"), lw=1.2, ls="--", label="S2, descended")
    _bars(left, rows, RANKED, models)
    left.set(title=f"No descent: {starts} starts, ranked", xlabel="test SmoothL1 (shifted)")
    _bars(right, found.ways, COSTS, [way.replace(", ", ",\n") for way in found.ways.index])
    right.set(title="An update, by attention", xlabel="relative to two streams, handwritten")
    for panel, name in zip(last.subplots(1, 2), reversed(SETS), strict=True):
        _sizes(panel, found, name)
    handles = [pyplot.Line2D([], [], color=colour(role), marker=marker, label=label)
               for role, marker, _, label in SETS.values()]
    top.legend(handles=handles, loc="outside lower center", ncols=2)
    panels.heading(top, what, seeds, "bars: 95 % intervals over seeds and clips", "stand-in data, one small model")
    return figure


def _rows(panel: Any, found: Ablation, measure: str, intervals: Mapping[str, Any], less: str | None = None) -> None:
    for name, (role, marker, shift, _) in SETS.items():
        for place, variant in enumerate(found.titles):
            array = found.values[name][measure][variant] - (found.values[name][measure][less] if less else 0)
            middle, low, high = intervals[name][measure][variant].values()
            y = place + shift
            panel.plot(array.mean(1), np.full(len(array), y), marker, color=colour(role), ms=3.5, alpha=0.6, mew=0)
            if low is not None:
                panel.plot([low, high], [y, y], color=colour(role), lw=1.6)
            panel.plot(middle, y, "|", color=colour(role), ms=9, mew=2)
    zero = found.own["shift"][measure]["s2"]["value"] if less is None else 0
    panel.axvline(zero, color=colour("floor"), lw=1, ls="--")
    panels.named_ticks(panel.yaxis, found.titles.values())
    panel.invert_yaxis()
    panel.grid(False, axis="y")
    panel.grid(True, axis="x")


def _sizes(panel: Any, found: Ablation, name: str) -> None:
    rows = found.sizes[found.sizes.set == name]
    by_seed = rows.groupby(["variant", "seed", "parameters"]).single.mean()
    for variant, (role, marker) in SIZED.items():
        one = by_seed[variant].unstack("parameters")
        panel.plot(one.columns, np.exp(np.log(one).mean()), "-", color=colour(role), label=found.titles[variant])
        for losses in one.to_numpy():
            panel.plot(one.columns, losses, marker, color=colour(role), ms=3.5, alpha=0.6, mew=0)
    panel.axhline(min(found.floor[name].values()), color=colour("floor"), lw=1.2, ls=":", label="better trivial baseline")
    panel.set(title=f"By size, {SETS[name][3].removesuffix(' than in training')}", xlabel="parameters in the layers",
              ylabel="test SmoothL1", xscale="log")
    panels.logarithmic(panel)
    panels.round_ticks(panel.xaxis)
    panel.legend(fontsize=8.5)


def _bars(panel: Any, rows: pd.DataFrame, columns: Mapping[str, tuple[str, str]], names: list[str]) -> None:
    for shift, (column, (role, label)) in enumerate(columns.items()):
        panel.barh(np.arange(len(rows)) + 0.27 * shift, rows[column], 0.24, color=colour(role), label=label)
    panel.set_yticks(np.arange(len(rows)) + 0.27, names)
    panel.invert_yaxis()
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8.5)
    panel.grid(False, axis="y")
