"""Animation on the home page: a walk becomes the next frame. Drawn from the record of the figure `next_frame`."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ebwm.figures.style import colour, style

SHOWN = {"context $t-1$": "frame $t-1$", "context $t$": "frame $t$", "": "candidate", "truth $t+1$": "true $t+1$"}
SECONDS, LAST = 0.8, 2.5  # of each step, and of the last


def write(
    root: Path,  # root of the repository
) -> Path:  # of the animation
    """Write the animation as GIF."""
    folder = root / "figures" / "next_frame"
    frames, walk = (pd.read_parquet(folder / f"{name}.parquet") for name in ("frames", "by_step"))
    seed = frames.seed.iloc[0]
    frames, walk = frames[frames.seed == seed], walk[walk.seed == seed]
    with style():
        pictures = [_picture(frames, walk, step) for step in walk.step]
    durations = [1000 * SECONDS] * (len(pictures) - 1) + [1000 * LAST]
    path = folder / "walk.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)
    return path


def _picture(frames: pd.DataFrame, walk: pd.DataFrame, step: int) -> Image.Image:
    """The frames and the energy after a number of steps."""
    figure = Figure(figsize=(8.4, 3.3), dpi=100)
    left, right = figure.subfigures(1, 2, width_ratios=[1.45, 1])
    _frames(left, frames, step)
    axes = right.subplots()
    axes.plot(walk.step, walk.energy, "o-", color=colour("grid"), ms=4)
    before = walk[walk.step <= step]
    axes.plot(before.step, before.energy, "o-", color=colour("ebt"), ms=4)
    axes.plot(step, before.energy.iloc[-1], "o", color=colour("ebt"), ms=10)
    axes.set(title="Energy of the candidates", xlabel="step of the walk", ylabel="mean over test clips",
             xticks=walk.step)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return Image.open(file).convert("P", palette=Image.Palette.ADAPTIVE, colors=64)


def _frames(left: Any, frames: pd.DataFrame, step: int) -> None:
    clips = frames["clip"].unique()
    grid = left.subplots(len(clips), len(SHOWN), squeeze=False)
    for row, clip in zip(grid, clips, strict=True):
        for axes, column in zip(row, SHOWN, strict=True):
            name = column or (f"step {step}" if step else "start")
            pixels = np.array(frames[(frames["clip"] == clip) & (frames.column == name)].pixels.iloc[0])
            side = round(len(pixels) ** 0.5)
            axes.imshow(pixels.reshape(side, side), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set(visible=not column, color=colour("ebt"), linewidth=2)
    for axes, title in zip(grid[0], SHOWN.values(), strict=True):
        axes.set_title(title if title != "candidate" else f"candidate, step {step}", fontsize=9.5, loc="center")
