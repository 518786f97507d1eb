"""How soon policies succeed in training."""

import numpy as np
import pandas as pd

from ebwm.figures.experiment.tables import Interval, over_seeds

__all__ = ["fewer_updates", "updates_to_reach"]


def updates_to_reach(
    rates: pd.Series,  # success rates by number of updates, in ascending order
    level: float,  # success rate
) -> float:  # the first number of updates if it has reached the level; not a number if none has
    """Updates after which the success rate first reaches a level: on a line, by log updates, between two evaluations."""
    reached = np.flatnonzero(rates.to_numpy() >= level)
    if not len(reached) or reached[0] == 0:
        return float(rates.index[0]) if len(reached) else np.nan
    part = rates.iloc[reached[0] - 1 : reached[0] + 1]
    return float(np.exp(np.interp(level, part.to_numpy(), np.log(part.index.to_numpy(dtype=float)))))


def fewer_updates(
    ours: pd.DataFrame,  # success rates by number of updates [seeds, updates]
    theirs: pd.DataFrame,  # those of the other policy, of the same seeds
    share: float = 0.9,  # of the success rate after training, the lower one of the two policies
) -> Interval:
    """Per cent fewer updates than the other policy until success, from the mean log ratio over seeds.

    Without bounds and value if a policy has no success after training.
    """
    levels = share * np.minimum(ours.iloc[:, -1].to_numpy(), theirs.iloc[:, -1].to_numpy())
    levels[levels == 0] = np.nan
    updates = np.array([[updates_to_reach(row, level) for (_, row), level in zip(rates.iterrows(), levels, strict=True)]
                        for rates in (ours, theirs)])
    ratio = over_seeds(np.log(updates[0] / updates[1]))
    percent = {name: None if value is None else float(-100 * np.expm1(value)) for name, value in ratio.items()}
    return dict(value=percent["value"], low=percent["high"], high=percent["low"])
