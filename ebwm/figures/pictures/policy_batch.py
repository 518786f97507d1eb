"""The picture of the figure `policy_batch`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select

LABELS = {"batch_alone_minus_together": "over the batch:\nalone minus side by side",
          "sample_alone_minus_together": "over each chunk:\nalone minus side by side",
          "batch_minus_sample": "alone: over the batch\nless over each chunk"}

RULES = {"plain": ("ebt", "o"), "full": ("gru", "s"), "paper": ("diffusion", "^"), "authors": ("transformer", "D")}


def draw(
    success: pd.DataFrame,  # columns rule, over, batch, value, low, high
    differences: Mapping[str, Mapping[str, Interval]],  # by rule and name
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success by number of episodes side by side, and paired differences."""
    figure, (left, right) = require("matplotlib.pyplot", "figures").subplots(1, 2, figsize=(9, 4.6))
    sizes = sorted(success["batch"].unique())
    for shift, (rule, (role, mark)) in enumerate(RULES.items()):
        for over, line, fill, name in (("batch", "-", None, "the batch"), ("sample", "--", "none", "each chunk")):
            rows = select(success, rule=rule, over=over).sort_values("batch")
            places = [sizes.index(size) + 0.07 * (shift - 1.5) + (0.015 if over == "batch" else -0.015) for size in rows["batch"]]
            panels.error_bars(left, places, rows, role, fmt=mark + line, ms=5, mfc=fill, label=f"{rule}, over {name}")
    panels.named_ticks(left.xaxis, ["alone" if size == 1 else f"{size} side by side" for size in sizes])
    left.set(title="Success", ylabel="success rate", ylim=(-0.03, 1.03))
    for place, name in enumerate(LABELS):
        for shift, (rule, (role, mark)) in enumerate(RULES.items()):
            rows = pd.DataFrame([dict(differences[rule][name])])
            panels.error_bars(right, [place + 0.14 * (shift - 1.5)], rows, role, fmt=mark, label=rule if not place else None)
    panels.zero(right)
    panels.named_ticks(right.xaxis, LABELS.values(), fontsize=8)
    right.set(title="Paired differences", ylabel="difference of success rates")
    panels.legend_below(figure, left, 4, fontsize=8.5)
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, batches of {parameters['batch']}"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure
