"""Strips of pictures of episodes, one below the other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.style import colour

OUTCOMES = {"success": "ebt", "failure": "transformer"}


def draw(
    frames: pd.DataFrame,  # columns strip, at, pixels, energy, outcome, walk or not; empty without graphics
    labels: Mapping[str, str],  # of the strips, by name
    title: str,  # of the picture; the meaning of the frames' colours is added
) -> Any:  # the figure
    """Pictures of each episode by step, with the energy and the steps of the present chunk's walk where there are any."""
    strips = [name for name in labels if name in set(frames.strip)] if len(frames) else []
    columns = max((int((frames.strip == name).sum()) for name in strips), default=1)
    figure, grid = require("matplotlib.pyplot", "figures").subplots(
        max(1, len(strips)), columns, figsize=(9.6, 0.5 + 1.85 * max(1, len(strips))), squeeze=False)
    for panel in grid.flat:
        panel.axis("off")
    if not strips:
        grid[0, 0].text(0.5, 0.5, "no pictures: MuJoCo found no graphics library", ha="center", va="center")
    for row, name in zip(grid, strips, strict=False):
        for panel, frame in zip(row, frames[frames.strip == name].itertuples(), strict=False):
            _picture(panel, frame)
        row[0].set_ylabel(labels[name])
        row[0].axis("on")
    figure.suptitle(f"{title}\nframes: blue where the episode succeeds, orange where it fails", fontsize=10)
    return figure


def _picture(panel: Any, frame: Any) -> None:
    side = round((len(frame.pixels) / 3) ** 0.5)
    panel.imshow(np.array(frame.pixels, dtype=np.uint8).reshape(side, side, 3))
    energy = "" if pd.isna(frame.energy) else f", energy {frame.energy:.2f}"
    walk = f"\nwalk of {frame.walk:.0f} steps" if hasattr(frame, "walk") else ""
    panel.set_title(f"step {frame.at}{energy}{walk}", fontsize=8, weight="normal")
    panel.axis("on")
    panel.set(xticks=[], yticks=[])
    for side in panel.spines.values():
        side.set(visible=True, color=colour(OUTCOMES.get(frame.outcome, "grid")), linewidth=2)
