"""Predictions several states ahead: their error by horizon beside one-step errors, and the real frames nearest to them.

A learner has `pair`, `predict` and `errors`, as `ebwm.training.learner.Learner`.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebwm.checks import between, refusal
from ebwm.data.features import nearest_frames
from ebwm.evaluation.actions import Sequences, rollout
from ebwm.evaluation.statistics import Interval, student, wilson
from ebwm.states import states_of
from ebwm.training.learner import position_losses

__all__ = ["Horizons", "Nearest", "by_horizon", "nearest_of"]


class Horizons(NamedTuple):
    """Mean errors by horizon, with intervals over items; entry h - 1 is of the state h after the last given one."""

    rolled: list[Interval]  # the context continues with predictions
    forced: list[Interval]  # teacher forcing: the context continues with true states
    last_state: list[Interval]  # the last given state is repeated
    growth: list[Interval]  # rolled - forced, of the same items
    states: Float[Tensor, "n horizon state_dim"]  # predictions that continue from predictions

    def better_until(self) -> int:
        """Last horizon up to which each rollout's mean error is below that of the repeated state; 0: none."""
        pairs = zip(self.rolled, self.last_state, strict=True)
        worse = (number for number, (ours, last) in enumerate(pairs) if ours.value >= last.value)
        return next(worse, len(self.rolled))


def by_horizon(
    learner: Any,  # a world model, or a baseline
    items: Sequences | Float[Tensor, "n s state_dim"],  # at least 2 sequences, with actions or without
    given: int,  # number of true states at the start
    seed: int = 0,  # of the noise of predictions
) -> Horizons:
    """Roll a model out, and compare with its one-step errors at the same states."""
    count, length = states_of(items).shape[:2]
    between("given", given, 1, length - 1)
    if count < 2:
        raise refusal("items", count, "must be at least 2 sequences", "pass more items")
    free = rollout(learner, items, given, seed)
    forced = position_losses(learner, items, seed)[:, given - 1:]
    rows = {"rolled": free.errors, "forced": forced, "last_state": free.last_state, "growth": free.errors - forced}
    means = {name: [student(column) for column in errors.double().cpu().numpy().T]
             for name, errors in rows.items()}
    return Horizons(**means, states=free.states)


class Nearest(NamedTuple):
    """The real frames whose states are nearest to predicted ones."""

    items: Int[Tensor, "n horizon"]  # index of the sequence
    frames: Int[Tensor, "n horizon"]  # place in it
    same_item: list[Interval]  # by horizon: share of predictions whose nearest frame is of the same sequence
    late: list[Interval]  # by horizon: mean distance in frames to the true place, of those of the same sequence


def nearest_of(
    predicted: Float[Tensor, "n horizon state_dim"],  # such as `Horizons.states`, of the first n sequences
    states: Float[Tensor, "items s state_dim"],  # real states, those of the n sequences first
) -> Nearest:
    """The nearest real frame of each predicted state; with it, a person can look at a prediction."""
    length, horizon = states.shape[1], predicted.shape[1]
    places = nearest_frames(predicted, states.flatten(0, 1))
    items, frames = places // length, places % length
    own = items == torch.arange(len(predicted), device=items.device)[:, None]
    true = torch.arange(length - horizon, length, device=frames.device)
    away = (frames - true).abs().double()
    late = [student(away[own[:, h], h].cpu().numpy()) if own[:, h].sum() > 1
            else Interval(torch.nan, torch.nan, torch.nan) for h in range(horizon)]
    return Nearest(items, frames, [wilson(int(count), len(own)) for count in own.sum(0)], late)
