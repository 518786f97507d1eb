"""Forking digits: the same bytes, exact futures, probabilities by counting, best predictions by search."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss, smooth_l1_loss

from ebwm.data.digits import digit_scans
from ebwm.data.forks import Futures, draw_torus, fork_baselines, forking_digits, wander
from ebwm.evaluation.statistics import wilson


@pytest.fixture
def make(tmp_path):
    """Make a data set in a cache of the test."""
    return lambda split="train", **settings: forking_digits(split, cache=tmp_path, **dict(clips=40) | settings)


def test_bytes_are_the_same_on_every_machine(make):
    found = [make(clips=8, frames=5, size=18, every=1, speed=24, chances=(0.5,), seed=3),
             make("test", clips=6, frames=6)]
    assert [dataset.digest for dataset in found] == [
        "ea16c951a7c6d9dd53a288c1918e002c781b4cb1496d1933a165f91b7146bb3f",
        "41ad69da42e8e46fd7cd4ca85c37dec8aa78205282649df78a04943dbea29c41"]


def test_always_left_is_an_anticlockwise_square():
    left = np.array([[True] * 4, [False] * 4])
    fork = wander(np.array([[50, 60], [50, 60]]), left, (1000, 1000), every=1, speed=10)
    assert fork.path[0].tolist() == [[50, 60], [40, 60], [40, 50], [50, 50], [50, 60]]
    assert fork.path[1].tolist() == [[50, 60], [60, 60], [60, 50], [50, 50], [50, 60]]
    assert fork.taken.tolist() == [[0] * 4, [1] * 4] and fork.turns.all()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_one_future_equals_the_next_frame_and_steps_without_a_fork_are_certain(every, make):
    dataset = make(every=every, frames=9, speed=27)
    futures, following = dataset.futures(), dataset.whole()[:, 1:]
    actual = futures.states.gather(2, futures.taken[:, :, None, None].expand(*following.shape[:2], 1, 256))
    assert torch.equal(actual[:, :, 0], following)
    assert (futures.probabilities.gather(2, futures.taken[..., None]) > 0).all()
    assert futures.turns.tolist() == [frame % every == 0 for frame in range(1, 9)]
    assert (futures.probabilities[:, ~futures.turns] == torch.tensor([1.0, 0.0])).all()
    assert torch.equal(*futures.states[:, ~futures.turns].unbind(2))


def test_the_other_future_is_the_frame_after_the_opposite_turn(make):
    dataset = make(frames=4, every=3, chances=(0, 1))
    other = wander(dataset.fork.path[:, 0], dataset.chances[:, None].repeat(3, 1) == 0, (224, 256), 3, 32)
    pixels = draw_torus(dataset.scans, other.path, dataset.clips[:, 0, 0, 0], 16)
    futures = dataset.futures()
    side = (1 - futures.taken[:, -1]).numpy()
    assert torch.equal(futures.states[np.arange(40), -1, side], dataset.states(pixels)[:, -1])
    assert (futures.probabilities[np.arange(40), -1, side] == 0).all()


def test_a_part_and_a_smaller_set_equal_their_part_of_the_whole(make):
    small, large = make(clips=5), make(clips=40)
    assert np.array_equal(small.clips, large.clips[:5])
    for part, ours in ((slice(2, 5), large.futures(slice(2, 5))), (slice(5), small.futures())):
        assert torch.equal(ours.turns, large.futures().turns)
        assert all(torch.equal(one, whole[part]) for one, whole in zip(ours[:3], large.futures()[:3], strict=True))


def test_the_patch_shows_the_probability_in_every_frame(make):
    dataset = make(clips=300)
    patch = dataset.clips[:, :, :2, :4]
    assert (patch == patch[:, :1, :1, :1]).all() and (dataset.clips[:, :, :2, 4:] == 0).all()
    assert {*map(int, patch[:, 0, 0, 0])} == {0, 64, 128, 191, 255}
    assert np.array_equal(np.round(patch[:, 0, 0, 0] / 255 * 4) / 4, dataset.chances)
    assert np.array_equal(dataset.futures(slice(0, 50)).probabilities[:, 1, 0], dataset.chances[:50])


@pytest.mark.parametrize("chance", [0, 0.25, 0.375, 1])
def test_turns_have_their_probability_and_are_independent(chance, make):
    taken = make(clips=600, chances=(chance,)).fork.taken[:, 1::2]
    rate = wilson(int((taken == 0).sum()), taken.size, level=0.9999)
    assert rate.low <= chance <= rate.high
    same = chance**2 + (1 - chance)**2
    again = wilson(int((taken[:, 1:] == taken[:, :-1]).sum()), taken[:, 1:].size, level=0.9999)
    assert again.low <= same <= again.high


def test_digits_and_speed_are_as_requested(make):
    dataset = make(digits=(8, 9), speed=20)
    assert {scan.tobytes() for scan in dataset.scans} <= {s.tobytes() for s in digit_scans("train", (8, 9))}
    step = np.diff(dataset.fork.path, axis=1)
    step = np.minimum(step % [224, 256], -step % [224, 256])
    assert (step.sum(-1) == 20).all() and (step.min(-1) == 0).all()


def pairs(a, b, left):
    """Two futures of one step, in float64."""
    states, chances = torch.tensor([a, b]).double()[None, None], torch.tensor([[[left, 1 - left]]]).double()
    return Futures(states, chances, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, dtype=torch.bool))


@pytest.mark.parametrize("left", [0.0, 0.1, 0.5, 0.5001, 0.75, 1.0])
@pytest.mark.parametrize("distance", [0.0, -0.3, 1.0, -1.5, 2.0, -3.0, 6.0])
def test_the_best_predictions_are_the_best_of_a_grid(left, distance):
    futures = pairs([1.0], [1 + distance], left)
    grid = torch.linspace(0.9 - abs(distance), 1.1 + abs(distance), 4001).double()
    for measure, best in ((smooth_l1_loss, futures.best_smooth_l1), (mse_loss, futures.mean)):
        tried = sum(share * measure(grid, state.expand(4001), reduction="none")
                    for share, state in zip(futures.probabilities[0, 0], futures.states[0, 0], strict=True))
        found = futures.expected(best, squared=measure is mse_loss).item()
        assert tried.min() - (abs(distance) + 0.2) / 4000 <= found <= tried.min() + 1e-7


def test_entropy_and_means_have_their_known_values():
    futures = pairs([0.0, 2.0], [4.0, 2.0], 0.25)
    assert futures.entropy.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert futures.mean.tolist() == [[[3.0, 2.0]]] and futures.likelier.tolist() == [[[4.0, 2.0]]]
    assert pairs([0.0], [4.0], 0.5).likelier.item() == 0
    assert futures.expected(futures.mean, squared=True).item() == pytest.approx((0.25 * 9 + 0.75) / 2)
    assert futures.expected(futures.likelier).item() == pytest.approx(0.25 * 3.5 / 2)


@pytest.mark.parametrize("part", [7, 256])
def test_baselines_are_the_losses_of_their_predictors(part, make):
    dataset = make(clips=20)
    futures, states = dataset.futures(), dataset.whole()
    between = smooth_l1_loss(*futures.states.unbind(2), reduction="none").mean(-1)
    known = ("mean", "likelier", "best_smooth_l1")
    expected = {name: futures.expected(getattr(futures, name)) for name in known}
    expected |= {"last_frame": futures.expected(states[:, :-1]),
                 "sample": 2 * futures.probabilities.prod(-1) * between}
    for limit in (None, 5):
        means = {name: losses[:limit].mean().item() for name, losses in expected.items()}
        assert fork_baselines(dataset, part, limit) == pytest.approx(means, rel=1e-5)
    assert means["best_smooth_l1"] < min(means["mean"], means["likelier"])
    assert max(means["mean"], means["likelier"]) < means["sample"] < means["last_frame"]
