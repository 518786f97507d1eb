"""Panels of the figures: lines over seeds, points with intervals, logarithmic axes, maps, images and headings."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment.tables import Interval, bounds
from ebwm.figures.notebook import own_data
from ebwm.figures.style import colour, points, seeds_text, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import FigureBase
    from matplotlib.lines import Line2D

__all__ = ["STAND_IN", "adaptive", "best_of_samples", "error_bars", "heading", "images", "legend_below", "level", "lines",
           "logarithmic", "marks", "named_ticks", "number_map", "round_ticks", "status", "zero"]

STAND_IN = "stand-in data, small models"


def status(
    parameters: Mapping[str, Any],  # of a figure
) -> str:
    """Status of the data and models of a figure, for its heading: the user's own data are no stand-in."""
    return "small models" if own_data(parameters) else STAND_IN


def lines(
    panel: "Axes",  # where to draw
    frame: pd.DataFrame,  # one row for each seed and abscissa
    x: str,  # column of abscissas
    y: str,  # column of values
    role: str,  # role of the colour
    label: str = "",  # in the legend
    **style: Any,  # of the line of means
) -> "Line2D":
    """Plot the mean over seeds, single seeds, and their range."""
    table = frame.pivot_table(index=x, columns="seed", values=y, dropna=False)
    line = spread(panel, table.index.to_numpy(), table.to_numpy().T, colour(role), label)
    line.set(**style)
    return line


def marks(
    panel: "Axes",  # where to draw
    place: float,  # abscissa
    values: Sequence[float],  # of each seed
    role: str,  # role of the colour
    interval: Interval | None = None,  # of the mean
    label: str | None = None,  # in the legend
) -> None:
    """Plot each seed as a point, with an interval beside the points."""
    points(panel, place, values, colour(role), label, bounds(interval))


def error_bars(
    panel: "Axes",  # where to draw
    places: Sequence[float],  # abscissas
    rows: pd.DataFrame,  # with the columns value, low and high
    role: str,  # role of the colour
    **style: Any,  # as for `errorbar`
) -> None:
    """Plot values with their intervals; rows without bounds have bars of no length."""
    value = rows["value"].astype(float)
    low, high = ((value - rows["low"].astype(float)).fillna(0), (rows["high"].astype(float) - value).fillna(0))
    panel.errorbar(places, value, [low, high], **{"color": colour(role), "capsize": 3, **style})


def level(
    panel: "Axes",  # where to draw
    value: float,  # ordinate
    role: str = "floor",  # role of the colour
    **style: Any,  # of the line
) -> None:
    """Draw a horizontal line."""
    panel.axhline(value, **{"color": colour(role), "lw": 1.2, "ls": "--", **style})


def zero(
    panel: "Axes",  # where to draw
    across: bool = True,  # whether the line is horizontal
    **style: Any,  # of the line
) -> None:
    """Draw the line of no difference."""
    draw = panel.axhline if across else panel.axvline
    draw(0, **{"color": colour("floor"), "lw": 1, "ls": "--", **style})


def named_ticks(
    axis: "Axis",  # the abscissa or the ordinate
    names: Iterable[Any],  # of the places 0, 1, ...
    **style: Any,  # of the labels
) -> None:
    """Name the places of a panel."""
    names = [str(name) for name in names]
    axis.set_ticks(range(len(names)), names, **style)


def logarithmic(
    panel: "Axes",  # where to draw
) -> None:
    """Make the ordinate logarithmic, with few readable ticks."""
    ticker = require("matplotlib.ticker", "figures")
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    round_ticks(panel.yaxis, (1, 2, 5) if high > 10 * low else (1, 2, 3, 5))
    panel.yaxis.set_minor_locator(ticker.NullLocator())


def round_ticks(
    axis: "Axis",  # a logarithmic axis
    leading: Sequence[float] = (1, 2, 5),  # leading digits of the ticks; beyond three decades only 1
) -> None:
    """Set round ticks, written in full."""
    low, high = sorted(axis.get_view_interval())
    subs, count = (leading, 20) if high <= 1000 * low else ((1,), 7)
    axis.set_major_locator(require("matplotlib.ticker", "figures").LogLocator(subs=subs, numticks=count))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def number_map(
    panel: "Axes",  # where to draw
    shade: np.ndarray,  # [rows columns]; sets the colours
    texts: Sequence[Sequence[str]],  # text of each cell
    rows: Sequence[Any],  # names of the rows
    columns: Sequence[Any],  # names of the columns
    bold: Sequence[Sequence[bool]] | None = None,  # whether a cell is emphasised
) -> None:
    """Draw a table of texts on shaded cells."""
    least, most = np.nanmin(shade), np.nanmax(shade)
    panel.imshow(np.ma.masked_invalid(shade), cmap="Blues", aspect="auto", vmin=least - 0.2,
                 vmax=most + max(0.4, 0.3 * (most - least)))
    for row, column in np.ndindex(*np.shape(shade)):
        value = shade[row][column]
        plain = colour("text") if not np.isfinite(value) else "#111827"
        dark = np.isfinite(value) and value > least + 0.6 * (most - least)
        strong = bool(bold is not None and bold[row][column])
        panel.text(column, row, texts[row][column], ha="center", va="center", fontsize=7.5,
                   weight="bold" if strong else "normal", color="#ffffff" if dark else plain)
    named_ticks(panel.xaxis, columns)
    named_ticks(panel.yaxis, rows)
    panel.grid(False)


def images(
    figure: "FigureBase",  # where to draw
    frames: pd.DataFrame,  # columns `column` and `pixels`; rows of one column are below each other
    size: int,  # pixels on a side
) -> None:
    """Draw grey images in a grid, with the names of the columns above."""
    names = list(dict.fromkeys(frames.column))
    count = max(frames.groupby("column").size())
    grid = figure.subplots(count, len(names), squeeze=False)
    for place, name in enumerate(names):
        grid[0, place].set_title(textwrap.fill(name, 13), fontsize=8, loc="center", weight="normal")
        for panel, pixels in zip(grid[:, place], frames[frames.column == name].pixels, strict=True):
            panel.imshow(np.asarray(pixels).reshape(size, size), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)


def heading(
    figure: "FigureBase",  # the figure or a part of it
    what: str,  # first line
    seeds: Sequence[int],  # of the run
    how: str,  # meaning of marks
    where: str = STAND_IN,  # status of the data
) -> None:
    """Title of a figure: its subject, the status of its data, seeds, and the meaning of marks."""
    prefix = f"{where}; " if where else ""
    figure.suptitle(f"{what}\n{prefix}seeds {seeds_text(seeds)}; {how}", fontsize=10)


def legend_below(
    figure: "FigureBase",  # the figure or a part of it
    panel: "Axes",  # whose labels are shown
    columns: int,  # of the legend
    **style: Any,  # of the legend
) -> None:
    """One legend below all panels."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=columns, **style)


# Thinking

SAMPLES = {"min": ("ebt", "lowest energy"), "drop": ("diffusion", "largest drop"), "max": ("gru", "highest energy"),
           "random": ("floor", "random"), "oracle": ("truth", "oracle")}
STOPPING = {"loss": ("ebt", "rule"), "random": ("floor", "random stopping"), "fixed": ("truth", "equal steps")}


def best_of_samples(
    panel: "Axes",  # where to draw
    frame: pd.DataFrame,  # columns samples, by, seed and loss
    title: str,  # of the panel
) -> None:
    """Loss of the selected sample in percent of that of one sample, by the number of samples."""
    for by, (role, label) in SAMPLES.items():
        table = frame[frame.by == by].pivot_table(index="samples", columns="seed", values="loss")
        spread(panel, table.index, 100 * (table / table.iloc[0]).to_numpy().T, colour(role), label)
    panel.set(title=title, xlabel="walks to choose from", xscale="log")
    counts = sorted(frame.samples.unique())
    panel.set_xticks(counts, [f"{count:g}" for count in counts])
    panel.minorticks_off()


def adaptive(
    panel: "Axes",  # where to draw
    frame: pd.DataFrame,  # rows of `Walks.adaptive`, of several seeds
    title: str,  # of the panel
    shown: Callable[[pd.Series], pd.Series] = lambda losses: losses,  # transformation of losses
) -> None:
    """Loss by the mean number of steps: adaptive stopping, its control, and one number of steps for all."""
    for column, (role, label) in STOPPING.items():
        table = frame.assign(shown=shown(frame[column])).groupby("share")[["steps", "shown"]].mean()
        table = table.sort_values("steps")
        panel.plot(table.steps, table.shown, "o-", ms=4, color=colour(role), label=label)
    panel.set(title=title, xlabel="mean steps of a position")
