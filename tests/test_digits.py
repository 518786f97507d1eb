"""Moving digits: the same bytes everywhere, and the laws of their motion."""

import numpy as np
import pytest
import torch

from ebwm.data import digits
from ebwm.data.cache import SPLITS
from ebwm.data.digits import bounce, digit_scans, moving_digits, raw_words

TURNS = dict(clips=8, frames=4, size=20, turn=0.5, seed=3)


@pytest.mark.parametrize("split, settings, digest", [
    ("train", TURNS, "570703e2ddc9ee68e1e58c8021d52b928980b6bfc3158c3e1f257ff56277b6d2"),
    ("valid", TURNS, "8a525d2657c1e3b92d45b91656456e63540647334340d73d51e11291c08f2ee6"),
    ("test", TURNS, "50768098317e4fd21c502d4c5ea8ee1a39389ee544e564362dd8529bc83c66fb"),
    ("train", dict(clips=4, frames=3), "07a5d707df4946001ab58178765ac9e57e15db71a3510b38a2b33959cfb6a818"),
    ("train", dict(clips=8, frames=4, speeds=(40, 64), digits=(8, 9), occlusion=6),
     "142fc775521a546f79ab31cc05175a9514adeb0b8e9fbc712f24e04069b9a433")])
def test_bytes_are_the_same_on_every_machine(split, settings, digest, tmp_path):
    assert moving_digits(split, cache=tmp_path, **settings).digest == digest


def test_a_small_set_equals_the_start_of_a_large_one_in_a_data_loader(tmp_path):
    small, large = (moving_digits("train", clips=n, frames=4, speeds=(128, 128), cache=tmp_path) for n in (6, 40))
    assert torch.equal(torch.cat([*torch.utils.data.DataLoader(small, batch_size=3)]), large.whole(6))


def test_splits_share_neither_scans_nor_motion_and_scans_have_the_selected_labels():
    from sklearn.datasets import load_digits

    source = load_digits()
    labels = {image.astype(np.uint8).tobytes(): label
              for image, label in zip(source.images, source.target, strict=True)}
    scans = {split: {scan.tobytes() for scan in digit_scans(split)} for split in SPLITS}
    assert sum(map(len, scans.values())) == len(set.union(*scans.values())) == 1797
    assert len({raw_words(1, 4, 0, split).tobytes() for split in SPLITS}) == 3
    for split in SPLITS:
        assert {labels[scan.tobytes()] for scan in digit_scans(split, (8, 9))} == {8, 9}
        parts = [digit_scans(split, digits) for digits in ((8, 9), range(8), (9, 8, 9, *range(8)))]
        assert len(parts[0]) + len(parts[1]) == len(parts[2]) == len(scans[split])


def test_all_data_sets_share_the_scale_of_the_training_scans(tmp_path):
    train, *others = (moving_digits(split, cache=tmp_path, **settings) for split, settings in [
        ("train", dict(clips=600)), ("valid", dict(clips=8, turn=0.5, seed=9)),
        ("valid", dict(clips=8, digits=(8,), occlusion=3))])
    assert {(data.mean, data.std) for data in others} == {(train.mean, train.std)}
    pixels = np.asarray(train.clips) / 255
    assert (train.mean, train.std) == pytest.approx((pixels.mean(), pixels.std()), rel=0.02)


def test_scans_shift_by_bilinear_interpolation():
    scan, part = digit_scans("train")[:1], np.array([[5, 11]])
    expected = np.zeros((9, 9))
    for (row, column), value in np.ndenumerate(scan[0]):
        expected[row:row + 2, column:column + 2] += np.outer([11 / 16, 5 / 16], [5 / 16, 11 / 16]) * value
    assert abs(digits.shift_scans(scan, part)[0] - expected * 255 / 16).max() <= 0.5


@pytest.mark.parametrize("speeds", [(1, 1), (8, 32), (128, 128)])
def test_speeds_cover_their_range_and_digits_stay_in_the_frame(speeds):
    words = raw_words(4000, 20, 0, "train")
    found = abs(np.diff(bounce(np.full((4000, 2), 5000), words, limit=10**4, speeds=speeds), axis=1))
    assert (found.min(), found.max()) == speeds
    inside = bounce(np.full((4000, 2), 60), words, limit=128, turn=0.3, speeds=speeds)
    assert inside.min() >= 0 and inside.max() <= 128


@pytest.mark.parametrize("turn", [0.0, 0.25, 1.0])
def test_turns_have_their_probability(turn):
    path = bounce(np.full((200, 2), 10**6), raw_words(200, 41, 0, "train"), limit=2 * 10**6, turn=turn)
    changes = (np.diff(np.diff(path[:, :, 0])) != 0).mean()
    expected = turn * (1 - 1 / 50)  # one new velocity in fifty equals the old one
    margin = 4 * (expected * (1 - expected) / (200 * 39)) ** 0.5
    assert abs(changes - expected) <= margin + 0.002  # sixteen bits do not divide evenly by fifty


@pytest.mark.parametrize("side", [1, 7, 16])
def test_occlusion_hides_one_square_and_nothing_else(side, tmp_path):
    plain, hidden = (moving_digits("train", clips=300, frames=3, occlusion=n, cache=tmp_path).clips for n in (0, side))
    covered, places = (hidden == 128).all(1), set()
    for before, after, hides in zip(plain, hidden, covered, strict=True):
        top, left = (int(hides.any(axis).argmax()) for axis in (1, 0))
        square = np.zeros((16, 16), bool)
        square[top:top + side, left:left + side] = True
        assert hides[square].all() and np.array_equal(after[:, ~square], before[:, ~square])
        places.add((top, left))
    free = 16 - side + 1
    assert {a for a, _ in places} == {b for _, b in places} == set(range(free))
    assert len(places) > 0.6 * min(free**2, 256)


def test_each_parameter_has_a_separate_cache_entry(tmp_path):
    base = dict(split="train", clips=3, frames=2, size=16, turn=0.0, seed=0, digits=(8, 9))
    others = dict(split="valid", clips=4, frames=3, size=17, turn=0.5, seed=1, digits=[9, 8, 9])
    for changed in ({}, *({name: value} for name, value in others.items())):
        moving_digits(**base | changed, cache=tmp_path)
    assert len(list(tmp_path.glob("moving-digits-*.npy"))) == 7  # the order of digits does not count
