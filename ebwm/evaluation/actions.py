"""Whether a world model uses actions: shuffled actions, actions told by energy, impossible events, rollouts.

A learner has `pair`, `predict` and `errors`, as `ebwm.training.learner.Learner`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ebwm.checks import between, refusal
from ebwm.data.task import chunks
from ebwm.evaluation.statistics import Interval, Numbers, paired_difference, student, wilson
from ebwm.evaluation.uncertainty import auroc
from ebwm.settings import generator
from ebwm.states import states_of
from ebwm.training.learner import item_losses

__all__ = ["ActionUse", "Rollout", "Score", "Sequences", "action_use", "energy_score", "error_score", "rollout",
           "score_actions", "surprise", "which_action"]

# States and actions; action t leads from state t to state t + 1.
Sequences = tuple[Float[Tensor, "n s state_dim"], Float[Tensor, "n s action_dim"]]
Score = Callable[[Sequences, Tensor], Tensor]  # (context, candidates [n k state_dim]) -> [n k], lower fits better
PART = 64  # items at once


# Shuffled actions


class ActionUse(NamedTuple):
    """Errors of one-step predictions with true actions and with those of other items."""

    true: Interval  # mean error with the true actions
    shuffled: Interval  # mean error with the actions of other items
    difference: Interval  # mean of shuffled - true, paired by item: above 0 if the actions are used


def action_use(
    learner: Any,  # a world model, or a baseline
    items: Sequences,  # at least 2 sequences
    seed: int = 0,  # of the order and of the noise of predictions
) -> ActionUse:
    """Compare errors with the true actions and with the actions of other items."""
    states, actions = items
    order = torch.randperm(len(states), generator=generator(seed, "shuffled actions"))
    other = torch.empty_like(actions)
    other[order] = actions[order.roll(1)]
    errors = [item_losses(learner, (states, given), seed).double().cpu().numpy() for given in (actions, other)]
    return ActionUse(*map(student, errors), paired_difference(errors[1], errors[0]))


# Which action was taken


def energy_score(
    model: Any,  # an EBT with actions
) -> Score:
    """The energy of candidates for the state after a context."""

    @torch.no_grad()
    def score(context: Sequences, candidates: Float[Tensor, "n k state_dim"]) -> Float[Tensor, "n k"]:
        landscape = model.landscape(context).last().expand(candidates.shape[1])
        return landscape(candidates.transpose(0, 1).unsqueeze(2))[..., 0].T

    return score


def error_score(
    learner: Any,  # a world model, or a baseline
    seed: int = 0,  # of the noise of predictions
) -> Score:
    """The error of a prediction if a candidate was the true state: a substitute for an energy."""

    @torch.no_grad()
    def score(context: Sequences, candidates: Float[Tensor, "n k state_dim"]) -> Float[Tensor, "n k"]:
        noise = generator(seed, "evaluation", candidates.device)
        predicted = learner.predict(context, noise)[:, -1:]
        return learner.errors(predicted.expand_as(candidates), candidates)

    return score


def score_actions(
    score: Score,  # from `energy_score` or `error_score`
    contexts: Sequences,  # contexts
    following: Float[Tensor, "n state_dim"],  # the true next states
    choices: Float[Tensor, "choices action_dim"],  # all actions, as in the contexts
) -> Float[Tensor, "n choices"]:
    """Scores of the true next state under each action, put in place of the last action of a context.

    The other reading needs no function: `score(contexts, candidates)` with the next state of each action as
    candidates gives their scores under the true action.
    """
    found = []
    for states, actions, target in chunks((*contexts, following), PART):
        columns = []
        for choice in choices:
            tried = actions.clone()
            tried[:, -1] = choice
            columns.append(score((states, tried), target[:, None])[:, 0])
        found.append(torch.stack(columns, 1))
    return torch.cat(found)


def which_action(
    scores: Float[Tensor, "n choices"],  # of each action: from `score_actions`, or of its next state; lowest wins
    taken: Int[Tensor, " n"],  # index of the action that was taken
    distinct: Bool[Tensor, " n"] | None = None,  # contexts in which no other action has the same effect; None: all
) -> Interval:  # of the accuracy, with Wilson's interval; without information it is 1 / choices
    """Share of contexts in which the action that was taken has the lowest score; equal scores share a hit."""
    kept = torch.ones_like(taken, dtype=torch.bool) if distinct is None else distinct
    if not kept.any():
        raise refusal("distinct", kept.tolist(), "must hold at least one context")
    lowest = scores[kept] == scores[kept].amin(1, keepdim=True)
    hits = lowest.gather(1, taken[kept, None])[:, 0] / lowest.sum(1)
    return Interval(float(hits.mean()), *wilson(round(float(hits.sum())), len(hits))[1:])


# Impossible events


def surprise(
    normal: Numbers,  # scores of true next states, at least 2
    impossible: Numbers,  # scores of states after impossible events, at least 2
) -> Interval:  # 0.5 without information
    """Area under the ROC: probability that an impossible state has a higher score than a true one."""
    scores = [*map(float, normal), *map(float, impossible)]
    return auroc(scores, [0] * len(normal) + [1] * len(impossible))


# Rollouts


class Rollout(NamedTuple):
    """Predictions that continue from predictions."""

    states: Float[Tensor, "n horizon state_dim"]  # predicted states
    errors: Float[Tensor, "n horizon"]  # of each predicted state
    last_state: Float[Tensor, "n horizon"]  # errors of repeating the last state of the context


@torch.no_grad()
def rollout(
    learner: Any,  # a world model, or a baseline
    items: Sequences | Float[Tensor, "n s state_dim"],  # sequences, or states without actions
    given: int,  # number of true states at the start
    seed: int = 0,  # of the noise of predictions
) -> Rollout:  # of the states after the given ones
    """Predict state after state, with the true actions if there are any; each context is encoded again for each state."""
    states = states_of(items)
    between("given", given, 1, states.shape[1] - 1)
    noise, found = generator(seed, "evaluation", states.device), []
    for part in chunks(items, PART):
        seen = states_of(part)[:, :given]
        while seen.shape[1] < states.shape[1]:
            context = (seen, part[1][:, :seen.shape[1]]) if isinstance(part, tuple) else seen
            seen = torch.cat([seen, learner.predict(context, noise)[:, -1:]], 1)
        found.append(seen[:, given:])
    predicted, target = torch.cat(found), states[:, given:]
    last = states[:, given - 1:given].expand_as(target)
    return Rollout(predicted, learner.errors(predicted, target), learner.errors(last, target))
