"""Configurations are checked by name and type; runs are reproducible and leave whole files."""

import dataclasses
import json
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from golden import FILE, RUNS, losses
from tiny_run import log_of, untimed

from ebwm.files import sha256, write_json, write_whole
from ebwm.settings import generator
from ebwm.training import trainer as training
from ebwm.training.checkpoint import CheckpointError, load_tensors, save_tensors
from ebwm.training.trainer import (
    Config,
    ModelConfig,
    OptimiserConfig,
    load_config,
    make_learner,
    make_optimiser,
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EBWM_DEVICE", "cpu")
    return tmp_path


DIFFUSION = pytest.param("diffusion", marks=pytest.mark.skipif(
    find_spec("diffusers") is None, reason="diffusers is not installed"))


@pytest.mark.parametrize("kind", ["ebt", "transformer", "gru", DIFFUSION])
def test_one_seed_gives_one_run(cache, kind):
    config = load_config("smoke", [f"model.kind={kind}"])
    first, second = (training.train(config, cache / "runs", progress=False) for _ in range(2))
    other = training.train(dataclasses.replace(config, seed=1), cache / "runs", progress=False)
    assert untimed(first) == untimed(second) != untimed(other)
    assert sha256(first / "model.safetensors") == sha256(second / "model.safetensors")
    assert [folder.name for folder in (first, second, other)] == ["001", "002", "003"]


def test_models_of_one_seed_see_the_same_batches(cache, monkeypatch):
    seen, update = {}, training.Trainer.update
    for kind in ("ebt", "transformer"):
        batches = seen[kind] = []
        watch = lambda trainer, batch, batches=batches: (batches.append(batch), update(trainer, batch))[1]
        monkeypatch.setattr(training.Trainer, "update", watch)
        training.train(load_config("smoke", [f"model.kind={kind}"]), cache / "runs", progress=False)
    assert torch.equal(*map(torch.stack, seen.values()))


@pytest.mark.parametrize("average", [None, 0.5])
@pytest.mark.parametrize("kind", ["ebt", "gru", DIFFUSION])
def test_a_run_can_be_loaded_and_predicts_the_same(cache, kind, average):
    """Its weights are those that were scored: their moving average where there is one."""
    entries = [f"model.kind={kind}", "model.candidates=latent", "model.diffusion_steps=2"]
    entries += [f"optimiser.average={average}", "optimiser.learning_rate=1e-2"]
    config = load_config("smoke", entries)
    folder = training.train(config, cache / "runs", progress=False)
    learner = training.load_learner(folder)
    test = training.load_data(config.data)["test"].whole()
    result = json.loads((folder / "result.json").read_text())
    assert training.evaluate(learner, test, config.seed) == pytest.approx(result["test_loss"], abs=1e-7)
    assert load_config(str(folder / "config.json")) == config
    last = learner.model.state_dict()
    tensors = load_tensors(max(folder.glob("checkpoints/*.safetensors")))[0]
    ends = [all((tensors[f"{whose}.{name}"] == last[name]).all() for name in last)
            for whose in ("model", "average") if f"{whose}.embed.weight" in tensors]
    assert ends == ([True] if average is None else [False, True])


def test_training_lowers_the_loss(cache):
    overrides = [
        "optimiser.updates=60",
        "data.train_clips=256",
        "optimiser.learning_rate=2e-3",
        "model.kind=transformer",
    ]
    rows = log_of(training.train(load_config("smoke", overrides), cache / "runs", progress=False))
    assert rows[-1]["valid_loss"] < 0.9 * rows[2]["valid_loss"]


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_the_golden_runs(runs, name):
    known = json.loads(FILE.read_text())
    assert known.keys() == RUNS.keys() and len(known[name]) == 8
    assert losses(name, runs) == pytest.approx(known[name], rel=1e-6, abs=0), (
        f"losses of {name} aren't those in {FILE.name}; if they are meant to differ: python tests/golden.py")


def test_real_clips_train_a_few_steps(cache, real_data):
    folder = real_data / "video"
    config = load_config("smoke", [f"data.folder={folder}", "data.spacing=0.2"])
    with_clips = training.train(config, cache / "runs", progress=False)
    assert len(log_of(with_clips)) == config.optimiser.updates
    assert json.loads((with_clips / "result.json").read_text())["test_loss"] > 0


def test_no_result_beside_a_run_that_failed(cache, monkeypatch):
    monkeypatch.setattr(
        "ebwm.training.learner.loss_of",
        lambda model, *a, **k: sum(p.sum() for p in model.parameters()) * torch.nan,
    )
    folder = cache / "runs" / "001"
    with pytest.raises(training.RunError, match="3 updates in a row weren't finite, and it went back often"):
        training.train(load_config("smoke"), cache / "runs", progress=False)
    left = {".lock", "config.json", "checkpoints", "events.jsonl", "log.jsonl", "tensorboard"}
    assert {path.name for path in folder.iterdir()} == left
    assert log_of(folder) == []
    assert [path.name for path in folder.glob("checkpoints/*s")] == ["00000000.safetensors"]


def test_the_plain_loop_stops_where_something_is_not_finite():
    config = load_config("smoke", ["model.dim=16", "model.heads=2"])
    model, clips = make_learner(config.model, 16, 0), torch.randn(4, 5, 16, generator=generator(0))
    spoiled = clips.clone()
    spoiled[1, 2, 3] = torch.nan
    with pytest.raises(FloatingPointError, match="loss nan, gradient norm nan: not finite; lower"):
        training.fit(model, [clips, spoiled, clips], clips, config)


@pytest.mark.parametrize(
    "entry", ["optimiser.batch=100", "model.kind=lstm", "model.heads=3", "data.folder=nowhere"]
)
def test_a_run_that_cannot_start_leaves_nothing(cache, entry):
    with pytest.raises(training.ConfigError):
        training.train(load_config("smoke", [entry]), cache / "runs", progress=False)
    assert not (cache / "runs").exists()


def test_the_step_size_stays_above_zero(cache):
    config = load_config("smoke", ["model.step_size=1e-3", "optimiser.step_size_multiplier=1e6"])
    rows = log_of(training.train(config, cache / "runs", progress=False))
    assert min(row["step_size"] for row in rows) >= config.optimiser.smallest_step_size * 0.999


def test_step_size_has_a_learning_rate_of_its_own():
    learner = make_learner(ModelConfig(dim=16, depth=1, heads=2, step_size=20.0), 16, seed=0)
    matrices, norms, alpha = make_optimiser(learner.model, OptimiserConfig(learning_rate=1e-3)).param_groups
    assert alpha["params"] == [learner.model.step_size]
    assert alpha["lr"] == pytest.approx(1e-3 * 3 * 20)
    assert alpha["weight_decay"] == norms["weight_decay"] == 0 < matrices["weight_decay"]
    grouped = sum(len(group["params"]) for group in (matrices, norms, alpha))
    assert grouped == len(list(learner.model.parameters()))


def test_schedule_warms_up_and_ends_at_a_tenth():
    config = OptimiserConfig(updates=100, warmup=10)
    factors = [training.learning_rate_factor(n, config) for n in range(101)]
    assert factors[0] == 0.1 and factors[9] == factors[10] == 1
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0.1)


def test_overrides_keep_their_types():
    config = load_config(
        "next_frame", ["model.depth=2", "optimiser.learning_rate=1e-2", "data.folder=clips", "seed=7"]
    )
    assert (config.model.depth, config.optimiser.learning_rate, config.data.folder, config.seed) == (
        2,
        0.01,
        "clips",
        7,
    )
    assert load_config("next_frame", ["data.folder=none"]) == Config()


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ("next_fram", [], r"configuration 'next_fram' is neither a preset \(next_frame, .*\) nor a file"),
        ("smoke", ["model.widht=3"], r"unknown key 'model.widht'; here: kind, dim"),
        ("smoke", ["model=3"], r"unknown key 'model'; here: model\.…"),
        ("smoke", ["seed.x=3"], r"unknown key 'seed.x'"),
        ("smoke", ["model.depth=two"], "'two'; it must be a whole number, as in model.depth=1"),
        ("smoke", ["optimiser.updates=1.5"], r"optimiser.updates is '1.5'; it must be a whole number"),
        ("smoke", ["seed"], r"'seed' is not of the form key=value"),
        ("smoke", ["seed=-1"], "seed is -1; it must be 0 or more"),
        ("smoke", ["eval_every=0"], "eval_every is 0; it must be 1 or more"),
        ("smoke", ["model.diffusion_steps=0"], "diffusion_steps is 0; it must be 1 or more"),
        ("smoke", ["model.heads=0"], "heads is 0; it must be 1 or more"),
        ("smoke", ["model.step_size=-1"], "step_size is -1.0; it must be a number above 0"),
        ("smoke", ["optimiser.updates=0"], "updates is 0; it must be 1 or more"),
        ("smoke", ["optimiser.learning_rate=nan"], "learning_rate is nan; it must be a number above 0"),
    ],
)
def test_a_wrong_configuration_is_named(source, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config(source, overrides)


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    path = tmp_path / "config.json"
    for text in ("{", "{}", '{"model": 3}', '["model"]', '{"seed": null}', '{"data": {"folder": ["a"]}}'):
        path.write_text(text)
        with pytest.raises(ValueError):
            load_config(str(path))


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match=r"model.kind is 'lstm'; it must be one of ebt, transformer, gru, d"):
        make_learner(ModelConfig(kind="lstm"), 16, seed=0)


# Files and checkpoints


def test_tensors_come_back_with_what_was_kept_beside_them(tmp_path):
    tensors = {"a": torch.randn(3, 4, generator=generator(0)), "b": torch.arange(6).view(2, 3).mT}
    save_tensors(tmp_path / "deep" / "x.safetensors", tensors, {"seed": 3})
    loaded, meta = load_tensors(tmp_path / "deep" / "x.safetensors")
    assert meta == {"seed": 3} and loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\x80\x04cos\nsystem\n"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors checkpoint"):
        load_tensors(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_tensors(tmp_path / "none.safetensors")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail(draft):
        draft.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]
