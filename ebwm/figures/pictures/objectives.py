"""The picture of the figure `objectives`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select

NAMES = {"reconstruction": "reconstruction (S1)", "contrastive": "contrastive",
         "persistent": "persistent contrastive", "score": "score matching"}
ROLE = {"reconstruction": "ebt", "contrastive": "transformer", "persistent": "gru", "score": "diffusion"}
WRONG = {"last": "the last state", "other": "another clip's state", "noised": "the noised truth"}


class Objectives(NamedTuple):
    """Tables and statistics of the figure."""

    shares: pd.DataFrame  # loss relative to the better baseline, by origin, recipe, width and seed
    wins: pd.DataFrame  # share of positions at which the truth has the lower energy
    cost: pd.DataFrame  # updates and seconds, by recipe and width
    apart: Mapping[str, Mapping[int, np.ndarray]]  # reconstruction less another recipe by seed, by recipe and width
    intervals: Mapping[str, Mapping[str, Interval]]  # of these differences


def draw(
    found: Objectives,  # tables and statistics
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Prediction and ranking by the width of states."""
    figure, axes = require("matplotlib.pyplot", "figures").subplots(2, 3, figsize=(11, 7.6))
    for panel, (origin, title) in zip(axes[0], (("any", "best walk"), ("noise", "walks from noise")), strict=False):
        _by_width(panel, found, select(found.shares, origin=origin), "share", f"Prediction, {title}", 1)
        panel.set_ylabel("test SmoothL1 / better baseline")
    _differences(axes[0, 2], found)
    for panel, (wrong, name) in zip(axes[1], WRONG.items(), strict=True):
        _by_width(panel, found, select(found.wins, wrong=wrong), "wins", f"Truth below {name}", 0.5)
        panel.set_ylabel("share of positions")
    where = "moving digits" if parameters["video_dir"] is None else "clips of a folder"
    what = f"Four recipes, {parameters['evaluations']} evaluations each: principal components of {where}"
    panels.heading(figure, what, parameters["seeds"],
                   "bands: ranges; bars: 95 % intervals over seeds and clips", panels.status(parameters))
    panels.legend_below(figure, axes[0, 0], 2)
    return figure


def _by_width(panel: Any, found: Objectives, rows: pd.DataFrame, column: str, title: str, line: float) -> None:
    for kind, role in ROLE.items():
        cost = found.cost.loc[kind].mean()
        means = select(rows, recipe=kind).groupby(["state_dim", "seed"], as_index=False)[column].mean()
        label = f"{NAMES[kind]}: {cost.updates:.0f} updates, {cost.seconds:.0f} s"
        panels.lines(panel, means, "state_dim", column, role, label)
    widths = sorted(rows.state_dim.unique())
    panel.set_xscale("log", base=2)
    panel.set_xticks(widths, map(str, widths))
    panels.level(panel, line)
    panel.set(xlabel="numbers in a state", title=title)


def _differences(panel: Any, found: Objectives) -> None:
    for place, (kind, by_width) in enumerate(found.apart.items()):
        for shift, (width, values) in enumerate(by_width.items()):
            x = place + 0.26 * (shift - (len(by_width) - 1) / 2)
            panels.marks(panel, x, values, ROLE[kind], found.intervals[kind][f"d{width}"])
            panel.annotate(str(width), (x, 0), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                           fontsize=8, ha="center")
    panels.zero(panel)
    panels.named_ticks(panel.xaxis, [NAMES[kind].replace(" ", "\n") for kind in found.apart])
    panel.margins(y=0.15)
    panel.set(title="Reconstruction minus the others", ylabel="difference relative to the baseline")
