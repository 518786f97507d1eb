"""Moving digits byte by byte; data sets, cache, floors; video files of all sorts, broken ones among them."""

import json
import pickle
import shutil
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebwm.data import video
from ebwm.data.video import SPLITS, VideoDataset, moving_digits, video_folder, video_hub

av = pytest.importorskip("av")


# Moving digits


@pytest.mark.parametrize(("split", "digest"), [
    ("train", "570703e2ddc9ee68e1e58c8021d52b928980b6bfc3158c3e1f257ff56277b6d2"),
    ("valid", "8a525d2657c1e3b92d45b91656456e63540647334340d73d51e11291c08f2ee6"),
    ("test", "50768098317e4fd21c502d4c5ea8ee1a39389ee544e564362dd8529bc83c66fb"),
])
def test_the_same_bytes_on_every_machine(split, digest, tmp_path):
    assert moving_digits(split, clips=8, frames=4, size=20, turn=0.5, seed=3, cache=tmp_path).digest == digest


def test_the_same_bytes_without_turns(tmp_path):
    dataset = moving_digits("train", clips=4, frames=3, cache=tmp_path)
    assert dataset.digest == "07a5d707df4946001ab58178765ac9e57e15db71a3510b38a2b33959cfb6a818"


def one_clip(scans: np.ndarray, words: list[int], size: int, turn: float) -> np.ndarray:
    """A clip in plain Python, number by number."""
    def part(word, place, among):
        return (word >> 16 * place & 0xFFFF) * among >> 16

    def speed(word, place):
        pick = part(word, place, 50)
        return (8 + pick // 2) * (-1 if pick % 2 else 1)

    limit, scan = 16 * (size - 8), scans[part(words[0], 0, len(scans))]
    place = [part(words[0], axis, limit + 1) for axis in (1, 2)]
    clip = np.zeros((len(words) - 1, size, size), np.uint8)
    for frame, word in enumerate(words[1:]):
        if frame == 0 or word & 0xFFFFFFFF < turn * 2**32:
            velocity = [speed(word, axis) for axis in (2, 3)]
        if frame:
            for axis in (0, 1):
                place[axis] += velocity[axis]
                if not 0 <= place[axis] <= limit:
                    place[axis] = -place[axis] if place[axis] < 0 else 2 * limit - place[axis]
                    velocity[axis] = -velocity[axis]
        for row, column in np.ndindex(size, size):
            total = 0
            for (i, j), value in np.ndenumerate(scan):
                down, right = abs(16 * (row - i) - place[0]), abs(16 * (column - j) - place[1])
                total += int(value) * max(0, 16 - down) * max(0, 16 - right)
            clip[frame, row, column] = (total * 255 + 2048) // 4096
    return clip


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_clips_agree_with_plain_python(turn, tmp_path):
    dataset = moving_digits("test", clips=2, frames=6, size=17, turn=turn, seed=5, cache=tmp_path)
    words = video.raw_words(2, 7, 5, "test")
    scans = video.digit_scans("test")
    for clip, row in zip(dataset.clips, words, strict=True):
        assert np.array_equal(clip, one_clip(scans, [int(word) for word in row], 17, turn))


def test_the_first_clips_of_a_large_set_are_those_of_a_small_one(tmp_path):
    small, large = (moving_digits("train", clips=n, frames=4, cache=tmp_path) for n in (5, 40))
    assert np.array_equal(small.clips, large.clips[:5])
    assert (small.mean, small.std) == (large.mean, large.std)


def test_splits_share_neither_scans_nor_motion():
    scans = {split: {scan.tobytes() for scan in video.digit_scans(split)} for split in SPLITS}
    assert sum(map(len, scans.values())) == len(set.union(*scans.values())) == 1797
    assert len({video.raw_words(1, 4, 0, split).tobytes() for split in SPLITS}) == 3


def test_all_splits_and_motions_are_on_the_scale_of_the_training_scans(tmp_path):
    sets = [moving_digits("train", clips=600, cache=tmp_path),
            moving_digits("valid", clips=8, turn=0.5, seed=9, cache=tmp_path)]
    assert (sets[0].mean, sets[0].std) == (sets[1].mean, sets[1].std)
    pixels = np.asarray(sets[0].clips) / 255
    assert sets[0].mean == pytest.approx(pixels.mean(), rel=0.02)
    assert sets[0].std == pytest.approx(pixels.std(), rel=0.02)


def test_speeds_are_from_half_a_pixel_to_two():
    words = video.raw_words(4000, 1, 0, "train")
    path = video.bounce(np.full((4000, 2), 500), np.repeat(words, 2, axis=1), limit=1000)
    speed = abs(path[:, 1] - path[:, 0])
    assert speed.min() == 8 and speed.max() == 32


@pytest.mark.parametrize(("turn", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_turns_come_with_their_probability(turn, expected):
    words = video.raw_words(200, 41, 0, "train")
    path = video.bounce(np.full((200, 2), 10**6), words, limit=2 * 10**6, turn=turn)
    velocity = np.diff(path[:, :, 0])
    changes = (np.diff(velocity) != 0).mean()
    expected *= 1 - 1 / 50  # a new velocity is the old one once in fifty
    margin = 4 * (expected * (1 - expected) / (200 * 39)) ** 0.5
    assert abs(changes - expected) <= margin + 0.002  # sixteen bits do not divide into fifty evenly


def test_neither_standing_still_nor_the_mean_predicts_the_digits(tmp_path):
    train, test = (moving_digits(split, clips=400, cache=tmp_path) for split in ("train", "test"))
    found = video.floors(test, train.mean_frame())
    assert 0.25 < found["last_frame"] < 0.30 and 0.25 < found["mean_frame"] < 0.30


# Shifted digits


def test_shifted_digits_are_the_same_bytes_on_every_machine(tmp_path):
    shifts = dict(speeds=(40, 64), digits=(8, 9), occlusion=6)
    dataset = moving_digits("train", clips=8, frames=4, cache=tmp_path, **shifts)
    assert dataset.digest == "142fc775521a546f79ab31cc05175a9514adeb0b8e9fbc712f24e04069b9a433"


def test_the_digits_of_a_scan_are_its_labels():
    from sklearn.datasets import load_digits

    scans = {split: video.digit_scans(split, (8, 9)) for split in SPLITS}
    source = load_digits()
    known = zip(source.images.astype(np.uint8), source.target, strict=True)
    labels = {image.tobytes(): int(label) for image, label in known}
    for split in SPLITS:
        assert {labels[scan.tobytes()] for scan in scans[split]} == {8, 9}
        rest = video.digit_scans(split, range(8))
        assert len(rest) + len(scans[split]) == len(video.digit_scans(split))


def test_all_ten_digits_are_the_default_in_any_order(tmp_path):
    assert np.array_equal(video.digit_scans("test"), video.digit_scans("test", [*range(9, -1, -1), 3]))
    for digits in ((9, 8), [8, 9, 9], range(8, 10)):
        moving_digits("test", clips=2, frames=2, digits=digits, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 1


@pytest.mark.parametrize("speeds", [(1, 1), (8, 32), (40, 64), (128, 128)])
def test_speeds_are_those_asked_for(speeds):
    words = np.repeat(video.raw_words(4000, 1, 0, "train"), 2, axis=1)
    path = video.bounce(np.full((4000, 2), 500), words, limit=1000, speeds=speeds)
    found = abs(path[:, 1] - path[:, 0])
    assert (found.min(), found.max()) == speeds


@pytest.mark.parametrize("size", [16, 20])
def test_the_fastest_digits_stay_in_the_frame(size, tmp_path):
    limit = (size - 8) * 16
    words = video.raw_words(300, 20, 0, "train")
    corners = np.stack([video.choose(words[:, 0], place, limit + 1) for place in (1, 2)], axis=-1)
    path = video.bounce(corners, words, limit, turn=0.3, speeds=(limit, limit))
    assert path.min() >= 0 and path.max() <= limit
    assert moving_digits("train", clips=2, size=size, speeds=(limit, limit), cache=tmp_path).frames == 16


@pytest.mark.parametrize("side", [1, 7, 16])
def test_a_square_hides_its_place_and_nothing_else(side, tmp_path):
    plain = moving_digits("train", clips=300, frames=3, cache=tmp_path)
    hidden = moving_digits("train", clips=300, frames=3, occlusion=side, cache=tmp_path)
    assert (hidden.mean, hidden.std) == (plain.mean, plain.std)
    places = set()
    for before, after in zip(plain.clips, hidden.clips, strict=True):
        covered = (after == 128).all(0)
        top, left = (int(covered.any(axis).argmax()) for axis in (1, 0))
        square = np.zeros((16, 16), bool)
        square[top:top + side, left:left + side] = True
        assert covered[square].all() and square.sum() == side**2
        assert np.array_equal(after[:, ~square], before[:, ~square])
        places.add((top, left))
    free = 16 - side + 1
    assert len(places) > 0.6 * min(free**2, 256)
    assert {a for a, _ in places} == {b for _, b in places} == set(range(free))


def test_a_shift_changes_the_scene_and_not_the_rest(tmp_path):
    make = lambda **shift: moving_digits("valid", clips=4, frames=5, cache=tmp_path, **shift)
    plain, other, faster = make(), make(digits=(8,)), make(speeds=(40, 64))
    assert np.array_equal(plain.clips[:, 0], faster.clips[:, 0])
    assert not np.array_equal(plain.clips[:, 1], faster.clips[:, 1])
    assert not np.array_equal(plain.clips, other.clips)
    assert len({(data.mean, data.std) for data in (plain, other, faster)}) == 1


@pytest.mark.parametrize(("wrong", "message"), [
    (dict(speeds=(0, 8)), r"speeds=\(0, 8\): they must be two numbers from 1 to 128, the lower one first"),
    (dict(speeds=(32, 8)), r"speeds=\(32, 8\)"),
    (dict(speeds=(8, 129)), r"speeds=\(8, 129\)"),
    (dict(digits=()), r"digits=\[\]: they must be one or more whole numbers from 0 to 9"),
    (dict(digits=(-1, 3)), r"digits=\[-1, 3\]"),
    (dict(occlusion=-1), "occlusion=-1: it must be from 0 to 16, the size of a frame"),
    (dict(occlusion=17), "occlusion=17"),
    (dict(clips=0), "clips=0: it must be 1 or more"),
    (dict(frames=1), "frames=1: it must be 2 or more"),
    (dict(size=15), "size=15: it must be 16 or more"),
    (dict(seed=-1), "seed=-1: it must be 0 or more"),
    (dict(turn=1.5), "turn=1.5: .* from 0 to 1"),
    (dict(turn=float("nan")), "turn=nan"),
    (dict(split="validation"), "split='validation': it must be one of train, valid, test"),
])
def test_bad_parameters_of_digits_are_named(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        moving_digits(**{"split": "train", "cache": tmp_path} | wrong)
    assert not list(tmp_path.iterdir())


# Data sets


def dataset_of(n: int = 7, colour: tuple[int, ...] = ()) -> VideoDataset:
    pixels = np.random.PCG64(0).random_raw(n * 3 * 4 * 5 * 3).astype(np.uint8)
    return VideoDataset(pixels[:n * 60 * (colour or (1,))[0]].reshape(n, 3, 4, 5, *colour), mean=0.4, std=0.2)


@pytest.mark.parametrize("colour", [(), (3,)])
def test_states_and_images_are_inverse(colour):
    dataset = dataset_of(colour=colour)
    states = dataset.whole()
    expected = (torch.from_numpy(dataset.clips / 255) - 0.4) / 0.2
    assert states.shape == (7, 3, dataset.state_dim) and states.dtype == torch.float32
    assert torch.allclose(states, expected.float().reshape(states.shape), atol=1e-5)
    assert torch.allclose(dataset.images(states), torch.from_numpy(dataset.clips / 255).float(), atol=1e-6)
    assert dataset.images(states[0, 0]).shape == (4, 5, *colour)
    assert dataset.images(torch.full((dataset.state_dim,), 99.0)).max() == 1


def test_items_are_the_rows_of_the_whole():
    dataset = dataset_of()
    assert len(dataset) == 7 and dataset.frames == 3 and dataset.state_dim == 20
    assert torch.equal(torch.stack([dataset[i] for i in range(7)]), dataset.whole())
    assert torch.equal(dataset.whole(2), dataset.whole()[:2])
    assert torch.equal(dataset[-1], dataset.whole()[-1])
    with pytest.raises(IndexError):
        dataset[7]


def rows(batch: torch.Tensor) -> list[bytes]:
    return [clip.numpy().tobytes() for clip in batch]


def test_epochs_visit_each_clip_at_most_once_a_pass_in_a_new_order():
    dataset = dataset_of()
    stream = dataset.epochs(3, torch.Generator().manual_seed(0))
    passes = [rows(next(stream)) + rows(next(stream)) for _ in range(4)]
    known = set(rows(dataset.whole()))
    assert all(len(set(seen)) == 6 and set(seen) <= known for seen in passes)
    assert len({tuple(seen) for seen in passes}) == 4


def test_epochs_follow_their_generator_alone():
    dataset = dataset_of()
    first, again, other = (dataset.epochs(7, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    state = torch.get_rng_state()
    batch = next(first)
    assert torch.equal(batch, next(again)) and not torch.equal(batch, next(other))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("batch", [0, 8])
def test_a_batch_that_does_not_fit_is_refused_at_once(batch):
    with pytest.raises(ValueError, match=f"batch={batch}: it must be from 1 to 7"):
        dataset_of().epochs(batch, torch.Generator())


def test_the_digest_knows_shape_and_pixels():
    dataset = dataset_of()
    same = VideoDataset(dataset.clips.copy(), 0.0, 1.0)
    turned = VideoDataset(dataset.clips.reshape(7, 3, 5, 4), 0.4, 0.2)
    changed = dataset.clips.copy()
    changed[-1, -1, -1, -1] ^= 1
    assert dataset.digest == same.digest
    assert len({dataset.digest, turned.digest, VideoDataset(changed, 0.4, 0.2).digest}) == 3


def test_a_data_set_from_the_cache_works_in_a_loader(tmp_path):
    dataset = moving_digits("train", clips=6, frames=2, cache=tmp_path)
    batches = list(torch.utils.data.DataLoader(dataset, batch_size=3))
    assert torch.equal(torch.cat(batches), dataset.whole())
    assert pickle.loads(pickle.dumps(dataset)).digest == dataset.digest


def test_an_empty_or_flat_data_set_is_refused():
    with pytest.raises(ValueError, match="clips is empty"):
        VideoDataset(np.zeros((0, 2, 4, 4), np.uint8), 0.5, 0.5)
    with pytest.raises(ValueError, match="std=0"):
        VideoDataset(np.zeros((1, 2, 4, 4), np.uint8), 0.5, 0.0)


def test_mean_and_deviation_are_those_of_the_pixels():
    pixels = np.random.PCG64(1).random_raw(999).astype(np.uint8)
    mean, std = video._mean_std(np.bincount(pixels, minlength=256))
    assert mean == pytest.approx((pixels / 255).mean()) and std == pytest.approx((pixels / 255).std())
    assert video._mean_std(np.bincount([9] * 5, minlength=256)) == (9 / 255, 1 / 255)


@pytest.mark.parametrize("part", [2, 512])
def test_floors_are_the_losses_of_their_predictors(part):
    train, other = dataset_of(), dataset_of(5)
    mean = train.whole().mean((0, 1))
    assert torch.allclose(train.mean_frame(), mean, atol=1e-5)
    states = other.whole()
    targets = states[:, 1:]
    loss = lambda guess: torch.nn.functional.smooth_l1_loss(guess.expand_as(targets), targets).item()
    assert video.floors(other, mean, part) == pytest.approx(
        {"last_frame": loss(states[:, :-1]), "mean_frame": loss(mean), "mean_pixel": loss(mean.mean())}
    )


# The cache


def digits(folder: Path) -> VideoDataset:
    return moving_digits("valid", clips=5, frames=3, cache=folder)


def test_the_cache_is_read_and_nothing_else_is_left(tmp_path, monkeypatch):
    made = digits(tmp_path / "new" / "folder")
    assert sorted(path.suffix for path in (tmp_path / "new" / "folder").iterdir()) == [".json", ".npy"]
    monkeypatch.setattr(video, "_make_digits", lambda **_: pytest.fail("must come from the cache"))
    read = digits(tmp_path / "new" / "folder")
    assert (read.digest, read.mean, read.std) == (made.digest, made.mean, made.std)
    assert isinstance(read.clips, np.memmap)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_made_again(suffix, harm, tmp_path):
    digest = digits(tmp_path).digest
    path, = tmp_path.glob(f"*{suffix}")
    sound = path.read_bytes()
    harm(path)
    assert digits(tmp_path).digest == digest
    assert path.read_bytes() == sound


def test_a_cache_with_another_type_or_other_facts_is_made_again(tmp_path):
    made = digits(tmp_path)
    array, card = tmp_path.glob("*.npy"), tmp_path.glob("*.json")
    array, card = next(array), next(card)
    np.save(array, np.array(made.clips).view(np.int8))
    assert digits(tmp_path).clips.dtype == np.uint8
    content = json.loads(card.read_text())
    content["facts"]["mean"] += 0.5
    card.write_text(json.dumps(content))
    assert digits(tmp_path).mean == made.mean


def test_each_parameter_has_its_own_cache(tmp_path):
    base = dict(split="train", clips=3, frames=2, size=16, turn=0.0, seed=0)
    others = dict(split="valid", clips=4, frames=3, size=17, turn=0.5, seed=1)
    for changed in ({}, *({name: value} for name, value in others.items())):
        moving_digits(**base | changed, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 7


def test_the_cache_of_the_settings_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path / "elsewhere"))
    moving_digits("train", clips=2, frames=2)
    assert len(list((tmp_path / "elsewhere").glob("moving-digits-*.npy"))) == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cache='.*file' cannot be written \(File exists\)"):
        digits(tmp_path / "file")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(file, array, **_):
        file.write_bytes(b"some bytes")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video.np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        digits(tmp_path)
    assert not list(tmp_path.iterdir())


# Video files


def write_video(path: Path, levels, rate=8, codec="libx264", stamps=None, shape=(32, 48)) -> Path:
    """A video of even grey (or given) pictures; `stamps` are their times in units of 1 / rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *shape, "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "4"}
        for number, level in enumerate(levels):
            picture = np.broadcast_to(np.asarray(level, np.uint8), (*shape, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = (stamps[number] if stamps else number), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ramp(start: int, count: int, step: int = 3) -> list[int]:
    return list(range(start, start + step * count, step))


def taken(path: Path, **changes) -> np.ndarray:
    """The middle grey of the picture at each beat."""
    values = dict(frames=2, spacing=0.25, size=4, colour=False, stride=0.25) | changes
    with open(path, "rb") as file:
        pictures = np.stack(video._pictures(file, video._Sampling(**values)))
    return pictures[:, 2, 2].astype(int)


@pytest.mark.parametrize(("name", "codec"), [
    ("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"),
    ("a.mov", "mpeg4"),
])
def test_every_format_gives_the_pictures_on_screen(name, codec, tmp_path):
    levels = ramp(20, 24, step=8)
    found = taken(write_video(tmp_path / name, levels, codec=codec))
    assert found.shape == (12,) and abs(found - levels[::2]).max() <= 4


def test_time_stamps_decide_not_frame_numbers(tmp_path):
    stamps = [0, 1, 2, 3, 11, 12, 13, 14, 20]
    levels = ramp(10, len(stamps), step=25)
    path = write_video(tmp_path / "a.mkv", levels, stamps=stamps)
    on_screen = [levels[max(i for i, stamp in enumerate(stamps) if stamp <= beat)] for beat in range(21)]
    found = taken(path, spacing=0.125, stride=0.125)
    assert abs(found[:21] - on_screen).max() <= 4


def test_time_counts_from_the_first_frame(tmp_path):
    levels = ramp(20, 8, step=20)
    path = write_video(tmp_path / "a.mkv", levels, stamps=list(range(40, 48)))
    assert abs(taken(path) - levels[::2]).max() <= 4


def test_beats_faster_than_the_video_repeat_pictures(tmp_path):
    path = write_video(tmp_path / "a.mp4", [20, 120, 220], rate=2)
    assert abs(taken(path) - [20, 20, 120, 120, 220, 220]).max() <= 4


def test_frames_without_time_out_of_order_or_without_length():
    stamps = [None, 6, 8, 7, 12]
    frames = [SimpleNamespace(pts=stamp, time_base=Fraction(1, 4), duration=0) for stamp in stamps]
    container = SimpleNamespace(streams=SimpleNamespace(video=[None]), decode=lambda video: iter(frames))
    found = [(frame.pts, end) for frame, end in video._on_screen(container)]
    assert found == [(6, Fraction(1, 2)), (8, Fraction(3, 2)), (12, Fraction(5, 2))]


def test_pictures_are_the_areas_of_the_central_square(tmp_path):
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :16] = wide[:, 48:] = 255
    wide[:16, 16:32], wide[16:, 32:48] = 200, 100
    path = write_video(tmp_path / "a.mp4", [wide] * 2, shape=(32, 64))
    with open(path, "rb") as file:
        picture = video._pictures(file, video._Sampling(2, 0.125, 2, False, 0.125))[0]
    assert abs(picture.astype(int) - [[200, 0], [0, 100]]).max() <= 4


def test_colours_stay_in_order(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", [(220, 120, 20)] * 40)
    dataset = load(tmp_path / "videos", size=8, colour=True)["train"]
    assert dataset.clips.shape[1:] == (4, 8, 8, 3) and dataset.state_dim == 192
    assert abs(dataset.clips.astype(int) - [220, 120, 20]).max() <= 6
    assert dataset.images(dataset.whole(1)).shape == (1, 4, 8, 8, 3)


def test_a_picture_smaller_than_its_state_is_enlarged(tmp_path):
    path = write_video(tmp_path / "a.mp4", [100] * 4, shape=(16, 16))
    assert abs(taken(path, size=40) - 100).max() <= 4


@pytest.mark.parametrize(("spacing", "stride", "beat"), [
    (0.25, 0.25, "1/4"), (0.5, 0.75, "1/4"), (1 / 3, 0.1, "1/30"), (1.0, 2.0, "1"), (0.04, 0.04, "1/25"),
])
def test_the_beat_divides_spacing_and_stride(spacing, stride, beat):
    assert video._Sampling(2, spacing, 1, False, stride).beat == Fraction(beat)


# Folders


def folder_of(folder: Path, count: int, length: int = 24) -> Path:
    for number in range(count):
        write_video(folder / f"sub{number % 2}" / f"film{number}.mp4", ramp(10 + 40 * number, length, step=1))
    return folder


def levels(dataset: VideoDataset) -> set[int]:
    """Which film each clip is from."""
    return {round((clip.mean() - 22) / 40) for clip in dataset.clips}


def load(folder: Path, **options) -> dict[str, VideoDataset]:
    options = dict(frames=4, spacing=0.125, size=4, cache=folder.parent / "cache") | options
    return {split: video_folder(folder, split, **options) for split in SPLITS}


def test_three_files_or_more_are_divided_by_file(tmp_path):
    sets = load(folder_of(tmp_path / "videos", 5))
    films = [levels(dataset) for dataset in sets.values()]
    assert sorted(map(len, films)) == [1, 1, 3] and set.union(*films) == {0, 1, 2, 3, 4}
    assert len(films[0]) == 3
    assert [len(dataset) for dataset in sets.values()] == [63, 21, 21]
    assert [levels(dataset) for dataset in load(tmp_path / "videos").values()] == films
    assert any([levels(dataset) for dataset in load(tmp_path / "videos", seed=seed).values()] != films
               for seed in (1, 2, 3))


def test_three_files_give_one_to_each_split(tmp_path):
    films = [levels(dataset) for dataset in load(folder_of(tmp_path / "videos", 3)).values()]
    assert sorted(map(sorted, films)) == [[0], [1], [2]]


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_files_are_divided_by_time(count, tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", ramp(10, 40, step=5))
    if count == 2:
        write_video(tmp_path / "videos" / "b.mp4", ramp(10, 40, step=5))
    sets = load(tmp_path / "videos")
    assert [len(dataset) for dataset in sets.values()] == [25 * count, 3 * count, 3 * count]
    ranges = [(int(d.clips.min()), int(d.clips.max())) for d in sets.values()]
    assert ranges[0][1] < ranges[1][0] <= ranges[1][1] < ranges[2][0]


def test_valid_and_test_are_on_the_scale_of_train(tmp_path):
    sets = load(folder_of(tmp_path / "videos", 3))
    pixels = np.asarray(sets["train"].clips) / 255
    assert len({(dataset.mean, dataset.std) for dataset in sets.values()}) == 1
    assert sets["valid"].mean == pytest.approx(pixels.mean())
    assert sets["test"].std == pytest.approx(pixels.std())


def test_stride_separates_the_starts_of_clips(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", ramp(10, 40, step=5))
    near = load(tmp_path / "videos")["train"]
    far = load(tmp_path / "videos", stride=0.5)["train"]
    assert np.array_equal(far.clips, near.clips[::4])


def test_clips_are_spaced_by_time(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", ramp(10, 60, step=4))
    near = load(tmp_path / "videos", frames=7)["train"]
    far = load(tmp_path / "videos", frames=4, spacing=0.25, stride=0.125)["train"]
    assert np.array_equal(far.clips, near.clips[:, ::2])


def test_broken_and_short_files_are_left_out_and_named(tmp_path):
    folder = folder_of(tmp_path / "videos", 3)
    (folder / "broken.webm").write_bytes(b"not a video")
    (folder / "empty.AVI").write_bytes(b"")
    (folder / "readme.txt").write_text("not looked at")
    whole = (folder / "sub0" / "film0.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[:len(whole) // 2])
    write_video(folder / "short.mp4", ramp(10, 3))
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match=r"4 videos left out: broken.webm \(unreadable") as caught:
            dataset = video_folder(folder, "train", frames=4, spacing=0.125, size=4, cache=tmp_path / "cache")
        assert len(caught) == 1 and "\n" not in str(caught[0].message)
        assert [name.split(" (")[0] for name in dataset.skipped] == [
            "broken.webm", "cut.mp4", "empty.AVI", "short.mp4"
        ]
        assert "too short: about 0.375 s, a clip needs 0.5 s" in dataset.skipped[3]
        assert len(dataset) == 21


def test_a_long_list_of_broken_files_stays_one_short_line(tmp_path):
    folder = folder_of(tmp_path / "videos", 3)
    for number in range(8):
        (folder / f"broken{number}.mp4").write_bytes(b"x")
    with pytest.warns(UserWarning, match="8 videos left out: .* and 3 more$"):
        dataset = video_folder(folder, "valid", frames=4, spacing=0.125, size=4, cache=tmp_path / "cache")
    assert len(dataset.skipped) == 8


def test_a_file_with_sound_only_is_named(tmp_path):
    folder = folder_of(tmp_path / "videos", 3)
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.warns(UserWarning, match=r"sound.mkv \(unreadable: it has no video stream\)"):
        video_folder(folder, "train", frames=4, spacing=0.125, size=4, cache=tmp_path / "cache")


def test_missing_and_empty_folders_say_what_was_looked_for(tmp_path):
    wanted = "looked for .avi, .mkv, .mov, .mp4, .webm files"
    with pytest.raises(FileNotFoundError, match=f"folder='.*nowhere' is no folder; {wanted}"):
        video_folder(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no video")
    (tmp_path / "empty" / "folder.mp4").mkdir()
    with pytest.raises(FileNotFoundError, match=f"folder='.*empty' holds no video; {wanted}"):
        video_folder(tmp_path / "empty", "train")


def test_when_nothing_remains_the_error_says_what_to_change(tmp_path):
    folder = folder_of(tmp_path / "videos", 3, length=6)
    remedy = r"no clip in 3 videos: sub0/film0.mp4 \(too short.*take fewer frames \(now 16\)"
    with pytest.raises(ValueError, match=remedy):
        video_folder(folder, "train", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_video_too_short_to_be_cut_is_named(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", ramp(10, 4))
    with pytest.raises(ValueError, match=r"no clip in 1 videos: a.mp4 \(too short to be cut in three\)"):
        load(tmp_path / "videos")


def test_a_split_without_clips_is_an_error(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", ramp(10, 20))
    options = dict(frames=4, spacing=0.125, size=4, cache=tmp_path / "cache")
    assert len(video_folder(tmp_path / "videos", "train", **options)) == 11
    with pytest.raises(ValueError, match=r"no valid clip: .* take fewer frames \(now 4\)"):
        video_folder(tmp_path / "videos", "valid", **options)


def test_a_folder_is_decoded_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "videos", 3)
    calls = []
    decode = video._pictures
    monkeypatch.setattr(video, "_pictures", lambda *given: calls.append(1) or decode(*given))
    first = load(folder)
    assert len(calls) == 3
    load(shutil.copytree(folder, tmp_path / "moved"))
    assert len(calls) == 3
    write_video(folder / "sub0" / "film0.mp4", ramp(15, 24, step=1))
    second = load(folder)
    assert len(calls) == 6
    assert {d.digest for d in first.values()} != {d.digest for d in second.values()}


@pytest.mark.parametrize(("wrong", "message"), [
    (dict(frames=1), "frames=1: it must be 2 or more"),
    (dict(spacing=0.0), "spacing=0.0: it must be 0.001 or more"),
    (dict(stride=-1.0), "stride=-1.0: it must be 0.001 or more"),
    (dict(size=0), "size=0: it must be 1 or more"),
    (dict(split="dev"), "split='dev'"),
])
def test_bad_parameters_of_folders_are_named(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        video_folder(**{"folder": tmp_path, "split": "train"} | wrong)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "videos", 1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'ebwm\[video\]'"):
        video_folder(folder, "train", cache=tmp_path / "cache")


def test_real_clips(tmp_path, real_data):
    sets = {s: video_folder(real_data / "video", s, frames=8, spacing=0.2, cache=tmp_path) for s in SPLITS}
    assert len({dataset.digest for dataset in sets.values()}) == 3
    assert sets["train"].skipped == []
    for dataset in sets.values():
        found = video.floors(dataset, sets["train"].mean_frame())
        assert 0 < found["last_frame"] < found["mean_frame"]


# Data sets of the hub


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def load_hub(name: Path, **options) -> dict[str, VideoDataset]:
    options = dict(frames=4, spacing=0.125, size=4, cache=name.parent / "cache") | options
    return {split: video_hub(str(name), split, **options) for split in SPLITS}


def test_a_hub_data_set_gives_the_clips_of_its_videos(offline, tmp_path):
    for number in range(3):
        write_video(tmp_path / "videos" / f"film{number}.mp4", ramp(10 + 40 * number, 24, step=1))
    hub, folder = load_hub(tmp_path / "videos"), load(tmp_path / "videos")
    assert sorted(map(sorted, map(levels, hub.values()))) == [[0], [1], [2]]
    assert {d.digest for d in hub.values()} == {d.digest for d in folder.values()}


def test_hub_videos_inside_an_archive(offline, tmp_path):
    (tmp_path / "archive").mkdir()
    with zipfile.ZipFile(tmp_path / "archive" / "videos.zip", "w") as archive:
        for number in range(3):
            name = f"film{number}.mp4"
            archive.write(write_video(tmp_path / name, ramp(10 + 40 * number, 24, step=1)), name)
    hub = load_hub(tmp_path / "archive")
    assert sorted(map(sorted, map(levels, hub.values()))) == [[0], [1], [2]]


def test_limit_takes_the_first_videos_of_the_hub(offline, tmp_path):
    for number in range(4):
        write_video(tmp_path / "videos" / f"film{number}.mp4", ramp(10 + 40 * number, 24, step=1))
    hub = load_hub(tmp_path / "videos", limit=3)
    assert set.union(*map(levels, hub.values())) == {0, 1, 2}


def test_a_local_data_set_that_changed_is_loaded_again(offline, tmp_path):
    path = write_video(tmp_path / "videos" / "film.mp4", ramp(10, 40))
    first = load_hub(tmp_path / "videos")["train"].digest
    write_video(path, ramp(50, 40))
    assert load_hub(tmp_path / "videos")["train"].digest != first


def test_hub_errors_are_named(offline, tmp_path):
    write_video(tmp_path / "videos" / "film.mp4", ramp(10, 40))
    with pytest.raises(OSError, match=r"name='no/such' cannot be loaded \(.*\); check it and the network"):
        video_hub("no/such", "train", cache=tmp_path)
    with pytest.raises(OSError, match=r"cannot be loaded .*Bad split: dev"):
        load_hub(tmp_path / "videos", hub_split="dev")
    with pytest.raises(ValueError, match=r"column='clip' is not in .* it has .*video"):
        load_hub(tmp_path / "videos", column="clip")
    with pytest.raises(ValueError, match="limit=0: it must be 1 or more"):
        load_hub(tmp_path / "videos", limit=0)
