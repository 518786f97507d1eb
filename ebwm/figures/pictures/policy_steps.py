"""The picture of the figure `policy_steps`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES, rate
from ebwm.figures.experiment.tables import select
from ebwm.figures.style import colour

TRAINED = KINDS | {"ebt": "EBT-Policy trained for 6 to 9 steps"}
LABELS = {"two_steps_minus_diffusion": "EBT (trained for 2) in 2 steps\nminus diffusion in 100",
          "two_steps_minus_diffusion_two": "EBT (trained for 2) in 2 steps\nminus diffusion in 2",
          "many_minus_diffusion": "EBT (trained for 6 to 9) in 9 steps\nminus diffusion in 16",
          "many_asked_two_minus_own": "EBT (trained for 6 to 9) in 2 steps\nminus the same in 9",
          "diffusion_minus_cloning": "diffusion in 16 steps\nminus cloning",
          "many_minus_cloning": "EBT (trained for 6 to 9) in 9 steps\nminus cloning"}


def draw(
    made: Mapping[str, pd.DataFrame],  # tables of all seeds
    rates: pd.DataFrame,  # columns model, steps, value, low, high, milliseconds
    differences: Mapping[str, Mapping[str, float]],  # intervals by name
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success by steps, by milliseconds and by updates, and paired differences."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.6, 8.4))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.06])
    by_steps, by_time = top.subplots(1, 2, sharey=True)
    by_updates, pairs = bottom.subplots(1, 2)
    single = made["episodes"].groupby(["model", "asked", "seed"]).success.mean()
    for place, (kind, name) in enumerate(TRAINED.items()):
        rows = select(rates, model=kind).sort_values("steps")
        shift = 1 + 0.05 * (place - 2)
        for panel, column in ((by_steps, "steps"), (by_time, "milliseconds")):
            line = "o-" if len(rows) > 1 else "D"
            panels.error_bars(panel, rows[column] * shift, rows, ROLES[kind], fmt=line, ms=4, label=name)
            for row in rows.to_dict("records"):
                seeds = single[kind, row["steps"]]
                panel.plot([row[column] * (shift + 0.03)] * len(seeds), seeds, "o", color=colour(ROLES[kind]), ms=3, mew=0, alpha=0.6)
        during = select(made["training"], model=kind).groupby("updates")
        rows = pd.DataFrame([dict(updates=updates, **rate(part)) for updates, part in during])
        panels.error_bars(by_updates, rows.updates * (1 + 0.05 * (place - 2)), rows, ROLES[kind], fmt="o-", ms=4)
    by_steps.set(title="Success by inference steps", xlabel="inference steps", ylabel="success rate", xscale="log")
    by_time.set(title="Success by time", xlabel="milliseconds of a prediction", xscale="log")
    by_updates.set(title="Success by training", xlabel="updates", ylabel="success rate", xscale="log")
    for panel in (by_steps, by_time, by_updates):
        panels.round_ticks(panel.xaxis, (1, 2, 5))
    for panel in (by_steps, by_time, by_updates):
        panel.set(ylim=(-0.03, 1.03))
    _pairs(pairs, pd.DataFrame([dict(differences[name]) for name in LABELS]).astype(float))
    figure.legend(*by_steps.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals; points: seeds", "scripted demonstrations, small models")
    return figure


def _pairs(panel: Any, rows: pd.DataFrame) -> None:
    spans = [(rows["value"] - rows.low).fillna(0), (rows.high - rows["value"]).fillna(0)]
    panel.errorbar(rows["value"], range(len(rows)), xerr=spans, fmt="o", color=colour("truth"), capsize=3)
    panels.zero(panel, across=False)
    panels.named_ticks(panel.yaxis, LABELS.values(), fontsize=8)
    panel.set(title="Paired differences", xlabel="difference in success rate", ylim=(len(rows) - 0.5, -0.5))
    panel.grid(False, axis="y")
    panel.grid(True, axis="x")
