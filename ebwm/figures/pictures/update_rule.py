"""The picture of the figure `update_rule`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

ROLE = {"code": "ebt", "paper": "transformer", "raw": "gru"}
DASHES = {"noise": "-", "zeros": "--"}


class Updates(NamedTuple):
    """Tables and statistics of the figure."""

    forms: Mapping[str, str]  # forms of the update, with their titles
    ways: Sequence[str]  # form and start, as in "code_noise"
    history: pd.DataFrame  # one row an update
    own: pd.DataFrame  # walks from the start in training
    losses: Mapping[str, np.ndarray]  # [seeds windows] by way
    intervals: Mapping[str, Interval]  # of the losses
    unstable: pd.DataFrame  # share of spikes and skipped updates, by seed and way
    floor: Mapping[str, float]  # trivial baselines


def draw(
    found: Updates,  # tables and statistics
    steps: tuple[int, Sequence[int]],  # in training, and after it
    heading: tuple[str, Sequence[int], str],  # first line, seeds, and status of the data
) -> Any:  # the figure
    """Losses during and after training, by steps, gradients and stability."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.2, 11.4))
    grid = figure.subplots(3, 2)
    ends = [values.mean() for values in found.losses.values() if np.isfinite(values).all()] + [*found.floor.values()]
    limits = min(ends) - 0.3, min(max(ends), 1.5 * found.floor["even guess"]) + 1.2
    for panel, start in zip(grid[0], DASHES, strict=True):
        _training(panel, found, start, limits)
    _losses(grid[1, 0], found)
    _steps(grid[1, 1], found, *steps)
    _gradients(grid[2, 0], found)
    for place, way in enumerate(found.ways):
        panels.marks(grid[2, 1], place - 0.06, 100 * found.unstable[way], ROLE[way.split("_")[0]])
    grid[2, 1].set(title="Spikes and skipped updates", ylabel="share of updates (%)")
    grid[2, 1].set_ylim(-0.1, max(1.0, grid[2, 1].get_ylim()[1]))
    _name(grid[2, 1], found)
    what, seeds, status = heading
    panels.heading(figure, what, seeds, "bands: ranges; bars: 95 % intervals over seeds and windows", status)
    return figure


def _name(panel: Any, found: Updates) -> None:
    panel.set_xlim(-0.5, len(found.ways) - 0.4)
    panels.named_ticks(panel.xaxis, [way.replace("_", "\n") for way in found.ways], fontsize=8.5)


def _baselines(panel: Any, found: Updates, named: bool = False) -> None:
    for dashes, (name, value) in zip(("--", "-.", ":"), found.floor.items(), strict=True):
        panels.level(panel, value, lw=1.1, ls=dashes, label=name if named else None)


def _training(panel: Any, found: Updates, start: str, limits: tuple[float, float]) -> None:
    evaluated = found.history.dropna(subset="valid_loss")
    for form, label in found.forms.items():
        panels.lines(panel, select(evaluated, way=f"{form}_{start}"), "update", "valid_loss", ROLE[form], label)
    panel.legend(fontsize=8.5, loc="upper right")
    _baselines(panel, found)
    panel.set(title=f"Learning from {start}", xlabel="optimiser step", ylabel="validation loss (nats per token)", ylim=limits)


def _losses(panel: Any, found: Updates) -> None:
    for place, way in enumerate(found.ways):
        panels.marks(panel, place - 0.06, found.losses[way].mean(1), ROLE[way.split("_")[0]], found.intervals[way])
    _baselines(panel, found, named=True)
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.35 * (high - low))
    panel.legend(fontsize=8.5, loc="upper right")
    panel.set(title="Final loss", ylabel="test loss (nats per token)")
    _name(panel, found)


def _steps(panel: Any, found: Updates, trained: int, steps: Sequence[int]) -> None:
    for way in found.ways:
        form, start = way.split("_")
        panels.lines(panel, select(found.own, way=way), "steps", "loss", ROLE[form], f"{form}, {start}",
                     linestyle=DASHES[start])
    panel.axvline(trained, color=colour("floor"), lw=1, ls=":")
    panel.set(title="More steps after training", xlabel="MCMC steps (dotted: in training)",
              ylabel="test loss (nats per token)", xscale="log", yscale="log")
    panel.set_xticks(steps, steps)
    panel.minorticks_off()
    panels.round_ticks(panel.yaxis)


def _gradients(panel: Any, found: Updates) -> None:
    for way in found.ways:
        form, start = way.split("_")
        norms = select(found.history, way=way).pivot(index="update", columns="seed", values="grad_norm")
        mean = norms.rolling(10, 1).median().mean(axis=1)
        panel.plot(mean.index, mean, color=colour(ROLE[form]), ls=DASHES[start], label=f"{form}, {start}")
    panel.set(title="Gradient during training", xlabel="optimiser step", ylabel="gradient norm", yscale="log")
    panel.set_ylim(None, 30 * panel.get_ylim()[1])
    panel.legend(fontsize=8, ncols=2, loc="upper right")
