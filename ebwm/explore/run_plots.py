"""Plots of the training explorer: one figure for each quantity, one line for each run."""

from typing import Any

from ..checks import one_of
from ..figures.style import COLOURS, ROLES
from .plots import theme_layout
from .runs import MAX_RUNS, Curve, RunCurves, TrainingResult

__all__ = ["quantity_figure"]

LINES = (*ROLES, "truth")  # roles of the colours of runs
NOTHING = Curve([], [], [])
MAX_FAULTS = 50  # marks of a run, the last ones


def _traces(one: RunCurves | None, label: str, colour: str, legend: bool) -> list[dict[str, Any]]:
    """Values, moving average, validation loss and faults of a run; empty if there is none."""
    name, curve = ("", NOTHING) if one is None else (one.name, one.curves.get(label, NOTHING))
    loss = one is not None and label == "loss"
    valid, faults = (one.valid if loss else NOTHING), (_faults(one, curve) if loss else ([], [], []))
    smooth = curve.smooth != curve.values
    base = dict(type="scatter", name=name, legendgroup=name, showlegend=False)
    hover = lambda what="": f"update %{{x}}: %{{y:.4g}}<extra>{name}{what}</extra>"
    line = lambda **style: dict(color=colour, **style)
    return [
        base | dict(x=curve.updates if smooth else [], y=curve.values if smooth else [], mode="lines", opacity=0.3,
                    line=line(width=1), hoverinfo="skip"),
        base | dict(x=curve.updates, y=curve.smooth, mode="lines" if len(curve.updates) > 1 else "markers",
                    line=line(width=2), marker=line(size=6), showlegend=legend and bool(name),
                    hovertemplate=hover()),
        base | dict(x=valid.updates, y=valid.values, mode="lines+markers", line=line(width=1.5, dash="dot"),
                    marker=line(size=7, symbol="diamond"), hovertemplate=hover(", validation")),
        base | dict(x=faults[0], y=faults[1], text=faults[2], mode="markers", marker=line(size=9, symbol="x-thin-open"),
                    hovertemplate="update %{x}: %{text}<extra></extra>"),
    ]


def _faults(one: RunCurves, curve: Curve) -> tuple[list[int], list[float | None], list[str]]:
    """Updates, places and kinds of the last faults; each is placed on the curve."""
    last = [event for event in one.faults if curve.updates][-MAX_FAULTS:]
    nearest = [min(range(len(curve.updates)), key=lambda at: abs(curve.updates[at] - event["update"])) for event in last]
    return [event["update"] for event in last], [curve.smooth[at] for at in nearest], [event["kind"] for event in last]


def quantity_figure(
    result: TrainingResult,  # to plot
    label: str,  # of the quantity
    theme: str = "light",  # or "dark"
    legend: bool = True,  # show the names of the runs
) -> dict[str, Any]:  # plotly figure as a dictionary
    """Plot a quantity by update: lines are runs, faint lines the values without smoothing, diamonds the validation loss."""
    one_of("theme", theme, COLOURS)
    palette = COLOURS[theme]
    runs = [*result.runs, *[None] * (MAX_RUNS - len(result.runs))]
    traces = [trace for one, role in zip(runs, LINES, strict=True)
              for trace in _traces(one, label, palette[role], legend)]
    losses = {one.run.loss for one in result.runs}
    unit = losses.pop() if label == "loss" and len(losses) == 1 else ""
    axis = dict(gridcolor=palette["grid"], linecolor=palette["grid"], zeroline=False)
    title = dict(text=f"{label} ({unit})" if unit else label, x=0.02, y=0.98, yanchor="top", font=dict(size=14))
    return dict(data=traces, layout=dict(
        **theme_layout(theme), width=600, height=280 if legend else 250, uirevision=label, title=title,
        margin=dict(l=64, r=16, t=64 if legend else 34, b=40), modebar=dict(remove=["select2d", "lasso2d"]),
        legend=dict(orientation="h", x=0, y=1.01, yanchor="bottom"),
        xaxis=dict(**axis, title=dict(text="update", standoff=4), rangemode="tozero"),
        yaxis=dict(**axis, type="log" if result.settings.log else "linear", tickformat="~g", exponentformat="power")))
