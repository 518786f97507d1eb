"""The picture of the figure `policy_energy`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

NAMES = {"energy": ("energy", "ebt"), "rise": ("rise of the energy", "truth"), "walks": ("spread of walks", "gru"),
         "diffusion": ("spread of diffusion", "diffusion"), "ensemble": ("spread of an ensemble", "transformer")}


def draw(
    scores: pd.DataFrame,  # columns seed, episode, time, success, energy
    auroc: Mapping[str, Mapping[int, Interval]],  # by score and time
    overall: Mapping[str, Interval],  # means over times
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Energies along episodes, and how well each score tells failing episodes."""
    figure, (left, middle, right) = require("matplotlib.pyplot", "figures").subplots(
        1, 3, figsize=(9.6, 4.2), width_ratios=[1.2, 1.2, 0.8])
    shown = select(scores, seed=parameters["seeds"][0])
    for _, rows in shown.groupby("episode"):
        role = "ebt" if rows.success.iloc[0] else "transformer"
        left.plot(rows.time, rows.energy, color=colour(role), lw=0.7, alpha=0.6)
    for role, name in (("ebt", "succeeds"), ("transformer", "fails")):
        left.plot([], [], color=colour(role), label=name)
    left.set(title="Energy of the actions", xlabel="steps of the episode", ylabel="energy")
    left.legend(fontsize=8)
    for place, (name, (label, role)) in enumerate(NAMES.items()):
        times = list(auroc[name])
        rows = pd.DataFrame([dict(auroc[name][time]) for time in times])
        panels.error_bars(middle, [time + 0.8 * (place - 2) for time in times], rows, role, fmt="o-", ms=4, label=label)
        panels.error_bars(right, [place], pd.DataFrame([dict(overall[name])]), role, fmt="o", ms=6)
    for panel in (middle, right):
        panels.level(panel, 0.5)
        panel.set(ylim=(-0.03, 1.03))
    middle.set(title="Failure told, by time", xlabel="steps of the episode", ylabel="AUROC")
    right.set(title="Mean over times")
    panels.named_ticks(right.xaxis, NAMES, fontsize=8, rotation=35)
    panels.legend_below(figure, middle, len(NAMES))
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals over seeds", "scripted demonstrations, small models")
    return figure
