"""The picture of the figure `policy_recovery`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES
from ebwm.figures.experiment.tables import Interval, select


def draw(
    success: pd.DataFrame,  # columns model, fault, value, low, high
    episodes: pd.DataFrame,  # columns model, fault, seed, retries
    differences: Mapping[str, Mapping[str, Interval]],  # by pair and fault
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success, retries and paired differences by fault."""
    figure, (left, middle, right) = require("matplotlib.pyplot", "figures").subplots(1, 3, figsize=(9.6, 4.2))
    faults = list(next(iter(differences.values())))
    models = [kind for kind in KINDS if kind in set(success.model)]
    for place, kind in enumerate(models):
        spots = [spot + 0.14 * (place - 1.5) for spot in range(len(faults))]
        rows = select(success, model=kind).set_index("fault").loc[faults]
        panels.error_bars(left, spots, rows, ROLES[kind], fmt="o", ms=5, label=KINDS[kind])
        means = select(episodes, model=kind).groupby(["fault", "seed"]).retries.mean()
        for spot, fault in zip(spots, faults, strict=True):
            panels.marks(middle, spot, means.loc[fault].to_numpy(), ROLES[kind])
    for place, (name, role) in enumerate((("ebt_minus_diffusion", "diffusion"), ("ebt_minus_cloning", "transformer"))):
        rows = pd.DataFrame([dict(differences[name][fault]) for fault in faults])
        label = f"EBT-Policy minus {KINDS[name.removeprefix('ebt_minus_')]}"
        panels.error_bars(right, [spot + 0.14 * (place - 0.5) for spot in range(len(faults))], rows, role, fmt="o", label=label)
    panels.zero(right)
    left.set(title="Success", ylabel="success rate", ylim=(-0.03, 1.03))
    middle.set(title="Retries (seeds)", ylabel="retries in an episode")
    right.set(title="Paired differences", ylabel="difference of success rates")
    right.legend(fontsize=8)
    for panel in (left, middle, right):
        panels.named_ticks(panel.xaxis, ["no fault" if fault == "none" else fault for fault in faults])
    panels.legend_below(figure, left, len(models))
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations without faults"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure
