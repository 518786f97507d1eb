"""The picture of the figure `rollout`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import select
from ebwm.figures.style import colour

KINDS = {"ebt": "EBT", "transformer": "Transformer++", "gru": "GRU", "diffusion": "diffusion"}


def draw(
    made: Mapping[str, pd.DataFrame],  # tables of all seeds
    intervals: pd.DataFrame,  # columns model, horizon, measure, value, low and high
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Errors by horizon, their growth, their differences from the Transformer++'s, and the nearest real frames."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.6, 9.4))
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 1.1])
    grid = top.subplots(2, 2)
    _lines(grid[0, 0], intervals, "rolled", "Rollout: predictions as context")
    _lines(grid[0, 1], intervals, "forced", "Teacher forcing: true frames as context")
    grid[0, 1].sharey(grid[0, 0])
    _lines(grid[1, 0], intervals, "growth", "Rollout minus teacher forcing")
    _lines(grid[1, 1], intervals, "minus_transformer", "Rollout minus that of the Transformer++")
    last = select(intervals, measure="last_state").groupby("horizon").value.mean()
    grid[0, 0].plot(last.index, last, "--", color=colour("floor"), label="last given frame")
    for panel in grid[1]:
        panels.zero(panel)
    grid[0, 0].set(ylabel="test SmoothL1", ylim=(0, None))
    grid[1, 0].set(xlabel="frames ahead", ylabel="difference in SmoothL1")
    grid[1, 1].set(xlabel="frames ahead")
    panels.legend_below(top, grid[0, 0], len(KINDS) + 1)
    seeds = parameters["seeds"]
    panels.heading(top, f"Rollouts from {parameters['given']} frames, features {parameters['encoder']}", seeds,
                   "bars: 95 % intervals over seeds and clips", panels.status(parameters))
    shown = select(made["frames"], seed=seeds[0])
    panels.images(bottom, shown, round(len(shown.pixels.iloc[0]) ** 0.5))
    names = ", ".join(["true frames", *KINDS.values()])
    bottom.suptitle(f"A test clip, and the real frames nearest to predicted features; rows: {names} (seed {seeds[0]})",
                    fontsize=9)
    return figure


def _lines(panel: Any, intervals: pd.DataFrame, measure: str, title: str) -> None:
    for place, (kind, name) in enumerate(KINDS.items()):
        rows = select(intervals, model=kind, measure=measure)
        if len(rows):
            panels.error_bars(panel, rows.horizon + 0.08 * (place - 1.5), rows, kind, fmt="o-", ms=3, label=name)
    panel.set(title=title)
