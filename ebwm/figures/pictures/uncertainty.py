"""The picture of the figure `uncertainty`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

KINDS = {"ebt": "EBT", "transformer": "Transformer++", "diffusion": "diffusion"}
MARKS = {"ebt": "o", "transformer": "s", "diffusion": "^"}
ORDERS = {"energy": ("ebt", "-"), "spread": ("ebt", ":"), "ensemble": ("transformer", "-"),
          "known entropy": ("floor", "--"), "oracle": ("truth", "-.")}


class Uncertainty(NamedTuple):
    """Tables and statistics of the figure."""

    by_chance: pd.DataFrame  # value, low and high by model, measure, kind of step and known probability
    left_share: pd.DataFrame  # of the samples near a future, by seed
    bins: pd.DataFrame  # calibration
    correlations: Mapping[str, tuple[str, Interval]]  # model and interval, by label
    risks: pd.DataFrame  # risk by coverage
    frames: pd.DataFrame  # images
    samples: int  # number
    weights: float  # parameters of the layers


def draw(
    found: Uncertainty,  # tables and statistics
    size: int,  # pixels on a side
    seeds: Sequence[int],  # of the run
) -> Any:  # the figure
    """Variance, energies and modes by the known probability, calibration, correlations, risk, and frames."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.6, 13.2))
    top, bottom = figure.subfigures(2, 1, height_ratios=[7.4, 1])
    grid = top.subplots(4, 2).ravel()
    _spread(grid[0], found, len(seeds))
    _energy(grid[1], found)
    _near(grid[2], found)
    _left(grid[3], found)
    _probability(grid[4], found)
    for panel in grid[:5]:
        panel.set(xlabel="known probability of left", xticks=np.sort(found.by_chance.chance.unique()))
    _calibration(grid[5], found.bins, seeds)
    _correlations(grid[6], found)
    _risks(grid[7], found.risks)
    for place in (0, 1, 7):
        grid[place].legend(fontsize=8, ncols=2, loc="upper center")
    for place in (2, 3, 4, 5):
        grid[place].legend(fontsize=8, loc="best")
    what = f"Forking digits: {found.weights / 1e6:.2f} million weights in the layers of each model"
    panels.heading(top, what, seeds, "bars: 95 % intervals")
    frames = select(found.frames, seed=seeds[0])
    panels.images(bottom, frames.assign(column=frames.column.replace("Transformer++", "Transf.++")), size)
    bottom.suptitle(f"A fork with equal probabilities, and samples of the models of seed {seeds[0]}", fontsize=10)
    return figure


def _line(panel: Any, found: Uncertainty, kind: str, name: str, label: str, role: str = "", **options: Any) -> None:
    fork = options.pop("fork", True)
    part = select(found.by_chance, model=kind, measure=name, fork=fork)
    if not part.empty:
        panels.error_bars(panel, part.chance, part, role or kind, label=label, **{"marker": MARKS[kind], "ms": 5} | options)


def _spread(panel: Any, found: Uncertainty, seeds: int) -> None:
    _line(panel, found, "ebt", "variance", "known", "truth", marker="", ls="--")
    _line(panel, found, "diffusion", "spread", "diffusion")
    _line(panel, found, "ebt", "spread", "EBT")
    _line(panel, found, "transformer", "ensemble", f"{seeds} Transformers++")
    panel.set(title=f"Variance of {found.samples} samples at forks", ylabel="variance of a number\nof the state")
    panel.set_yscale("symlog", linthresh=1e-2)
    panel.set_ylim(0, 5)


def _energy(panel: Any, found: Uncertainty) -> None:
    _line(panel, found, "ebt", "standard", "forks")
    _line(panel, found, "ebt", "standard", "straight steps", "floor", fork=False, ls="--")
    panel.set(title="Energy at the ends of walks", ylabel="energy\n(standard deviations)")
    panel.margins(y=0.25)


def _near(panel: Any, found: Uncertainty) -> None:
    for kind, name in KINDS.items():
        part = select(found.by_chance, model=kind, measure="near_none", fork=True)
        shown = pd.DataFrame(dict(value=1 - part.value, low=1 - part.high, high=1 - part.low))
        panels.error_bars(panel, part.chance, shown, kind, label=name, marker=MARKS[kind], ms=5)
    panel.set(title="Samples near a future", ylim=(-0.03, 1.03), ylabel="share within the radius\nof either future")


def _left(panel: Any, found: Uncertainty) -> None:
    panel.plot([0, 1], [0, 1], color=colour("floor"), ls="--", lw=1, label="known")
    for kind, name in KINDS.items():
        part = select(found.left_share, model=kind)
        panel.plot(part.chance, part.left, MARKS[kind], color=colour(kind), ms=6, alpha=0.75, mew=0, label=name)
    panel.set(title="Of these: the left one", ylim=(-0.03, 1.03), ylabel="share of samples\nnear a future")


def _probability(panel: Any, found: Uncertainty) -> None:
    panel.plot([0, 1], [0, 1], color=colour("floor"), ls="--", lw=1, label="known")
    for kind, name in KINDS.items():
        _line(panel, found, kind, "chance_of_left", name)
    panel.set(title="Left, by scores of both futures", ylabel="mean probability of left", ylim=(-0.03, 1.03))


def _calibration(panel: Any, bins: pd.DataFrame, seeds: Sequence[int]) -> None:
    panel.plot([0, 1], [0, 1], color=colour("floor"), ls="--", lw=1)
    for kind, name in KINDS.items():
        for seed in seeds[1:]:
            part = select(bins, model=kind, seed=seed)
            panel.plot(part.predicted, part.value, color=colour(kind), lw=0.7, alpha=0.45)
        part = select(bins, model=kind, seed=seeds[0])
        panels.error_bars(panel, part.predicted, part, kind, label=name, marker=MARKS[kind], ms=5, lw=1.2)
    panel.set(title="Its calibration", xlabel="probability of left, from scores", ylabel="share that went left",
              ylim=(-0.03, 1.03))


def _correlations(panel: Any, found: Uncertainty) -> None:
    for place, (kind, row) in enumerate(found.correlations.values()):
        low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
        panel.errorbar(row["value"], place, xerr=[[row["value"] - low], [high - row["value"]]], fmt=MARKS[kind],
                       color=colour(kind), ms=6, capsize=4)
    panels.zero(panel, across=False)
    panels.named_ticks(panel.yaxis, found.correlations, fontsize=8.5)
    panel.invert_yaxis()
    panel.set(title="Rank correlations", xlim=(-1, 1), xlabel="with the error (within)\nor the known entropy (across)")


def _risks(panel: Any, risks: pd.DataFrame) -> None:
    for order, part in risks.groupby("order", sort=False):
        role, dashes = ORDERS[order]
        panels.lines(panel, part, "coverage", "risk", role, order, linestyle=dashes)
    panel.set(title="Risk of the EBT's answers", xlabel="share of contexts answered", ylabel="SmoothL1 of the answers",
              ylim=(0, 1.6 * risks.risk.max()))
