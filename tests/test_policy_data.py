"""Demonstrations on disk in both formats, and the windows that policies are trained on."""

import itertools
import json

import numpy as np
import pytest
import torch

from ebwm.files import sha256
from ebwm.policy.chunks import Chunks, ChunksConfig, Normaliser, split_episodes
from ebwm.policy.demonstrations import Demonstrations, Episode
from ebwm.policy.formats import read_demonstrations, write_demonstrations
from ebwm.policy.lerobot_data import read_lerobot
from ebwm.policy.robomimic import LOW_DIM, read_robomimic, write_robomimic
from ebwm.usage import UsageError

LAYOUT = {"eef_pos": 3, "object": 2}


def demonstrations(lengths=(7, 1, 5), size=0, action_dim=2, simulator="robosuite:Can"):
    """Random episodes; images, if there are any, have a bright column that moves."""
    rng = np.random.default_rng(0)

    def episode(steps, seed):
        observations = {"state": rng.normal(size=(steps, 5)).astype(np.float32)}
        if size:
            bright = np.arange(size) == np.arange(steps)[:, None] % size
            observations["image"] = np.broadcast_to(
                bright[:, None, :, None] * np.uint8(200), (steps, size, size, 3)).copy()
        return Episode(observations, rng.uniform(-1, 1, (steps, action_dim)).astype(np.float32), seed % 2 == 0, seed)

    return Demonstrations(simulator, [episode(steps, seed) for seed, steps in enumerate(lengths, 30)])


def digests(path):
    return {str(p.relative_to(path)): sha256(p) for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("target, size, action_dim, layout", [
    ("set.hdf5", 0, 1, None), ("set.h5", 9, 2, LAYOUT),
    ("set", 0, 1, None), ("set", 16, 2, LAYOUT), ("set", 9, 2, None)])
def test_demonstrations_are_read_as_they_were_written_and_written_as_the_same_bytes(
        target, size, action_dim, layout, tmp_path):
    given = demonstrations(size=size, action_dim=action_dim)
    for name in "ab":
        (tmp_path / name).mkdir()
        write_demonstrations(tmp_path / name / target, given, layout)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != {}
    found = read_demonstrations(tmp_path / "a" / target)
    assert found.simulator == given.simulator and len(found.episodes) == 3
    for ours, theirs in zip(found.episodes, given.episodes, strict=True):
        assert ours.observations.keys() == theirs.observations.keys()
        assert (ours.success, ours.seed) == (theirs.success, theirs.seed)
        np.testing.assert_array_equal(ours.observations["state"], theirs.observations["state"], strict=True)
        np.testing.assert_array_equal(ours.actions, theirs.actions, strict=True)
        if size:
            np.testing.assert_allclose(ours.observations["image"], theirs.observations["image"], atol=12)
    assert read_demonstrations(tmp_path / "a" / target, camera="").episodes[0].observations.keys() == {"state"}


def test_official_files_of_robomimic_are_read_by_their_keys(tmp_path):
    h5py = pytest.importorskip("h5py")
    path, sizes = tmp_path / "low_dim_v15.hdf5", dict(zip(LOW_DIM, (3, 4, 2, 14), strict=True))
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "NutAssemblySquare", "type": 1})
        for number in (0, 2, 10):
            group = file.create_group(f"data/demo_{number}")
            group["actions"], group["rewards"] = np.full((3, 7), number / 10), [0.0, 0.0, number > 0]
            for name, size in sizes.items():
                group[f"obs/{name}"] = np.full((3, size), float(size))
        file["mask/valid"] = np.array([b"demo_10", b"demo_0", b"demo_10"])
    found = read_robomimic(path)
    assert found.simulator == "robosuite:Square"
    assert [(e.seed, e.success) for e in found.episodes] == [(0, False), (2, True), (10, True)]
    assert found.episodes[0].observations["state"][0].tolist() == [*np.repeat([3, 4, 2, 14], [3, 4, 2, 14])]
    assert [e.seed for e in read_robomimic(path, mask="valid").episodes] == [10, 0]
    assert read_robomimic(path, {"object": 14}).episodes[0].observations["state"].shape == (3, 14)


def test_files_hold_what_robomimic_asks_for(tmp_path):
    h5py = pytest.importorskip("h5py")
    write_robomimic(tmp_path / "set.hdf5", demonstrations(size=8), LAYOUT, {"train": [0, 2]})
    with h5py.File(tmp_path / "set.hdf5") as file:
        environment = json.loads(file["data"].attrs["env_args"])
        assert [environment[key] for key in ("env_name", "type", "env_kwargs")] == ["PickPlaceCan", 1, {}]
        assert file["data"].attrs["total"] == 13 and list(file["mask/train"]) == [b"demo_0", b"demo_2"]
        demo = file["data/demo_0"]
        assert demo.attrs["num_samples"] == 7 and demo["dones"][()].tolist() == [0] * 6 + [1]
        assert {name: array.shape for name, array in demo["obs"].items()} == {
            "eef_pos": (7, 3), "object": (7, 2), "agentview_image": (7, 8, 8, 3)}
        assert [file[f"data/demo_{n}/rewards"][-1] for n in range(3)] == [1, 0, 1]


def test_folders_are_read_by_the_loaders_of_lerobot(tmp_path):
    """Its reader makes a data set of the features in info.json, and finds tasks by the index of a pandas table."""
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    write_demonstrations(tmp_path / "set", demonstrations(size=16), LAYOUT)
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    vector = lambda f: datasets.Sequence(datasets.Value(f["dtype"]), length=f["shape"][0])
    features = {name: datasets.Value(f["dtype"]) if f["shape"] == [1] else vector(f)
                for name, f in info["features"].items() if f["dtype"] != "video"}
    read = lambda place, **more: datasets.Dataset.from_parquet(
        str(tmp_path / "set" / place / "chunk-000/file-000.parquet"), cache_dir=str(tmp_path / "cache"), **more)
    frames = read("data", features=datasets.Features(features))
    assert frames["index"][:] == list(range(13)) and frames["frame_index"][7:9] == [0, 0]
    rows = read("meta/episodes")
    assert rows["dataset_to_index"][:] == [7, 8, 13]
    assert rows["videos/observation.images.agentview/from_timestamp"][:] == pytest.approx([0, 0.35, 0.4])
    tasks = pandas.read_parquet(tmp_path / "set/meta/tasks.parquet")
    assert tasks.iloc[0].name == "robosuite:Can" and tasks["task_index"].tolist() == [0]
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    assert np.shape(stats["observation.images.agentview"]["mean"]) == (3, 1, 1)
    assert stats["observation.state"]["count"] == [13] and len(stats["action"]["q99"]) == 2
    names = "eef_pos.0 eef_pos.1 eef_pos.2 object.0 object.1"
    assert info["features"]["observation.state"]["names"] == names.split()


def test_folders_of_several_files_and_of_other_units_are_read(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_demonstrations(tmp_path / "set", demonstrations())
    path = tmp_path / "set/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    doubled = np.array(table["action"].to_pylist()) * 100
    table = table.set_column(1, "action", [[*map(list, doubled)]]).drop_columns("next.success")
    pq.write_table(table.slice(0, 8), path)
    pq.write_table(table.slice(8), path.with_name("file-001.parquet"))
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    del info["features"]["next.success"]
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    found = read_lerobot(tmp_path / "set", bounded=False)
    for ours, theirs in zip(found.episodes, demonstrations().episodes, strict=True):
        np.testing.assert_allclose(ours.actions, theirs.actions * 100, rtol=1e-6)
        assert ours.success


# Windows


def naive(episode, step, observe, predict):
    """Observations and actions of a window."""
    states, actions = episode.observations["state"], episode.actions
    past = [states[max(0, step - back)] for back in reversed(range(observe))]
    future = [actions[min(len(actions) - 1, step + ahead)] for ahead in range(predict)]
    return np.stack(past), np.stack(future)


@pytest.mark.parametrize("observe, predict", [(1, 1), (2, 16), (3, 4)])
def test_windows_equal_those_of_a_loop(observe, predict):
    given = demonstrations(lengths=(7, 3, 12, 5), size=4)
    task = Chunks.of(given, ChunksConfig(observe=observe, predict=predict), seed=3)
    chosen = split_episodes(4, 0.1, 3)
    for split, numbers in chosen.items():
        windows = task.splits[split]
        loop = [naive(given.episodes[n], step, observe, predict)
                for n in numbers for step in range(len(given.episodes[n].actions))]
        assert len(windows) == len(loop)
        for window, (past, future) in zip(map(windows.__getitem__, range(len(windows))), loop, strict=True):
            torch.testing.assert_close(window["state"], task.normaliser.state(torch.from_numpy(past)))
            torch.testing.assert_close(window["action"], task.normaliser.action(torch.from_numpy(future)))
    context, target = task.pair(task.items("train"))
    assert context.keys() == {"state", "image"} and context["image"].shape[1:] == (observe, 4, 4, 3)
    assert target.shape[1:] == (predict, 2) == (task.state.rows, task.state.dim)
    assert target.abs().max() <= 1


def test_the_normaliser_has_a_floor_and_keeps_constant_actions(tmp_path):
    given = demonstrations(lengths=(40, 40, 40))
    for episode in given.episodes:
        episode.observations["state"][:, 0] *= 1e-4
        episode.actions[:, 0] *= 0.25
        episode.actions[:, 1] = 0.5
    far = Normaliser.of(torch.zeros(2, 0), torch.tensor([[-90.0, 45.0], [90.0, 45.0]]))  # degrees
    assert far.restore(far.action(torch.tensor([30.0, 45.0]))).tolist() == [30, 45]
    task = Chunks.of(given)
    with pytest.raises(UsageError, match=r"state=\[2, 1\]: must have 5 features"):
        task.normaliser.state(torch.zeros(2, 1))
    train = task.items("train")
    assert train["state"][..., 0].abs().max() < 0.05 and train["state"][..., 1].std() == pytest.approx(1, abs=0.05)
    assert train["action"][..., 0].aminmax() == (-1, 1) and (train["action"][..., 1] == 0.5).all()
    actions = torch.from_numpy(given.episodes[split_episodes(3, 0.1, 0)["train"][0]].actions)
    torch.testing.assert_close(task.normaliser.restore(task.normaliser.action(actions)), actions)
    task.save(tmp_path)
    again = Chunks.restore(task.config, tmp_path, {})
    assert (again.normaliser, again.state) == (task.normaliser, task.state)


@pytest.mark.parametrize("count, train, held", [(2, 1, 1), (5, 4, 1), (9, 8, 1), (10, 8, 1), (50, 40, 5)])
def test_held_out_episodes(count, train, held):
    """Of less than ten episodes, one is both validation and test."""
    parts = split_episodes(count, 0.1, 0)
    assert [len(parts[split]) for split in ("train", "valid", "test")] == [train, held, held]
    assert sorted({*parts["train"], *parts["valid"], *parts["test"]}) == list(range(count))
    overlaps = {(a, b) for a, b in itertools.combinations(parts, 2) if {*parts[a]} & {*parts[b]}}
    assert overlaps == ({("valid", "test")} if count < 10 else set())
    assert parts == split_episodes(count, 0.1, 0)
    assert any(parts != split_episodes(count, 0.1, seed) for seed in range(1, 9))


def test_the_task_loads_files_and_batches_like_others(tmp_path):
    write_demonstrations(tmp_path / "set.hdf5", demonstrations(lengths=[9] * 10, size=4))
    config = ChunksConfig(source=str(tmp_path / "set.hdf5"), camera="", eval_items=4)
    task = Chunks.load(config, seed=1)
    same = Chunks.load(config, seed=1, data=demonstrations(lengths=[9] * 10))
    assert task.digests() == same.digests() != Chunks.load(config, seed=2).digests()
    assert task.items("test")["action"].shape == (4, 16, 2) and 0 < task.baselines()["mean chunk"] < 1
    whole = task.splits["test"].gather(torch.arange(9))
    torch.testing.assert_close(task.items("test")["state"], whole["state"][[0, 2, 4, 6]])
