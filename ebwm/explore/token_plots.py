"""Plots of the tokens explorer: next tokens, walks, and scores along the context."""

import html
import math
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..checks import one_of
from ..compat import require
from ..figures.style import COLOURS
from .next_token import TokensResult, entropy
from .plots import theme_layout

__all__ = ["context_figure", "next_figure", "walks_figure"]

WIDTH = 600
SHOWN = 28  # tokens of the context that are shown, the last ones
ROWS = {"energy of the token": "energy", "less that of the prediction": "excess", "bits, EBT": "bits",
        "bits, Transformer": "transformer_bits"}


def _label(result: TokensResult, token: int) -> str:
    """A token for plotly, which would read markup."""
    return html.escape(result.label(token), quote=False).replace("$", "&#36;")


def _figure(traces: list, theme: str, height: int, **layout: Any) -> Any:
    """A plotly figure in the style of a theme."""
    one_of("theme", theme, COLOURS)
    base = theme_layout(theme) | dict(width=WIDTH, height=height, modebar=dict(remove=["select2d", "lasso2d"]))
    return require("plotly.graph_objects", "figures").Figure(traces, base | layout)


def _axis(theme: str, title: str, **options: Any) -> dict[str, Any]:
    grid = COLOURS[theme]["grid"]
    return dict(title=dict(text=title, standoff=6), gridcolor=grid, linecolor=grid, zeroline=False, **options)


def next_figure(
    result: TokensResult,  # to plot
    theme: str = "light",  # or "dark"
) -> Any:  # plotly figure
    """Plot the probabilities of the most likely tokens at the shown step, beside those of the Transformer."""
    one_of("theme", theme, COLOURS)
    go, palette, settings = require("plotly.graph_objects", "figures"), COLOURS[theme], result.settings
    tokens, p, other = result.top(), result.log_p.exp(), result.transformer_log_p.exp()
    names = [_label(result, token) for token in tokens.tolist()]
    rank, high = list(range(len(tokens))), 1.05 * max(float(p.max()), float(other.max()))
    marked = [f"<b>{name}</b> ★" if token == result.truth else name
              for name, token in zip(names, tokens.tolist(), strict=True)]
    bars = lambda name, values, role: go.Bar(
        x=values[tokens].tolist(), y=rank, orientation="h", name=name, marker_color=palette[role],
        customdata=names, hovertemplate=f"%{{customdata}}: %{{x:.2%}}<extra>{name}</extra>")
    return _figure(
        [bars("EBT", p[settings.step], "ebt"), bars("Transformer", other, "transformer")], theme, 390,
        title=dict(text=f"Next token after step {settings.step} of {settings.steps}", x=0.02, font=dict(size=14)),
        barmode="group", bargap=0.25, margin=dict(l=110, r=20, t=70, b=40),
        legend=dict(orientation="h", x=0, y=1.01, yanchor="bottom", traceorder="normal"),
        xaxis=_axis(theme, "probability", tickformat=".0%", range=[0, high]),
        yaxis=_axis(theme, "", tickvals=rank, ticktext=marked, range=[len(tokens) - 0.4, -0.6]))


def _lines(result: TokensResult) -> list[tuple[str, str, str, list, str]]:
    """Lines of `walks_figure`: name, role of the colour, dash, values by step, and axis."""
    constant = lambda value: [value] * (result.settings.steps + 1)
    log_p, truth = result.transformer_log_p, result.truth
    unknown = constant(None)
    true_bits = unknown if truth is None else result.truth_bits.tolist()
    other_bits = unknown if truth is None else constant(-float(log_p[truth]) / math.log(2))
    return [("chosen walk", "ebt", "solid", result.energies[:, result.chosen].tolist(), ""),
            ("entropy, EBT", "ebt", "solid", result.entropy.tolist(), "2"),
            ("true token, EBT", "ebt", "dot", true_bits, "2"),
            ("entropy, Transformer", "transformer", "solid", constant(float(entropy(log_p))), "2"),
            ("true token, Transformer", "transformer", "dot", other_bits, "2")]


def walks_figure(
    result: TokensResult,  # to plot
    theme: str = "light",  # or "dark"
) -> Any:  # plotly figure
    """Plot the energies of all walks by step, and entropy and bits of the chosen one beside those of the Transformer."""
    one_of("theme", theme, COLOURS)
    palette, settings = COLOURS[theme], result.settings
    places = list(range(settings.steps + 1))
    scatter = lambda name, role, dash, x, y, axis="": dict(
        type="scatter", name=name, x=x, y=y, xaxis=f"x{axis}", yaxis=f"y{axis}", mode="lines+markers",
        line=dict(color=palette[role], width=2, dash=dash), marker=dict(size=5),
        hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{name}</extra>")
    walks = [value for walk in result.energies.T.tolist() for value in (*walk, None)]
    lines = [scatter("all walks", "floor", "solid", [*places, None] * settings.walks, walks)]
    lines += [scatter(name, role, dash, places, y, axis) for name, role, dash, y, axis in _lines(result)]
    now = [dict(type="line", x0=settings.step, x1=settings.step, y0=0, y1=1, xref=f"x{axis}", yref=f"y{axis} domain",
                line=dict(color=palette["text"], width=1, dash="dash")) for axis in ("", "2")]
    step = dict(dtick=max(1, settings.steps // 6), range=[-0.04 * settings.steps, 1.04 * settings.steps])
    return _figure(lines, theme, 330, shapes=now, margin=dict(l=62, r=16, t=84, b=44),
                   legend=dict(orientation="h", x=0, y=1.03, yanchor="bottom"),
                   xaxis=_axis(theme, "step", domain=[0, 0.42], anchor="y", **step),
                   yaxis=_axis(theme, "energy", anchor="x"),
                   xaxis2=_axis(theme, "step", domain=[0.57, 1], anchor="y2", **step),
                   yaxis2=_axis(theme, "bits", anchor="x2", rangemode="tozero"))


def _share(values: Float[Tensor, " n"]) -> list[float]:
    """Values scaled to the range from 0 to 1."""
    low, high = values.min(), values.max()
    return ((values - low) / (high - low).clamp(min=1e-9)).tolist()


def context_figure(
    result: TokensResult,  # to plot
    theme: str = "light",  # or "dark"
) -> Any:  # plotly figure
    """Plot energies and bits of the tokens of the context as a strip; each row has its own scale."""
    one_of("theme", theme, COLOURS)
    shown = result.tokens[1:][-SHOWN:]
    rows = {name: getattr(result.context, field)[-SHOWN:] for name, field in ROWS.items()}
    names = [f"{name} ({float(values.min()):.2g} to {float(values.max()):.2g})" for name, values in rows.items()]
    labels = [_label(result, token) for token in shown]
    strip = dict(
        type="heatmap", z=[_share(values) for values in rows.values()], zmin=0, zmax=1, showscale=False, xgap=1, ygap=3,
        colorscale=[[0, COLOURS[theme]["background"]], [1, COLOURS[theme]["ebt"]]], text=[labels] * len(rows),
        customdata=[values.tolist() for values in rows.values()],
        hovertemplate="%{text}: %{customdata:.3g}<extra></extra>")
    places = dict(tickvals=list(range(len(shown))), ticktext=labels, tickangle=-60)
    return _figure([strip], theme, 250, margin=dict(l=210, r=12, t=40, b=80),
                   title=dict(text="Tokens of the context (strong colour: high)", x=0.02, font=dict(size=14)),
                   xaxis=_axis(theme, "", **places),
                   yaxis=_axis(theme, "", tickvals=list(range(len(rows))), ticktext=names, autorange="reversed"))
