"""Traces of the landscape explorer, as dictionaries of plotly: always the same ones, some of them empty."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..figures.style import COLOURS
from .scenes import Slice
from .walks import THERMAL, Trajectories

__all__ = ["MAX_DISTANCE", "MAX_SAMPLERS", "SLOTS", "colour_scale", "has_density", "known_label", "levels", "plottable",
           "sampler_label", "traces"]

MAX_DISTANCE = 1e3  # in half widths of the plotted square; points further away are not plotted
SLOTS = ("transformer", "gru", "diffusion")  # colour of the first, second and third sampler
MAX_SAMPLERS = len(SLOTS)
BINS = 40  # of the histogram


def plottable(
    walks: Trajectories,  # of one sampler
) -> tuple[Tensor, Tensor]:
    """Points and energies; NaN where they are too far away, and after a walk has diverged."""
    where, lost = walks.slice, ~walks.finite.cummin(0).values.bool()
    far = (walks.points.nan_to_num(0, 0, 0).abs() > MAX_DISTANCE * where.half_width).any(-1) | lost
    points = walks.points.masked_fill(far[..., None], float("nan"))
    return points, walks.energies.masked_fill(far, float("nan"))


def levels(
    grid: tuple[Tensor, Tensor, Tensor],  # of a slice
    ceiling: float | None = None,  # highest energy that is plotted; None: that of 60% of the grid
) -> tuple[float, float]:
    """The lowest energy of the grid, and the highest one that is plotted."""
    energies = grid[2]
    return float(energies.min()), ceiling or float(energies.flatten().kthvalue(int(0.6 * energies.numel())).values)


def colour_scale(
    theme: str,  # "light" or "dark"
) -> list[list]:
    """Colours of energies; a low energy has a strong colour."""
    ebt, back = COLOURS[theme]["ebt"], COLOURS[theme]["background"]
    channels = [(int(ebt[i : i + 2], 16), int(back[i : i + 2], 16)) for i in (1, 3, 5)]
    mix = lambda share: "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in channels)
    return [[place / 4, mix(share)] for place, share in enumerate((0.75, 0.5, 0.3, 0.15, 0.04))]


def sampler_label(
    walks: Trajectories,  # of one sampler
    runs: tuple[Trajectories, ...],  # of all samplers
) -> str:
    """Name of a sampler; step size or temperature, if another one has the same name: instead of it, if all have."""
    same = [run.settings for run in runs if run.settings.sampler == walks.settings.sampler]
    differ = lambda name: len({getattr(settings, name) for settings in same}) > 1
    parts = [f"{sign} {getattr(walks.settings, name):.3g}"
             for name, sign in (("step_size", "α"), ("temperature", "T")) if differ(name)]
    return ", ".join(([] if parts and len(same) == len(runs) else [walks.settings.sampler]) + parts)


def known_label(
    walks: Trajectories,  # on an energy
) -> str:
    """Name of the known candidates; of a model, with how much of the distance from the start lies in the plane."""
    where = walks.slice
    if where.density:
        return where.known_name
    way = where.known[0] - where.starts[0]
    return f"{where.known_name}, {float((where.axes @ way).norm() / way.norm()):.0%}"


def has_density(
    walks: Trajectories,  # of all samplers
) -> bool:
    """Whether there is a thermal sampler on a plane that is the whole space."""
    return walks.slice.density and any(run.settings.sampler in THERMAL for run in walks.runs)


def traces(
    walks: Trajectories,  # of all samplers
    theme: str,  # "light" or "dark"
    grid: tuple[Tensor, Tensor, Tensor],  # of the slice
) -> list[dict[str, Any]]:
    """All traces of the figure, of the same types in the same order for all walks."""
    return [_contour(walks.slice, grid, theme), *_map(walks, theme), *_arrows(walks, theme), _dots(walks, theme, "now"),
            *_heights(walks, theme), *_histograms(walks, theme, grid)]


def _scatter(x: Any, y: Any, name: str = "", shown: bool = True, **options: Any) -> dict[str, Any]:
    """A trace of lines or markers; not in the legend if it is empty or not to be shown there."""
    return dict(type="scatter", x=x, y=y, name=name, showlegend=bool(shown and len(x))) | options


def _joined(values: Float[Tensor, "places walks"]) -> list[float | None]:
    """The walks one after the other, with a gap after each."""
    rows = ([*row, float("nan")] for row in values.T.tolist())
    return [None if value != value else value for row in rows for value in row]


def _by_slot(walks: Trajectories) -> list[Trajectories | None]:
    found = {run.slot: run for run in walks.runs}
    return [found.get(slot) for slot in range(MAX_SAMPLERS)]


def _contour(where: Slice, grid: tuple[Tensor, Tensor, Tensor], theme: str) -> dict[str, Any]:
    (x, y, energies), (low, high) = grid, levels(grid, where.ceiling)
    gap = (high - low) / 12 or 1.0
    bar = dict(title=dict(text="energy", side="top"), tickformat=".2g", nticks=7, len=400, lenmode="pixels", y=1.0,
               yanchor="top", thickness=12)
    return dict(type="contour", x=x.tolist(), y=y.tolist(), z=energies.clamp(max=high).tolist(), zmin=low, zmax=high,
                name="energy", colorscale=colour_scale(theme), line=dict(width=0.5, color=COLOURS[theme]["floor"]),
                contours=dict(start=low + gap, end=high - gap, size=gap), hovertemplate="%{z:.3g}<extra></extra>",
                colorbar=bar)


def _map(walks: Trajectories, theme: str) -> list[dict[str, Any]]:
    """Trails up to the shown step, known candidates, starts, and rejected proposals."""
    palette, shown, trails = COLOURS[theme], walks.settings.shown, []
    for slot, run in enumerate(_by_slot(walks)):
        points = plottable(run)[0][: shown + 1] if run else torch.zeros(0, 0, 2)
        trails.append(_scatter(_joined(points[..., 0]), _joined(points[..., 1]), hoverinfo="skip",
                               name=sampler_label(run, walks.runs) if run else "", **_line(palette[SLOTS[slot]])))
    known = walks.slice.points(walks.slice.known)
    star = dict(size=13, color=palette["truth"], symbol="star", line=dict(color=palette["background"], width=2))
    return [*trails, _scatter(*known.T.tolist(), known_label(walks), mode="markers", marker=star, hoverinfo="skip"),
            _dots(walks, theme, "start"), _rejected(walks, theme)]


def _line(colour: str) -> dict[str, Any]:
    return dict(mode="lines+markers", line=dict(color=colour, width=1.5), marker=dict(size=4, color=colour))


def _dots(walks: Trajectories, theme: str, name: str) -> dict[str, Any]:
    """The walks' places at the start or at the shown step."""
    palette, x, y, colours = COLOURS[theme], [], [], []
    for run in walks.runs:
        points = plottable(run)[0][0 if name == "start" else walks.settings.shown]
        points = points[points.isfinite().all(-1)]
        x, y = x + points[:, 0].tolist(), y + points[:, 1].tolist()
        colours += [palette[SLOTS[run.slot]]] * len(points)
    back = palette["background"]
    fill, edge = (back, palette["text"]) if name == "start" else (colours, back)
    return _scatter(x, y, name, name == "start", mode="markers", hoverinfo="skip",
                    marker=dict(size=11, color=fill, symbol="circle", line=dict(color=edge, width=2)))


def _rejected(walks: Trajectories, theme: str) -> dict[str, Any]:
    x, y, colours = [], [], []
    for run in walks.runs:
        refused = ~run.accepted[: walks.settings.shown]
        points = run.slice.points(run.moves.proposals[: walks.settings.shown][refused])
        points = points[(points.nan_to_num(torch.inf).abs() < MAX_DISTANCE * run.slice.half_width).all(-1)]
        x, y = x + points[:, 0].tolist(), y + points[:, 1].tolist()
        colours += [COLOURS[theme][SLOTS[run.slot]]] * len(points)
    return _scatter(x, y, "rejected", mode="markers", hoverinfo="skip",
                    marker=dict(size=7, color=colours, symbol="x-thin", line=dict(color=colours, width=1.6)))


# Arrows


def _arrows(walks: Trajectories, theme: str) -> list[dict[str, Any]]:
    """The next step of the first walk of each sampler before acceptance: its parts in a chain, and their sum."""
    palette, ends = COLOURS[theme], {name: [] for name in ("gradient", "noise", "momentum")}
    sums = [[] for _ in range(MAX_SAMPLERS)]
    for run in walks.runs if walks.settings.shown < walks.settings.steps else ():
        chain, proposal = _chain(run, walks.settings.shown)
        for name, arrow in chain.items():
            ends[name].append(arrow)
        sums[run.slot].append(proposal)
    dashes = {"gradient": "solid", "noise": "dot", "momentum": "dashdot"}
    first = next((slot for slot, found in enumerate(sums) if found), None)
    return [*(_arrow_trace(sums[slot], "proposal", palette[role], "solid", 3, slot == first)
              for slot, role in enumerate(SLOTS)),
            *(_arrow_trace(found, name, palette["truth"], dashes[name], 2, True) for name, found in ends.items())]


def _chain(run: Trajectories, step: int) -> tuple[dict[str, Tensor], Tensor]:
    """Begin and end of each part of a step of the first walk, on the plane; parts without length are left out."""
    order = ("gradient", "noise") if run.settings.sampler in THERMAL else ("momentum", "noise", "gradient")
    place, found = run.candidates[step, 0], {}
    for name in order:
        part = getattr(run.moves, name)[step, 0]
        if part.norm() > 1e-6 * run.slice.half_width:
            found[name] = run.slice.points(torch.stack([place, place + part]))
        place = place + part
    whole = torch.stack([run.candidates[step, 0], run.moves.proposals[step, 0]])
    return found, run.slice.points(whole)


def _arrow_trace(arrows: list[Tensor], name: str, colour: str, dash: str, width: float, shown: bool) -> dict[str, Any]:
    arrows = [arrow for arrow in arrows if arrow.isfinite().all()]
    x, y = ([value for arrow in arrows for value in (*arrow[:, axis].tolist(), None)] for axis in (0, 1))
    head = dict(symbol="arrow", angleref="previous", size=[0, 12, 0] * len(arrows), color=colour,
                line=dict(width=0, color=colour))
    return _scatter(x, y, name, shown, mode="lines+markers", hoverinfo="name", marker=head,
                    line=dict(color=colour, dash=dash, width=width))


# Energies by step, and histograms


def _heights(walks: Trajectories, theme: str) -> list[dict[str, Any]]:
    """Energies by step, and a dot for each walk at the shown step."""
    found, x, y, colours, shown = [], [], [], [], walks.settings.shown
    for slot, run in enumerate(_by_slot(walks)):
        heights, colour = plottable(run)[1] if run else torch.zeros(0, 0), COLOURS[theme][SLOTS[slot]]
        count = torch.arange(len(heights)).float()[:, None].expand(heights.shape)
        found.append(_scatter(_joined(count), _joined(heights), "energy", False, xaxis="x2", yaxis="y2",
                              hovertemplate="step %{x}: %{y:.4g}<extra></extra>", **_line(colour)))
        now = [value for value in heights[shown].tolist() if value == value] if run else []
        x, y, colours = x + [shown] * len(now), y + now, colours + [colour] * len(now)
    dot = dict(size=9, color=colours, symbol="circle", line=dict(color=COLOURS[theme]["background"], width=1.5))
    at = _scatter(x, y, "shown step", False, mode="markers", xaxis="x2", yaxis="y2", hoverinfo="skip", marker=dot)
    return [*found, at]


def _histograms(walks: Trajectories, theme: str, grid: tuple[Tensor, Tensor, Tensor]) -> list[dict[str, Any]]:
    """For thermal samplers: histogram of the states so far along x, and the density at their temperature."""
    bars, lines, temperatures, palette = [], [], [], COLOURS[theme]
    for slot, run in enumerate(_by_slot(walks)):
        x, y, line = [], [], ([], [])
        if run and run.slice.density and run.settings.sampler in THERMAL:
            x, y = _histogram(run, walks.settings.shown)
            if run.settings.temperature not in temperatures:
                line = marginal(grid, run.settings.temperature)
                temperatures.append(run.settings.temperature)
        bars.append(_scatter(x, y, "states", False, mode="lines", xaxis="x3", yaxis="y3", hoverinfo="skip",
                             line=dict(color=palette[SLOTS[slot]], width=1.8, shape="hvh")))
        curve = dict(color=palette["truth"], width=1.5, dash="dash")
        lines.append(_scatter(*line, "exp(−E / T)", len(temperatures) == 1, mode="lines", xaxis="x3", yaxis="y3",
                              hoverinfo="skip", line=curve))
    return [*bars, *lines]


def _histogram(run: Trajectories, shown: int) -> tuple[list[float], list[float]]:
    """Centres of the bins, and the density of the states in the plotted square up to the shown step."""
    points, half = plottable(run)[0][: shown + 1].flatten(0, 1), run.slice.half_width
    inside = ((points - torch.tensor(run.slice.centre)).abs() <= half).all(-1)
    low, width = run.slice.centre[0] - half, 2 * half / BINS
    counts = torch.histc(points[inside, 0], BINS, low, low + 2 * half)
    centres = low + width * (torch.arange(BINS) + 0.5)
    return centres.tolist(), (counts / (counts.sum().clamp_min(1) * width)).tolist()


def marginal(
    grid: tuple[Tensor, Tensor, Tensor],  # of a plane that is the whole space
    temperature: float,  # T, above 0
) -> tuple[list[float], list[float]]:
    """The density exp(-energy / T) within the plotted square along x: places, and densities with integral 1."""
    x, _, energies = grid
    weights = (-(energies - energies.min()) / temperature).exp().sum(0)
    return x.tolist(), (weights / (weights.sum() * (x[1] - x[0]))).tolist()
