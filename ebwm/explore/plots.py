"""Plots of the landscape explorer: interactive ones by plotly, static ones by matplotlib."""

from typing import Any

import torch

from ..checks import one_of
from ..compat import require
from ..figures.style import COLOURS, colour, style
from .marks import SLOTS, colour_scale, has_density, levels, plottable, sampler_label, traces
from .walks import Trajectories

__all__ = ["figure", "figure_parts", "frames_figure", "static_figure", "theme_layout"]

TOP, SIDE, GAP, LOW, BOTTOM = 84, 400, 48, 96, 42  # pixels: margins, the map's side, and the plots below it


def theme_layout(
    theme: str,  # "light" or "dark"
) -> dict[str, Any]:
    """Layout entries of plotly that depend on the theme."""
    palette, template = COLOURS[theme], "plotly_dark" if theme == "dark" else "plotly_white"
    back = palette["background"]
    return dict(template=template, paper_bgcolor=back, plot_bgcolor=back, font=dict(color=palette["text"]))


def _energy_range(walks: Trajectories, grid: tuple) -> list[float]:
    """Range of the axis of energies by step."""
    (low, high), heights = levels(grid, walks.slice.ceiling), [plottable(run)[1].nan_to_num(torch.inf) for run in walks.runs]
    seen = torch.cat([part[part.isfinite()] for part in heights])
    starts = heights[0][0]
    top = min(float(seen.max()), max(high, *starts[starts.isfinite()].tolist())) if len(seen) else high
    low = min(low, float(seen.min())) if len(seen) else low
    margin = 0.06 * (top - low) or 1.0
    return [low - margin, top + margin]


def _rows(below: int) -> tuple[int, list[list[float]]]:
    """Height of the plots, and the part of it for the map and for each plot below it, from the top."""
    height = SIDE + below * (GAP + LOW)
    tops = [height - SIDE - GAP - index * (GAP + LOW) for index in range(below)]
    return height, [[1 - SIDE / height, 1], *([(top - LOW) / height, top / height] for top in tops)]


def _layout(walks: Trajectories, theme: str, grid: tuple) -> dict[str, Any]:
    """Axes, sizes and colours."""
    (x, y), half, palette, steps = walks.slice.centre, walks.slice.half_width, COLOURS[theme], walks.settings.steps
    plain = dict(gridcolor=palette["grid"], zeroline=False, linecolor=palette["grid"])
    names = [dict(title=dict(text=name, standoff=6)) for name in walks.slice.axis_names]
    dtick = next(gap for gap in (1, 2, 5, 10, 20, 50) if steps <= 10 * gap)
    density = has_density(walks)
    height, (top, *low) = _rows(1 + density)
    ranges = dict(range=[x - half, x + half], domain=[0, 1])
    return dict(
        **theme_layout(theme), width=SIDE + 200, height=TOP + height + BOTTOM, uirevision=walks.settings.energy,
        modebar=dict(remove=["select2d", "lasso2d"]), margin=dict(l=70, r=130, t=TOP, b=BOTTOM),
        legend=dict(orientation="h", x=0, y=1.005, yanchor="bottom", font=dict(size=11), entrywidth=84),
        xaxis=dict(**plain, **names[0], **ranges, anchor="y"),
        yaxis=dict(**plain, **names[1], domain=top, anchor="x", range=[y - half, y + half]),
        xaxis2=dict(**plain, title=dict(text="step", standoff=4), dtick=dtick, domain=[0, 1], anchor="y2",
                    range=[-0.02 * steps, 1.02 * steps]),
        yaxis2=dict(**plain, title=dict(text="energy"), domain=low[-1], anchor="x2", range=_energy_range(walks, grid)),
        xaxis3=dict(**plain, **names[0], **ranges, anchor="y3", matches="x", visible=density),
        yaxis3=dict(**plain, title=dict(text="density"), domain=low[0] if density else [0, 1e-3], anchor="x3", rangemode="tozero",
                    visible=density),
    )


def figure_parts(
    walks: Trajectories,  # to plot
    theme: str = "light",  # or "dark"
    coarse: bool = False,  # with fewer points of the energy, unless all are known
) -> dict[str, Any]:
    """The figure as a dictionary of plotly."""
    one_of("theme", theme, COLOURS)
    grid = walks.slice.coarse_grid if coarse else walks.slice.grid
    return dict(data=traces(walks, theme, grid), layout=_layout(walks, theme, grid))


def figure(
    walks: Trajectories,  # to plot
    theme: str = "light",  # or "dark"
) -> Any:  # plotly figure
    """Plot the landscape with the walks, their states along x if there is a density, and their energy by step."""
    return require("plotly.graph_objects", "figures").Figure(figure_parts(walks, theme))


def frames_figure(
    walks: Trajectories,  # on the energy of frames
    theme: str = "light",  # or "dark"
) -> Any:  # plotly figure
    """Plot start and shown step of the first walk as images, between the last frame and the true next one."""
    one_of("theme", theme, COLOURS)
    go, frames = require("plotly.graph_objects", "figures"), walks.slice.frames
    settings = walks.settings
    start, shown = frames.image(walks.candidates[[0, settings.shown], 0].nan_to_num(0, 0, 0))
    name = "end" if settings.shown == settings.steps else f"step {settings.shown}"
    images = {"last frame": frames.last, "start": start, name: shown, "true next frame": frames.truth}
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
    (x, y, energies), high, where = walks.slice.grid, levels(walks.slice.grid, walks.slice.ceiling)[1], walks.slice
    known, colour_map = where.points(where.known), require("matplotlib.colors", "figures").LinearSegmentedColormap.from_list
    with style(theme):
        page, ax = plt.subplots(figsize=(5.2, 4.2))
        plt.close(page)
        filled = ax.contourf(x, y, energies.clamp(max=high), 12, cmap=colour_map("energy", colour_scale(theme)))
        for run in walks.runs:
            points, shade = plottable(run)[0], colour(SLOTS[run.slot])
            line, *_ = ax.plot(points[..., 0], points[..., 1], ".-", color=shade, lw=1, ms=4)
            line.set_label(sampler_label(run, walks.runs) if walks.others else None)
            ax.plot(*points[-1].T, "o", ls="", ms=9, mec=shade, mfc=shade, label=None if run.slot else "end")
        ax.plot(*points[0].T, "o", ls="", ms=9, mec=colour("text"), mfc=colour("background"), label="start")
        ax.plot(*known.T, "*", color=colour("truth"), ms=12, mec=colour("background"), label=where.known_name)
        ax.set(xlabel=where.axis_names[0], ylabel=where.axis_names[1], aspect="equal",
               title=walks.settings.energy, xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        page.colorbar(filled, label="energy")
        page.legend(loc="outside lower center", ncols=3)
    return page
