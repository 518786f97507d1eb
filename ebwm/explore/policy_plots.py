"""Plots of the policy explorer, as dictionaries of plotly."""

from typing import Any

import numpy as np

from ..figures.style import COLOURS
from ..policy.reach import OBSTACLE, RADIUS
from .episodes import Episode
from .plots import theme_layout

__all__ = ["SCALE", "chunks_figure", "energy_figure"]

GRID = np.linspace(-1.05, 1.05, 43)  # places that can be clicked
SCALE = [[0.0, "#3e4989"], [0.25, "#2f6c8e"], [0.5, "#21918c"], [0.75, "#44bf70"], [1.0, "#9bd93c"]]  # inner part of viridis


def chunks_figure(
    episode: Episode,  # to draw
    theme: str,  # "light" or "dark"
) -> dict[str, Any]:
    """The path so far, the candidate chunks and the chosen one, obstacle and goal; a click anywhere counts."""
    palette, choice, step = COLOURS[theme], episode.choice, episode.step
    path, here = episode.path[: step + 1], episode.path[step]
    clicks = dict(type="heatmap", x=GRID.tolist(), y=GRID.tolist(), z=np.zeros((len(GRID), len(GRID))).tolist(),
                  opacity=0.0, showscale=False, hoverinfo="none", name="places")
    end = episode.touched and step == len(episode.path) - 1
    line = lambda places, name, **style: dict(type="scatter", x=places[:, 0].tolist(), y=places[:, 1].tolist(),
                                              name=name, hoverinfo="skip", **style)
    data = [clicks, _energy_bar(choice.energies), *_candidates(episode, palette),
            line(choice.chunk, "executed chunk", mode="lines", line=dict(color=palette["text"], width=4)),
            line(path, "path", mode="lines", line=dict(color=palette["ebt"], width=3)),
            line(here[None], "point", mode="markers",
                 marker=dict(size=15, color=palette["transformer" if end else "ebt"]))]
    circle = lambda centre, radius, colour, filled: dict(
        type="circle", x0=centre[0] - radius, x1=centre[0] + radius, y0=centre[1] - radius, y1=centre[1] + radius,
        line=dict(color=colour, width=2), fillcolor=colour, opacity=filled, layer="below")
    x, y = (float(value) for value in episode.goal)
    axis = dict(range=[-1.05, 1.05], visible=False, fixedrange=True)
    walls = dict(type="rect", x0=-1.05, x1=1.05, y0=-1.05, y1=1.05, line=dict(color=palette["grid"], width=2), layer="below")
    layout = dict(**theme_layout(theme), width=600, height=590, margin=dict(l=10, r=80, t=60, b=10),
                  xaxis=axis, yaxis=axis | dict(scaleanchor="x"), uirevision="episode",
                  shapes=[walls, circle((0.0, 0.0), OBSTACLE, palette["floor"], 0.6), circle((x, y), RADIUS, palette["ebt"], 0.4)],
                  annotations=_annotations(episode, palette), legend=dict(orientation="h", x=0, y=1.01, yanchor="bottom"))
    return dict(data=data, layout=layout)


def _candidates(episode: Episode, palette: dict[str, str]) -> list[dict[str, Any]]:
    """One trace for each of 16 candidates, those that are not drawn without points; coloured by energy."""
    choice, traces = episode.choice, []
    energies = choice.energies
    low, span = (float(energies.min()), float(np.ptp(energies)) or 1.0) if energies is not None else (0.0, 1.0)
    for number in range(16):
        drawn = number < len(choice.samples)
        places = choice.samples[number] if drawn else np.zeros((0, 2))
        share = (float(energies[number]) - low) / span if drawn and energies is not None else 0.5
        hover = f"energy {energies[number]:.3g}" if drawn and energies is not None else "candidate"
        traces.append(dict(type="scatter", x=places[:, 0].tolist(), y=places[:, 1].tolist(), mode="lines", name="candidates",
                           legendgroup="candidates", showlegend=number == 0, hovertemplate=hover + "<extra></extra>",
                           line=dict(color=_colour(share) if energies is not None else palette["diffusion"], width=1.5)))
    return traces


def _energy_bar(energies: np.ndarray | None) -> dict[str, Any]:
    """A trace without points, with the scale of energies."""
    low, high = (0.0, 1.0) if energies is None else (float(energies.min()), float(energies.max()))
    bar = dict(title=dict(text="energy", side="right"), thickness=12, len=0.5, tickformat=".3g", nticks=5)
    return dict(type="scatter", x=[None], y=[None], mode="markers", showlegend=False, hoverinfo="skip",
                marker=dict(color=[low], cauto=False, cmin=low, cmax=max(high, low + 1e-9), colorscale=SCALE,
                            showscale=energies is not None, colorbar=bar))


def _colour(share: float) -> str:
    """A colour of SCALE; a low energy is dark."""
    places = [place for place, _ in SCALE]
    channels = [[int(colour[i:i + 2], 16) for _, colour in SCALE] for i in (1, 3, 5)]
    return "#" + "".join(f"{round(np.interp(share, places, values)):02x}" for values in channels)


def _annotations(episode: Episode, palette: dict[str, str]) -> list[dict[str, Any]]:
    """Names of obstacle and goal; the push as an arrow, from the step of the push on."""
    settings, (x, y) = episode.settings, episode.goal.tolist()
    plain = dict(showarrow=False, font=dict(color=palette["text"]))
    names = [dict(x=0.0, y=0.0, text="obstacle", **plain), dict(x=x, y=y + RADIUS, yanchor="bottom", text="goal", **plain)]
    if not settings.push_at or episode.step < settings.push_at or settings.push_at >= len(episode.path):
        return names
    end = episode.path[settings.push_at]
    return [*names, dict(x=float(end[0]), y=float(end[1]), ax=float(end[0]) - settings.push_x, ay=float(end[1]) - settings.push_y,
                         xref="x", yref="y", axref="x", ayref="y", text="push", showarrow=True, arrowhead=2, arrowwidth=2,
                         arrowcolor=palette["transformer"], font=dict(color=palette["transformer"]))]


def energy_figure(
    episode: Episode,  # to draw
    theme: str,  # "light" or "dark"
) -> dict[str, Any]:
    """Energies of the whole episode, those after the shown step faint: of the executed chunks, and of the candidates."""
    palette, step, choices = COLOURS[theme], episode.step, episode.choices
    spread = [[choice.at, float(energy)] for choice in choices for energy in choice.energies]
    points = dict(type="scatter", x=[x for x, _ in spread], y=[y for _, y in spread], mode="markers", name="candidates",
                  marker=dict(size=5, color=palette["floor"]), hoverinfo="skip")
    whole, past = _held(episode, len(episode.path) - 1), _held(episode, step)
    line = dict(type="scatter", mode="lines", line=dict(color=palette["ebt"], shape="hv", width=2))
    later = line | dict(x=whole[0], y=whole[1], name="later", opacity=0.35, showlegend=False,
                        hovertemplate="step %{x}: %{y:.3g}<extra></extra>")
    sofar = line | dict(x=past[0], y=past[1], name="executed chunk", hoverinfo="skip")
    here = dict(type="scatter", x=[step], y=[episode.choice.energy], mode="markers", name="shown step", hoverinfo="skip",
                showlegend=False, marker=dict(size=10, color=palette["ebt"]))
    now = dict(type="line", x0=step, x1=step, yref="paper", y0=0, y1=1, line=dict(color=palette["transformer"], width=2))
    plain = dict(gridcolor=palette["grid"], zeroline=False)
    layout = dict(**theme_layout(theme), width=600, height=240, margin=dict(l=60, r=10, t=40, b=44), shapes=[now],
                  xaxis=dict(**plain, title=dict(text="time step"), range=[-1, len(episode.path)]),
                  yaxis=dict(**plain, title=dict(text="energy")),
                  legend=dict(orientation="h", x=0, y=1.01, yanchor="bottom"))
    return dict(data=[later, sofar, points, here], layout=layout)


def _held(episode: Episode, last: int) -> tuple[list[int], list[float]]:
    """Steps up to the last one at which a chunk was chosen, and its energy, which holds up to the last step."""
    choices = [choice for choice in episode.choices if choice.at <= last]
    return [*(choice.at for choice in choices), last], [*(choice.energy for choice in choices), choices[-1].energy]
