"""The picture of the figure `policy_data`."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES
from ebwm.figures.experiment.tables import Interval, select

NAMES = {"ebt_minus_cloning": ("EBT-Policy minus cloning", "ebt"),
         "diffusion_minus_cloning": ("diffusion minus cloning", "diffusion"),
         "ebt_minus_diffusion": ("EBT-Policy minus diffusion", "truth")}
EXPERTS = {"clean": "the expert as it is", "clumsy": "a clumsy expert"}


def draw(
    success: pd.DataFrame,  # columns style, model, count, value, low, high
    differences: Mapping[str, Mapping[str, Mapping[str, Interval]]],  # by style, name and number of demonstrations
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success and paired differences by the number of demonstrations, a row for each style of the expert."""
    plt, counts = require("matplotlib.pyplot", "figures"), sorted(success["count"].unique())
    figure, rows = plt.subplots(len(differences), 2, figsize=(9, 0.6 + 3.6 * len(differences)), squeeze=False,
                                sharex=True, sharey="col")
    for row, (style, by_name) in zip(rows, differences.items(), strict=True):
        _draw_style(*row, select(success, style=style), by_name, counts)
        row[0].set(title=f"Success, {EXPERTS[style]}", ylabel="success rate", ylim=(-0.03, 1.03))
        row[1].set(title=f"Paired differences, {EXPERTS[style]}", ylabel="difference of success rates")
    for panel in rows[-1]:
        panel.set_xlabel("demonstrations")
    what = f"{parameters['simulator']}, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure


def _draw_style(left: Any, right: Any, success: pd.DataFrame, differences: Mapping[str, Mapping[str, Interval]],
                counts: Sequence[int]) -> None:
    """Success, and paired differences of policies, of one style."""
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
        panel.set_xscale("log")
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.minorticks_off()
        panel.legend(fontsize=8, loc="best")
