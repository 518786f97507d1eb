"""The picture of the figure `policy_remedies`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robot_remedies import WAYS
from ebwm.figures.experiment.tables import Interval
from ebwm.figures.pictures import distances
from ebwm.figures.style import colour

WALKED = {"ebt": ("ebt", "EBT-Policy, 2 steps in training"), "steps": ("gru", "EBT-Policy, 4 steps in training"),
          "proposal_full": ("diffusion", "refines cloning, 2 x weights")}
FAILED = 10  # times the error of cloning, beyond which a difference is written instead of drawn
ROLES = {way: role for way, (role, _) in WALKED.items()} | {"proposal": "diffusion"}


def draw(
    made: Mapping[str, pd.DataFrame],  # tables of all seeds
    differences: Mapping[str, Interval],  # of errors to cloning, by way
    success: Mapping[str, Interval],  # rates, by way
    costs: pd.DataFrame,  # relative to cloning, by way
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Distance to cloning by remedy with its cost, success rates, and errors by step."""
    figure, (left, middle, right) = require("matplotlib.pyplot", "figures").subplots(
        1, 3, figsize=(12, 5.6), width_ratios=[1.3, 0.8, 1.1])
    by_seed = made["item_error"].pivot_table(index="seed", columns="way", values="error")
    names = {way: (WAYS[way].title, _role(way)) for way in differences}
    distances.draw(left, by_seed.sub(by_seed["cloning"], axis=0), differences, names, costs.training_flops,
                   FAILED * by_seed["cloning"].mean())
    left.set(title="Test error minus cloning's", xlabel="SmoothL1 of a chunk")
    _success(middle, distances.nearest_first(differences), success)
    _walks(right, made)
    panels.legend_below(figure, right, 3)
    what = f"{parameters['simulator']}, {parameters['demonstrations']} demonstrations, {parameters['updates']} updates"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals; bands: ranges",
                   "scripted demonstrations, small models")
    return figure


def _role(way: str) -> str:
    return "transformer" if WAYS[way].kind == "cloning" else ROLES.get(way, "truth")


def _success(panel: Any, order: list[str], success: Mapping[str, Interval]) -> None:
    for place, way in enumerate(order):
        value, low, high = (success[way][name] for name in ("value", "low", "high"))
        panel.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color=colour(_role(way)), capsize=3)
    panel.axvline(success["cloning"]["value"], color=colour("transformer"), lw=1.2, ls="--")
    panel.set(title="Success rate", xlim=(-0.03, 1.03), yticks=range(len(order)), yticklabels=[],
              ylim=(len(order) - 0.5, -0.5))
    panel.grid(False, axis="y")
    panel.grid(True, axis="x")


def _walks(panel: Any, made: Mapping[str, pd.DataFrame]) -> None:
    mean = made["by_step"].groupby(["way", "seed", "step"], as_index=False).loss.mean()
    for way, (role, label) in WALKED.items():
        part = mean[(mean.way == way) & ((mean.step > 0) | WAYS[way].proposes)]
        panels.lines(panel, part, "step", "loss", role, label)
        at = part[part.step == WAYS[way].walk.most].loss.mean()
        panel.plot(WAYS[way].walk.most, at, "o", color=colour(role), ms=8)
    for way, style in (("cloning", "--"), ("cloning_deep", ":")):
        level = made["total"][made["total"].way == way].test_error.mean()
        panels.level(panel, level, "transformer", ls=style, label=WAYS[way].title)
    panels.logarithmic(panel)
    panel.set(title="Error by steps in the test", xlabel="steps of a walk", ylabel="SmoothL1 of a chunk")
