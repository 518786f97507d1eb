"""Plots of the landscape explorer: interactive ones by plotly, static ones by matplotlib."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import one_of
from ..compat import require
from ..figures.style import COLOURS, colour, style
from .scenes import Slice
from .walks import Trajectories

__all__ = ["MAX_DISTANCE", "figure", "frames_figure", "static_figure", "theme_layout"]

MAX_DISTANCE = 1e3  # in half widths of the plotted square; points further away are not plotted


def _plottable(walks: Trajectories) -> tuple[Tensor, Tensor]:
    """Points and energies; NaN where they are too far away, and after a walk has diverged."""
    where, lost = walks.slice, ~walks.finite.cummin(0).values.bool()
    far = (walks.points.nan_to_num(0, 0, 0).abs() > MAX_DISTANCE * where.half_width).any(-1) | lost
    points = walks.points.masked_fill(far[..., None], float("nan"))
    return points, walks.energies.masked_fill(far, float("nan"))


def _joined(values: Float[Tensor, "places walks"]) -> list[float | None]:
    """The walks one after the other, with a gap after each."""
    rows = ([*row, float("nan")] for row in values.T.tolist())
    return [None if value != value else value for row in rows for value in row]


def _levels(where: Slice) -> tuple[float, float]:
    """The lowest energy of the grid, and the highest one that is plotted."""
    energies = where.grid[2]
    return float(energies.min()), float(energies.flatten().kthvalue(int(0.6 * energies.numel())).values)


def _colour_scale(theme: str) -> list[list]:
    """Colours of energies; a low energy has a strong colour."""
    ebt, back = COLOURS[theme]["ebt"], COLOURS[theme]["background"]
    channels = [(int(ebt[i : i + 2], 16), int(back[i : i + 2], 16)) for i in (1, 3, 5)]
    mix = lambda share: "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in channels)
    return [[place / 4, mix(share)] for place, share in enumerate((0.75, 0.5, 0.3, 0.15, 0.04))]


def _traces(walks: Trajectories, theme: str) -> list:
    """Traces of the same types in the same order for all walks, so that a figure can be updated in place."""
    go, palette = require("plotly.graph_objects", "figures"), COLOURS[theme]
    (x, y, energies), (low, high), where = walks.slice.grid, _levels(walks.slice), walks.slice
    points, heights = _plottable(walks)
    known, orange, gap = where.points(where.known), palette["transformer"], (high - low) / 12 or 1.0
    path = dict(mode="lines+markers", line=dict(color=orange, width=1.5), marker=dict(size=4, color=orange))
    dot = lambda size, fill, edge, symbol="circle": dict(
        size=size, color=fill, symbol=symbol, line=dict(color=edge, width=2))
    place = lambda at, name, marker: go.Scatter(
        x=at[:, 0].tolist(), y=at[:, 1].tolist(), mode="markers", name=name, marker=marker, hoverinfo="skip")
    count = torch.arange(len(heights)).float()[:, None].expand(heights.shape)
    return [
        go.Contour(x=x.tolist(), y=y.tolist(), z=energies.clamp(max=high).tolist(), zmin=low, zmax=high,
                   name="energy", colorscale=_colour_scale(theme), line=dict(width=0.5, color=palette["floor"]),
                   contours=dict(start=low + gap, end=high - gap, size=gap),
                   hovertemplate="%{z:.3g}<extra></extra>",
                   colorbar=dict(title=dict(text="energy", side="right"), tickformat=".2g", nticks=7,
                                 len=0.66, y=1.0, yanchor="top", thickness=12)),
        go.Scatter(x=_joined(points[..., 0]), y=_joined(points[..., 1]), name="walk", hoverinfo="skip", **path),
        place(known, where.known_name, dot(13, palette["truth"], palette["background"], "star")),
        place(points[0], "start", dot(11, palette["background"], orange)),
        place(points[-1], "end", dot(11, orange, palette["background"])),
        go.Scatter(x=_joined(count), y=_joined(heights), name="energy of the walk", xaxis="x2", yaxis="y2",
                   showlegend=False, hovertemplate="step %{x}: %{y:.4g}<extra></extra>", **path),
    ]


def theme_layout(
    theme: str,  # "light" or "dark"
) -> dict[str, Any]:
    """Layout entries of plotly that depend on the theme."""
    palette, template = COLOURS[theme], "plotly_dark" if theme == "dark" else "plotly_white"
    back = palette["background"]
    return dict(template=template, paper_bgcolor=back, plot_bgcolor=back, font=dict(color=palette["text"]))


def _energy_range(walks: Trajectories) -> list[float]:
    """Range of the axis of energies by step."""
    (low, high), heights = _levels(walks.slice), _plottable(walks)[1].nan_to_num(torch.inf)
    seen = heights[heights.isfinite()]
    top = min(float(seen.max()), max(high, float(heights[0].min()))) if len(seen) else high
    low = min(low, float(seen.min())) if len(seen) else low
    margin = 0.06 * (top - low) or 1.0
    return [low - margin, top + margin]


def _layout(walks: Trajectories, theme: str) -> dict[str, Any]:
    """Axes, sizes and colours."""
    (x, y), half, palette, steps = walks.slice.centre, walks.slice.half_width, COLOURS[theme], walks.settings.steps
    plain = dict(gridcolor=palette["grid"], zeroline=False, linecolor=palette["grid"])
    names = [dict(title=dict(text=name, standoff=6)) for name in walks.slice.axis_names]
    dtick = next(gap for gap in (1, 2, 5, 10, 20, 50) if steps <= 10 * gap)
    return dict(
        **theme_layout(theme), width=600, height=690, uirevision=walks.settings.energy,
        modebar=dict(remove=["select2d", "lasso2d"]),
        margin=dict(l=60, r=100, t=56, b=44), legend=dict(orientation="h", x=0, y=1.01, yanchor="bottom"),
        xaxis=dict(**plain, **names[0], domain=[0, 1], anchor="y", range=[x - half, x + half]),
        yaxis=dict(**plain, **names[1], domain=[0.34, 1], anchor="x", range=[y - half, y + half]),
        xaxis2=dict(**plain, title=dict(text="step", standoff=4), dtick=dtick, domain=[0, 1], anchor="y2",
                    range=[-0.02 * steps, 1.02 * steps]),
        yaxis2=dict(**plain, title=dict(text="energy"), domain=[0, 0.23], anchor="x2", range=_energy_range(walks)),
    )


def figure(
    walks: Trajectories,  # to plot
    theme: str = "light",  # or "dark"
) -> Any:  # plotly figure
    """Plot the landscape with the walks, and below it their energy by step."""
    one_of("theme", theme, COLOURS)
    go = require("plotly.graph_objects", "figures")
    return go.Figure(_traces(walks, theme), _layout(walks, theme))


def frames_figure(
    walks: Trajectories,  # on the energy of frames
    theme: str = "light",  # or "dark"
) -> Any:  # plotly figure
    """Plot start and end of the first walk as images, between the last frame and the true next one."""
    one_of("theme", theme, COLOURS)
    go, frames = require("plotly.graph_objects", "figures"), walks.slice.frames
    start, end = frames.image(walks.candidates[[0, -1], 0].nan_to_num(0, 0, 0))
    images = {"last frame": frames.last, "start": start, "end": end, "true next frame": frames.truth}
    edges = dict(l=10, r=10, t=30, b=10)
    figure = go.Figure(layout=dict(**theme_layout(theme), width=600, height=180, margin=edges))
    for index, (name, image) in enumerate(images.items()):
        number, left, bare = str(index + 1), index / 4, dict(visible=False, constrain="domain")
        figure.add_heatmap(z=image.tolist(), xaxis=f"x{number}", yaxis=f"y{number}", zmin=0, zmax=1,
                           name=name, colorscale="gray", showscale=False, hoverinfo="skip")
        figure.update_layout({
            f"xaxis{number}": dict(**bare, domain=[left, left + 0.23], anchor=f"y{number}"),
            f"yaxis{number}": dict(**bare, domain=[0, 1], anchor=f"x{number}", autorange="reversed",
                                   scaleanchor=f"x{number}")})
        figure.add_annotation(text=name, x=left + 0.115, y=1.0, yanchor="bottom", xref="paper",
                              yref="paper", xanchor="center", showarrow=False)
    return figure


def static_figure(
    walks: Trajectories,  # to plot
    theme: str = "light",  # or "dark"
) -> Any:  # matplotlib figure
    """Plot the landscape with the walks, for documents; without the energy by step."""
    plt = require("matplotlib.pyplot", "figures")
    (x, y, energies), high, where = walks.slice.grid, _levels(walks.slice)[1], walks.slice
    points, known = _plottable(walks)[0], where.points(where.known)
    colour_map = require("matplotlib.colors", "figures").LinearSegmentedColormap.from_list
    with style(theme):
        page, ax = plt.subplots(figsize=(5.2, 4.2))
        plt.close(page)
        back, orange = colour("background"), colour("transformer")
        filled = ax.contourf(x, y, energies.clamp(max=high), 12, cmap=colour_map("energy", _colour_scale(theme)))
        ax.plot(points[..., 0], points[..., 1], ".-", color=orange, lw=1, ms=4)
        ax.plot(*points[0].T, "o", ls="", ms=9, mec=orange, mfc=back, label="start")
        ax.plot(*points[-1].T, "o", ls="", ms=9, mec=orange, mfc=orange, label="end")
        ax.plot(*known.T, "*", color=colour("truth"), ms=12, mec=back, label=where.known_name)
        ax.set(xlabel=where.axis_names[0], ylabel=where.axis_names[1], aspect="equal",
               title=walks.settings.energy, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        page.colorbar(filled, label="energy")
        page.legend(loc="outside lower center", ncols=3)
    return page
