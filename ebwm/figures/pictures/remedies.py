"""The picture of the figure `remedies`."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.remedies import Way
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.pictures import distances
from ebwm.figures.style import colour

SETS = {"digits": ("Moving digits", "SmoothL1"), "photographs": ("Photographs", "SmoothL1"),
        "text": ("Text in bytes", "nats per byte")}
FAR = {"photographs": 0.1}  # distances that are written instead of drawn
LOGARITHMIC = ("digits", "photographs")  # sets whose loss by steps has a logarithmic axis
WALKED = {"ebt": ("ebt", "EBT, 2 steps in training"), "steps": ("gru", "EBT, 4 steps in training"),
          "proposal_full": ("diffusion", "refines one pass, 2 x weights")}
ROLES = {way: role for way, (role, _) in WALKED.items()} | {"proposal": "diffusion"}


def draw(
    made: Mapping[str, pd.DataFrame],  # tables of all seeds
    ways: Mapping[str, Way],  # all ways
    differences: Mapping[str, Mapping[str, Interval]],  # to the Transformer++, by set and way
    costs: Mapping[str, pd.DataFrame],  # relative to the Transformer++, by set
    floors: Mapping[str, float],  # loss of repeating the last state, by set
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Distance to the Transformer++ by remedy with its cost, and losses by step, for each data set."""
    pyplot, heights = require("matplotlib.pyplot", "figures"), [2 + len(found) for found in differences.values()]
    figure, grid = pyplot.subplots(len(heights), 2, figsize=(11.2, 0.32 * sum(heights) + 1), squeeze=False,
                                   gridspec_kw=dict(width_ratios=[1.45, 1], height_ratios=heights))
    for row, name in zip(grid, differences, strict=True):
        _distances(row[0], name, made["item_loss"], ways, differences[name], costs[name])
        _walks(row[1], name, made, ways, floors.get(name))
    panels.legend_below(figure, grid[0, 1], 3)
    panels.heading(figure, f"Remedies for an EBT after {parameters['updates']} updates", parameters["seeds"],
                   "bars: 95 % intervals; bands: ranges", panels.status(parameters))
    return figure


def _distances(
    panel: Any, name: str, losses: pd.DataFrame, ways: Mapping[str, Way], differences: Mapping[str, Interval],
    costs: pd.DataFrame,
) -> None:
    by_seed = select(losses, set=name).pivot_table(index="seed", columns="way", values="loss")
    role = lambda way: "transformer" if ways[way].kind == "transformer" else ROLES.get(way, "truth")
    names = {way: (ways[way].title, role(way)) for way in differences}
    distances.draw(panel, by_seed.sub(by_seed["transformer"], axis=0), differences, names, costs.training_flops,
                   FAR.get(name, math.inf))
    title, unit = SETS[name]
    panel.set(title=f"{title}: loss minus Transformer++'s", xlabel=f"difference in test {unit}")
    panel.locator_params(axis="x", nbins=9)


def _walks(panel: Any, name: str, made: Mapping[str, pd.DataFrame], ways: Mapping[str, Way], floor: float | None) -> None:
    mean = made["by_step"].groupby(["set", "way", "seed", "step"], as_index=False).loss.mean()
    for way, (role, label) in WALKED.items():
        part = select(mean, set=name, way=way)
        part = part if ways[way].proposes else part[part.step > 0]
        panels.lines(panel, part, "step", "loss", role, label)
        at = part[part.step == ways[way].steps].loss.mean()
        panel.plot(ways[way].steps, at, "o", color=colour(role), ms=8)
    for way, style in (("transformer", "--"), ("transformer_deep", ":")):
        level = select(made["total"], set=name, way=way).test_loss.mean()
        panels.level(panel, level, "transformer", ls=style, label=ways[way].title)
    if floor is not None:
        panels.level(panel, floor, ls="-.", label="repeats the last state")
    if name in LOGARITHMIC:
        panels.logarithmic(panel)
    panel.set(title="Loss by steps in the test", xlabel="steps of a walk", ylabel=f"test {SETS[name][1]}")
