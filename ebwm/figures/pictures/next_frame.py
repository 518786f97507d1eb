"""The picture of the figure `next_frame`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

KINDS = {"ebt": "EBT", "transformer": "Transformer++"}


def draw(
    made: Mapping[str, pd.DataFrame],  # tables of all seeds
    floor: Mapping[str, float],  # trivial baselines on validation clips
    intervals: Mapping[str, Interval],  # of the difference in test loss
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Losses during training, test losses, their difference, walks, and frames along a walk."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.6, 11.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.75, 1])
    grid, seeds = top.subplots(3, 2), parameters["seeds"]
    _training(grid[0], made["history"], floor)
    _comparison(grid[1], made["test_loss"], intervals)
    for panel, column in zip(grid[2], ("energy", "loss"), strict=True):
        panels.lines(panel, made["by_step"], "step", column, "ebt")
        panel.axvline(parameters["mcmc_steps"], color=colour("floor"), lw=1, ls=":", label="steps in training")
        panel.set(xlabel="MCMC step", xticks=range(made["by_step"].step.max() + 1), title=f"{column.capitalize()} by step of the EBT")
    grid[2, 0].set_ylabel("mean energy (no unit)")
    grid[2, 0].legend()
    grid[2, 1].set_ylabel("test SmoothL1, logarithmic")
    panels.logarithmic(grid[2, 1])
    panels.legend_below(top, grid[0, 1], 5, fontsize=9)
    panels.images(bottom, select(made["frames"], seed=seeds[0]), parameters["size"])
    where = "moving digits" if parameters["video_dir"] is None else "clips of a folder"
    weights = made["test_loss"].non_embedding_parameters.max() / 1e6
    panels.heading(top, f"Next frames of {where}: {weights:.2f} million weights in the layers of each model", seeds,
                   "bands: ranges; bars: 95 % intervals", panels.status(parameters))
    bottom.suptitle(f"Frames of three test clips along their walk (seed {seeds[0]})", fontsize=10)
    return figure


def _training(row: Any, history: pd.DataFrame, floor: Mapping[str, float]) -> None:
    evaluated = history.dropna(subset="valid_loss")
    for kind, name in KINDS.items():
        part = select(evaluated, model=kind)
        seconds = part["update"].map(part.groupby("update").seconds.mean())
        panels.lines(row[0], part, "update", "valid_loss", kind, name)
        panels.lines(row[1], part.assign(seconds=seconds), "seconds", "valid_loss", kind, name)
    for dashes, (label, value) in zip(("--", "-.", ":"), floor.items(), strict=True):
        for panel in row:
            panels.level(panel, value, ls=dashes, label=label.replace("_", " "))
    row[0].set(title="Loss by optimiser step", xlabel="optimiser step", ylabel="validation SmoothL1", ylim=(0, None))
    row[1].set(title="Loss by training time", xlabel="seconds of training (mean over seeds)")
    row[1].sharey(row[0])


def _comparison(row: Any, results: pd.DataFrame, intervals: Mapping[str, Interval]) -> None:
    by_seed = results.pivot(index="seed", columns="model", values="test_loss")[list(KINDS)]
    for place, kind in enumerate(KINDS):
        panels.marks(row[0], place, by_seed[kind], kind)
    row[0].plot([0, 1], by_seed.T, color=colour("floor"), lw=0.8, zorder=0)
    row[0].set(title="Test loss, pairs of a seed", ylabel="test SmoothL1", xlim=(-0.4, 1.4), ylim=(0, None))
    panels.named_ticks(row[0].xaxis, KINDS.values())
    panels.marks(row[1], 0, by_seed.ebt - by_seed.transformer, "truth", intervals["over_seeds_and_clips"])
    panels.zero(row[1])
    row[1].set(title="EBT minus Transformer++", ylabel="difference in SmoothL1", xlim=(-0.6, 0.7))
    value, low, high = (intervals["over_seeds_and_clips"][name] for name in ("value", "low", "high"))
    bounds = "" if low is None else f":\n{value:.4f} ({low:.4f} to {high:.4f})"
    panels.named_ticks(row[1].xaxis, [f"seeds, and the 95 % interval over seeds and clips{bounds}"])
