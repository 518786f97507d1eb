"""The style of all plots: colours, layout, and marks for seeds and intervals."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ebwm import checks
from ebwm.compat import require
from ebwm.figures.errors import FigureError

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.lines

__all__ = ["COLOURS", "ROLES", "colour", "points", "seeds_text", "spread", "style"]

COLOURS = {  # Okabe and Ito's palette, darkened or lightened for contrast with the background
    "light": {"ebt": "#0072b2", "transformer": "#d55e00", "gru": "#009e73", "diffusion": "#b5588f",
              "floor": "#6b7280", "truth": "#111827",
              "background": "#ffffff", "text": "#1f2937", "grid": "#e5e7eb"},
    "dark": {"ebt": "#56b4e9", "transformer": "#f08a3c", "gru": "#2fc79a", "diffusion": "#dd9bc0",
             "floor": "#9ca3af", "truth": "#f9fafb",
             "background": "#0d1117", "text": "#d1d5db", "grid": "#2a313c"},
}
ROLES = ("ebt", "transformer", "gru", "diffusion", "floor")  # order of matplotlib's colour cycle
_theme = contextvars.ContextVar("theme", default="light")


def colour(
    role: str,  # role of a line: "ebt", "transformer", "floor", ...
) -> str:
    """The colour of a role in the current theme."""
    palette = COLOURS[_theme.get()]
    checks.one_of("role", role, palette, FigureError)
    return palette[role]


@contextlib.contextmanager
def style(
    theme: str = "light",  # "light" or "dark"
) -> Iterator[None]:
    """Draw with the project's style: readable at page width, with colours that the colour-blind can distinguish."""
    checks.one_of("theme", theme, COLOURS, FigureError)
    matplotlib, token = require("matplotlib", "figures"), _theme.set(theme)
    try:
        with matplotlib.rc_context(_rc(matplotlib)):
            yield
    finally:
        _theme.reset(token)


def _rc(matplotlib: ModuleType) -> dict[str, Any]:
    families = r"^(axes|figure|font|grid|legend|lines|patch|savefig|svg|text|[xy]tick)\."
    cycle = matplotlib.cycler(color=[colour(role) for role in ROLES])
    return {**matplotlib.rcParamsDefault.find_all(families), **SHAPES, **_painted(), "axes.prop_cycle": cycle}


SHAPES = {
    "figure.figsize": (7.2, 4.0), "figure.constrained_layout.use": True, "savefig.dpi": 150,
    "svg.hashsalt": "ebwm", "svg.fonttype": "path",
    "font.size": 10.5, "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "legend.fontsize": 9.5, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "legend.frameon": False,
    "lines.linewidth": 1.8, "axes.linewidth": 0.8, "grid.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
}


def _painted() -> dict[str, str]:
    painted = {
        "background": ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "savefig.edgecolor"),
        "text": ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"),
        "grid": ("grid.color",),
    }
    return {name: colour(role) for role, names in painted.items() for name in names}


def spread(
    ax: "matplotlib.axes.Axes",  # axes to draw in
    x: ArrayLike,  # abscissas [points]
    ys: ArrayLike,  # values of each seed [seeds points]
    colour: str,  # colour of a role
    label: str,  # label in the legend
) -> "matplotlib.lines.Line2D":  # line of the means
    """Plot the mean over seeds, each seed as a thin line, and a band from minimum to maximum."""
    rows = np.atleast_2d(np.asarray(ys, dtype=float))
    if len(rows) > 1:
        ax.fill_between(x, rows.min(0), rows.max(0), color=colour, alpha=0.15, linewidth=0)
        for row in rows:
            ax.plot(x, row, color=colour, alpha=0.45, linewidth=0.7)
    return ax.plot(x, rows.mean(0), color=colour, label=label)[0]


def points(
    ax: "matplotlib.axes.Axes",  # axes to draw in
    x: float,  # abscissa
    values: ArrayLike,  # values of each seed [seeds]
    colour: str,  # colour of a role
    label: str | None = None,  # label in the legend
    interval: tuple[float, float, float] | None = None,  # value, lower bound and upper bound
) -> None:
    """Plot each seed as a point and, beside the points, an interval around a value."""
    values = np.asarray(values, dtype=float)
    ax.plot(np.full(len(values), x), values, "o", color=colour, ms=5, alpha=0.75, mew=0, label=label)
    if interval:
        value, low, high = interval
        ax.errorbar(x + 0.12, value, [[value - low], [high - value]], fmt="_", color=colour, ms=12, mew=2, capsize=4)


def seeds_text(
    seeds: Sequence[int],  # of a run
) -> str:  # "0, 1, 2", or "3 to 12" for more than five in a row
    """Seeds for titles and pages."""
    if len(seeds) > 5 and [*seeds] == [*range(seeds[0], seeds[-1] + 1)]:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
