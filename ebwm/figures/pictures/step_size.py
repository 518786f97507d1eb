"""The picture of the figure `step_size`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

NAMES = {"learned_size": "learned $\\alpha$,\ngradient", "ratio": "learned / start,\ngradient",
         "growth": "start of $\\alpha$,\ngrowth", "along_training": "during\ntraining"}


class Steps(NamedTuple):
    """Tables and statistics of the figure."""

    runs: pd.DataFrame  # one row a run
    history: pd.DataFrame  # one row an update
    maps: Mapping[str, pd.DataFrame]  # loss and region by step size and number of steps
    kinds: Mapping[str, pd.DataFrame]  # runs that were trained through the walk, and detached ones
    rhos: Mapping[str, pd.Series]  # rank correlations by seed
    gradients: Mapping[str, Interval]  # their means
    choices: pd.DataFrame  # test loss by data, step size and seed, from fixed step sizes and from the chosen one


def draw(
    found: Steps,  # tables and statistics
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Maps of convergence, losses and gradients by steps, what is learned of the step size, and the automatic choice."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.6, 17))
    places = figure.add_gridspec(5, 6, height_ratios=[1.35, 1, 1, 1, 1])
    columns = slice(0, 3), slice(3, 6)
    grid = np.array([[figure.add_subplot(places[row, column]) for column in columns] for row in range(4)])
    _choices([figure.add_subplot(places[4, 2 * index:2 * index + 2]) for index in range(3)], found.choices)
    _map(grid[0, 0], found.maps["training"], "$\\alpha$ at the start of training", "Trained (S1)")
    _map(grid[0, 1], found.maps["inference"], "$\\alpha$ / learned $\\alpha$", "Walks after training")
    _unrolled(grid[1], found, parameters)
    _learned(grid[2, 0], found.runs[found.runs.recipe == "learned"])
    _fixed(grid[2, 1], found.runs[found.runs.steps == parameters["trained_steps"]], parameters)
    _training(grid[3, 0], found, parameters)
    for place, name in enumerate(NAMES):
        panels.marks(grid[3, 1], place - 0.06, found.rhos[name], "ebt", found.gradients[name])
    panels.zero(grid[3, 1])
    grid[3, 1].set(title="Rank correlations", ylabel="Spearman's $\\rho$", xlim=(-0.5, 3.5), ylim=(-1.1, 1.1))
    panels.named_ticks(grid[3, 1].xaxis, NAMES.values(), fontsize=8)
    what = f"Step size and steps: EBTs of width {parameters['dim']} on moving digits, {parameters['features']} components"
    panels.heading(figure, f"{what}, {parameters['updates']} updates", parameters["seeds"],
                   "bands: ranges; bars: 95 % intervals over seeds")
    return figure


def _map(panel: Any, frame: pd.DataFrame, label: str, title: str) -> None:
    loss, region = (frame[column].unstack("steps").iloc[::-1] for column in ("loss", "region"))
    shade = np.log10(loss.where(np.isfinite(loss)).clip(upper=10 * float(np.nanmin(loss))).to_numpy())
    numbers = loss.map(lambda value: f"{value:.2g}" if np.isfinite(value) else "-")
    texts = (numbers + "\n" + region).to_numpy()
    rows = [f"{value:g}" for value in loss.index]
    panels.number_map(panel, shade, texts, rows, loss.columns, (region == "converges").to_numpy())
    panel.set(title=title, xlabel="MCMC steps", ylabel=label)


def _unrolled(row: Any, found: Steps, parameters: Mapping[str, Any]) -> None:
    for panel, column, label in zip(row, ("valid_loss", "gradient"), ("validation SmoothL1", "mean gradient norm"),
                                    strict=True):
        for size, role in zip(parameters["unrolled_sizes"], ("ebt", "transformer"), strict=False):
            for kind, dashes, name in (("unrolled", "-", "whole walk"), ("detached", ":", "detached")):
                part = select(found.kinds[kind], step_size=size)
                panels.lines(panel, part, "steps", column, role, f"$\\alpha$ {size:g}, {name}", linestyle=dashes)
        panel.set(xlabel="MCMC steps in training", ylabel=label, xticks=parameters["unrolled_steps"])
    panels.logarithmic(row[1])
    row[0].set(title="Loss by steps", ylim=(0, None))
    row[1].set(title="Gradient by steps")
    row[0].legend(loc="upper left", fontsize=8.5)


def _learned(panel: Any, runs: pd.DataFrame) -> None:
    for (steps, part), mark in zip(runs.groupby("steps"), "osD^vP", strict=False):
        label = f"{steps} steps" if steps > 1 else "1 step"
        panel.plot(part.step_size, part.final_size / part.step_size, mark, color=colour("ebt"), ms=5, alpha=0.7, mew=0,
                   label=label)
    panels.level(panel, 1, lw=1)
    panels.logarithmic(panel)
    panel.set(title="What is learned of $\\alpha$", xscale="log", xlabel="$\\alpha$ at the start (no unit)",
              ylabel="learned $\\alpha$ / its start")
    panel.legend(fontsize=8.5)


def _fixed(panel: Any, runs: pd.DataFrame, parameters: Mapping[str, Any]) -> None:
    for name, role in (("learned", "ebt"), ("fixed", "diffusion")):
        panels.lines(panel, select(runs, recipe=name), "step_size", "valid_loss", role, f"$\\alpha$ {name}")
    panels.logarithmic(panel)
    panel.set(title=f"Learned or fixed, {parameters['trained_steps']} steps", xscale="log",
              xlabel="$\\alpha$ at the start (no unit)", ylabel="validation SmoothL1")
    panel.legend()


def _training(panel: Any, found: Steps, parameters: Mapping[str, Any]) -> None:
    runs = select(found.history, recipe="learned", steps=parameters["trained_steps"])
    sizes = parameters["step_sizes"]
    for size, strength in zip(sizes, np.linspace(0.35, 1, len(sizes)), strict=True):
        norms = select(runs, step_size=size).pivot(index="update", columns="seed", values="grad_norm")
        mean = norms.rolling(5, 1).mean().mean(axis=1)
        panel.plot(mean.index, mean, color=colour("ebt"), alpha=strength, label=f"{size:g}")
    panel.set_yscale("log")
    panel.set_ylim(None, 50 * panel.get_ylim()[1])
    panels.logarithmic(panel)
    panel.set(title="Gradient during training", xlabel="optimiser step",
              ylabel=f"gradient norm, {parameters['trained_steps']} steps")
    panel.legend(title="$\\alpha$ at the start", ncols=3, loc="upper left", fontsize=8, title_fontsize=8)


def _choices(row: Sequence[Any], choices: pd.DataFrame) -> None:
    units = {"digits": "SmoothL1", "Lorenz": "SmoothL1", "text": "nats per token"}
    for panel, (name, unit) in zip(row, units.items(), strict=True):
        part = choices[choices.data == name]
        panels.lines(panel, part[~part.chosen], "step_size", "loss", "ebt", "fixed")
        own = part[part.chosen]
        panel.plot(own.step_size, own.loss, "*", color=colour("transformer"), ms=9, mew=0, label="automatic, a seed")
        panels.logarithmic(panel)
        panel.set(title=f"Choice: {name}", xscale="log", xlabel="$\\alpha$ at the start", ylabel=f"test loss, {unit}")
    row[0].legend(fontsize=8)
