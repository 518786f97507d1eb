"""Forking digits: paths in plain Python, futures bit for bit, probabilities by counting, floors by search."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import smooth_l1_loss

from ebwm.data import video
from ebwm.data.forks import ForkingDigits, Futures, draw_torus, fork_floors, forking_digits, wander
from ebwm.evaluation.statistics import wilson

CHANCES = (0, 0.25, 0.5, 0.75, 1)


@pytest.fixture
def make(tmp_path):
    """Make a data set in a cache of its own."""

    def make(split: str = "train", **settings) -> ForkingDigits:
        return forking_digits(split, cache=tmp_path, **dict(clips=40) | settings)

    return make


@pytest.mark.parametrize(("split", "settings", "digest"), [
    ("train", dict(clips=8, frames=5, size=18, every=1, speed=24, chances=(0.5,), seed=3),
     "ea16c951a7c6d9dd53a288c1918e002c781b4cb1496d1933a165f91b7146bb3f"),
    ("test", dict(clips=6, frames=6), "41ad69da42e8e46fd7cd4ca85c37dec8aa78205282649df78a04943dbea29c41"),
])
def test_the_same_bytes_on_every_machine(split, settings, digest, make):
    assert make(split, **settings).digest == digest


def one_clip(words: list[int], split: str, size: int, every: int, speed: int, chances) -> np.ndarray:
    """A clip in plain Python, number by number."""
    def part(word, place, among):
        return (word >> 16 * place & 0xFFFF) * among >> 16

    scans = video.digit_scans(split)
    scan, chance = scans[part(words[0], 0, len(scans))], chances[part(words[0], 3, len(chances))]
    period = (16 * (size - 2), 16 * size)
    place, heading = [part(words[0], 1 + axis, period[axis]) for axis in (0, 1)], (0, speed)
    clip = np.zeros((len(words), size, size), np.uint8)
    for frame, word in enumerate(words):
        if frame:
            if frame % every == 0:
                down, right = heading
                heading = (-right, down) if word & 0xFFFFFFFF < chance * 2**32 else (right, -down)
            place = [(place[axis] + heading[axis]) % period[axis] for axis in (0, 1)]
        clip[frame, :2, :4] = math.floor(255 * chance + 0.5)
        for row, column in np.ndindex(size - 2, size):
            total = 0
            for (i, j), value in np.ndenumerate(scan):
                offsets = 16 * (row - i) - place[0], 16 * (column - j) - place[1]
                gaps = [offset % p for offset, p in zip(offsets, period, strict=True)]
                down, right = (max(0, 16 - min(gap, p - gap)) for gap, p in zip(gaps, period, strict=True))
                total += int(value) * down * right
            clip[frame, 2 + row, column] = (total * 255 + 2048) // 4096
    return clip


@pytest.mark.parametrize(("every", "speed", "size"), [(2, 32, 16), (1, 13, 17)])
def test_clips_agree_with_plain_python(every, speed, size, make):
    dataset = make("test", clips=3, frames=5, size=size, every=every, speed=speed, seed=5)
    for clip, row in zip(dataset.clips, video.raw_words(3, 5, 5, "test").tolist(), strict=True):
        assert np.array_equal(clip, one_clip(row, "test", size, every, speed, CHANCES))


def test_always_left_is_a_square_walked_anticlockwise():
    left = np.array([[True] * 4, [False] * 4])
    fork = wander(np.array([[50, 60], [50, 60]]), left, (1000, 1000), every=1, speed=10)
    assert fork.path[0].tolist() == [[50, 60], [40, 60], [40, 50], [50, 50], [50, 60]]
    assert fork.path[1].tolist() == [[50, 60], [60, 60], [60, 50], [50, 50], [50, 60]]
    assert fork.taken.tolist() == [[0] * 4, [1] * 4] and fork.turns.all()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_one_future_is_the_next_frame_bit_for_bit(every, make):
    dataset = make(every=every, frames=9, speed=27)
    futures, following = dataset.futures(), dataset.whole()[:, 1:]
    came = futures.states.gather(2, futures.taken[:, :, None, None].expand(*following.shape[:2], 1, 256))
    assert torch.equal(came[:, :, 0], following)
    assert (futures.probabilities.gather(2, futures.taken[..., None]) > 0).all()
    assert futures.turns.tolist() == [frame % every == 0 for frame in range(1, 9)]


def test_the_other_future_is_the_frame_of_the_same_clip_turned_the_other_way(make):
    dataset = make(frames=4, every=3, chances=(0, 1))
    other = wander(dataset.fork.path[:, 0], dataset.chances[:, None].repeat(3, 1) == 0, (224, 256), 3, 32)
    pixels = draw_torus(dataset.scans, other.path, dataset.clips[:, 0, 0, 0], 16)
    futures = dataset.futures()
    side = (1 - futures.taken[:, -1]).numpy()
    states = futures.states[np.arange(40), -1, side]
    assert torch.equal(states, dataset._states(pixels)[:, -1])
    assert (futures.probabilities[np.arange(40), -1, side] == 0).all()


def test_at_whole_pixels_a_future_is_the_last_frame_rolled(make):
    dataset = make(every=1, speed=32, frames=4)
    scenes = dataset.clips[:, :, 2:]
    futures = dataset.images(dataset.futures().states)[..., 2:, :].mul(255).round().numpy()
    rolls = [np.roll(scenes[:, 0], 2 * sign, axis=1) for sign in (-1, 1)]
    assert np.array_equal(futures[:, 0, 0], rolls[0]) and np.array_equal(futures[:, 0, 1], rolls[1])


def test_steps_without_a_fork_are_certain(make):
    futures = make(every=4).futures()
    straight = ~futures.turns
    assert straight.sum() == 12
    assert (futures.probabilities[:, straight] == torch.tensor([1.0, 0.0])).all()
    assert torch.equal(futures.states[:, straight, 0], futures.states[:, straight, 1])
    assert (futures.entropy[:, straight] == 0).all()
    assert (futures.expected(futures.best_smooth_l1)[:, straight] == 0).all()


def test_a_part_is_the_part_of_the_whole(make):
    dataset = make(clips=9)
    for ours, whole in zip(dataset.futures(slice(2, 5)), dataset.futures(), strict=True):
        assert torch.equal(ours, whole[2:5] if len(whole) == 9 else whole)


def test_the_patch_shows_the_probability_in_every_frame(make):
    dataset = make(clips=300)
    patch = dataset.clips[:, :, :2, :4]
    assert (patch == patch[:, :1, :1, :1]).all() and (dataset.clips[:, :, :2, 4:] == 0).all()
    assert {*map(int, patch[:, 0, 0, 0])} == {0, 64, 128, 191, 255}
    assert np.array_equal(np.round(patch[:, 0, 0, 0] / 255 * 4) / 4, dataset.chances)
    futures = dataset.futures(slice(0, 50))
    assert np.array_equal(futures.probabilities[:, 1, 0], dataset.chances[:50])


@pytest.mark.parametrize("chance", [0, 0.25, 0.375, 1])
def test_turns_come_with_their_probability(chance, make):
    dataset = make(clips=600, chances=(chance,))
    left = dataset.fork.taken[:, dataset.fork.turns] == 0
    rate = wilson(int(left.sum()), left.size, level=0.9999)
    assert rate.low <= chance <= rate.high


def test_turns_depend_on_nothing_before_them(make):
    left = make(clips=2000, chances=(0.5,)).fork.taken[:, 1::2]
    again = wilson(int((left[:, 1:] == left[:, :-1]).sum()), left[:, 1:].size, level=0.9999)
    assert again.low < 0.5 < again.high


@pytest.mark.parametrize(("speed", "least"), [(16, 0.1), (32, 0.2), (56, 0.2)])
def test_futures_stay_apart_for_every_scan(speed, least):
    scans = video.digit_scans("train")
    ways = np.broadcast_to(np.array([[0, 0], [2 * speed, 0], [0, 2 * speed]]), (len(scans), 3, 2))
    frames = draw_torus(scans, ways, np.zeros(len(scans), np.uint8), 16).astype(float)
    here, *there = torch.from_numpy(frames / 255 / video._digit_mean_std(16)[1]).unbind(1)
    apart = torch.stack([smooth_l1_loss(here, other, reduction="none").mean((1, 2)) for other in there])
    assert apart.min() > least


def test_digits_and_speed_are_what_was_asked_for(make):
    dataset = make(digits=(8, 9), speed=20)
    wanted = {scan.tobytes() for scan in video.digit_scans("train", (8, 9))}
    assert {scan.tobytes() for scan in dataset.scans} <= wanted
    step = np.diff(dataset.fork.path, axis=1)
    step = np.minimum(step % [224, 256], -step % [224, 256])
    assert (step.sum(-1) == 20).all() and (step.min(-1) == 0).all()


def test_the_first_clips_of_a_large_set_are_those_of_a_small_one(make):
    small, large = make(clips=5), make(clips=40)
    assert np.array_equal(small.clips, large.clips[:5])
    assert torch.equal(small.futures().states, large.futures(slice(0, 5)).states)


def test_the_cache_is_read_and_gives_the_same_futures(make, monkeypatch):
    first = make().futures()
    monkeypatch.setattr("ebwm.data.video._write", lambda *_: pytest.fail("must come from the cache"))
    for before, after in zip(first, make().futures(), strict=True):
        assert torch.equal(before, after)


def pairs(a: list[float], b: list[float], left: float) -> Futures:
    states = torch.tensor([a, b])[None, None]
    none = torch.zeros(1, 1, dtype=torch.long)
    return Futures(states, torch.tensor([[[left, 1 - left]]]), none, torch.ones(1, dtype=torch.bool))


@pytest.mark.parametrize("left", [0.0, 0.1, 0.25, 0.5, 0.5001, 0.75, 1.0])
def test_the_guesses_are_the_best_of_all(left):
    gaps = [0.0, 0.3, 1.0, 1.5, 2.0, 3.0, 6.0]
    futures = pairs([1.0] * 7, [1 + (-1) ** i * gap for i, gap in enumerate(gaps)], left)
    for i, gap in enumerate(gaps):
        own = Futures(futures.states[..., i:i + 1].double(), futures.probabilities.double(), *futures[2:])
        grid = torch.linspace(1 - gap - 0.1, 1 + gap + 0.1, 4001).double()
        for squared, best in ((False, own.best_smooth_l1), (True, own.mean)):
            losses = [smooth_l1_loss, torch.nn.functional.mse_loss][squared]
            chances = own.probabilities[0, 0]
            tried = sum(chances[way] * losses(grid, own.states[0, 0, way].expand(4001), reduction="none")
                        for way in (0, 1))
            found = own.expected(best, squared=squared).item()
            assert found <= tried.min() + 1e-7
            assert found >= tried.min() - (gap + 0.2) / 4000


def test_entropy_and_means_have_their_known_values():
    futures = pairs([0.0, 2.0], [4.0, 2.0], 0.25)
    assert futures.entropy.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert futures.mean.tolist() == [[[3.0, 2.0]]] and futures.likelier.tolist() == [[[4.0, 2.0]]]
    assert pairs([0.0], [4.0], 0.5).likelier.item() == 0
    assert futures.expected(futures.mean, squared=True).item() == pytest.approx((0.25 * 9 + 0.75) / 2)
    assert futures.expected(futures.likelier).item() == pytest.approx(0.25 * 3.5 / 2)


def test_what_is_expected_is_what_happens_on_average(make):
    dataset = make(clips=1500, chances=(0.25, 0.5))
    futures, following = dataset.futures(), dataset.whole()[:, 1:]
    realised = smooth_l1_loss(futures.mean, following, reduction="none").mean(-1)
    gap = (realised - futures.expected(futures.mean))[:, futures.turns].mean(1)
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5


@pytest.mark.parametrize("part", [7, 256])
def test_floors_are_the_losses_of_their_guesses(part, make):
    dataset = make(clips=20)
    futures, states = dataset.futures(), dataset.whole()
    found = fork_floors(dataset, part)
    assert found["mean"] == pytest.approx(futures.expected(futures.mean).mean().item(), rel=1e-5)
    assert found["last_frame"] == pytest.approx(futures.expected(states[:, :-1]).mean().item(), rel=1e-5)
    between = smooth_l1_loss(*futures.states.unbind(2), reduction="none").mean(-1)
    sample = (2 * futures.probabilities.prod(-1) * between).mean().item()
    assert found["sample"] == pytest.approx(sample, rel=1e-5)
    assert found["best_smooth_l1"] < min(found["mean"], found["likelier"])
    assert max(found["mean"], found["likelier"]) < found["sample"] < found["last_frame"]
    first = futures.expected(futures.likelier)[:5].mean().item()
    assert fork_floors(dataset, part, limit=5)["likelier"] == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(("wrong", "message"), [
    (dict(clips=0), "clips=0: it must be 1 or more"),
    (dict(frames=1), "frames=1: it must be 2 or more"),
    (dict(size=15), "size=15: it must be 16 or more"),
    (dict(seed=-1), "seed=-1: it must be 0 or more"),
    (dict(every=0), "every=0: it must be from 1 to 15, or 16 frames hold no fork"),
    (dict(every=16), "every=16: it must be from 1 to 15"),
    (dict(speed=0), "speed=0: it must be from 1 to 56"),
    (dict(speed=57), "speed=57: .* meet round the torus"),
    (dict(chances=()), r"chances=\[\]: they must be one or more"),
    (dict(chances=(0.5, 1.5)), r"chances=\[0.5, 1.5\]: .* from 0 to 1"),
    (dict(chances=(float("nan"),)), r"chances=\[nan\]: .* from 0 to 1"),
    (dict(chances=(0.5, 0.501)), "chances=.* less than a shade of grey"),
    (dict(digits=()), r"digits=\[\]: they must be one or more"),
    (dict(digits=(3, 10)), r"digits=\[3, 10\]: .* from 0 to 9"),
    (dict(split="validation"), "split='validation': it must be one of train, valid, test"),
])
def test_bad_parameters_are_named(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        forking_digits(**{"split": "train", "cache": tmp_path} | wrong)
    assert not list(tmp_path.iterdir())
