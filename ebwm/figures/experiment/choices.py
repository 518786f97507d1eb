"""The default step size beside a grid of fixed ones, on three kinds of data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ebwm.data.configs import ClipsConfig, StatesConfig, TextConfig
from ebwm.data.systems import lorenz
from ebwm.data.tasks import load_task
from ebwm.figures.experiment.runs import Experiment
from ebwm.figures.experiment.tables import over_seeds

__all__ = ["choice_tasks", "compared_sizes", "regret"]

TEXT_STD = 0.03  # of initial token embeddings


def choice_tasks(
    clips: ClipsConfig,  # of moving digits
    text: TextConfig,  # of Python's documentation
) -> dict[str, Any]:  # task by name
    """Moving digits, recordings of the Lorenz system, and text."""
    return {"digits": load_task(clips), "Lorenz": load_task(StatesConfig(), data=lorenz(400, 24)),
            "text": load_task(text)}


def compared_sizes(
    experiment: Experiment,  # gives the shape of the model
    tasks: Mapping[str, Any],  # from `choice_tasks`
    sizes: Sequence[float],  # fixed step sizes at the start
    updates: int,  # of a training run
    rates: Mapping[str, float],  # learning rate by task
    seed: int,  # of weights, batches and noise
) -> pd.DataFrame:  # one row a run: data, step_size, chosen, loss
    """Test losses after training from fixed step sizes and from the default."""
    rows = []
    for name, task in tasks.items():
        for size in [*sizes, "auto"]:
            std = TEXT_STD if name == "text" else 1.0
            learner = experiment.learner("ebt", task, seed, experiment.walk(size), embedding_std=std)
            start, optimiser = learner.model.step_size.item(), experiment.optimiser(rates[name], updates)
            log = experiment.train(learner, task.splits["train"], seed, optimiser, valid=task.items("test"), diverging=True)
            loss = log.valid_loss.iloc[-1] if "valid_loss" in log else np.inf
            rows.append(dict(data=name, step_size=start, chosen=size == "auto", loss=loss))
    return pd.DataFrame(rows)


def regret(
    frame: pd.DataFrame,  # rows of `compared_sizes` for one task, with the column `seed`
) -> dict[str, Any]:  # best fixed step size, mean of the default ones, difference of log losses with its interval
    """The loss from the default step size relative to the fixed one of lowest mean loss over seeds."""
    losses = np.log(frame[~frame.chosen].pivot(index="seed", columns="step_size", values="loss"))
    best, own = losses.mean().idxmin(), frame[frame.chosen].set_index("seed")
    return dict(best=float(best), chosen=float(np.exp(np.log(own.step_size).mean())),
                regret=over_seeds(np.log(own.loss) - losses[best]))
