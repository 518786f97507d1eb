"""The picture of the figure `initial_condition`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour
from ebwm.sampler import STARTS

ROLE = {"noise": "ebt", "last": "transformer", "zeros": "gru", "untrained": "floor", "states": "floor"}
NAME = {"noise": "noise", "last": "last state", "zeros": "zeros", "untrained": "untrained", "states": "states alone"}


class Started(NamedTuple):
    """Tables and statistics of the figure."""

    made: Mapping[str, pd.DataFrame]  # tables of all seeds
    cases: pd.DataFrame  # mean loss by moment, model, start and seed
    floor: Mapping[str, float]  # trivial baselines on validation clips
    final: Mapping[str, Interval]  # loss at the end of training, by model
    scores: pd.DataFrame  # of the probe, by model and seed
    probed: Mapping[str, Mapping[str, Interval]]  # of the probe, by measure and model


def draw(
    found: Started,  # tables and statistics
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Losses during and after training, along walks, from each start, and scores of the probe."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.6, 12.4))
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.8, 1])
    grid, below = top.subplots(3, 2), bottom.subplots(1, 3, width_ratios=[1.75, 1, 1])
    _training(grid[0, 0], found)
    own = found.cases[(found.cases.model == found.cases.begin) & (found.cases.moment == "late")]
    for place, start in enumerate(STARTS):
        panels.marks(grid[0, 1], place, select(own, model=start).loss, ROLE[start], found.final[start])
    grid[0, 1].set(title="Loss at the end of training", ylabel="test SmoothL1", xlim=(-0.5, 2.5))
    panels.named_ticks(grid[0, 1].xaxis, [NAME[start] for start in STARTS])
    _steps(grid[1], found, "loss", "test SmoothL1", parameters)
    _steps(grid[2], found, "energy", "mean energy (no unit)", parameters)
    grid[1, 1].sharey(grid[1, 0])
    for panel in grid[1]:
        panels.logarithmic(panel)
    _starts(below[0], found.cases[found.cases.moment == "late"])
    for panel, column, level in ((below[1], "right", 10), (below[2], "speed_explained", 0)):
        _probe(panel, found, column, level)
    below[1].set(title="Probe: digit", ylabel="right answers, % of test clips", ylim=(0, None))
    below[2].set(title="Probe: speed", ylabel="variance explained, %")
    what = f"Start of the walk: EBTs of width {parameters['dim']} on moving digits, {parameters['features']} principal components"
    panels.heading(top, what, parameters["seeds"], "bands: ranges; bars: 95 % intervals over seeds and clips")
    return figure


def _training(panel: Any, found: Started) -> None:
    evaluated = found.made["history"].dropna(subset="valid_loss")
    for start in STARTS:
        panels.lines(panel, select(evaluated, model=start), "update", "valid_loss", ROLE[start], NAME[start])
    for dashes, name in ((":", "last_frame"), ("--", "mean_frame")):
        panels.level(panel, found.floor[name], ls=dashes, label=name.replace("_", " "))
    panel.set(title="Loss during training", xlabel="optimiser step", ylabel="validation SmoothL1")
    panels.logarithmic(panel)
    panel.legend(ncols=2, loc="upper right", title="walks in training start at", title_fontsize=9)


def _steps(row: Any, found: Started, column: str, label: str, parameters: Mapping[str, Any]) -> None:
    for panel, moment in zip(row, ("early", "late"), strict=True):
        for start in STARTS:
            part = select(found.made["by_step"], moment=moment, model=start, begin=start)
            panels.lines(panel, part, "step", column, ROLE[start], NAME[start])
        panel.axvline(parameters["mcmc_steps"], color=colour("floor"), lw=1, ls=":")
        updates = parameters["early" if moment == "early" else "updates"]
        panel.set(title=f"{column.capitalize()} by step, {moment}", xlabel=f"MCMC step (after {updates} updates)",
                  ylabel=label, xticks=range(found.made["by_step"].step.max() + 1))


def _starts(panel: Any, late: pd.DataFrame) -> None:
    table = late.groupby(["model", "begin"]).loss.agg(["mean", "min", "max"])
    cells = [[table.loc[(model, start)] for start in STARTS] for model in STARTS]
    texts = [["{:.3g}\n{:.3g} to {:.3g}".format(*cell) for cell in row] for row in cells]
    names = [NAME[start] for start in STARTS]
    panels.number_map(panel, np.log10([[cell["mean"] for cell in row] for row in cells]), texts, names, names)
    panel.set(title="Loss from each start", xlabel="the walk starts at", ylabel="trained from")


def _probe(panel: Any, found: Started, column: str, level: float) -> None:
    for place, model in enumerate(NAME):
        percent = {end: value and 100 * value for end, value in found.probed[column][model].items()}
        panels.marks(panel, place, 100 * found.scores[column][model], ROLE[model], percent)
    panels.level(panel, level, lw=1, ls=":")
    panel.set_xlim(-0.5, 4.6)
    panels.named_ticks(panel.xaxis, NAME.values(), rotation=40, ha="right", rotation_mode="anchor")
