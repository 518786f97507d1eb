"""The picture of the figure `policy_steps`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES
from ebwm.figures.experiment.tables import select
from ebwm.figures.style import colour

LABELS = {"two_steps_minus_diffusion": "EBT for 2 steps, 2 steps\nless diffusion, 100",
          "two_steps_minus_diffusion_two": "EBT for 2 steps, 2 steps\nless diffusion, 2",
          "many_minus_diffusion": "EBT for 6 to 9, 9 steps\nless diffusion, 16",
          "many_asked_two_minus_own": "EBT for 6 to 9, 2 steps\nless 9 steps",
          "diffusion_minus_cloning": "diffusion, 16 steps\nless cloning",
          "many_minus_cloning": "EBT for 6 to 9, 9 steps\nless cloning"}


def draw(
    made: Mapping[str, pd.DataFrame],  # tables of all seeds
    rates: pd.DataFrame,  # columns model, steps, value, low, high, milliseconds
    differences: Mapping[str, Mapping[str, float]],  # intervals by name
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success by steps, by milliseconds and by updates, and paired differences."""
    figure, grid = require("matplotlib.pyplot", "figures").subplots(2, 2, figsize=(9, 7.4))
    by_steps, by_time, by_updates, pairs = grid.flat
    for place, (kind, name) in enumerate(KINDS.items()):
        rows = select(rates, model=kind).sort_values("steps")
        shift = 1 + 0.03 * (place - 2)
        for panel, column in ((by_steps, "steps"), (by_time, "milliseconds")):
            line = "o-" if len(rows) > 1 else "D"
            panels.error_bars(panel, rows[column] * shift, rows, ROLES[kind], fmt=line, ms=4, label=name)
        means = select(made["training"], model=kind).groupby("updates").success.mean()
        by_updates.plot(means.index, means, "o-", ms=4, color=colour(ROLES[kind]))
    by_steps.set(title="Success by inference steps", xlabel="steps", ylabel="success rate", xscale="log")
    by_time.set(title="Success by time", xlabel="milliseconds of a prediction", xscale="log")
    for panel in (by_steps, by_time):
        panels.round_ticks(panel.xaxis, (1, 2, 5))
    by_updates.set(title="Success by training", xlabel="updates", ylabel="success rate")
    for panel in (by_steps, by_time, by_updates):
        panel.set(ylim=(-0.03, 1.03))
    rows = pd.DataFrame([dict(differences[name]) for name in LABELS])
    value, places = rows["value"].astype(float), range(len(rows))
    spans = [(value - rows.low.astype(float)).fillna(0), (rows.high.astype(float) - value).fillna(0)]
    pairs.errorbar(value, places, xerr=spans, fmt="o", color=colour("ebt"), capsize=3)
    panels.zero(pairs, across=False)
    panels.named_ticks(pairs.yaxis, LABELS.values(), fontsize=8)
    pairs.invert_yaxis()
    pairs.set(title="Paired differences", xlabel="success rate")
    panels.legend_below(figure, by_steps, len(KINDS))
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure
