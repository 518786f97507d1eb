"""The picture of the figure `policy_data`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES
from ebwm.figures.experiment.tables import Interval, select

NAMES = {"ebt_minus_cloning": ("EBT-Policy less cloning", "ebt"),
         "diffusion_minus_cloning": ("diffusion less cloning", "diffusion"),
         "ebt_minus_diffusion": ("EBT-Policy less diffusion", "truth")}


def draw(
    success: pd.DataFrame,  # columns model, count, value, low, high
    differences: Mapping[str, Mapping[str, Interval]],  # by name and number of demonstrations
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success and paired differences by the number of demonstrations."""
    figure, (left, right) = require("matplotlib.pyplot", "figures").subplots(1, 2, figsize=(9, 4.2))
    counts = sorted(success["count"].unique())
    for place, kind in enumerate(success.model.unique()):
        rows = select(success, model=kind).sort_values("count")
        panels.error_bars(left, rows["count"] * (1 + 0.03 * (place - 1)), rows, ROLES[kind], fmt="o-", ms=4,
                          label=KINDS[kind])
    for place, (name, (label, role)) in enumerate(NAMES.items()):
        rows = pd.DataFrame([dict(differences[name][f"count_{count}"]) for count in counts])
        shifted = [count * (1 + 0.03 * (place - 1)) for count in counts]
        panels.error_bars(right, shifted, rows, role, fmt="o-", ms=4, label=label)
    panels.zero(right)
    for panel in (left, right):
        panel.set(xscale="log", xlabel="demonstrations")
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.minorticks_off()
        panel.legend(fontsize=8, loc="best")
    left.set(title="Success", ylabel="success rate", ylim=(-0.03, 1.03))
    right.set(title="Paired differences", ylabel="difference of success rates")
    what = f"{parameters['simulator']}, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure
