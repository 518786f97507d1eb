"""The picture of the figure `policy_energy`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, bounds, select
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
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.6, 8))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    energy, walk = top.subplots(1, 2)
    whole, by_time = bottom.subfigures(1, 2, width_ratios=[1, 1.35])
    mean, times = whole.subplots(), by_time.subplots(2, 3, sharex=True, sharey=True)
    shown = select(chunks, seed=parameters["seeds"][0])
    for panel, column in ((energy, "energy"), (walk, "walk")):
        _along(panel, shown, column)
        panel.set(xlabel="steps of the episode")
    energy.set(title="Energy of the actions", ylabel="energy")
    walk.set(title="Steps of the walk until it stops", ylabel="steps of the walk", ylim=(0, None))
    energy.legend(fontsize=8)
    _told(mean, times.ravel(), auroc, overall)
    by_time.suptitle("Failure told, by time", fontsize=11.5, weight="bold", x=0.02, ha="left")
    by_time.supxlabel("steps of the episode", fontsize=10)
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals over seeds", "scripted demonstrations, small models")
    return figure


def _told(mean: Any, times: Any, auroc: Mapping[str, Mapping[int, Interval]], overall: Mapping[str, Interval]) -> None:
    """How well each score tells failing episodes: the mean over times, and in a panel of its own by time."""
    for place, (panel, (name, (label, role))) in enumerate(zip(times, NAMES.items(), strict=True)):
        if found := bounds(overall[name]):
            mean.plot(np.clip(found[1:], 0, 1), [place, place], color=colour(role), lw=1.6)
        if overall[name]["value"] is not None:
            mean.plot(overall[name]["value"], place, "o", color=colour(role), ms=6)
        rows = pd.DataFrame([dict(interval) for interval in auroc[name].values()]).astype(float).clip(0, 1)
        panels.error_bars(panel, list(auroc[name]), rows, role, fmt="o-", ms=3.5)
        panels.level(panel, 0.5)
        panel.set(ylim=(-0.03, 1.03), ylabel="AUROC" if not place % 3 else None)
        panel.set_title(label, fontsize=9.5, weight="normal")
    mean.axvline(0.5, color=colour("floor"), lw=1.2, ls="--")
    mean.set(title="Failure told, mean", xlim=(-0.03, 1.03), xlabel="mean AUROC over times (dashed: chance)")
    panels.named_ticks(mean.yaxis, [label for label, _ in NAMES.values()], fontsize=8.5)
    mean.set_ylim(len(NAMES) - 0.5, -0.5)
    mean.grid(False, axis="y")
    mean.grid(True, axis="x")


def _along(panel: Any, chunks: pd.DataFrame, column: str) -> None:
    """Lines of single episodes, and the median over those that still run."""
    for success, (name, role) in OUTCOMES.items():
        rows = chunks[chunks.success == success]
        for _, own in rows.groupby("episode"):
            panel.plot(own["at"], own[column], color=colour(role), lw=0.6, alpha=0.3)
        medians = rows.groupby("at")[column].median()
        panel.plot(medians.index, medians, "o-", color=colour(role), lw=2, ms=3.5, label=name)
