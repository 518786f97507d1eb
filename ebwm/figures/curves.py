"""Training curves: losses and health indicators of the energy by update."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ebwm.checks import instance, one_of
from ebwm.compat import require
from ebwm.figures.errors import FigureError
from ebwm.figures.style import ROLES, style
from ebwm.files import write_whole

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["draw", "save"]

PANELS = {  # key of the log: title, axis label
    "loss": ("Training loss", "{loss}, of a batch"),
    "valid_loss": ("Validation loss", "{loss}"),
    "grad_norm": ("Gradient norm", "L2, before clipping"),
    "step_size": ("Step size", "α"),
    "energy_gap": ("Energy gap", "median decrease along a walk"),
}
LAYOUTS = {1: "a", 2: "ab", 3: "abc", 4: "ab;cd", 5: "aab;cde"}
DASHES = ("-", "--", ":", "-.")
LARGEST = 1e100  # absolute value that is drawn; axes cannot show the range of float64
POINTS, WIDE = 200, 20.0  # points of a line; ratio of maximum to minimum above which the axis is logarithmic


def draw(
    logs: Mapping[str, Sequence[Mapping[str, Any]]],  # rows of each run's log, by name: "update" and numbers
    loss: str = "loss",  # name and unit of the loss
) -> "matplotlib.figure.Figure":
    """One panel for each logged quantity, one line for each run."""
    instance("logs", logs, Mapping, "must be the rows of each run's log, by its name")
    figure = require("matplotlib.figure", "figures")
    keys = [key for key in PANELS if any(key in row for rows in logs.values() for row in rows)]
    if not keys:
        raise FigureError(f"no update is logged yet in {', '.join(logs)}")
    layout = LAYOUTS[len(keys)]
    picture = figure.Figure(figsize=(3.4 * len(layout.partition(";")[0]), 2.9 * (1 + layout.count(";"))))
    picture.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    panels = picture.subplot_mosaic(layout)
    for letter, key in zip("abcde", keys, strict=False):
        _panel(panels[letter], key, logs, loss)
    lines, labels = panels["a"].get_legend_handles_labels()
    picture.legend(lines, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return picture


def save(
    logs: Mapping[str, Sequence[Mapping[str, Any]]],  # see `draw`
    path: Path,  # path with suffix .png, .svg or .pdf
    loss: str = "loss",  # name and unit of the loss
) -> None:
    """Draw the training curves, and write them to a file."""
    one_of("path.suffix", Path(path).suffix, (".png", ".svg", ".pdf"), FigureError)
    with style():
        picture = draw(logs, loss)
        write_whole(path, lambda draft: picture.savefig(draft))


def _panel(ax: "matplotlib.axes.Axes", key: str, logs: Mapping[str, Sequence[Mapping[str, Any]]], loss: str) -> None:
    title, unit = PANELS[key]
    extent = []
    for number, (name, rows) in enumerate(logs.items()):
        x, y, low, high = _thinned(rows, key)
        dashes, mark = DASHES[number // len(ROLES) % len(DASHES)], "o" if len(x) < 25 else ""
        line = ax.plot(x, y, dashes, marker=mark, markersize=3, linewidth=1.4, label=name)[0]
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        extent.extend(y)
    if extent and min(extent) > 0 and max(extent) > WIDE * min(extent):
        ax.set_yscale("log")
    ax.set(title=title, xlabel="update", ylabel=unit.format(loss=loss))


def _thinned(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, ...]:
    """Updates, and means and quartiles of the values in consecutive groups of updates."""
    pairs = [(row["update"], row[key]) for row in rows if abs(row.get(key, math.nan)) < LARGEST]
    parts = np.array_split(np.array(pairs, dtype=float).reshape(-1, 2), min(POINTS, max(1, len(pairs))))
    parts = [part for part in parts if len(part)]
    x, y = (np.array([part[:, column].mean() for part in parts]) for column in (0, 1))
    low, high = (np.array([np.quantile(part[:, 1], share) for part in parts]) for share in (0.25, 0.75))
    return x, y, low, high
