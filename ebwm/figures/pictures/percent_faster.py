"""The picture of the figure `percent_faster`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.evaluation.statistics import PowerLaw
from ebwm.figures.experiment import panels
from ebwm.figures.style import colour

AXES = {"data": "tokens (billion)", "batch": "batch (thousand tokens)", "depth": "layers",
        "parameters": "parameters (million)", "FLOPs": "training FLOPs", "width": "width (features)"}


def draw(
    points: pd.DataFrame,  # of the paper: figure, model, x and y
    laws: Mapping[str, Mapping[str, PowerLaw]],  # by figure and model
    fits: pd.DataFrame,  # percentages: figure, axis, value, low, high, printed, points, ebt_better_at
    names: Mapping[str, str],  # models with their titles
    level: float,  # of the intervals
) -> Any:  # the figure
    """Points with power laws for each figure of the paper, and the percentages."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(7.8, 10.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.3, 1])
    grid = top.subplots(3, 3)
    for panel, (name, pair) in zip(grid.flat, laws.items(), strict=True):
        row, part = fits.set_index("figure").loc[name], points[points.figure == name]
        for model, label in names.items():
            _law(panel, pair[model], part[part.model == model], model, label, level)
        panel.set_title(f"{name}: EBT better at {row.ebt_better_at} of {row.points}", fontsize=9)
        panel.set(xscale="log", yscale="log", xlabel=AXES[row.axis])
        _ticks(panel.xaxis, part.x)
        _ticks(panel.yaxis, part.y)
    grid[0, 0].legend(fontsize=8)
    for place, metric in {0: "perplexity", 3: "perplexity", 6: "SmoothL1", 8: "perplexity"}.items():
        grid.flat[place].set_ylabel(f"validation {metric}")
    top.suptitle("The EBT paper's scaling figures, refitted by power laws (one run a point)\n"
                 f"bands: prediction interval of one more point, {100 * level:g} %", fontsize=10)
    _percentages(bottom.subplots(), fits, level)
    return figure


def _law(panel: Any, law: PowerLaw, rows: pd.DataFrame, model: str, label: str, level: float) -> None:
    x = np.geomspace(rows.x.min(), rows.x.max(), 30)
    band = np.array([law.interval(place, level)[1:] for place in x]).T
    panel.fill_between(x, *band, color=colour(model), alpha=0.15, linewidth=0)
    panel.plot(x, law(x), color=colour(model), lw=1.2)
    panel.plot(rows.x, rows.y, "o", color=colour(model), ms=3.5, label=label)


def _ticks(axis: Any, values: Sequence[float]) -> None:
    ticker = require("matplotlib.ticker", "figures")
    low, high = min(values), max(values)
    wide = ticker.LogLocator(subs=(1, 3) if high < 1e9 else (1,), numticks=9)
    places = (ticker.MaxNLocator(4) if high < 6 * low else wide).tick_values(low, high)
    places = [place for place in places if low / 1.1 <= place <= high * 1.1]
    near = 0.18 * np.log(high / low)
    places = [place for i, place in enumerate(places) if not i or np.log(place / places[i - 1]) > near]
    axis.set_ticks(places, [f"{p:g}" if p < 1e9 else f"$10^{{{round(np.log10(p))}}}$" for p in places])
    axis.set_ticks([], minor=True)


def _percentages(panel: Any, fits: pd.DataFrame, level: float) -> None:
    places = np.arange(len(fits))[::-1]
    reach = [fits.value - fits.low, fits.high - fits.value]
    panel.errorbar(fits.value, places, xerr=reach, fmt="o", color=colour("truth"), ms=5, lw=1.6, capsize=3,
                   label=f"refitted, {100 * level:g} % interval")
    panel.plot(fits.printed, places, "d", color=colour("diffusion"), ms=6, label="printed", zorder=3)
    panels.zero(panel, across=False)
    panel.set_yticks(places, fits.figure + ", " + fits.axis)
    panel.set(xlabel="percent faster than Transformer++", title="Printed, and refitted from the same points")
    panel.grid(axis="x")
    panel.grid(False, axis="y")
    panel.legend(loc="center right")
