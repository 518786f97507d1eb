"""The picture of the figure `policy_shift`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

UNITS = {"noise": "standard deviations", "dynamics": "factor of the motion", "push": "m/s", "early push": "m/s"}


def draw(
    success: pd.DataFrame,  # columns model, shift, strength, value, low, high
    differences: Mapping[str, Mapping[str, Interval]],  # at the strongest shift, by pair and shift
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success by strength of each shift, and paired differences."""
    figure, grid = require("matplotlib.pyplot", "figures").subplots(2, 3, figsize=(12, 7))
    models = [kind for kind in KINDS if kind in set(success.model)]
    for panel, (shift, unit) in zip(grid.flat, UNITS.items(), strict=False):
        shown = select(success, shift=shift)
        width = shown.strength.max() - shown.strength.min()
        for place, kind in enumerate(models):
            rows = select(shown, model=kind).sort_values("strength")
            panels.error_bars(panel, rows.strength + 0.012 * width * (place - 1.5), rows, ROLES[kind], fmt="o-", ms=4,
                              label=KINDS[kind])
        script = select(shown, model="script").sort_values("strength")
        panel.plot(script.strength, script["value"], "--", color=colour("floor"), label="the script")
        title = {"push": "Push in mid-episode", "early push": "Push before the hand arrives"}.get(shift, shift.capitalize())
        panel.set(title=title, xlabel=unit, ylabel="success rate", ylim=(-0.03, 1.03))
    last = grid.flat[4]
    grid.flat[5].set_axis_off()
    for place, (name, role) in enumerate((("ebt_minus_diffusion", "diffusion"), ("ebt_minus_cloning", "transformer"))):
        rows = pd.DataFrame([dict(value) for value in differences[name].values()])
        places = [spot + 0.12 * (place - 0.5) for spot in range(len(rows))]
        label = f"EBT-Policy minus {KINDS[name.removeprefix('ebt_minus_')]}"
        panels.error_bars(last, places, rows, role, fmt="o", label=label)
    panels.zero(last)
    panels.named_ticks(last.xaxis, differences["ebt_minus_diffusion"])
    last.set(title="Differences at the strongest")
    last.legend(fontsize=8)
    panels.legend_below(figure, grid[0, 1], len(models) + 1)
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure
