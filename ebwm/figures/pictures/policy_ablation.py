"""The picture of the figures `policy_ablation` and `policy_authors`."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.style import colour

ROLES = {"plain": "ebt", "full": "transformer", "paper": "ebt", "authors": "transformer"}  # by what a variant is made from
EDGE = 20  # times the least validation error, beyond which it is not drawn to scale


def draw(
    table: pd.DataFrame,  # by variant: value, low, high, diverged
    losses: pd.DataFrame,  # validation errors by variant and seed
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success rate and validation error of each variant."""
    figure, (left, right) = require("matplotlib.pyplot", "figures").subplots(
        1, 2, figsize=(9, 0.32 * len(table) + 1.6), sharey=True, width_ratios=[1.2, 1])
    edge = EDGE * float(np.nanmin(losses.where(np.isfinite(losses)).to_numpy()))
    for place, (name, row) in enumerate(table.iterrows()):
        role = ROLES.get(re.split(r"[ ,]", name)[0], "floor")
        spans = [[row.value - row.low], [row.high - row.value]]
        left.errorbar(row.value, place, xerr=spans, fmt="o", color=colour(role), capsize=3)
        values = losses.loc[name].to_numpy(dtype=float)
        right.plot(np.where(values < edge, values, edge), np.full(len(values), place), "o", ms=4, color=colour(role), alpha=0.75)
    panels.named_ticks(left.yaxis, [name.replace(" - ", " \N{MINUS SIGN} ") for name in table.index], fontsize=8)
    left.set_ylim(len(table) - 0.4, -0.6)
    left.set(title="Success rate", xlim=(-0.03, 1.03))
    right.axvline(edge, color=colour("floor"), lw=1, ls=":", zorder=0)
    right.set(title="Validation error of single seeds", xscale="log", xlim=(None, 1.25 * edge),
              xlabel="SmoothL1; on the dotted line:\nbeyond it, or not finite")
    panels.round_ticks(right.xaxis, (1, 2, 5))
    for panel in (left, right):
        panel.grid(axis="x")
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['updates']} updates"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure
