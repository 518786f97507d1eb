"""Distances of remedies to a reference, one below the other, with their costs."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, bounds
from ebwm.figures.style import colour


def nearest_first(
    differences: Mapping[str, Interval],  # to a reference, by way
) -> list[str]:  # ways by their difference, the least first
    """Order of the rows."""
    return sorted(differences, key=lambda way: differences[way]["value"])


def draw(
    panel: Any,  # where to draw
    single: pd.DataFrame,  # differences of single seeds [seeds ways]
    differences: Mapping[str, Interval],  # of the means, by way
    names: Mapping[str, tuple[str, str]],  # title and role of the colour, by way
    costs: Mapping[str, float],  # training FLOPs relative to the reference, by way
    far: float = math.inf,  # differences beyond it are written at the edge instead of drawn
) -> None:
    """Draw a row for each way: seeds, mean and interval of the difference, and the cost."""
    order, edge = nearest_first(differences), panel.get_yaxis_transform()
    for place, way in enumerate(order):
        value, style = differences[way]["value"], dict(color=colour(names[way][1]))
        panel.text(1.02, place, f"{costs[way]:.1f}", transform=edge, va="center", fontsize=9)
        if not abs(value) <= far:
            _off_scale(panel, place, value, transform=edge, **style)
            continue
        panel.plot(single[way], [place] * len(single), "o", ms=4, alpha=0.6, mew=0, **style)
        panel.plot(value, place, "|", ms=12, mew=2, **style)
        if found := bounds(differences[way]):
            panel.plot(found[1:], [place, place], lw=1.6, **style)
    panel.text(1.02, -0.9, "x FLOPs", transform=edge, va="center", fontsize=9)
    panels.zero(panel, across=False)
    panels.named_ticks(panel.yaxis, [names[way][0] for way in order])
    panel.set_ylim(len(order) - 0.5, -0.5)
    panel.grid(False, axis="y")
    panel.grid(True, axis="x")


def _off_scale(panel: Any, place: float, value: float, **style: Any) -> None:
    """Write a value at the edge in whose direction it lies."""
    number = (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}").replace("-", "\N{MINUS SIGN}")
    low = value < 0
    text = f"\N{LEFTWARDS ARROW} off scale: {number}" if low else f"off scale: {number} \N{RIGHTWARDS ARROW}"
    panel.text(0.01 if low else 0.99, place, text, ha="left" if low else "right", va="center", fontsize=8.5, **style)
