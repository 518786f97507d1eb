"""The picture of the figure `policy_modes`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.robots import KINDS, ROLES
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour
from ebwm.policy.reach import OBSTACLE

SIDES = {"left": "ebt", "right": "gru", "failed": "transformer"}  # colours


def draw(
    episodes: pd.DataFrame,  # columns model, seed, state, side, x and y
    shares: pd.DataFrame,  # of left, right and failed, by model and seed
    coverage: Mapping[str, Interval],  # share of the rarer side, by model
    known: float,  # that of fair coins
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Paths from one state, shares of sides, and coverage of both."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9, 6.2))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    for panel, (kind, name) in zip(top.subplots(1, len(KINDS)), KINDS.items(), strict=True):
        _paths(panel, select(episodes, model=kind, seed=parameters["seeds"][0], state=_middle(episodes)))
        panel.set_title(name.replace(" trained", "\ntrained"), fontsize=9.5)
    left, right = bottom.subplots(1, 2)
    means = shares.groupby("model").mean().loc[list(KINDS)]
    below = 0
    for side, role in SIDES.items():
        left.bar(range(len(KINDS)), means[side], bottom=below, color=colour(role), label=side, width=0.7)
        below = below + means[side]
    left.set(title="Episodes by side", ylabel="share", ylim=(0, 1))
    for place, kind in enumerate(KINDS):
        rows = pd.DataFrame([dict(coverage[kind])])
        panels.error_bars(right, [place], rows, ROLES[kind], fmt="o", ms=6)
    panels.level(right, known)
    right.set(title="Share of the rarer side of a state", ylim=(-0.02, 0.52))
    for panel in (left, right):
        panels.named_ticks(panel.xaxis, [name.replace(" trained", "\ntrained") for name in KINDS.values()], fontsize=8)
    left.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=3)
    what = f"Two ways around an obstacle, {parameters['demonstrations']} demonstrations to both sides"
    panels.heading(figure, what, parameters["seeds"], "bars: 95 % intervals over seeds; dashed: fair coins", "a made task")
    return figure


def _middle(episodes: pd.DataFrame) -> int:
    """The state whose start is nearest to the middle, for the first seed."""
    first = episodes[episodes.seed == episodes.seed.min()]
    starts = first[first["sample"] == 0].groupby("state").x.first().map(lambda x: abs(x[0]))
    return int(starts.idxmin())


def _paths(panel: Any, rows: pd.DataFrame) -> None:
    circle = require("matplotlib.patches", "figures").Circle((0, 0), OBSTACLE, color=colour("floor"), alpha=0.35, lw=0)
    panel.add_patch(circle)
    for row in rows.itertuples():
        panel.plot(row.x, row.y, color=colour(SIDES[row.side]), lw=0.9)
    panel.set(aspect="equal", xlim=(-0.8, 0.8), ylim=(-1, 1), xticks=[], yticks=[])
    panel.grid(False)
