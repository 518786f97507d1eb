"""The picture of the figure `game_world`: for each game errors, rollouts, use of actions, surprise, and frames."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

KINDS = {"ebt_noise": "EBT from noise", "ebt_last": "EBT from the last frame", "transformer": "Transformer++",
         "diffusion": "diffusion"}
ROLES = {"ebt_noise": "ebt", "ebt_last": "gru", "transformer": "transformer", "diffusion": "diffusion"}
SHORT = {"ebt_noise": "EBT,\nnoise", "ebt_last": "EBT,\nlast frame", "transformer": "Transf.++", "diffusion": "diffusion"}
OWN = {"energy": "energy", "denoising": "denoising error"}  # scores that are not errors of predictions
READINGS = {"by action": "one frame,\nall actions", "by frame": "one action,\nall frames"}


class Played(NamedTuple):
    """Tables and statistics of one game."""

    game: str  # its name, as for `make_game`
    measures: pd.DataFrame  # value by model, score, measure and seed
    values: Mapping[str, Mapping[str, Interval]]  # by "MODEL SCORE" and measure
    rollouts: pd.DataFrame  # error and last_frame by model, ahead and seed
    frames: pd.DataFrame  # of one seed: row, ahead and pixels
    shape: tuple[int, ...]  # of a frame
    uninformed: Mapping[str, float]  # accuracy of telling the action without a score, by measure


def draw(
    games: Sequence[Played],  # one part of the figure for each
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Rollouts, use of actions, accuracies, surprise, and frames of each game, one game below the other."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(8.6, 10.6 * len(games)))
    for number, (part, found) in enumerate(zip(np.ravel(figure.subfigures(len(games), 1)), games, strict=True)):
        top, bottom = part.subfigures(2, 1, height_ratios=[1.55, 1])
        grid = top.subplots(2, 2)
        _rollouts(grid[0, 0], found)
        _use(grid[0, 1], found)
        _told(grid[1, 0], found)
        _surprise(grid[1, 1], found)
        panels.legend_below(top, grid[1, 1], 4, fontsize=8)
        _frames(bottom, found)
        how = "bands: ranges; bars: 95 % intervals over seeds" if not number else "as above"
        panels.heading(top, f"{found.game}: models of width {parameters['dim']}", parameters["seeds"], how,
                       "small worlds, small models")
    return figure


def _rollouts(panel: Any, found: Played) -> None:
    for kind, name in KINDS.items():
        panels.lines(panel, select(found.rollouts, model=kind), "ahead", "error", ROLES[kind], name)
    still = found.rollouts.groupby("ahead").last_frame.mean()
    panel.plot(still.index, still, "--", color=colour("floor"), label="last frame")
    panel.set(title="Rollout", xlabel="steps ahead", ylabel="SmoothL1", xticks=still.index[::-(-len(still) // 8)])
    panel.set_ylim(0, 1.4 * max(still.max(), found.rollouts.error.max()))
    panel.legend(fontsize=7.5, ncols=2, loc="upper left")


def _use(panel: Any, found: Played) -> None:
    for place, kind in enumerate(KINDS):
        errors = select(found.measures, model=kind, score="error")
        for measure, face in (("true actions", None), ("shuffled actions", colour("background"))):
            values = select(errors, measure=measure).value
            panel.plot(np.full(len(values), place), values, "o", ms=6, ls="", color=colour(ROLES[kind]), mfc=face)
    panel.set(title="True (full) and shuffled actions (open)", ylabel="SmoothL1 of the next frame", xlim=(-0.5, 3.5))
    panels.logarithmic(panel)
    panels.named_ticks(panel.xaxis, SHORT.values(), fontsize=8)


def _series(panel: Any, found: Played, measures: Sequence[str]) -> None:
    """One mark for each score and measure; an energy or denoising error is full, an error of predictions open."""
    own_last = lambda key: (list(KINDS).index(key.split()[0]), key.split()[1] == "error")
    keys = sorted(found.values, key=own_last)
    for place, key in enumerate(keys):
        kind, score = key.split()
        known = [name for name in measures if name in found.values[key]]
        rows = pd.DataFrame([found.values[key][name] for name in known])
        places = [measures.index(name) + 0.11 * (place - (len(keys) - 1) / 2) for name in known]
        full = score in OWN
        panels.error_bars(panel, places, rows, ROLES[kind], fmt="o" if full else "s", ms=5.5 if full else 5,
                          mfc=colour(ROLES[kind]) if full else colour("background"), lw=1,
                          label=f"{KINDS[kind].replace('the last frame', 'last')}: {OWN.get(score, score)}")
    panel.set_xlim(-0.55, len(measures) - 0.45)


def _told(panel: Any, found: Played) -> None:
    _series(panel, found, list(READINGS))
    for place, name in enumerate(READINGS):
        panel.hlines(found.uninformed[name], place - 0.5, place + 0.5, ls="--", lw=1, color=colour("floor"))
    panel.set(title="Which action was taken?", ylabel="accuracy", ylim=(0, 1.04))
    panels.named_ticks(panel.xaxis, READINGS.values())


def _surprise(panel: Any, found: Played) -> None:
    told = {"true actions", "shuffled actions", "use", *READINGS}
    events = [name for name in dict.fromkeys(found.measures.measure) if name not in told]
    _series(panel, found, events)
    panels.level(panel, 0.5)
    panel.set(title="Is an impossible frame a surprise?", ylabel="AUROC", ylim=(0, 1.04))
    panels.named_ticks(panel.xaxis, events)


def _frames(figure: Any, found: Played) -> None:
    rows, steps = list(dict.fromkeys(found.frames.row)), list(dict.fromkeys(found.frames.ahead))
    grid = figure.subplots(len(rows), len(steps), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for panel, step in zip(line, steps, strict=True):
            (pixels,) = select(found.frames, row=row, ahead=step).pixels
            panel.imshow(np.asarray(pixels, np.uint8).reshape(found.shape))
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.spines[:].set_visible(False)
        line[0].set_ylabel(SHORT.get(row, row), rotation=0, ha="right", va="center", fontsize=8)
    for panel, step in zip(grid[0], steps, strict=True):
        panel.set_title(f"+{step}", fontsize=8, loc="center", weight="normal")
    figure.suptitle("A rollout: steps ahead from true frames, with the true actions", fontsize=9)
