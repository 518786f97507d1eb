"""The pictures of the figure `known_landscapes`: paths, energies, errors of moments, and Langevin's law."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.densities import Known, langevin_variance
from ebwm.figures.experiment.tables import select
from ebwm.figures.style import colour, seeds_text

ROLE = {"Langevin": "transformer", "MALA": "ebt", "HMC": "gru", "Langevin, large step": "diffusion",
        "gradient descent": "diffusion", "Nesterov": "ebt", "guarded Nesterov": "gru", "cooled Langevin": "transformer"}
ROWS = {"downhill": ["gradient descent", "Nesterov", "guarded Nesterov"], "cooled\nLangevin": ["cooled Langevin"],
        "Langevin": ["Langevin"], "MALA": ["MALA"], "HMC": ["HMC"]}
FRAME = {"bowl": (-3, 4, -2.2, 2.2), "two wells": (-2.3, 2.3, -3, 3), "mixture": (-3.5, 3.5, -2, 3),
         "curved valley": (-4, 4, -3, 5.5)}
UNITS = {"mean": "means (std)", "variance": "variances (relative)", "share": r"share at $y_1 < 0$"}
LARGE = "Langevin, large step"


class Walked(NamedTuple):
    """Tables of the figure, and what they refer to."""

    made: Mapping[str, pd.DataFrame]  # tables of all seeds
    landscapes: Mapping[str, Known]
    descents: Sequence[str]  # names
    samplers: Sequence[str]  # names
    marks: Sequence[int]  # numbers of evaluations
    bounds: Sequence[float]  # step size times stiffness, of Langevin's law
    seeds: Sequence[int]


def paths(
    walked: Walked,  # tables
    start: Sequence[float],  # of all paths
    how: str,  # numbers of steps and evaluations
) -> Any:  # the figure
    """One walk of each rule and sampler on each landscape."""
    pyplot = require("matplotlib.pyplot", "figures")
    shape = dict(figsize=(8.6, 9.6), sharex="col", sharey="col")
    figure, grid = pyplot.subplots(len(ROWS), len(walked.landscapes), **shape)
    shown = select(walked.made["paths"], seed=walked.seeds[0])
    for row, (title, kinds) in zip(grid, ROWS.items(), strict=True):
        row[0].set_ylabel(f"{title}\n$y_2$")
        for panel, name in zip(row, walked.landscapes, strict=True):
            _contours(panel, walked.landscapes[name], FRAME[name])
            for kind in kinds:
                part = select(shown, landscape=name, kind=kind)
                panel.plot(part["first"], part["second"], "-o", color=colour(ROLE[kind]), lw=0.9, ms=2.2, label=kind)
                panel.plot(*start, "s", color=colour("truth"), ms=4)
    for place, name in enumerate(walked.landscapes):
        grid[0, place].set_title(name)
        grid[-1, place].set_xlabel("$y_1$")
    panels.legend_below(figure, grid[0, 0], 3, title="first row")
    figure.suptitle(f"One walk each from the square, seed {walked.seeds[0]}: {how}\n"
                    "Contours: energies 0.25, 1, 2, 4, 8 and 16 above the lowest", fontsize=10)
    return figure


def _contours(panel: Any, known: Known, frame: tuple[float, float, float, float]) -> None:
    left, right, low, high = frame
    x, y = torch.linspace(left, right, 101), torch.linspace(low, high, 101)
    heights = known.energy(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))
    panel.contour(x, y, heights - known.lowest, levels=[0.25, 1, 2, 4, 8, 16], colors=colour("floor"),
                  linewidths=0.6, alpha=0.7)
    panel.set(xlim=(left, right), ylim=(low, high))
    panel.grid(False)
    panel.tick_params(labelsize=8)


def energies(
    walked: Walked,  # tables
    starts: int,  # number of starts
) -> Any:  # the figure
    """Energy above the minimum by step."""
    pyplot = require("matplotlib.pyplot", "figures")
    figure, grid = pyplot.subplots(2, 2, figsize=(8.6, 6.4), sharex=True, sharey=True)
    for panel, name in zip(grid.flat, walked.landscapes, strict=True):
        for kind in walked.descents:
            part = select(walked.made["descents"], landscape=name, kind=kind)
            part = part.assign(quartile_gap=part.quartile_gap.clip(1e-16))
            panels.lines(panel, part, "step", "quartile_gap", ROLE[kind], kind)
        panel.set(title=name, yscale="log", ylim=(1e-13, 30))
    for row in grid:
        row[0].set_ylabel("energy above the lowest")
    for panel in grid[-1]:
        panel.set_xlabel("step")
    panels.legend_below(figure, grid[0, 0], 4)
    figure.suptitle(f"Energy by step, lower quartile of {starts} starts; lines: mean and each of seeds "
                    f"{seeds_text(walked.seeds)}; bands: ranges", fontsize=10)
    return figure


def moments(
    walked: Walked,  # tables
    chains: int,  # number of chains
    large_step: float,  # step size of Langevin with a large step, on the bowl
) -> Any:  # the figure
    """Errors of moments by evaluations."""
    pyplot = require("matplotlib.pyplot", "figures")
    figure = pyplot.figure(figsize=(8.6, 8.6))
    grid = figure.subplots(3, 4, sharex=True, sharey="row")
    for row, moment in zip(grid, UNITS, strict=True):
        row[0].set_ylabel(f"error: {UNITS[moment]}")
        for panel, name in zip(row, walked.landscapes, strict=True):
            _errors(panel, walked, name, moment)
            panel.set_title(name if moment == "mean" else "")
    excess = langevin_variance(large_step / walked.landscapes["bowl"].variance.numpy()) - 1
    panels.level(grid[1, 0], np.sqrt(np.mean(excess**2)), ROLE[LARGE])
    for panel in grid[-1]:
        panel.set_xlabel("evaluations")
    panels.legend_below(figure, grid[0, 0], 5)
    figure.suptitle(f"Error of moments, root mean square over {chains} chains; lines: mean and each of seeds "
                    f"{seeds_text(walked.seeds)}; bands: ranges\n"
                    "Dashed: limit of the large step by its law; no line: a chain diverged", fontsize=10)
    return figure


def _errors(panel: Any, walked: Walked, name: str, moment: str) -> None:
    for kind in (*walked.samplers, LARGE):
        part = select(walked.made["errors"], landscape=name, sampler=kind, moment=moment)
        if np.isfinite(part.error).all():
            panels.lines(panel, part, "evaluations", "error", ROLE[kind], kind)
    marks = np.asarray(walked.marks)
    panel.plot(marks, 2 / np.sqrt(marks), color=colour("floor"), ls=":", lw=1.4, label="slope -1/2")
    panel.set(xscale="log", yscale="log")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_formatter("")


def laws(
    walked: Walked,  # tables
) -> Any:  # the figure
    """Variance of Langevin and MALA on the bowl by step size, and effective sample sizes."""
    pyplot = require("matplotlib.pyplot", "figures")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.6, 3.6))
    for kind in ("Langevin", "MALA"):
        for bound in walked.bounds:
            part = select(walked.made["variances"], sampler=kind)
            panels.marks(left, bound, part[np.isclose(part.bound, bound)].variance, ROLE[kind])
    bounds = np.linspace(0, 1.25, 100)
    left.plot(bounds, langevin_variance(bounds), color=colour("floor"), ls="--", lw=1.2, label="Langevin's law")
    left.axhline(1, color=colour("floor"), lw=1, label="the density")
    left.set(title="bowl, stiff axis", xlabel="step size × stiffness", ylabel="variance × stiffness")
    left.legend(loc="upper left")
    for row, name in enumerate(walked.landscapes):
        for shift, kind in zip((-0.2, 0, 0.2), walked.samplers, strict=True):
            part = select(walked.made["diagnostics"], landscape=name, sampler=kind)
            right.plot(part.ess_per_1000, np.full(len(part), row + shift), "o", color=colour(ROLE[kind]), ms=4)
    right.set(title="effective sample size", xscale="log", xlabel="for 1000 evaluations")
    right.xaxis.set_minor_formatter("")
    right.set_xticks([2, 5, 10, 20, 50, 100], [2, 5, 10, 20, 50, 100])
    panels.named_ticks(right.yaxis, walked.landscapes)
    right.invert_yaxis()
    style = dict(marker="o", ls="")
    names = [pyplot.Line2D([], [], color=colour(ROLE[kind]), label=kind, **style) for kind in walked.samplers]
    figure.legend(handles=names, loc="outside lower center", ncols=3)
    figure.suptitle(f"Points: seeds {seeds_text(walked.seeds)}", fontsize=10)
    return figure
