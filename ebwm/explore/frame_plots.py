"""Plots of the frames explorer: interactive ones by plotly, static ones by matplotlib."""

import base64
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import one_of
from ..compat import require
from ..figures.style import COLOURS, colour, style
from .frame_walks import FramesResult
from .play import png
from .plots import theme_layout

__all__ = ["COLUMNS", "curves_figure", "images_figure", "shown_steps", "static_figure"]

COLUMNS = 9  # maximum number of steps with images
MOST = 0.25  # standard deviation over the walks that has the full colour
WIDTH, LEFT, RIGHT = 600, 62, 12  # of a figure and of its margins, in pixels


def shown_steps(
    result: FramesResult,  # to plot
) -> list[int]:  # in ascending order
    """At most COLUMNS steps from the first to the last, evenly spaced."""
    steps = result.settings.steps
    columns = min(steps + 1, COLUMNS)
    return [round(index * steps / (columns - 1)) for index in range(columns)]


def _rows(
    images: Float[Tensor, "rows columns height width colours"],  # colours: any number of values of a pixel
) -> Float[Tensor, "down across colours"]:
    """Images in rows and columns, with gaps of one pixel that are not a number."""
    padded = torch.nn.functional.pad(images, (0, 0, 0, 1, 0, 1), value=math.nan)
    return padded.transpose(1, 2).flatten(2, 3).flatten(0, 1)[:-1, :-1]


def _coloured(result: FramesResult, images: Tensor) -> Float[Tensor, "*n height width 3"]:
    """Images with three colours."""
    return images if result.truth.ndim == 3 else images[..., None].expand(*images.shape, 3)


def _pixels(images: Float[Tensor, "rows columns height width 3"], number: int, name: str, theme: str) -> dict[str, Any]:
    """Images in rows and columns as a trace; gaps have the colour of the background."""
    joined, background = _rows(images), COLOURS[theme]["background"].lstrip("#")
    gap = torch.tensor([int(background[place:place + 2], 16) for place in (0, 2, 4)]) / 255
    frame = (joined.where(joined.isfinite(), gap) * 255).round().byte().numpy()
    source = f"data:image/png;base64,{base64.b64encode(png(frame)).decode()}"
    return dict(type="image", source=source, name=name, xaxis=f"x{number}", yaxis=f"y{number}", hoverinfo="skip",
                zsmooth=False)


def _strengths(images: Float[Tensor, "columns height width"], number: int, theme: str) -> dict[str, Any]:
    """Standard deviations of the pixels of images in a row as a trace."""
    scale = [[0, COLOURS[theme]["background"]], [1, COLOURS[theme]["ebt"]]]
    z = [[None if math.isnan(value) else round(value, 3) for value in row] for row in _rows(images[None, ..., None])[..., 0].tolist()]
    return dict(type="heatmap", z=z, name="spread", xaxis=f"x{number}", yaxis=f"y{number}", showscale=False, hoverinfo="skip",
                zmin=0, zmax=MOST, colorscale=scale)


def _tiles(result: FramesResult) -> tuple[list[Tensor], list[str]]:
    """The upper images, and their titles with the SmoothL1 to the true frame."""
    step = result.settings.step
    found = {"last frame": (result.context[-1], result.last_error),
             f"walk 1, step {step}": (result.candidates[step, 0], float(result.errors[step, 0])),
             "true next frame": (result.truth, 0.0)}
    if result.baseline is not None:
        found["Transformer++"] = result.baseline, result.baseline_error
    titles = [name if image is result.truth else f"{name}<br>SmoothL1 {error:.3f}" for name, (image, error) in found.items()]
    return [image for image, _ in found.values()], titles


def _axes(
    number: int, size: tuple[int, int], domain: list[float], columns: list[str], rows: list[str]
) -> dict[str, Any]:
    """Axes of a mosaic between two heights, with a label for each row and column."""
    (height, width), bare = size, dict(showgrid=False, zeroline=False, ticks="", showline=False, constrain="domain")
    ticks = lambda count, side: [index * (side + 1) + (side - 1) / 2 for index in range(count)]
    x = dict(**bare, tickvals=ticks(len(columns), width), ticktext=columns, anchor=f"y{number}", tickangle=0,
             range=[-1.5, len(columns) * (width + 1) - 0.5], side="top" if number == 1 else "bottom")
    y = dict(**bare, tickvals=ticks(len(rows), height), ticktext=rows, anchor=f"x{number}", domain=domain,
             range=[len(rows) * (height + 1) - 0.5, -1.5], ticklabelstandoff=4, scaleanchor=f"x{number}")
    return {f"xaxis{number}": x, f"yaxis{number}": y}


def _heights(result: FramesResult, upper: int) -> list[float]:
    """Heights in pixels of: upper images, gap, walks, gap, spread."""
    (height, width), steps = result.truth.shape[:2], len(shown_steps(result))
    mosaic = lambda rows, columns: (WIDTH - LEFT - RIGHT) * (rows * (height + 1) + 1) / (columns * (width + 1) + 1)
    return [mosaic(1, upper), 30, mosaic(result.settings.walks, steps), 8, mosaic(1, steps)]


def _marked(result: FramesResult, width: int, theme: str) -> list[dict[str, Any]]:
    """A frame around the column of the shown step, if it has one."""
    steps, step = shown_steps(result), result.settings.step
    if step not in steps:
        return []
    left = steps.index(step) * (width + 1) - 1
    rows = result.settings.walks * (result.truth.shape[0] + 1) - 1
    return [dict(type="rect", xref="x2", yref="y2", x0=left, x1=left + width + 1, y0=-1, y1=rows,
                 line=dict(color=COLOURS[theme]["transformer"], width=2))]


def images_figure(
    result: FramesResult,  # to plot
    theme: str = "light",  # or "dark"
) -> dict[str, Any]:  # plotly figure, as a dictionary
    """Plot the frames and the candidate of the shown step, and below them the candidates of all walks by step."""
    one_of("theme", theme, COLOURS)
    steps, walks = shown_steps(result), result.settings.walks
    tiles, titles = _tiles(result)
    heights, size = _heights(result, len(tiles)), tuple(result.truth.shape[:2])
    total = sum(heights)
    domain = lambda part: [max(0.0, 1 - sum(heights[:part + 1]) / total), 1 - sum(heights[:part]) / total]
    layout = dict(**theme_layout(theme), width=WIDTH, height=round(total) + 96, margin=dict(l=LEFT, r=RIGHT, t=48, b=48),
                  shapes=_marked(result, size[1], theme))
    layout |= _axes(1, size, domain(0), titles, [""])
    layout |= _axes(2, size, domain(2), [""] * len(steps), [f"walk {walk + 1}" for walk in range(walks)])
    layout |= _axes(3, size, domain(4), [str(step) for step in steps], ["spread"])
    layout["xaxis3"]["title"] = dict(text="step", standoff=4)
    frames, candidates = (_coloured(result, images) for images in (torch.stack(tiles)[None], result.candidates[steps]))
    return dict(layout=layout, data=[_pixels(frames, 1, "frames", theme),
                                     _pixels(candidates.transpose(0, 1), 2, "walks", theme),
                                     _strengths(result.spread[steps], 3, theme)])


def _joined(values: Float[Tensor, "places walks"]) -> list[float | None]:
    """The walks one after the other, with a gap after each."""
    rows = [[*row, float("nan")] for row in values.T.tolist()]
    return [value if math.isfinite(value) else None for row in rows for value in row]


def _levels(result: FramesResult) -> dict[str, tuple[float | None, str, str]]:
    """Errors that do not depend on the step: value, role of the colour, dash."""
    return {"last frame": (result.last_error, "floor", "dash"),
            "Transformer++": (result.baseline_error, "transformer", "dot")}


def curves_figure(
    result: FramesResult,  # to plot
    theme: str = "light",  # or "dark"
) -> dict[str, Any]:  # plotly figure, as a dictionary
    """Plot energies and errors of the walks by step, and those of the last frame and the Transformer++."""
    one_of("theme", theme, COLOURS)
    palette, steps = COLOURS[theme], result.settings.steps
    x = _joined(torch.arange(steps + 1.0)[:, None].expand(result.errors.shape))
    walk = dict(type="scatter", x=x, mode="lines+markers", line=dict(color=palette["ebt"], width=1.5),
                marker=dict(size=4))
    traces = [dict(**walk, y=_joined(result.energies), name="energy", showlegend=False, xaxis="x", yaxis="y",
                   hovertemplate="step %{x}: %{y:.4g}<extra></extra>"),
              dict(**walk, y=_joined(result.errors), name="walks of the EBT", xaxis="x2", yaxis="y2",
                   hovertemplate="step %{x}: %{y:.3f}<extra></extra>")]
    for name, (value, role, dash) in _levels(result).items():
        traces.append(dict(type="scatter", x=[0, steps], y=[value, value], name=name, mode="lines", xaxis="x2",
                           yaxis="y2", visible=value is not None, hoverinfo="skip",
                           line=dict(color=palette[role], width=2, dash=dash)))
    return dict(data=traces, layout=_curves_layout(result, theme))


def _curves_layout(result: FramesResult, theme: str) -> dict[str, Any]:
    palette, steps, step = COLOURS[theme], result.settings.steps, result.settings.step
    plain = dict(gridcolor=palette["grid"], zeroline=False, linecolor=palette["grid"])
    dtick = next(gap for gap in (1, 2, 5, 10) if steps <= 10 * gap)
    across = dict(**plain, range=[-0.03 * steps, 1.03 * steps], dtick=dtick, title=dict(text="step", standoff=4))
    mark = [dict(type="line", xref=f"x{axis}", yref=f"y{axis} domain", x0=step, x1=step, y0=0, y1=1,
                 line=dict(color=palette["text"], width=1)) for axis in ("", "2")]
    return dict(
        **theme_layout(theme), width=WIDTH, height=290, margin=dict(l=LEFT, r=RIGHT, t=40, b=46), shapes=mark,
        legend=dict(orientation="h", x=1, xanchor="right", y=1.02, yanchor="bottom"),
        xaxis=dict(**across, domain=[0, 0.42], anchor="y"), yaxis=dict(**plain, title=dict(text="energy")),
        xaxis2=dict(**across, domain=[0.56, 1], anchor="y2"),
        yaxis2=dict(**plain, title=dict(text="SmoothL1", standoff=4), anchor="x2", rangemode="tozero"))


def static_figure(
    result: FramesResult,  # to plot
    theme: str = "light",  # or "dark"
) -> Any:  # matplotlib figure
    """Plot the frames, the candidates of all walks by step, and the errors, for documents."""
    plt = require("matplotlib.pyplot", "figures")
    steps, walks = shown_steps(result), result.settings.walks
    with style(theme):
        page = plt.figure(figsize=(7.2, 1.6 + 0.75 * walks + 2.2))
        plt.close(page)
        upper, middle, lower = page.subfigures(3, 1, height_ratios=[1.6, 0.75 * walks, 2.2])
        for ax, image, title in zip(upper.subplots(1, 4).flat, *_tiles(result), strict=False):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set_title(title.replace("<br>", "\n"), loc="center", fontsize=9, fontweight="normal")
        for row, axes in enumerate(middle.subplots(walks, len(steps), squeeze=False)):
            for step, ax in zip(steps, axes, strict=True):
                ax.imshow(result.candidates[step, row], cmap="gray", vmin=0, vmax=1)
                ax.set_title(f"step {step}" if row == 0 else "", loc="center", fontsize=9, fontweight="normal")
        for ax in (*upper.axes, *middle.axes):
            ax.axis("off")
        _draw_errors(lower.subplots(), result)
    return page


def _draw_errors(ax: Any, result: FramesResult) -> None:
    ax.plot(result.errors, ".-", color=colour("ebt"), label="walks of the EBT")
    for name, (value, role, _) in _levels(result).items():
        if value is not None:
            ax.axhline(value, color=colour(role), ls="--", label=name)
    ax.set(xlabel="step", ylabel="SmoothL1", ylim=(0, None))
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend(handles.values(), handles.keys())
