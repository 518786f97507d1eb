"""The picture of the figure `cifar10`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

KINDS = {"ebt": "EBT", "transformer": "Transformer++", "transformer_flops": "Transformer++, equal FLOPs"}
ROLES = {"ebt": "ebt", "transformer": "transformer", "transformer_flops": "gru"}


def draw(
    made: Mapping[str, pd.DataFrame],  # tables of all seeds
    floor: Mapping[str, float],  # trivial baselines
    intervals: Mapping[str, Mapping[str, Interval]],  # differences of the loss and of the lower half's error
    mean_error: float,  # error of the mean patches in the lower half
    truth: tuple[pd.DataFrame, tuple[int, int, int]],  # true images, and their shape
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Losses during training, test losses, differences, losses by patch, and completed images."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(10, 11.5))
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 1])
    grid, seeds = top.subplots(2, 3), parameters["seeds"]
    _training(grid[0, :2], made["history"], floor)
    panels.legend_below(top, grid[0, 1], 5)
    _differences(grid[0, 2], made["by_image"], "loss", intervals["loss"])
    grid[0, 2].set(title="EBT minus Transformer++", ylabel="difference in test SmoothL1")
    _by_patch(grid[1, :2], made["by_patch"], truth[1], parameters["patch"])
    _differences(grid[1, 2], made["by_image"], "half", intervals["half"])
    grid[1, 2].set(title="Lower half completed", ylabel="difference in squared error")
    grid[1, 2].set_xlabel(f"error of the mean patches: {mean_error:.3f}", fontsize=8.5)
    _images(bottom, made["shown"], truth, seeds[0])
    stand_in = panels.STAND_IN if parameters["images"] == "digits" else "small models"
    what = f"Next patches of {parameters['images']}, {parameters['patch']} by {parameters['patch']} pixels"
    panels.heading(top, what, seeds, "bands: ranges; bars: 95 % intervals over seeds and images", stand_in)
    return figure


def _training(row: Any, history: pd.DataFrame, floor: Mapping[str, float]) -> None:
    for panel, column in zip(row, ("update", "flops"), strict=True):
        for kind, name in KINDS.items():
            panels.lines(panel, select(history, model=kind), column, "valid_loss", ROLES[kind], name)
        for dashes, (name, value) in zip(("--", ":"), floor.items(), strict=True):
            if value < 2 * history.valid_loss.max():
                panels.level(panel, value, ls=dashes, label=name)
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter("")
        panels.logarithmic(panel)
    row[0].set(title="Loss by update", xlabel="update", ylabel="validation SmoothL1")
    row[1].set(title="Loss by FLOPs", xlabel="FLOPs of training")


def _differences(panel: Any, images: pd.DataFrame, column: str, intervals: Mapping[str, Interval]) -> None:
    means = images.pivot_table(index="seed", columns="model", values=column)
    for place, (kind, interval) in enumerate(zip(("transformer", "transformer_flops"), intervals.values(), strict=True)):
        panels.marks(panel, place, means.ebt - means[kind], ROLES[kind], interval)
    panels.zero(panel)
    panels.named_ticks(panel.xaxis, [name.replace("_", "\n") for name in intervals])
    panel.set_xlim(-0.4, 1.5)


def _by_patch(row: Any, losses: pd.DataFrame, shape: tuple[int, int, int], patch: int) -> None:
    across = math.ceil(shape[2] / patch)
    maps = {kind: losses[losses.model == kind].groupby("patch").loss.mean().to_numpy().reshape(-1, across)
            for kind in ("ebt", "transformer")}
    most = max(values.max() for values in maps.values())
    for panel, (kind, values) in zip(row, maps.items(), strict=True):
        panel.imshow(values, cmap="Blues", vmin=0, vmax=most)
        if values.size <= 64:
            for place, value in np.ndenumerate(values):
                dark = value > 0.6 * most
                panel.text(*place[::-1], f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                           color="#ffffff" if dark else "#111827")
        panel.set(title=f"{KINDS[kind]}: loss by patch", xticks=[], yticks=[])
        panel.grid(False)


def _images(figure: Any, shown: pd.DataFrame, truth: tuple[pd.DataFrame, tuple[int, int, int]], seed: int) -> None:
    true, shape = truth
    rows = {"truth": true} | {name: select(shown, seed=seed, model=kind) for kind, name in KINDS.items()}
    grid = figure.subplots(len(rows), len(true), squeeze=False)
    for panels_of_row, (name, images) in zip(grid, rows.items(), strict=True):
        for panel, pixels in zip(panels_of_row, images.pixels, strict=True):
            image = (np.asarray(pixels).reshape(shape).transpose(1, 2, 0) + 1) / 2
            panel.imshow(image.clip(0, 1), cmap="gray", vmin=0, vmax=1)
            panel.axhline(shape[1] / 2 - 0.5, color=colour("ebt"), lw=1)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
        panels_of_row[0].set_ylabel(name.replace(", ", ",\n"), fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle(f"Images of which the upper half is given (seed {seed})", fontsize=10)
