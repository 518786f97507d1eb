"""The picture of the figure `video_scaling`."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.evaluation.statistics import PowerLaw
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.video import NAMES
from ebwm.figures.pictures.text_scaling import written
from ebwm.figures.style import colour

ROLES = {"transformer": "transformer", "ebt": "ebt", "latent": "truth", "s1": "ebt"}
MARKS = {"transformer": "s", "ebt": "o", "latent": "D", "s1": "o"}
TITLES = {"updates": "Updates", "clips": "Clips", "parameters": "Parameters", "flops": "FLOPs"}
LABELS = {"updates": "updates of one model", "clips": "different training clips", "parameters": "weights in the layers",
          "flops": "training FLOPs, counted"}
REACH = (-250, 250)  # of the percentages


class VideoScaling(NamedTuple):
    """Tables and statistics of the figure."""

    points: Mapping[str, Mapping[str, pd.DataFrame]]  # scores of single seeds, by axis and model
    laws: Mapping[str, Mapping[str, PowerLaw]]  # by axis and model
    columns: Mapping[str, str]  # of the points, by axis
    percent: Mapping[str, Any]  # intervals by axis and model
    floor: float  # loss of repeating the last state
    paper: Mapping[str, str]  # figures of the paper, by axis
    paper_laws: Mapping[str, Mapping[str, PowerLaw]]  # by axis and model
    paper_percent: Mapping[str, Mapping[str, float]]  # by axis


def draw(
    found: VideoScaling,  # tables and statistics
    encoder: str,  # title of the encoder
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Losses by each axis, the paper's points by parameters, and percentages."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.8, 10.8))
    grid = figure.subplots(3, 2).ravel()
    for panel, axis in zip(grid, found.laws, strict=False):
        _ours(panel, found, axis)
    _theirs(grid[4], found)
    _percentages(grid[5], found)
    panels.legend_below(figure, grid[0], 4, fontsize=8.5)
    where = "a moving camera" if parameters["video_dir"] is None else "clips of a folder"
    panels.heading(figure, f"Next features of {where}, by {encoder}", parameters["seeds"],
                   "lines: power laws; bars: 95 % intervals", panels.status(parameters))
    return figure


def _line(panel: Any, law: PowerLaw, kind: str, label: str | None = None) -> None:
    x = np.geomspace(min(law.x), max(law.x), 30)
    panel.plot(x, law(x), color=colour(ROLES[kind]), lw=1.4, label=label)


def _log_axes(panel: Any, places: Iterable[float]) -> None:
    places = sorted(set(places))
    panel.set(xscale="log", yscale="log")
    apart = [place for index, place in enumerate(places) if not index or place > 1.25 * places[index - 1]]
    panel.set_xticks(apart, [written(float(f"{place:.2g}")) for place in apart], fontsize=7.5)
    panel.minorticks_off()
    panels.round_ticks(panel.yaxis, (1, 1.5, 2, 3, 5, 7))


def _ours(panel: Any, found: VideoScaling, axis: str) -> None:
    places = []
    for kind, law in found.laws[axis].items():
        rows = found.points[axis][kind]
        _line(panel, law, kind, NAMES[kind])
        panel.plot(rows[found.columns[axis]], rows.test_loss, MARKS[kind], color=colour(ROLES[kind]), ms=4, alpha=0.75, mew=0)
        places += [law.x[0], law.x[-1]] if axis == "flops" else law.x
    panels.level(panel, found.floor, ls=":", label="repeat the last state")
    _log_axes(panel, places)
    panel.set(title=TITLES[axis], xlabel=LABELS[axis], ylabel="test SmoothL1")


def _theirs(panel: Any, found: VideoScaling) -> None:
    places = [1e6 * place for place in found.paper_laws["parameters"]["s1"].x]
    for kind, law in found.paper_laws["parameters"].items():
        law = law._replace(x=tuple(places), scale=law.scale * 1e-6**law.exponent.value)
        _line(panel, law, kind)
        panel.plot(places, law.y, MARKS[kind], color=colour(ROLES[kind]), ms=4.5, mew=0)
    _log_axes(panel, places)
    panel.set(title=f"Parameters: the paper's Figure {found.paper['parameters']}", xlabel=LABELS["parameters"],
              ylabel="lowest validation SmoothL1")


def _percentages(panel: Any, found: VideoScaling) -> None:
    rows = [(f"{TITLES[axis]}, {kind}", part["seeds_and_windows"], part["fit"], kind)
            for axis, kinds in found.percent.items() for kind, part in kinds.items()]
    rows += [(f"paper, {figure}", found.paper_percent[axis], None, "s1") for axis, figure in found.paper.items()]
    for place, (_, interval, of_fit, kind) in enumerate(rows):
        _bar(panel, place, interval, "D" if kind == "latent" else "x" if of_fit is None else "o", ROLES[kind])
        if of_fit and of_fit["value"] is not None:
            _bar(panel, place + 0.28, of_fit, "|", "floor")
    panels.zero(panel, across=False)
    panels.named_ticks(panel.yaxis, [name for name, *_ in rows], fontsize=7.5)
    panel.invert_yaxis()
    panel.set(title="Percent faster than Transformer++")
    panel.set_xlabel(f"ratio of exponents - 1 (grey: interval of the fit);\nends beyond ±{REACH[1]} are at the edge", fontsize=8)
    panel.grid(axis="x")
    panel.grid(False, axis="y")


def _bar(panel: Any, place: float, interval: Mapping[str, Any], mark: str, role: str) -> None:
    panel.plot(np.clip(interval["value"], *REACH), place, mark, color=colour(role), ms=5.5, zorder=3)
    if interval["low"] is not None:
        panel.plot(np.clip([interval["low"], interval["high"]], *REACH), [place, place], color=colour(role), lw=1.5)
