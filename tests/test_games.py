"""Games: same frames for same seeds, rules, impossible events, storage, and measures of the use of actions."""

from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch

from ebwm.data.cache import SPLITS
from ebwm.data.games import POLICIES, as_states, episode_seeds, episodes, make_game, probes, record
from ebwm.data.task import next_state, state_errors
from ebwm.data.worlds import Dice, Push, resample, route
from ebwm.ebt import EBT
from ebwm.evaluation.actions import (
    action_use,
    energy_score,
    error_score,
    rollout,
    score_actions,
    surprise,
    which_action,
)
from ebwm.evaluation.rollouts import by_horizon, nearest_of
from ebwm.evaluation.statistics import wilson
from ebwm.settings import generator
from ebwm.training.learner import Learner


def needs(package, *values):
    """Values of a parameter that need a package."""
    return pytest.param(*values, marks=pytest.mark.skipif(not find_spec(package), reason=f"{package} is not installed"))


by_game = pytest.mark.parametrize("name", ["push", "push:9", needs("minigrid", "minigrid:Empty-Random-6x6-v0"),
                                           needs("minigrid", "minigrid:DoorKey-6x6-v0"),
                                           needs("ale_py", "atari:breakout"), needs("ale_py", "atari:freeway")])
STAY, UP, DOWN, LEFT, RIGHT = range(5)


# Games


@by_game
@pytest.mark.parametrize("policy", POLICIES)
def test_replayed_actions_give_the_frames_and_trials_change_nothing(name, policy):
    game = make_game(name, size=16)
    frames, actions = record(game, POLICIES[policy], 12, seed=3)
    assert frames.shape == (12, 16, 16, 3) and len(actions) == 12 and len(set(actions)) > 1
    other = make_game(name, size=16)
    replayed = [other.reset(3)]
    for action in actions[:-1]:
        branches = other.branches()
        for kind in other.kinds:
            other.impossible(kind, int(action), Dice(0, "test"))
        replayed.append(other.step(int(action)).frame)
        assert (replayed[-1] == branches[action]).all()
    assert (np.stack(replayed) == frames).all() and (frames[1:] != frames[:-1]).any()


def world(agent, block=(3, 3), switch=(1, 3), lit=False):
    """A world of 5 cells without walls inside."""
    game = Push(5, walls=0)
    game.reset(0)
    game.agent, game.block, game.switch, game.lit = agent, block, switch, lit
    return game


@pytest.mark.parametrize("game, action, agent, block, lit", [
    (world((2, 2)), UP, (1, 2), (3, 3), False), (world((2, 2)), STAY, (2, 2), (3, 3), False),
    (world((1, 1)), UP, (1, 1), (3, 3), False),  # a wall
    (world((2, 1), (2, 2)), RIGHT, (2, 2), (2, 3), False),  # a push
    (world((2, 2), (2, 3)), RIGHT, (2, 2), (2, 3), False),  # a block at a wall
    (world((1, 2)), RIGHT, (1, 3), (3, 3), True), (world((1, 2), lit=True), RIGHT, (1, 3), (3, 3), False),
    (world((1, 3)), STAY, (1, 3), (3, 3), False)])
def test_the_agent_moves_pushes_and_switches(game, action, agent, block, lit):
    reward = game.step(action).reward
    assert (game.agent, game.block, game.lit) == (agent, block, lit) and reward == float(agent == (1, 3) and action > 0)


@pytest.mark.parametrize("symbolic", [False, True])
def test_impossible_events_leave_the_possible_frames(symbolic):
    found = probes("push", count=40, frames=4, symbolic=symbolic)
    moved = (found.following != found.episodes.frames[:, -1]).any((1, 2, 3))
    assert (found.visible("freeze") == moved).all() and found.visible("recolour").all()
    outside = (found.impossible["teleport"][:, None] != found.branches).any((2, 3, 4)).all(1)
    assert (outside == found.visible("teleport")).all() and outside.mean() > 0.5
    same = [(branch == found.following[0]).all() for branch in found.branches[0]]
    assert found.distinct[0] == (sum(same) == 1) and 0 < found.distinct.mean() < 1


def test_frames_are_scaled_by_areas_and_ways_are_shortest():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (resample(image, 8) == image.repeat(2, 0).repeat(2, 1)).all()
    mean = np.floor(image.reshape(2, 2, 2, 2, 3).mean((1, 3)) + 0.5)
    assert (resample(image, 2) == mean).all() and resample(image, 3).sum() > 0
    free = np.ones((3, 3), bool)
    free[1, :2] = False
    assert route(free, (0, 0), (2, 0)) == [(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0)]
    assert route(free, (0, 0), (1, 0)) == [] == route(free, (0, 0), (0, 0))


@pytest.mark.parametrize("name, channels", [("push", 5), needs("minigrid", "minigrid:DoorKey-6x6-v0", 21)])
def test_symbols_are_one_plane_for_each(name, channels):
    frame = make_game(name, symbolic=True).reset(0)
    assert frame.shape[2] == channels and set(np.unique(frame)) == {0, 255} and (frame.any((0, 1))).sum() > 3


# Episodes


def test_episodes_are_stored_with_digests_and_made_again_if_damaged(tmp_path):
    options = dict(count=70, frames=5, seed=2, cache=tmp_path)
    made = episodes("push", **options)
    assert made.digest == "fbbb3875c2097e369de7808165df01e8c458f8fb345fa556cf4ac6520fda3bc8"
    files = sorted(tmp_path.rglob("*.npy"))
    assert [np.load(path, mmap_mode="r").shape[0] for path in files] == [64, 6]
    files[0].write_bytes(b"damaged")
    assert episodes("push", **options).digest == made.digest
    frames, actions = record(make_game("push"), POLICIES["scripted"], 5, int(made.seeds[69]))
    assert (made.frames[69] == frames).all() and (made.actions[69] == actions).all()
    states, one_hot = made.data
    assert states.shape == (70, 5, 147) and (one_hot.argmax(-1).numpy() == made.actions).all()
    assert (as_states(made.frames[:, 0]) == states[:, 0]).all()


def test_splits_and_seeds_have_different_games():
    seeds = [episode_seeds(split, 1_000_000, seed) for split in SPLITS for seed in (0, 1)]
    ends = sorted((part.start, part.stop) for part in seeds)
    assert all(before[1] <= after[0] for before, after in pairwise(ends))


# Use of actions


def turns(items=40, length=6, choices=4):
    """Points on a circle: action k turns by k quarters. States, one-hot actions, and all actions."""
    actions = torch.randint(choices, (items, length), generator=generator(0, "actions"))
    angles = (torch.cumsum(actions, 1) - actions) * torch.pi / 2
    return torch.stack([angles.cos(), angles.sin()], -1), torch.eye(choices)[actions], torch.eye(choices)


def turned(context):
    """The true next states."""
    states, actions = context
    angles = actions.argmax(-1) * torch.pi / 2
    cos, sin = angles.cos(), angles.sin()
    x, y = states.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def learner(predict):
    """A learner of a given function, without noise."""
    return Learner(None, None, lambda context, noise: predict(context), errors=state_errors, pair=next_state)


PERFECT, IGNORING = learner(turned), learner(lambda context: context[0])


def test_a_perfect_model_uses_its_actions_and_another_does_not():
    states, actions, _ = turns()
    used, ignored = (action_use(model, (states, actions)) for model in (PERFECT, IGNORING))
    assert used.true.value < 1e-12 and used.difference.low > 0.1
    assert ignored.difference == (0, 0, 0) and ignored.true == ignored.shuffled


@pytest.mark.parametrize("model, accuracy", [(PERFECT, 1), (IGNORING, 0.25)])
def test_actions_are_told_by_scores(model, accuracy):
    states, actions, choices = turns()
    context, taken, score = (states, actions), actions[:, -1].argmax(-1), error_score(model)
    by_action = score_actions(score, context, turned(context)[:, -1], choices)
    assert which_action(by_action, taken).value == pytest.approx(accuracy)
    branches = torch.stack([turned((states[:, -1], choice.expand(40, 4))) for choice in choices], 1)
    by_state = score(context, branches)
    hits = 1.0 if accuracy == 1 else float((taken == 0).float().mean())  # the last state is that of action 0
    assert which_action(by_state, taken).value == pytest.approx(hits)
    assert which_action(by_state, taken, taken == 1).value == float(accuracy == 1)
    assert surprise(by_state[:, 0].tolist(), (by_state[:, 0] + 9).tolist()).value == 1


def test_rollouts_continue_from_predictions():
    items = turns()[:2]
    perfect, ignoring = rollout(PERFECT, items, 2), rollout(IGNORING, items, 2)
    assert perfect.states.shape == (40, 4, 2) and perfect.errors.max() < 1e-9
    assert (ignoring.errors == ignoring.last_state).all() and ignoring.errors.mean() > 0.1


def test_energies_of_candidates_are_those_of_the_landscape():
    states, actions, _ = turns(items=3)
    model = EBT(8, 2, 2, state_dim=2, action_dim=4, generator=generator(0, "weights"))
    candidates = torch.randn(3, 4, 2, generator=generator(0, "candidates"))
    found = energy_score(model)((states, actions), candidates)
    whole = model.landscape((states, actions))
    for number in range(4):
        energies = whole(candidates[:, number, None].expand(-1, 6, -1))[:, -1]
        torch.testing.assert_close(found[:, number], energies)


# Rollouts by horizon


@pytest.mark.parametrize("actions", [True, False])
def test_rollouts_and_teacher_forcing_agree_for_a_perfect_model_and_part_for_a_biased_one(actions):
    states, moves, _ = turns(items=20, length=7)
    if not actions:
        states = states.cumsum(1)
    items = (states, moves) if actions else states
    exact = lambda context: turned(context) if actions else next_of[context.shape[1]]
    next_of = {length: states[:, 1:length + 1] for length in range(1, 7)}
    for bias, most in ((0.0, 1e-9), (0.1, 1.0)):
        model = learner(lambda context, bias=bias: exact(context) + bias)
        found = by_horizon(model, items, given=3)
        assert len(found.rolled) == len(found.forced) == 4 and found.states.shape == (20, 4, 2)
        assert all(one.value <= most for one in found.rolled + found.forced)
        assert found.rolled[0] == found.forced[0] and found.growth[0].value == 0
        assert actions is False or bias == 0 or found.growth[-1].low > 0
    assert by_horizon(learner(exact), items, given=3).better_until() == 4
    assert by_horizon(learner(lambda context: exact(context) + 9), items, given=3).better_until() == 0


def test_the_nearest_frame_of_a_true_state_is_that_frame():
    states = torch.randn(6, 5, 3, generator=generator(0, "states"))
    found = nearest_of(states[:4, 3:] + 1e-3, states)
    assert found.items.tolist() == [[n, n] for n in range(4)] and found.frames.tolist() == [[3, 4]] * 4
    assert found.same_item == [wilson(4, 4)] * 2 and [one.value for one in found.late] == [0, 0]
    wrong = nearest_of(states[1:5, 3:], states)
    assert [one.value for one in wrong.same_item] == [0, 0] and wrong.late[0].value != wrong.late[0].value
