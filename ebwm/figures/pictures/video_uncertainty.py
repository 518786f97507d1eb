"""The picture of the figure `video_uncertainty`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.experiment.video import NAMES
from ebwm.figures.style import colour

ROLES, MARKS = {"ebt": "ebt", "latent": "truth"}, {"ebt": "o", "latent": "D"}
LINES = {"energy": ("ebt", "o-"), "spread": ("diffusion", "^--"), "motion": ("floor", "s:")}


class VideoUncertainty(NamedTuple):
    """Tables and statistics of the figure."""

    by_place: pd.DataFrame  # value, low and high by model, step, position and measure
    positions: Mapping[str, Any]  # rank correlations within positions, by model, score and target
    inside: Mapping[str, Any] | None  # within positions and photographs, by model and score
    steps: Mapping[str, Mapping[int, Interval]]  # of energy and error, by model and step
    places: Mapping[str, Any]  # by model, score and position
    scores: Mapping[str, str]  # titles of the scores
    trained: int  # steps in training


def draw(
    found: VideoUncertainty,  # tables and statistics
    encoder: str,  # title of the encoder
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Energies by position and step, errors, and rank correlations by score, step and position."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.8, 10.8))
    grid = figure.subplots(3, 2)
    kinds = list(found.steps)
    for panel, kind in zip(grid[0], kinds, strict=False):
        _map(panel, found, kind)
    _errors(grid[1, 0], found, kinds)
    _steps(grid[1, 1], found, kinds)
    _scores(grid[2, 0], found, kinds)
    _places(grid[2, 1], found, kinds[0])
    where = "a moving camera" if parameters["video_dir"] is None else "clips of a folder"
    panels.heading(figure, f"Energies of the next features of {where}, by {encoder}", parameters["seeds"],
                   "bars: 95 % intervals", panels.status(parameters))
    return figure


def _map(panel: Any, found: VideoUncertainty, kind: str) -> None:
    part = select(found.by_place, model=kind, measure="energy")
    table = part.pivot(index="position", columns="step", values="value").to_numpy()
    room = np.ptp(table) or 1.0
    panel.imshow((table - table.min()) / room, cmap="viridis", aspect="auto", vmin=0, vmax=1)
    panels.named_ticks(panel.yaxis, range(2, len(table) + 2))
    panel.set(title=f"Energy: {NAMES[kind]}", xlabel="step of the walk", ylabel="predicted frame")
    panel.grid(False)


def _errors(panel: Any, found: VideoUncertainty, kinds: list[str]) -> None:
    for kind in kinds:
        part = select(found.by_place, model=kind, measure="error", step=found.trained)
        panels.error_bars(panel, part.position + 2, part, ROLES[kind], marker=MARKS[kind], ms=5, label=NAMES[kind])
    panel.set(title=f"Error after {found.trained} steps", xlabel="predicted frame", ylabel="SmoothL1")
    panel.set_yscale("log")
    panels.round_ticks(panel.yaxis, (1, 1.5, 2, 3, 5, 7))
    panel.legend(fontsize=8)


def _bars(panel: Any, rows: Mapping[Any, Interval], role: str, style: str, label: str, shift: float = 0.0) -> None:
    """Rank correlations at numbers."""
    table = pd.DataFrame(list(rows.values()))
    panels.error_bars(panel, [place + shift for place in rows], table, role, fmt=style, ms=5, label=label, lw=1.3)


def _steps(panel: Any, found: VideoUncertainty, kinds: list[str]) -> None:
    for place, kind in enumerate(kinds):
        _bars(panel, found.steps[kind], ROLES[kind], f"{MARKS[kind]}-", NAMES[kind], 0.08 * place)
    panels.zero(panel)
    panel.axvline(found.trained, color=colour("floor"), ls=":", lw=1.2)
    panel.set(title="Energy and error by step", xlabel="step of the walk", ylabel="rank correlation", ylim=(-1, 1))
    panel.legend(fontsize=8, loc="upper right")


def _scores(panel: Any, found: VideoUncertainty, kinds: list[str]) -> None:
    for shift, kind in zip((-0.12, 0.12), kinds, strict=False):
        for place, score in enumerate(found.scores):
            _across(panel, found.positions[kind][score]["error"], place + shift, kind, "full")
            if found.inside and score in found.inside[kind]:
                _across(panel, found.inside[kind][score], place + shift + 0.12, kind, "none")
    for fill, label in (("full", "all clips"), ("none", "within a photograph")):
        panel.plot([], [], "o", fillstyle=fill, color=colour("floor"), ms=5, label=label)
    panels.zero(panel, across=False)
    panels.named_ticks(panel.yaxis, found.scores.values(), fontsize=8.5)
    panel.invert_yaxis()
    panel.set(title="Scores and the error of the EBT", xlim=(-1, 1), xlabel="rank correlation, within a position")
    panel.legend(fontsize=8, loc="lower left")


def _across(panel: Any, row: Interval, place: float, kind: str, fill: str) -> None:
    low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
    panel.errorbar(row["value"], place, xerr=[[row["value"] - low], [high - row["value"]]], fmt=MARKS[kind],
                   color=colour(ROLES[kind]), ms=5, capsize=3, fillstyle=fill, lw=1.2)


def _places(panel: Any, found: VideoUncertainty, kind: str) -> None:
    for shift, (score, (role, style)) in enumerate(LINES.items()):
        rows = {place + 2: row for place, row in found.places[kind][score].items()}
        _bars(panel, rows, role, style, found.scores[score], 0.08 * shift)
    panels.zero(panel)
    panel.set(title=f"By position: {NAMES[kind]}", xlabel="predicted frame", ylabel="rank correlation\nwith the error",
              ylim=(-1, 1.5), yticks=(-1, -0.5, 0, 0.5, 1))
    panel.legend(fontsize=8, loc="upper center", ncols=2)
