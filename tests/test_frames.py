"""Encoded frames and games as tasks: sources of clips, official split files, runs that are trained, saved and used."""

import csv
import json
import shutil
import sys
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ebwm import train
from ebwm.compat import import_timm
from ebwm.data import features, sources
from ebwm.data import frames as module
from ebwm.data.cache import SPLITS
from ebwm.data.configs import FramesConfig, GameConfig
from ebwm.data.frames import load_encoder
from ebwm.data.layouts import list_videos
from ebwm.data.photographs import camera_clips
from ebwm.data.sources import make_source
from ebwm.data.tasks import load_task
from ebwm.training.learner import load_run, position_losses
from ebwm.training.run import resume

SMALL = ["model.dim=16", "model.depth=1", "model.heads=2", "optimiser.updates=2", "optimiser.batch=2", "eval_every=1",
         "run.save_every=1", "run.logger=none", "walk.step_size=1"]
IMAGES = {f"image {n}": np.resize(np.random.PCG64(n).random_raw(9000).astype(np.uint8), (50, 60, 3)) for n in range(5)}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A cache of its own, and photographs of noise."""
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "photographs", lambda: IMAGES)


def write_video(path, seconds, rate=8, width=48):
    """A video of 32 x `width` pixels that becomes brighter: frame n has the level 4 n."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = 32, width, "yuv420p"
        for number in range(round(seconds * rate)):
            image = np.full((32, width, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


# Official split files


def ssv2(folder, write):
    names = {"train": "123456", "validation": "78", "test": "9"}
    for split, ids in names.items():
        rows = [{"id": number, "label": "pushing a cup", "template": "Pushing [something]", "placeholders": ["a cup"]}
                if split != "test" else {"id": number} for number in ids]
        (folder / f"something-something-v2-{split}.json").write_text(json.dumps(rows))
        for number in ids:
            write(folder / f"20bn-something-something-v2/{number}.webm", 1 + int(number) / 8)


def kinetics(folder, write):
    rows = [("abseiling", f"-id_{n}", 2 * n, 2 * n + 10, "train" if n < 4 else "val") for n in range(8)]
    for split in ("train", "val"):
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
            table.writerows(row for row in rows if row[-1] == split)
    for _, name, start, end, split in rows:
        write(folder / split / f"{name}_{start:06d}_{end:06d}.mp4", 1.5)


def ucf101(folder, write):
    lines = [f"Archery/v_Archery_g{group:02d}_c{clip:02d}.avi" for group in range(1, 9) for clip in (1, 2)]
    (folder / "trainlist01.txt").write_text("".join(f"{line} 3\n" for line in lines[:12]))
    (folder / "testlist01.txt").write_text("".join(f"{line}\n" for line in lines[12:]))
    for line in lines:
        write(folder / "UCF-101" / line, 1.5)


def touch(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)


@pytest.mark.parametrize("make, lost, counts", [
    (ssv2, "20bn-something-something-v2/3.webm", [5, 2, 1]), (kinetics, "train/-id_1_000002_000012.mp4", [3, 2, 2]),
    (ucf101, "UCF-101/Archery/v_Archery_g07_c01.avi", [10, 2, 3])])
def test_official_split_files_name_the_videos_of_each_split(make, lost, counts, tmp_path):
    make(tmp_path, touch)
    (tmp_path / lost).unlink()
    listing = list_videos(tmp_path)
    assert listing.layout == make.__name__ and [len(listing.splits[split]) for split in SPLITS] == counts
    assert [*listing.missing.values()] == [[lost.rpartition("/")[2].rpartition(".")[0]]]
    names = [{entry.name for entry in listing.splits[split]} for split in SPLITS]
    assert not names[0] & names[1] and not names[1] & names[2] and not names[0] & names[2]
    assert list_videos(tmp_path).splits == listing.splits != list_videos(tmp_path, seed=1).splits
    if make is ucf101:
        assert len({name.rpartition("_")[0] for name in names[1]}) == 1
    assert sum(map(len, list_videos(tmp_path, "videos").splits.values())) == len([*tmp_path.rglob("*.*")]) - (
        3 if make is ssv2 else 2)


def test_a_whole_video_of_kinetics_is_cut_and_one_file_is_divided_in_time(tmp_path):
    write_video(tmp_path / "-id_0.mp4", 4)
    (tmp_path / "a.csv").write_text("label,youtube_id,time_start,time_end,split\n" + "".join(
        f"x,-id_0,1,3,{split}\n" for split in ("train", "validate", "test")))
    levels = lambda layout, split: [int(clip.mean()) for clip in clips_of(tmp_path, split, layout=layout)[0].clips]
    assert levels("kinetics", "train") == [pytest.approx(40, abs=4), pytest.approx(72, abs=4)]
    parts = [levels("videos", split) for split in SPLITS]
    assert [len(part) for part in parts] == [2, 0, 0] and parts[0][-1] < 80


# Clips of files


def clips_of(folder, split="train", **changes):
    source = make_source(FramesConfig(source=str(folder), frames=4, **changes), 0, 8)
    return [source.clips(unit) for unit in source.units(split)]


@pytest.mark.parametrize("changes, starts", [
    ({}, [0, 8, 16]), ({"per_video": 1}, [8]), ({"per_video": 2}, [0, 16]), ({"spacing": 0.5}, [4])])
def test_clips_of_a_file_are_evenly_spaced_and_have_colour(changes, starts, tmp_path):
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", 3, width=48 + 2 * number)
    made = clips_of(tmp_path, **{"spacing": 0.25} | changes)[0].clips
    assert [clip.shape for clip in made] == [(4, 8, 8, 3)] * len(starts)
    assert [int(clip[0].mean()) for clip in made] == [pytest.approx(4 * start, abs=4) for start in starts]


@pytest.mark.parametrize("short, reason", [("skip", "too short: about 0.5 s"), ("spread", "")])
def test_short_videos_are_skipped_or_spread_and_broken_ones_named(short, reason, tmp_path):
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", 0.5, width=48 + 2 * number)
    made = clips_of(tmp_path, short=short)[0]
    assert made.reason.startswith(reason) and len(made.clips) == (not reason)
    if made.clips:
        assert [int(frame.mean()) for frame in made.clips[0]] == [pytest.approx(4 * n, abs=4) for n in range(4)]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:300 + int(path.stem)])
    assert clips_of(tmp_path, short=short)[0].reason.startswith("unreadable: ")


# Runs


@pytest.fixture
def weights(tmp_path):
    """A file of random weights of a small ViT."""
    torch.manual_seed(0)
    save_file(import_timm().create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def test_a_run_on_something_something_reports_encodes_and_is_restored(weights, tmp_path):
    folder = tmp_path / "ssv2"
    folder.mkdir()
    ssv2(folder, write_video)
    (folder / "20bn-something-something-v2/2.webm").write_bytes(b"broken")
    (folder / "20bn-something-something-v2/3.webm").unlink()
    given = [f"data.source={folder}", "data.encoder=timm:test_vit", f"data.weights={weights}", "data.size=64",
             "data.frames=4", "data.workers=0", "model.kind=ebt"]
    with pytest.warns(UserWarning, match=r"missing videos: 1 of train, such as 3; |skipped videos: 1 of train"):
        run = train("ssv2-dinov2", tmp_path / "runs", progress=False, overrides=given + SMALL + ["model.dim=64"])
    report = json.loads((run / "videos.json").read_text())
    assert report["clips"] == {"train": 4, "valid": 2, "test": 1} and report["missing"] == {"train": ["3"]}
    assert [name for name, _ in report["skipped"]["train"]] == ["20bn-something-something-v2/2.webm"]
    trained = load_run(run)
    with warnings.catch_warnings(action="ignore"):
        task = load_task(trained.config.data)
        assert resume(run, ["data.workers=1"], progress=False) == run
    states = trained.task.encode(task.pixels("test", 0)[None])
    assert torch.allclose(states, task.items("test"), atol=1e-3)
    assert position_losses(trained.learner, states, 0).isfinite().all()
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match=r"weights=.*not those with which the run was trained"):
        load_encoder(run)


@pytest.mark.parametrize("encoder", ["pixels", "principal:5", "autoencoder:4"])
def test_states_of_the_camera_are_standardised_and_kept_with_the_run(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "train_autoencoder", partial(features.train_autoencoder, updates=20))
    entries = [f"data.encoder={encoder}", "data.size=16", "data.frames=4", "data.train_clips=9", "data.eval_clips=3"]
    run = train("features-xxs", tmp_path / "runs", progress=False, overrides=entries + SMALL + ["model.kind=gru"])
    restored, task = load_run(run).task, load_task(load_run(run).config.data)
    assert task.digests() == json.loads((run / "result.json").read_text())["data_digests"]
    states = task.splits["train"].whole()
    assert states.mean((0, 1)).abs().max() < 1e-5 and states.std((0, 1), correction=0).max() < 1.0001
    clips = camera_clips("train", images=IMAGES, clips=9, frames=4, size=16, pan=0.05, zoom=0.02, turn=2.0).clips
    assert np.array_equal(np.stack([task.pixels("train", index) for index in range(9)]), clips)
    assert torch.allclose(restored.encode(clips), states, atol=1e-4)
    assert torch.equal(torch.stack([*task.splits["train"]]), states)


@pytest.mark.slow
def test_processes_that_encode_give_the_same_features(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PART", 3)
    config = FramesConfig(source="digits", encoder="timm:test_vit", weights=str(weights), size=32, frames=2,
                          train_clips=8, eval_clips=2)
    expected = load_task(config).splits["train"].whole()
    (last,) = tmp_path.rglob("00002.json")  # only the training split has three parts
    shutil.rmtree(last.parent)
    found = load_task(replace(config, workers=1)).splits["train"].whole()
    assert last.exists() and torch.allclose(found, expected, atol=1e-3)


def test_the_default_game_is_of_minigrid_and_its_absence_names_the_command(monkeypatch):
    assert GameConfig().game.startswith("minigrid:")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"^'gymnasium' cannot be imported \(.*\): pip install 'ebwm\[games\]'$"):
        load_task(GameConfig())


@pytest.mark.slow
def test_the_preset_of_games_learns_minigrid(tmp_path):
    pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'ebwm[games]'")
    counts = ["data.train_episodes=6", "data.eval_episodes=2", "data.frames=4", "data.encoder=principal:8"]
    entries = [*counts, *SMALL, "model.candidates=latent"]
    trained = load_run(train("game-xxs", tmp_path, progress=False, overrides=entries))
    state = trained.task.state
    assert (state.dim, state.action_dim) == (8, 6) and trained.config.data.size == 24


@pytest.mark.parametrize("kind, data", [
    *((kind, []) for kind in ("ebt", "transformer", "gru", "diffusion")),
    ("ebt", ["data.symbolic=true"]), ("ebt", ["data.encoder=principal:4"])])
def test_models_learn_a_game_with_its_actions(kind, data, tmp_path):
    counts = ["data.train_episodes=6", "data.eval_episodes=2", "data.frames=4"]
    game = ["data.game=push:5", "data.encoder=pixels", "data.size=none"]
    given = [f"model.kind={kind}", *counts, *game, *data, *SMALL, "model.candidates=latent"]
    run = train("game-xxs", tmp_path, progress=False, overrides=given)
    trained = load_run(run)
    task = load_task(trained.config.data)
    assert isinstance(task.config, GameConfig) and task.state == trained.task.state and task.state.action_dim == 5
    frames = task.splits["test"].recordings.frames
    states, actions = task.items("test")
    assert torch.allclose(trained.task.encode(frames), states, atol=1e-5)
    assert position_losses(trained.learner, (states, actions), 0).isfinite().all()
    if "data.encoder=principal:4" in data:
        with pytest.raises(ValueError, match=r"^data\.encoder='principal:4': has no decoder"):
            task.decode(states, frames.shape[2:])
    else:
        assert np.array_equal(trained.task.decode(states, frames.shape[2:]), frames)
