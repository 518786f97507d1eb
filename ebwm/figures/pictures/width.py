"""The picture of the figure `width`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.evaluation.statistics import Interval, PowerLaw
from ebwm.figures.experiment import panels
from ebwm.figures.style import colour

COLOURS = {"transformer": "transformer", "noise": "ebt", "last": "diffusion", "row_space": "gru", "latent": "truth"}
LABELS = {"transformer": "T++", "noise": "noise", "last": "last", "row_space": "row\nspace", "latent": "latent"}
PAPER = {"transformer": ("transformer", "o-", "Transformer++"), "ebt": ("ebt", "o-", "EBT"),
         "predicted": ("ebt", "x--", "Transformer++ with noise left")}


class Widths(NamedTuple):
    """Tables and statistics of the figure."""

    losses: pd.DataFrame  # one row for each kind, width and seed
    names: Mapping[str, str]  # kinds with their titles
    predicted: Sequence[str]  # kinds with a predicted loss
    floor: Mapping[str, float]  # trivial baselines
    exponents: Mapping[str, Mapping[str, Interval]]  # by range and kind
    differences: Mapping[str, np.ndarray]  # of exponents, [seeds clips] by pair
    tested: Mapping[str, Any]  # intervals of the differences
    pairs: Mapping[str, tuple[str, str]]  # the kinds of each difference
    paper: pd.DataFrame  # points of the paper, by width
    paper_laws: Mapping[str, PowerLaw]  # fitted to them


def draw(
    made: Widths,  # tables and statistics
    state_dim: int,  # numbers in a state
    paper_states: int,  # numbers in a state of the paper
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Losses by width, measured and predicted, what is left of the noise, and exponents."""
    pyplot = require("matplotlib.pyplot", "figures")
    figure = pyplot.figure(figsize=(8.8, 11.8))
    grid = figure.add_gridspec(4, 2, height_ratios=[1.15, 1, 1, 0.9])
    panel = lambda row, column: figure.add_subplot(grid[row, column])
    means = made.losses.pivot_table(index="width", columns="kind", values="test_loss")
    _widths(panel(0, 0), made, means, state_dim)
    _predicted(panel(0, 1), made, means)
    _survival(panel(1, 0), made)
    _paper(panel(1, 1), made, paper_states)
    _exponents(panel(2, slice(None)), made)
    _differences(panel(3, slice(None)), made)
    where = "moving digits" if parameters["video_dir"] is None else "clips of a folder"
    what = f"Next frames of {where}: {state_dim} numbers a state, models narrower and as wide"
    panels.heading(figure, what, parameters["seeds"], f"depth {parameters['depth']}; bars: 95 % intervals", panels.status(parameters))
    return figure


def _log_widths(panel: Any, places: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(places, [f"{place:g}" for place in places])
    panel.set_xticks([], minor=True)


def _log_axes(panel: Any, places: Sequence[float]) -> None:
    _log_widths(panel, places)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter("{x:.3g}")
    panel.tick_params(axis="y", which="both", labelsize=8)


def _widths(panel: Any, made: Widths, means: pd.DataFrame, state_dim: int) -> None:
    for kind, name in made.names.items():
        part = made.losses[made.losses.kind == kind]
        panel.plot(part.width, part.test_loss, "o", color=colour(COLOURS[kind]), ms=3.5, alpha=0.7, mew=0)
        panel.plot(means.index, means[kind], color=colour(COLOURS[kind]), label=name)
    panels.level(panel, min(made.floor.values()), lw=1, ls=":")
    _log_axes(panel, means.index)
    panel.set(title="Loss by width", ylabel="test SmoothL1", xlabel=f"model width (states: {state_dim} numbers)")
    panels.legend_below(panel.figure, panel, 3, fontsize=8.5)


def _predicted(panel: Any, made: Widths, means: pd.DataFrame) -> None:
    for kind in made.predicted:
        table = made.losses[made.losses.kind == kind].groupby("width")[["predicted", "floor"]].mean()
        panel.plot(means.index, means[kind], "o", color=colour(COLOURS[kind]), ms=4.5)
        panel.plot(table.index, table.predicted, "--", color=colour(COLOURS[kind]), lw=1.5)
        panel.plot(table.index, table.floor.clip(lower=0), ":", color=colour(COLOURS[kind]), lw=1.2)
    for style, label in (("o", "measured"), ("--", "predicted"), (":", "lower bound")):
        panel.plot([], [], style, color=colour("floor"), ms=4.5, label=label)
    _log_widths(panel, means.index)
    panel.set(title="Measured and predicted", ylabel="test SmoothL1", ylim=(0, None), xlabel="model width")
    panel.legend(fontsize=8.5)


def _survival(panel: Any, made: Widths) -> None:
    for kind in ("noise", "row_space", "latent"):
        by_width, role = made.losses[made.losses.kind == kind].groupby("width"), colour(COLOURS[kind])
        for column, dashes, mark in (("inside", "-", "o"), ("outside", "--", "s")):
            table = by_width[column].agg(["mean", "min", "max"]).dropna()
            panel.plot(table.index, table["mean"], mark + dashes, color=role, ms=4)
            panel.fill_between(table.index, table["min"], table["max"], color=role, alpha=0.15, lw=0)
    for dashes, mark, label in (("-", "o", "inside"), ("--", "s", "outside the row space")):
        panel.plot([], [], mark + dashes, color=colour("floor"), ms=4, label=label)
    _log_widths(panel, sorted(made.losses.width.unique()))
    panel.set(title="Noise that is left after a walk", xlabel="model width", ylabel="share of the starts' distance",
              ylim=(0, 1.06))
    panel.legend(fontsize=8.5)


def _paper(panel: Any, made: Widths, paper_states: int) -> None:
    for name, (role, mark, label) in PAPER.items():
        panel.plot(made.paper.index, made.paper[name], mark, color=colour(role), ms=5, lw=1.3, label=label)
    _log_axes(panel, [int(d) for d in made.paper.index])
    panel.set(title="The paper's Figure 9a, digitised", ylabel="validation SmoothL1")
    panel.set_xlabel(f"model width (states: {paper_states:,} numbers)")
    panel.legend(fontsize=8.5)


def _exponents(panel: Any, made: Widths) -> None:
    for place, (kind, role) in enumerate(COLOURS.items()):
        for shift, (name, fill) in zip((-0.16, 0.16), (("all", "full"), ("narrow", "none")), strict=True):
            value, low, high = made.exponents[name][kind]
            panel.errorbar(place + shift, value, [[value - low], [high - value]], fmt="o", color=colour(role),
                           ms=5, capsize=3, lw=1.2, fillstyle=fill)
    for fill, label in (("full", "all widths"), ("none", "below the states'")):
        panel.plot([], [], "o", fillstyle=fill, color=colour("floor"), ms=5, label=label)
    panels.zero(panel)
    panels.named_ticks(panel.xaxis, LABELS.values())
    panel.set(title="Exponent of the loss by width", ylabel="exponent (bars: 95 %, fit)")
    panel.legend(fontsize=8.5)


def _differences(panel: Any, made: Widths) -> None:
    for place, (pair, (ours, _)) in enumerate(made.pairs.items()):
        panels.marks(panel, place, made.differences[pair].mean(1), COLOURS[ours], made.tested[pair])
    theirs = {name: law.exponent.value for name, law in made.paper_laws.items()}
    for place, (name, mark) in enumerate({"ebt": "D", "predicted": "x"}.items(), start=len(made.pairs)):
        panel.plot(place, theirs[name] - theirs["transformer"], mark, color=colour("ebt"), ms=6)
    panels.zero(panel)
    names = [f"{LABELS[a]}\n- {LABELS[b]}" for a, b in made.pairs.values()]
    panels.named_ticks(panel.xaxis, [*names, "paper:\nEBT\n- T++", "paper:\npredicted\n- T++"], fontsize=8)
    panel.set(title="Differences of exponents, widths below the states'", ylabel="below 0: falls faster")
