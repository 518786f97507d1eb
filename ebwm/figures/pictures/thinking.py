"""The picture of the figure `thinking`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import select
from ebwm.figures.style import colour

ROLE = {"s1": "ebt", "s2": "gru"}
DASHES = {"transformer": "-", "longer": "--", "wider": ":"}
METHODS = {"longer": "ebt", "best of N": "gru", "both": "diffusion", "oracle": "floor"}


class Thought(NamedTuple):
    """Tables and statistics of the figure."""

    made: Mapping[str, pd.DataFrame]  # tables of all seeds
    names: Mapping[str, str]  # models with their titles
    sets: Sequence[str]  # test sets; the first is like the training set
    trained: Mapping[str, int]  # steps in training
    baseline: Mapping[str, Mapping[str, float]]  # mean loss, by model and set
    gains: pd.DataFrame  # in percent, by model, set and method


def draw(
    found: Thought,  # tables and statistics
    heading: tuple[str, Sequence[int]],  # first line, and seeds
) -> Any:  # the figure
    """Loss by steps, best of several samples, adaptive stopping, and gains."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.8, 10.4))
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.25, 1, 1])
    for panel, name in zip(top.subplots(1, len(found.sets)), found.sets, strict=True):
        _steps(panel, found, name)
    top.axes[0].set_ylabel("test SmoothL1")
    panels.legend_below(top, top.axes[0], 3)
    row = middle.subplots(1, 4)
    for column, kind in enumerate(ROLE):
        here = dict(model=kind, clips=found.sets[0])
        verified = select(found.made["verification"], at_best=True, **here)
        panels.best_of_samples(row[column], verified, f"Best of N: {found.names[kind]}")
        panels.adaptive(row[column + 2], select(found.made["adaptive"], **here), f"Stopping: {found.names[kind]}")
    row[0].set_ylabel("% of the loss of one walk")
    row[0].legend(fontsize=7, loc="lower left", handlelength=1.2)
    row[2].set_ylabel("test SmoothL1")
    row[3].legend(fontsize=8)
    for panel, kind in zip(bottom.subplots(1, 2, sharey=True), ROLE, strict=True):
        _gains(panel, found, kind)
    bottom.axes[1].legend(ncols=2)
    panels.heading(figure, *heading, "bands: ranges; bars: 95 % intervals, seeds and clips")
    return figure


def _steps(panel: Any, found: Thought, name: str) -> None:
    for kind, role in ROLE.items():
        part = select(found.made["by_step"], model=kind, clips=name)
        panels.lines(panel, part[part.step > 0], "step", "loss", role, found.names[kind])
        panel.axvline(found.trained[kind], color=colour(role), lw=1, ls=":")
    for kind, dashes in DASHES.items():
        panels.level(panel, found.baseline[kind][name], "transformer", lw=1.3, ls=dashes, label=found.names[kind])
    panel.set(title=f"Longer: {name}", xlabel="evaluations in one walk", xscale="log")
    panel.xaxis.set_major_formatter("{x:g}")


def _gains(panel: Any, found: Thought, kind: str) -> None:
    for shift, (method, role) in enumerate(METHODS.items()):
        rows = select(found.gains, model=kind, method=method).set_index("clips").loc[list(found.sets)]
        places = np.arange(len(rows)) + 0.2 * (shift - 1.5)
        panel.bar(places, rows.gain, 0.18, color=colour(role), label=method)
        rows = rows.rename(columns={"gain": "value"})
        panels.error_bars(panel, places, rows, "truth", fmt="none", ecolor=colour("truth"), capsize=2, lw=1)
    panels.zero(panel, lw=0.8, ls="-")
    panel.set(title=f"Gain over {found.trained[kind]} steps: {found.names[kind]}", ylabel="% of its own loss")
    panels.named_ticks(panel.xaxis, [name.replace(" ", "\n") for name in found.sets])
