"""The picture of the figure `policy_tasks`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES
from ebwm.figures.experiment.tables import Interval, select

NAMES = {"ebt_minus_diffusion": ("EBT-Policy minus diffusion", "diffusion"),
         "ebt_few_minus_diffusion": ("EBT-Policy trained for 2 steps, minus diffusion", "gru"),
         "ebt_minus_cloning": ("EBT-Policy minus cloning", "transformer"),
         "diffusion_minus_cloning": ("diffusion minus cloning", "truth")}


def draw(
    success: pd.DataFrame,  # columns model, task, value, low, high
    differences: Mapping[str, Mapping[str, Interval]],  # by pair and short name of a task
    short: Mapping[str, str],  # names of the tasks
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Success and paired differences by task."""
    figure, (left, right) = require("matplotlib.pyplot", "figures").subplots(1, 2, figsize=(9.6, 5.2))
    tasks = range(len(short))
    for place, (kind, name) in enumerate(KINDS.items()):
        rows = select(success, model=kind).set_index("task").loc[list(short)]
        panels.error_bars(left, [task + 0.13 * (place - 2) for task in tasks], rows, ROLES[kind], fmt="o", ms=5, label=name)
    for place, (name, (label, role)) in enumerate(NAMES.items()):
        rows = pd.DataFrame([dict(differences[name][task]) for task in short.values()])
        panels.error_bars(right, [task + 0.13 * (place - 1.5) for task in tasks], rows, role, fmt="o", ms=5, label=label)
    panels.zero(right)
    left.set(title="Success", ylabel="success rate", ylim=(-0.03, 1.03))
    right.set(title="Paired differences", ylabel="difference of success rates")
    counts = [f"{name} ({count})" for name, count in zip(short.values(), parameters["demonstrations"], strict=True)]
    for panel, columns in ((left, 2), (right, 1)):
        panels.named_ticks(panel.xaxis, counts)
        panel.set(xlabel="task (demonstrations)")
        panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.18), ncols=columns)
    what = f"robosuite from states, {parameters['episodes']} episodes a seed"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals", "scripted demonstrations, small models")
    return figure
