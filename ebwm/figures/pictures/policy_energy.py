"""The picture of the figure `policy_energy`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

NAMES = {"energy": ("energy", "ebt"), "rise": ("rise of the energy", "truth"), "steps": ("steps of a walk", "floor"),
         "walks": ("spread of walks", "gru"), "diffusion": ("spread of diffusion", "diffusion"),
         "ensemble": ("spread of an ensemble", "transformer")}
OUTCOMES = {True: ("succeeds", "ebt"), False: ("fails", "transformer")}


def draw(
    chunks: pd.DataFrame,  # columns seed, episode, at, success, energy, walk
    auroc: Mapping[str, Mapping[int, Interval]],  # by score and time
    overall: Mapping[str, Interval],  # means over times
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Energies and steps along episodes, and how well each score tells failing episodes."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.6, 7.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    energy, walk = top.subplots(1, 2)
    middle, right = bottom.subplots(1, 2, width_ratios=[1.4, 1])
    shown = select(chunks, seed=parameters["seeds"][0])
    for panel, column in ((energy, "energy"), (walk, "walk")):
        _along(panel, shown, column)
        panel.set(xlabel="steps of the episode")
    energy.set(title="Energy of the actions", ylabel="energy")
    walk.set(title="Steps of the walk until it stops", ylabel="steps of the walk", ylim=(0, None))
    energy.legend(fontsize=8)
    for place, (name, (label, role)) in enumerate(NAMES.items()):
        times = list(auroc[name])
        rows = pd.DataFrame([dict(auroc[name][time]) for time in times])
        spots = [time + 0.7 * (place - 2.5) for time in times]
        panels.error_bars(middle, spots, rows, role, fmt="o-", ms=4, label=label)
        panels.error_bars(right, [place], pd.DataFrame([dict(overall[name])]), role, fmt="o", ms=6)
    for panel in (middle, right):
        panels.level(panel, 0.5)
        panel.set(ylim=(-0.03, 1.03))
    middle.set(title="Failure told, by time", xlabel="steps of the episode", ylabel="AUROC")
    middle.legend(fontsize=7.5, ncols=2, loc="lower right")
    right.set(title="Mean over times")
    panels.named_ticks(right.xaxis, [label for label, _ in NAMES.values()], fontsize=8, rotation=35)
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals over seeds", "scripted demonstrations, small models")
    return figure


def _along(panel: Any, chunks: pd.DataFrame, column: str) -> None:
    """Lines of single episodes, and the median over those that still run."""
    for success, (name, role) in OUTCOMES.items():
        rows = chunks[chunks.success == success]
        for _, own in rows.groupby("episode"):
            panel.plot(own["at"], own[column], color=colour(role), lw=0.6, alpha=0.3)
        medians = rows.groupby("at")[column].median()
        panel.plot(medians.index, medians, "o-", color=colour(role), lw=2, ms=3.5, label=name)
