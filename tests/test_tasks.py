"""Tasks of arrays: reading, splitting and standardising them, and models that learn from them."""

import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_run import SHAPE, tiny_pairs, tiny_states

from ebwm import train
from ebwm.data.arrays import read_arrays
from ebwm.data.configs import CONFIGS, task_class
from ebwm.data.pairs import PairsConfig
from ebwm.data.states import States, StatesConfig
from ebwm.data.task import SPLITS, Items, Rows, Scale, Vectors, chunks, select, stack
from ebwm.data.tasks import ClipsConfig, load_task
from ebwm.settings import generator
from ebwm.training.learner import batches_of, evaluate, load_learner, load_run, make_learner
from ebwm.training.presets import load_config
from ebwm.training.run import Stopped, resume
from ebwm.training.trainer import fit

DIFFUSION = pytest.param("diffusion", marks=pytest.mark.skipif(find_spec("diffusers") is None, reason="no diffusers"))


def write_table(path, columns):
    pytest.importorskip("pyarrow.parquet").write_table(pytest.importorskip("pyarrow").table(columns), path)


def long_table(path, states, actions=None):
    """A Parquet table with one row for each item and time, in random order."""
    items, times = states.shape[:2]
    order = torch.randperm(items * times, generator=generator(0)).numpy()
    columns = {"time": np.tile(np.arange(times), items), "item": np.repeat(np.arange(items), times)}
    for name, array in (("x", states), *([] if actions is None else [("action", actions)])):
        columns |= {f"{name}{n}": part.flatten().numpy() for n, part in enumerate(array.unbind(-1))}
    write_table(path, {name: column[order] for name, column in columns.items()})


def write(path, **arrays):
    """Write named arrays in the format of the file's ending; the first one without its name to an npy file."""
    {".npy": lambda: np.save(path, next(iter(arrays.values())).numpy()),
     ".npz": lambda: np.savez(path, **{name: array.numpy() for name, array in arrays.items()}),
     ".pt": lambda: torch.save(arrays, path), ".safetensors": lambda: save_file(arrays, path),
     ".parquet": lambda: write_table(path, {name: array.tolist() for name, array in arrays.items()})}[path.suffix]()


@pytest.mark.parametrize("name, save", [
    *((f"x{end}", lambda path, states: write(path, states=states))
      for end in (".npy", ".npz", ".pt", ".safetensors", ".parquet")),
    ("bare.pt", lambda path, states: torch.save(states, path)), ("long.parquet", long_table)])
def test_states_are_read_from_every_kind_of_file(tmp_path, name, save):
    save(tmp_path / name, tiny_states())
    task = load_task(StatesConfig(source=str(tmp_path / name)))
    assert task.digests() == load_task(StatesConfig(), data=tiny_states()).digests() and task.state == Vectors(3)


def test_a_folder_holds_recordings_or_arrays_of_recordings(tmp_path):
    states = tiny_states()
    for name, part in {**{f"{number:02d}": states[number] for number in range(10)}, "rest": states[10:]}.items():
        write(tmp_path / f"{name}.npy", states=part)
    (tmp_path / "notes.txt").write_text("not data")
    task = load_task(StatesConfig(source=str(tmp_path)))
    assert task.digests() == load_task(StatesConfig(), data=states).digests()


@pytest.mark.parametrize("kind", ["states", "pairs"])
def test_data_with_their_own_splits_keep_them(tmp_path, kind):
    states, config = tiny_states(), {"states": StatesConfig, "pairs": PairsConfig}[kind]
    named = dict(states=states) if kind == "states" else dict(zip(("context", "target"), tiny_pairs(), strict=True))
    bounds = {"valid": slice(3), "train": slice(5, 10), "test": slice(3, 5)}
    parts = {split: {name: array[place] for name, array in named.items()} for split, place in bounds.items()}
    for split, arrays in parts.items():
        write(tmp_path / f"{split}.npz", **arrays)
    task = load_task(config(source=str(tmp_path)))
    assert task.digests() == load_task(config(held_out=0.4), seed=1, data=parts).digests()
    name = "states" if kind == "states" else "target"
    for split, arrays in parts.items():
        found = task.splits[split].whole()
        found = found if kind == "states" else found[1]
        torch.testing.assert_close(task.scales[name].restore(found), arrays[name], check_dtype=False)
    (tmp_path / "valid.npz").unlink()
    with pytest.raises(ValueError, match="has test and train, but no valid; give all three"):
        load_task(config(source=str(tmp_path)))
    with pytest.raises(ValueError, match=r"^data='train, test': has"):
        load_task(config(), data={split: parts[split] for split in ("train", "test")})
    empty = {name: array[:0] for name, array in parts["valid"].items()}
    with pytest.raises(ValueError, match="valid=0: must have at least 1 item"):
        load_task(config(), data=parts | {"valid": empty})


@pytest.mark.parametrize("name, make", [
    ("object.npy", lambda path: np.save(path, np.array([[{"a": 1}]]), allow_pickle=True)),
    ("object.pt", lambda path: torch.save({"states": StatesConfig()}, path)),
    ("uneven.parquet", lambda path: write_table(path, {"item": [0, 1, 1, 1], "time": [0, 0, 1, 2], "x": [0.0] * 4}))])
def test_objects_and_items_of_different_lengths_are_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=r"data\.source.*cannot be read"):
        read_arrays(tmp_path / name)


@pytest.mark.parametrize("save", [
    lambda folder, states, actions: write(folder / "x.npz", actions=actions, states=states),
    lambda folder, states, actions: long_table(folder / "x.parquet", states, actions)])
def test_actions_are_part_of_the_context(tmp_path, save):
    states, actions = tiny_states(actions=2)
    save(tmp_path, states, actions)
    task = load_task(StatesConfig(source=str(tmp_path)))
    assert task.state == Vectors(3, 2)
    assert task.digests() == load_task(StatesConfig(), data=(states, actions)).digests()
    batch = next(batches_of(task.splits["train"], 4, 0))
    (seen, moves), target = task.pair(batch)
    assert (seen.shape, moves.shape, target.shape) == ((4, 5, 3), (4, 5, 2), (4, 5, 3))
    assert torch.equal(target, batch[0][:, 1:]) and torch.equal(moves, batch[1][:, :-1])
    assert task.baselines().keys() == {"last state", "mean state"}


def test_items_are_split_and_standardised_on_the_training_split():
    states = tiny_states() * torch.tensor([1.0, 10.0, 0.0]) + 5
    task = load_task(StatesConfig(held_out=0.2), data=states)
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 12, "valid": 4, "test": 4}
    train_split = task.splits["train"].whole()
    assert train_split.mean((0, 1)).abs().max() < 1e-6
    torch.testing.assert_close(train_split.std((0, 1), correction=0), torch.tensor([1.0, 1.0, 0.0]))
    restored = torch.cat([task.scales["states"].restore(task.splits[name].whole()) for name in SPLITS])
    rows = lambda items: {tuple(item.flatten().round(decimals=3).tolist()) for item in items}
    assert rows(restored) == rows(states)
    other = load_task(StatesConfig(held_out=0.2), seed=1, data=states)
    assert other.digests() != task.digests() == load_task(StatesConfig(held_out=0.2), data=states).digests()
    test = task.splits["test"].whole()
    mean = train_split[:, 1:].mean((0, 1)).expand_as(test[:, 1:])
    assert task.baselines()["mean state"] == pytest.approx(float(task.errors(mean, test[:, 1:]).mean()))
    cut = load_task(StatesConfig(held_out=0.2, length=2), data=states)  # after the split
    assert len(cut.splits["train"]) == 36 and torch.equal(cut.splits["test"].whole().flatten(0, 1), test.flatten(0, 1))


def test_one_or_two_long_recordings_are_split_in_time():
    states = torch.arange(2 * 45.0).reshape(2, 45, 1)
    task = load_task(StatesConfig(length=4), data=states)
    found = {name: task.scales["states"].restore(split.whole()) for name, split in task.splits.items()}
    assert {name: len(part) for name, part in found.items()} == {"train": 18, "valid": 2, "test": 2}
    for number, recording in enumerate(states):
        parts = [part.unflatten(0, (2, -1))[number].flatten() for part in found.values()]
        torch.testing.assert_close(torch.cat(parts), recording[:44, 0])  # the last state is dropped
    assert len(load_task(StatesConfig(length=4), data=states[:1]).splits["train"]) == 9


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.7, 1e9, 0.0])
def test_a_constant_feature_is_only_centred(value):
    """Also where the mean of equal numbers is not that number, by rounding."""
    assert Scale.of(torch.full((96, 6, 1), value).double()).std == [1.0]
    assert Scale.of(torch.full((95, 1), value, dtype=torch.float64)).std == [1.0]
    near = torch.tensor([[1.7e9], [1.7e9 + 1e-3]], dtype=torch.float64)  # seconds: apart, though nearly equal
    assert Scale.of(near).std[0] == pytest.approx(5e-4, rel=1e-3)


def test_states_far_from_zero_stay_apart():
    states = tiny_states().double() / 100 + 4649776  # as of coordinates in metres, in float64
    assert len(load_task(StatesConfig(), data=states).items("train").unique(dim=0)) == 16
    large = load_task(PairsConfig(), data=tuple(part.double() + 1e8 for part in tiny_pairs()))
    assert all(part.std() > 0.9 for part in large.items("train"))


@pytest.mark.parametrize("name", ["p.npz", "p.pt", "p.safetensors", "p.parquet"])
def test_pairs_are_read_from_every_kind_of_file(tmp_path, name):
    context, target = tiny_pairs()
    write(tmp_path / name, target=target, context=context)
    task = load_task(PairsConfig(source=str(tmp_path / name)))
    assert task.state == Rows(1, 4, 4)
    assert task.digests() == load_task(PairsConfig(), data=(context, target)).digests()
    seen, wanted = task.pair(task.items("test"))
    assert seen.shape == (2, 2, 4) and wanted.shape == (2, 1, 4)
    assert all(part.mean((0, 1)).abs().max() < 1e-6 for part in task.splits["train"].whole())
    error = float(task.errors(torch.zeros_like(wanted), wanted).mean())
    assert task.baselines()["mean target"] == pytest.approx(error)


def test_batches_are_tensors_tuples_or_dictionaries():
    items = [(torch.ones(2) * n, {"a": torch.ones(1) * n}) for n in range(5)]
    batch = stack(items)
    assert batch[0].shape == (5, 2) and batch[1]["a"].flatten().tolist() == [0, 1, 2, 3, 4]
    assert [len(part[0]) for part in chunks(batch, 2)] == [2, 2, 1]
    assert select(batch, 3)[1]["a"].tolist() == [3.0]
    data = Items((torch.arange(6.0).view(3, 2), torch.arange(3)))
    assert len(data) == 3 and data[1][0].tolist() == [2.0, 3.0] and data.whole(2)[1].tolist() == [0, 1]
    values = torch.arange(4)
    assert len({Items(other).digest for other in (values, values[:, None], values + 1, values.int())}) == 4


def test_each_pass_visits_items_at_most_once_in_a_new_order_given_by_the_seed():
    state = torch.get_rng_state()
    ours, again, other = (batches_of(Items(torch.arange(7)), 3, seed) for seed in (0, 0, 1))
    passes = [[*next(ours).tolist(), *next(ours).tolist()] for _ in range(4)]
    assert all(len({*seen}) == 6 and {*seen} <= {*range(7)} for seen in passes)
    assert len({*map(tuple, passes)}) == 4
    assert passes[0][:3] == next(again).tolist() != next(other).tolist()
    assert torch.equal(state, torch.get_rng_state())


def test_frames_are_encoded_by_the_largest_principal_components_of_the_training_split(tmp_path, monkeypatch):
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path))
    plain = ClipsConfig(frames=4, train_clips=50, eval_clips=8)
    pixels, task, other = (load_task(config, seed) for config, seed in (
        (plain, 0), (replace(plain, features=5), 0), (replace(plain, features=5), 1)))
    frames, states = (found.splits["train"].whole().flatten(0, 1).double() for found in (pixels, task))
    _, sizes, directions = torch.linalg.svd(frames - frames.mean(0), full_matrices=False)
    projected = (frames - frames.mean(0)) @ directions[:5].T
    assert torch.allclose(states.abs(), projected.abs() / (sizes[:5].square().mean() / len(frames)).sqrt(), atol=1e-4)
    encoder = task.splits["test"].encoder
    assert (encoder.directions.max(0).values >= encoder.directions.abs().max(0).values - 1e-12).all()
    assert encoder.explained == pytest.approx((sizes[:5].square().sum() / sizes.square().sum()).item())
    assert len(task.items("test")) == 8 and task.digests() != other.digests()
    images = task.splits["test"].images(task.items("test"))
    assert (images - pixels.splits["test"].images(pixels.items("test"))).square().mean() < 0.05


@pytest.mark.parametrize("kind", ["states", "pairs"])
def test_a_run_on_tensors_predicts_in_their_units(runs, kind):
    """`train` with a preset's name; a preset of clips trains on a tensor as sequences of states."""
    states, pairs = tiny_states(), tiny_pairs()
    settings = {"states": ("smoke", [], states), "pairs": ("pairs", ["data.held_out=0.2"], pairs)}
    preset, entries, data = settings[kind]
    config = load_config(preset, [*SHAPE, *entries, "optimiser.batch=4"])
    folder = train(config, runs, progress=False, data=data)
    learner, task, config = load_run(folder)
    assert config.data.kind == kind and type(task) is task_class(kind) and task.splits == {}
    if kind == "states":
        context = task.scales["states"].standardise(states[:2, :4])
        assert task.scales["states"].restore(learner.predict(context, generator(0))).shape == (2, 4, 3)
    else:
        context = task.scales["context"].standardise(pairs[0][:2])
        assert task.scales["target"].restore(learner.predict(context, generator(0))).shape == (2, 1, 4)


@dataclass(frozen=True)
class WavesConfig(StatesConfig):
    task: ClassVar[str] = f"{__name__}:Waves"
    kind: str = "waves"
    waves: int = 40


class Waves(States):
    """A task of a user: it makes its own states and adds a baseline."""

    @classmethod
    def load(cls, config, seed=0, data=None):
        phase = 6 * torch.rand(config.waves, 1, 1, generator=generator(seed, "waves"))
        return super().load(config, seed, torch.sin(phase + torch.arange(6.0)[:, None]))

    def baselines(self):
        return super().baselines() | {"zero": float(self.items("test")[:, 1:].square().mean() / 2)}


def test_a_task_of_a_user_is_trained_by_its_name(runs, monkeypatch):
    """A configuration and a class are enough for training, scores, resuming and loading."""
    monkeypatch.setitem(CONFIGS, "waves", WavesConfig)
    entries = ["data.kind=waves", "data.waves=50", "optimiser.batch=4", *SHAPE]
    folder = train("smoke", runs, progress=False, overrides=entries)
    with pytest.raises(Stopped):
        train("smoke", runs, False, lambda row: row["update"] == 2, overrides=entries)
    resumed = resume(runs / "002", progress=False)
    assert (folder / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    _, task, config = load_run(folder)
    assert type(task) is Waves and config.data == WavesConfig(waves=50)
    assert "zero" in json.loads((folder / "result.json").read_text())["baselines"]


@pytest.mark.slow
def test_a_joint_ebt_learns_to_invert_matrices():
    """Its error is well below that of the mean target (a task of arXiv 2406.11179; addition: notebook `runs`)."""
    factor = torch.randn(3000, 4, 4, generator=generator(0, "inverse"))
    matrix = factor @ factor.mT / 4 + torch.eye(4) / 2  # well-conditioned
    config = load_config("pairs", ["optimiser.updates=250", "model.dim=64", "eval_every=1000", "model.depth=2"])
    task = load_task(config.data, data=(matrix, torch.linalg.inv(matrix)))
    learner = make_learner(config.model, task, 0, config.recipe, config.walk)
    batches = batches_of(task.splits["train"], config.optimiser.batch, 0)
    fit(learner, batches, task.items("valid"), config)
    error, trivial = evaluate(learner, task.items("test"), 0), task.baselines()["mean target"]
    assert error < trivial / 2


@pytest.mark.parametrize("kind", ["ebt", "transformer", "gru", DIFFUSION])
def test_every_kind_of_model_of_vectors_trains_on_actions(runs, kind):
    states, actions = data = tiny_states(actions=2)
    entries = [*SHAPE, f"model.kind={kind}", "optimiser.batch=4"]
    folder = train("smoke", runs, progress=False, data=data, overrides=entries)
    learner = load_learner(folder)
    with_actions, without = (learner.predict((states, moves), generator(0)) for moves in (actions, 0 * actions))
    assert with_actions.shape == states.shape and not torch.equal(with_actions, without)


def test_the_mean_of_the_baselines_is_that_of_the_whole_training_split():
    drift = torch.linspace(0, 10, 1000)[:, None, None].expand(1000, 4, 1)
    found, whole = (load_task(StatesConfig(eval_items=count), data=drift) for count in (100, 1000))
    means = [float(task.training_targets().mean()) for task in (found, whole)]
    assert means[0] == pytest.approx(means[1], abs=0.02)
    assert found.baselines()["mean state"] == pytest.approx(whole.baselines()["mean state"], rel=0.2)
