"""The picture of the figure `representations`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.denoise import KINDS

ROLES = {"ebt": "ebt", "one_pass": "transformer", "dit": "diffusion", "pixels": "floor"}
TRAININGS = {"untrained": "before training", "one": "one level", "below": "levels up to it", "all": "all levels"}


def draw(
    accuracy: pd.DataFrame,  # rows with model, noise and an interval
    found: Mapping[tuple[str, str], np.ndarray],  # whether a class was found, [seeds images], by model and noise
    differences: pd.DataFrame,  # intervals by name of the comparison
    parameters: Mapping[str, Any],  # of the notebook
) -> Any:  # the figure
    """Shares of test images whose class is found, by training, and the EBT's differences to others."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(10, 4.6))
    left, right = figure.subplots(1, 2)
    table = accuracy.set_index(["model", "noise"])
    for shift, (kind, name) in zip((-0.2, 0.0, 0.2), KINDS.items(), strict=True):
        places = [place for place, noise in enumerate(TRAININGS) if (kind, noise) in table.index]
        rows = table.loc[[(kind, list(TRAININGS)[place]) for place in places]]
        panels.error_bars(left, np.array(places) + shift, rows, ROLES[kind], fmt="o", ms=5, label=name)
        for place in places:
            values = found[kind, list(TRAININGS)[place]].mean(1)
            panels.marks(left, place + shift - 0.06, values, ROLES[kind])
    panels.level(left, float(table.loc[("pixels", "none")]["value"]), ls=":", label="pixels")
    panels.named_ticks(left.xaxis, TRAININGS.values(), fontsize=8.5)
    left.set(title="Classes found by a linear probe", ylabel="share of test images")
    left.legend(fontsize=8)
    panels.error_bars(right, range(len(differences)), differences, "ebt", fmt="o", ms=5)
    panels.zero(right)
    panels.named_ticks(right.xaxis, [name.replace("_", "\n") for name in differences.index], fontsize=8.5)
    right.set(title="EBT minus others", ylabel="difference of shares")
    stand_in = panels.STAND_IN if parameters["images"] == "digits" else "small models"
    panels.heading(figure, f"Linear probes of denoisers of {parameters['images']}", parameters["seeds"],
                   "points: seeds; bars: 95 % intervals over seeds and images", stand_in)
    return figure
