"""The picture of the figure `text_thinking`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import select
from ebwm.figures.experiment.text import HELD_OUT
from ebwm.figures.style import colour, spread

ROLE = {"s1": "ebt", "s2": "gru"}
CHOICES = {"energy": ("gru", "lowest energy of N"), "oracle": ("truth", "oracle's of N")}


class Thought(NamedTuple):
    """Tables and statistics of the figure."""

    made: Mapping[str, pd.DataFrame]  # tables of all seeds
    names: Mapping[str, str]  # models with their titles
    sets: Sequence[str]  # of texts; the first is held-out text
    trained: Mapping[str, int]  # steps in training
    baseline: Mapping[str, float]  # perplexity of the Transformer++ on each set
    growth: Mapping[tuple[str, str], pd.DataFrame]  # gains by seed and tokens, by model and set
    shifts: Mapping[str, np.ndarray]  # perplexity of each set over held-out perplexity, by model
    gains: pd.DataFrame  # in percent, by model, text and method
    paper: np.ndarray  # the paper's shifts and gains


def draw(
    found: Thought,  # tables and statistics
    most: int,  # largest number of steps of a chosen walk
    counts: tuple[int, int],  # walks of the best of five and of ten
    heading: tuple[str, Sequence[int], str],  # first line, seeds, and status of the data
) -> Any:  # the figure
    """Perplexity by steps, adaptive stopping, gains during training, and gains by shift."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(10, 10.6))
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.15, 1, 1.1])
    grid = top.subplots(1, 4)
    for kind, pair in zip(ROLE, (grid[:2], grid[2:]), strict=True):
        _passes(pair[0], found, kind, [HELD_OUT], "held-out", most)
        _passes(pair[1], found, kind, list(found.sets[1:]), "further sets", most)
    grid[0].set_ylabel("perplexity")
    panels.legend_below(top, grid[0], 5, fontsize=8)
    grid = middle.subplots(1, 4)
    for panel, kind in zip(grid, ROLE, strict=False):
        part = select(found.made["adaptive"], model=kind, text=HELD_OUT)
        panels.adaptive(panel, part, f"Stopping, {kind.upper()}", np.exp)
    grid[0].set_ylabel("perplexity, held-out")
    grid[0].legend(fontsize=7)
    five, ten = counts
    for panel, name, pair in ((grid[2], "Dyck", (five, 1)), (grid[3], HELD_OUT, (ten, 2))):
        for kind in ROLE:
            table = found.growth[kind, name]
            spread(panel, table.columns / 1e3, table.to_numpy(), colour(ROLE[kind]), found.names[kind])
        panels.zero(panel, lw=0.8, ls="-")
        panel.set(title="{} over {}, {}".format(*pair, name), xlabel="thousand tokens seen")
    grid[2].set_ylabel("% gained by the best of N")
    grid[2].legend(fontsize=7)
    for panel, kind in zip(bottom.subplots(1, 2), ROLE, strict=True):
        _shift(panel, found, kind)
    bottom.axes[0].set_ylabel("% of perplexity gained")
    bottom.supxlabel("; ".join(f"{number} {name}" for number, name in enumerate(found.sets)), fontsize=8)
    what, seeds, status = heading
    panels.heading(figure, what, seeds, "bands: ranges; bars: 95 % intervals, seeds and windows", status)
    return figure


def _by_seed(frame: pd.DataFrame, kind: str, names: Sequence[str], index: str) -> pd.DataFrame:
    part = select(frame, model=kind, text=list(names))
    return part.assign(value=np.exp(part.loss)).pivot_table(index=index, columns="seed", values="value")


def _passes(panel: Any, found: Thought, kind: str, names: Sequence[str], title: str, most: int) -> None:
    steps, trained = _by_seed(found.made["by_step"], kind, names, "step").iloc[1:], found.trained[kind]
    spread(panel, steps.index, steps.to_numpy().T, colour("ebt"), "one walk, longer")
    for by, (role, label) in CHOICES.items():
        table = _by_seed(select(found.made["verification"], by=by), kind, names, "samples")
        spread(panel, table.index * trained, table.to_numpy().T, colour(role), label)
    last = max(steps.index.max(), most)
    panel.plot([trained, last], [steps.loc[trained].mean()] * 2, color=colour("floor"), ls="--", label="random of N")
    level = np.mean([found.baseline[name] for name in names])
    panel.plot([1, last], [level] * 2, color=colour("transformer"), label="Transformer++, one pass")
    panel.axvline(trained, color=colour("floor"), lw=1, ls=":")
    panel.set(title=f"{kind.upper()}, {title}", xlabel="steps of all walks", xscale="log", yscale="log")
    panels.round_ticks(panel.xaxis, (1, 3))
    panels.round_ticks(panel.yaxis, (1, 1.5, 2, 3, 5, 7))


def _shift(panel: Any, found: Thought, kind: str) -> None:
    rows = select(found.gains, model=kind, method="both").set_index("text").loc[list(found.sets)]
    panel.plot(*found.paper.T, "D", ms=5, mfc="none", color=colour("truth"), label="EBT, Figure 7")
    panels.error_bars(panel, found.shifts[kind], rows, ROLE[kind], fmt="o", ms=5, capsize=2, lw=1,
                      label=f"{found.names[kind]}, here")
    for number, (name, shift) in enumerate(zip(found.sets, found.shifts[kind], strict=True)):
        place = dict(xytext=(5, 5 if number % 2 else -12), textcoords="offset points", fontsize=8)
        panel.annotate(f"{number}", (shift, rows.value[name]), **place)
    panel.set_ylim(min(rows.value.min(), 0) - 8, max(rows.value.max(), found.paper[:, 1].max()) + 5)
    panels.zero(panel, lw=0.8, ls="-")
    panel.set(title=f"Gain against shift, {found.names[kind]}", xscale="log", xlabel="perplexity over held-out perplexity")
    panels.round_ticks(panel.xaxis)
    panel.legend(fontsize=8)
