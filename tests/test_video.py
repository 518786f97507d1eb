"""Clips as states, trivial baselines, and clips from video files of all sorts, broken ones among them."""

import functools
import io
import shutil
import struct
import sys
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import smooth_l1_loss

from ebwm.data import video
from ebwm.data.cache import SPLITS
from ebwm.data.layouts import list_videos
from ebwm.data.video import Sampling, VideoDataset, images_of, trivial_baselines, video_folder, video_hub

av = pytest.importorskip("av")


def dataset_of(count=7, colour=()):
    pixels = np.random.PCG64(0).random_raw(count * 180).astype(np.uint8)
    return VideoDataset(np.resize(pixels, (count, 3, 4, 5, *colour)), mean=0.4, std=0.2)


@pytest.mark.parametrize("colour", [(), (3,)])
def test_states_are_standardised_pixels_and_images_their_inverse(colour):
    dataset = dataset_of(colour=colour)
    states, pixels = dataset.whole(), torch.from_numpy(dataset.clips / 255)
    assert states.shape == (7, 3, dataset.state_dim) and states.dtype == torch.float32
    assert torch.allclose(states, ((pixels - 0.4) / 0.2).float().reshape(states.shape), atol=1e-5)
    assert torch.allclose(dataset.images(states), pixels.float(), atol=1e-6)
    assert dataset.images(states[0, 0]).shape == (4, 5, *colour)
    assert dataset.images(torch.full((dataset.state_dim,), 99.0)).max() == 1
    assert (len(dataset), dataset.frames, dataset.state_dim) == (7, 3, 20 * max(1, len(colour) * 3))
    assert torch.equal(torch.stack([*dataset]), states) and torch.equal(dataset.whole(2), states[:2])


def test_the_digest_depends_on_shape_and_pixels():
    clips = dataset_of().clips
    changed = clips.copy()
    changed[-1, -1, -1, -1] ^= 1
    digests = [VideoDataset(each, 0.0, 1.0).digest for each in (clips, clips.reshape(7, 3, 5, 4), changed)]
    assert len({*digests}) == 3 and dataset_of().digest == digests[0]


@pytest.mark.parametrize("part, limit", [(2, None), (512, 3)])
def test_trivial_baselines_are_the_losses_of_their_predictors(part, limit):
    train, other = dataset_of(), dataset_of(5)
    mean, states = train.whole().mean((0, 1)), other.whole(limit)
    assert torch.allclose(train.mean_frame(), mean, atol=1e-5)
    guesses = {"last_frame": states[:, :-1], "mean_frame": mean, "mean_pixel": mean.mean()}
    expected = {name: smooth_l1_loss(guess.expand_as(states[:, 1:]), states[:, 1:]).item()
                for name, guess in guesses.items()}
    assert trivial_baselines(other, mean, part, limit) == pytest.approx(expected)


# Images of video files


def write_video(path, levels, rate=8, codec="libx264", stamps=None, shape=(32, 48)):
    """Write a video of uniform grey levels or of images; `stamps` are their times in units of 1 / rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *shape, "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "4"}
        for stamp, level in zip(stamps or range(len(levels)), levels, strict=True):
            image = np.ascontiguousarray(np.broadcast_to(np.asarray(level, np.uint8), (*shape, 3)))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ramp(start, count, step=3):
    return list(range(start, start + step * count, step))


def images(path, **changes):
    with open(path, "rb") as file:
        return np.stack(images_of(file, Sampling(**dict(frames=2, size=4) | changes))).astype(int)


GAPS = [0, 1, 2, 3, 11, 12, 13, 14, 20]


@pytest.mark.parametrize("name, codec, rate, stamps, spacing, stride", [
    *((name, codec, 8, range(24), 0.25, 0.25) for name, codec in [
        ("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.mov", "mpeg4")]),
    ("gaps.mkv", "libx264", 8, GAPS, 0.25, 0.25), ("late.mkv", "libx264", 8, [s + 41 for s in GAPS], 0.25, 0.25),
    *((f"{rate}.mp4", "libx264", rate, range(count), spacing, stride) for count, rate, spacing, stride in [
        (3, 2, 0.25, 0.25), (1, 7, 0.2, 0.3), (11, 7, 0.2, 0.3), (24, 30, 1 / 3, 0.1), (60, 24, 0.04, 0.04)])])
def test_images_are_the_frames_on_screen_at_regular_times(name, codec, rate, stamps, spacing, stride, tmp_path):
    levels = ramp(20, len(stamps), step=200 // len(stamps))
    path = write_video(tmp_path / name, levels, rate, codec, stamps)
    found = images(path, spacing=spacing, stride=stride)[:, 2, 2]
    interval = Sampling(2, spacing, stride=stride).interval
    begins = [Fraction(stamp - stamps[0], rate) for stamp in stamps]
    expected = [levels[sum(begin <= n * interval for begin in begins) - 1] for n in range(len(found))]
    assert abs(len(found) - (begins[-1] + Fraction(1, rate)) / interval) < 1
    assert abs(found - expected).max() <= 4


def test_frames_without_time_or_out_of_order_are_left_out(monkeypatch):
    frames = [SimpleNamespace(pts=stamp) for stamp in (None, 6, 8, 7, 12)]
    container = SimpleNamespace(streams=SimpleNamespace(video=[None]), decode=lambda video: iter(frames))
    pushed = []
    monkeypatch.setattr(video, "require", lambda *_: SimpleNamespace(open=lambda _: nullcontext(container)))
    monkeypatch.setattr(video, "_filters", lambda *_: SimpleNamespace(vpush=pushed.append))
    monkeypatch.setattr(video, "_filtered", lambda *_: [])
    assert images_of(io.BytesIO(), Sampling(colour=True)) == []
    assert [frame and frame.pts for frame in pushed] == [6, 8, 12, None]


WIDE, CORNER = np.zeros((32, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
WIDE[:, :16], WIDE[:, 48:], WIDE[:16, 16:32], WIDE[16:, 32:48] = 255, 255, 200, 100
CORNER[:16, :16], CORNER[:16, 16:] = 250, 100
STRIPES = np.tile(np.array([[0], [200]], np.uint8), (16, 32))[..., None].repeat(3, -1)


@pytest.mark.parametrize("image, size, expected, tolerance", [
    (WIDE, 2, [[200, 0], [0, 100]], 4), (STRIPES, 4, 100, 6), (np.full((16, 16, 3), 100), 40, 100, 4)])
def test_images_average_the_central_square(image, size, expected, tolerance, tmp_path):
    path = write_video(tmp_path / "a.mp4", [image] * 2, shape=image.shape[:2])
    assert abs(images(path, spacing=0.125, size=size)[0] - expected).max() <= tolerance


@pytest.mark.parametrize("matrix, turns", [
    ((1, 0, 0, 1), 0), ((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotated_videos_are_turned_upright(matrix, turns, tmp_path):
    path = write_video(tmp_path / "a.mp4", [CORNER] * 2, shape=(32, 32))
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # the matrix in the header of the track
    a, b, c, d = (65536 * value for value in matrix)
    content[start:start + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(content)
    assert abs(images(path, spacing=0.125, size=2)[0] - np.rot90([[250, 100], [0, 0]], turns)).max() <= 4


@pytest.mark.parametrize("spacing, stride, interval", [
    (0.25, 0.25, "1/4"), (0.5, 0.75, "1/4"), (1 / 3, 0.1, "1/30"), (1.0, 2.0, "1"), (0.04, None, "1/25")])
def test_the_interval_divides_spacing_and_stride(spacing, stride, interval):
    assert Sampling(2, spacing, stride=stride).interval == Fraction(interval)


# Folders


def folder_of(folder, count, inner=("sub0", "sub1")):
    for number in range(count):
        write_video(folder / inner[number % 2] / f"film{number}.mp4", ramp(10 + 40 * number, 24, step=1))
    return folder


def films(dataset):
    """Numbers of the films in a data set."""
    return {round((clip.mean() - 22) / 40) for clip in dataset.clips}


OPTIONS = dict(frames=4, spacing=0.125, size=4)


def load(folder, read=video_folder, **options):
    options = {"cache": Path(folder).parent / "cache"} | OPTIONS | options
    return {split: read(str(folder), split, **options) for split in SPLITS}


def test_three_files_or_more_are_divided_by_file_and_fewer_by_time(tmp_path):
    sets = load(folder_of(tmp_path / "videos", 5))
    found = [films(dataset) for dataset in sets.values()]
    assert [*map(len, found)] == [3, 1, 1] and set.union(*found) == {0, 1, 2, 3, 4}
    assert [len(dataset) for dataset in sets.values()] == [63, 21, 21]
    others = ([films(data) for data in load(tmp_path / "videos", seed=seed).values()] for seed in (1, 2, 3))
    assert any(other != found for other in others)
    pixels = np.asarray(sets["train"].clips) / 255
    assert all((d.mean, d.std) == pytest.approx((pixels.mean(), pixels.std())) for d in sets.values())
    assert video.mean_std(np.bincount([9] * 5, minlength=256)) == (9 / 255, 1 / 255)
    for count, name in enumerate("ab", 1):
        write_video(tmp_path / "few" / f"{name}.mp4", ramp(10 + count, 40, step=5))
        sets = load(tmp_path / "few")
        assert [len(dataset) for dataset in sets.values()] == [25 * count, 3 * count, 3 * count]
        ranges = [(int(d.clips.min()), int(d.clips.max())) for d in sets.values()]
        assert ranges[0][1] < ranges[1][0] <= ranges[1][1] < ranges[2][0]


def test_spacing_and_stride_count_seconds_and_colours_keep_their_order(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", ramp(10, 60, step=4))
    make = lambda **options: load(tmp_path / "videos", **options)["train"].clips
    near = make(frames=7)
    assert np.array_equal(make(frames=4, spacing=0.25, stride=0.125), near[:, ::2])
    assert np.array_equal(make(frames=7, stride=0.5), near[::4])
    write_video(tmp_path / "videos" / "a.mp4", [(220, 120, 20)] * 40)
    found = make(size=8, colour=True)
    assert found.shape[1:] == (4, 8, 8, 3) and abs(found.astype(int) - [220, 120, 20]).max() <= 6


def test_unreadable_and_short_files_are_left_out_and_named(tmp_path):
    folder = folder_of(tmp_path / "videos", 3)
    (folder / "folder.mp4").mkdir()
    (folder / "readme.txt").write_text("another format")
    whole = (folder / "sub0" / "film0.mp4").read_bytes()
    for name, content in {"broken.webm": b"not a video", "cut.mp4": whole[:len(whole) // 2], "empty.AVI": b""}.items():
        (folder / name).write_bytes(content)
    write_video(folder / "short.mp4", ramp(10, 3))
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux([*stream.encode(sound), *stream.encode()])
    (folder / "x.mp4").touch()
    names = ["broken.webm", "cut.mp4", "empty.AVI", "short.mp4", "sound.mkv", "x.mp4"]
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match="6 videos left out: broken.webm .* and 1 more$") as caught:
            dataset = video_folder(folder, "train", **OPTIONS, cache=tmp_path / "cache")
        assert len(caught) == 1 and "\n" not in str(caught[0].message)
        assert [name.split(" (")[0] for name in dataset.skipped] == names and len(dataset) == 21
        assert "0.375 s" in dataset.skipped[3] and "no video stream" in dataset.skipped[4]


def test_of_equal_videos_one_is_kept(tmp_path):
    """Else one may be in training and the other in the test."""
    folder = folder_of(tmp_path / "videos", 3)
    shutil.copy(folder / "sub0/film0.mp4", folder / "again.mp4")
    with pytest.warns(UserWarning, match=r"1 videos left out: sub0/film0.mp4 \(equal to again.mp4\)"):
        sets = load(folder)
    assert [len(dataset) for dataset in sets.values()] == [21, 21, 21]
    with pytest.warns(UserWarning, match="1 videos left out, which are equal to others: sub0/film0.mp4 to again.mp4"):
        names = [entry.name for part in list_videos(folder).splits.values() for entry in part]
    assert len(names) == 3 and "again.mp4" in names and "sub0/film0.mp4" not in names


def test_a_folder_is_decoded_again_only_if_a_file_changes(tmp_path, monkeypatch):
    folder, calls = folder_of(tmp_path / "videos", 3), []
    monkeypatch.setattr(video, "images_of", lambda *given: calls.append(1) or images_of(*given))
    first = load(folder)
    load(shutil.copytree(folder, tmp_path / "moved"))
    assert len(calls) == 3
    write_video(folder / "sub0" / "film0.mp4", ramp(15, 24, step=1))
    second = load(folder)
    assert len(calls) == 6 and {d.digest for d in first.values()} != {d.digest for d in second.values()}


def test_splits_without_clips_are_refused(tmp_path):
    write_video(tmp_path / "a" / "a.mp4", ramp(10, 20))
    write_video(tmp_path / "b" / "b.mp4", ramp(10, 4))
    for name, frames, message in [("a", 4, r"split='valid'.*\(now 4\)"), ("b", 4, "in 1 videos: b.mp4"),
                                  ("a", 90, r"in 1 videos: a.mp4 .*\(now 90\)")]:
        with pytest.raises(ValueError, match=message):
            load(tmp_path / name, frames=frames, cache=tmp_path / f"cache-{name}{frames}")
    assert not (tmp_path / "cache-a90").exists()


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "videos", 1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'ebwm\[video\]'"):
        video_folder(folder, "train", cache=tmp_path / "cache")


# Data sets of the Hugging Face Hub


@pytest.fixture
def load_hub(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return functools.partial(load, read=video_hub)


def test_a_hub_data_set_gives_the_clips_of_its_first_videos(load_hub, tmp_path):
    hub = load_hub(folder_of(tmp_path / "videos", 3, inner=("", "")))
    assert {d.digest for d in hub.values()} == {d.digest for d in load(tmp_path / "videos").values()}
    folder_of(tmp_path / "videos", 4, inner=("", ""))  # the data set is loaded again
    assert {d.digest for d in load_hub(tmp_path / "videos").values()} != {d.digest for d in hub.values()}
    shutil.make_archive(str(tmp_path / "archive" / "videos"), "zip", tmp_path / "videos")
    for name in ("videos", "archive"):
        first = [films(data) for data in load_hub(tmp_path / name, limit=3).values()]
        assert [*map(len, first)] == [1, 1, 1] and set.union(*first) == {0, 1, 2}


@pytest.mark.parametrize("changes, error, message", [
    ({"folder": "no/such"}, OSError, "name='no/such'"), ({"hub_split": "dev"}, OSError, "dev"),
    ({"column": "clip"}, ValueError, r"column='clip': .*video")])
def test_hub_errors_are_named(changes, error, message, load_hub, tmp_path):
    write_video(tmp_path / "videos" / "film.mp4", ramp(10, 40))
    with pytest.raises(error, match=message):
        load_hub(**dict(folder=tmp_path / "videos", cache=tmp_path) | changes)
