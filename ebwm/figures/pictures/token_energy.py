"""The pictures of the figure `token_energy`: maps of energies by token and step, and statistics."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour, spread

NAMES = {"pangram": "Pangram", "research": "Research prose", "random 0": "Random characters"}
TEXTS = (("ebt", "held-out text", None), ("gru", "pangram", "pangram"), ("transformer", "random characters", "random"))


class Energies(NamedTuple):
    """Tables and statistics of the figure."""

    made: Mapping[str, pd.DataFrame]  # tables of all seeds
    correlations: Mapping[str, Mapping[str, Interval]]  # with the loss, by way and score
    by_seed: Mapping[tuple[str, str], np.ndarray]  # the same by seed
    easy: Mapping[str, Interval]  # easy tokens less others, by column
    easy_by_seed: Mapping[str, np.ndarray]  # the same by seed
    seeds: Sequence[int]
    steps: tuple[int, int]  # in training, and of the long walk


def maps(
    found: Energies,  # tables
    heading: str,  # above the maps
) -> Any:  # the figure
    """Energies by token and step, with a scale for each text and with one scale."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.2, 15))
    grid, shown = figure.subplots(6, 1), {}
    for name in NAMES:
        part = select(found.made["texts"], seed=found.seeds[0], text=name)
        shown[name] = (part.pivot(index="step", columns="place", values="energy").to_numpy(),
                       part[part.step == 0].label.tolist())
    everywhere = np.concatenate([values.ravel() for values, _ in shown.values()])
    for place, (name, (values, labels)) in enumerate(shown.items()):
        own = (values - values.min()) / np.ptp(values)
        limits = everywhere.min(), everywhere.max()
        first = _map(grid[2 * place], own, labels, f"{NAMES[name]}: its own scale, 0 to 1", (0, 1))
        second = _map(grid[2 * place + 1], values, labels, f"{NAMES[name]}: one scale for all", limits)
        figure.colorbar(first, ax=grid[2 * place], label="share of range", pad=0.01)
        figure.colorbar(second, ax=grid[2 * place + 1], label="energy (no unit)", pad=0.01)
    figure.suptitle(heading, fontsize=10)
    return figure


def _map(panel: Any, values: np.ndarray, labels: list[str], title: str, limits: tuple[float, float]) -> Any:
    shade = panel.imshow(values, cmap="viridis", aspect="auto", origin="lower", vmin=limits[0], vmax=limits[1])
    panels.named_ticks(panel.xaxis, labels, rotation=90, fontsize=8)
    panel.set_yticks(range(0, len(values), 2))
    panel.set(ylabel="step")
    panel.set_title(title, fontsize=10)
    panel.grid(False)
    return shade


def numbers(
    found: Energies,  # tables and statistics
    what: str,  # first line of the heading
    status: str = panels.STAND_IN,  # of the data
) -> Any:  # the figure
    """Rank correlations, easy tokens, and energy and loss by step."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(9.2, 7.4))
    grid = figure.subplots(2, 2)
    _correlations(grid[0, 0], found)
    _easy(grid[0, 1], found)
    _steps(grid[1, 0], found, "energy", "mean energy, noise of held-out text = 0")
    _steps(grid[1, 1], found, "loss", "mean loss (nats per token)")
    grid[1, 0].legend(fontsize=8.5)
    panels.heading(figure, what, found.seeds, "bands: ranges; bars: 95 % intervals over seeds and windows",
                   status)
    return figure


def _correlations(panel: Any, found: Energies) -> None:
    trained, last = found.steps
    looks = {"energy_end": ("ebt", f"EBT: energy, step {last}"), "energy_trained": ("gru", f"EBT: energy, step {trained}"),
             "entropy": ("diffusion", "EBT: entropy"), "other_entropy": ("transformer", "Transformer++: entropy")}
    for shift, (name, (role, label)) in enumerate(looks.items()):
        for place, way in enumerate(found.correlations):
            panels.marks(panel, place + 0.21 * (shift - 1.7), found.by_seed[way, name], role,
                         found.correlations[way][name], None if place else label)
    panels.zero(panel)
    panel.set(title="Rank correlation with the loss", ylabel="Spearman's $\\rho$", xlim=(-0.6, 2.7), ylim=(-1.05, 1.95))
    panels.named_ticks(panel.xaxis, ["within\nwindows", "across\nwindows", "all\ntokens"])
    panel.set_yticks([-1, -0.5, 0, 0.5, 1])
    panel.legend(loc="upper center", fontsize=8)


def _easy(panel: Any, found: Energies) -> None:
    trained, last = found.steps
    names = {"energy_end": f"energy,\nstep {last}", "energy_trained": f"energy,\nstep {trained}", "entropy": "entropy",
             "loss": "loss", "other_entropy": "T++\nentropy", "other_loss": "T++\nloss"}
    for place, name in enumerate(names):
        role = "transformer" if name.startswith("other") else "ebt"
        panels.marks(panel, place - 0.06, found.easy_by_seed[name], role, found.easy[name])
    panels.zero(panel)
    panel.set(title="Easy tokens minus others", ylabel="difference (standard deviations)", xlim=(-0.5, 5.6))
    panels.named_ticks(panel.xaxis, names.values(), fontsize=8)


def _steps(panel: Any, found: Energies, column: str, unit: str) -> None:
    texts, held_out = found.made["texts"], found.made["steps"]
    start = held_out[held_out.step == 0].groupby("seed")[column].mean()
    for role, label, text in TEXTS:
        frame = held_out if text is None else texts[texts.text.str.startswith(text)]
        table = frame.groupby(["seed", "step"])[column].mean().unstack()
        table = table.sub(start, axis=0) if column == "energy" else table
        spread(panel, table.columns, table.to_numpy(), colour(role), label)
    panel.axvline(found.steps[0], color=colour("floor"), lw=1, ls=":", label="steps in training")
    panel.set(title=f"{column.capitalize()} by step", xlabel="MCMC step", ylabel=unit,
              xticks=range(0, found.steps[1] + 1, 2))
