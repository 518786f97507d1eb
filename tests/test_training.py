"""Training runs: reproducible, with the golden losses; their logs, configurations and files."""

import dataclasses
import itertools
import json
import sys
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
import torch
from golden import FILE, RUNS, losses
from tiny_run import SHAPE, log_of, tiny, tiny_text, trained, untimed

from ebwm.data.states import StatesConfig
from ebwm.data.task import Tokens, Vectors
from ebwm.data.tasks import ClipsConfig, TextConfig, load_data, load_task
from ebwm.files import sha256
from ebwm.settings import generator
from ebwm.training import configuration
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.configuration import Config, ConfigError, ModelConfig, OptimiserConfig, WalkConfig, as_dict
from ebwm.training.distributed import SingleProcess
from ebwm.training.learner import batches_of, evaluate, load_learner, load_run, make_learner, position_losses
from ebwm.training.memory import free_memory, number_of_weights
from ebwm.training.optimiser import learning_rate_factor, make_optimiser, update_average
from ebwm.training.presets import load_config
from ebwm.training.run import Stopped, resume, train
from ebwm.training.trainer import Trainer, fit

NEEDS_DIFFUSERS = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
DIFFUSION = pytest.param("diffusion", None, marks=NEEDS_DIFFUSERS)


@pytest.mark.parametrize("kind, average", [("ebt", None), ("ebt", 0.5), ("transformer", None), ("gru", 0.5), DIFFUSION])
def test_runs_of_one_seed_are_equal_and_a_loaded_model_has_their_weights_and_score(runs, kind, average):
    """With an average of the weights, it is the average that is scored and saved."""
    config = tiny(f"model.kind={kind}", "model.candidates=latent", "model.diffusion_steps=2",
                  f"optimiser.average={average}", "optimiser.learning_rate=1e-2", "optimiser.updates=3")
    first, second = (train(config, runs, progress=False) for _ in range(2))
    other = train(dataclasses.replace(config, seed=1), runs, progress=False)
    assert untimed(first) == untimed(second) != untimed(other)
    assert sha256(first / "model.safetensors") == sha256(second / "model.safetensors")
    assert [folder.name for folder in (first, second, other)] == ["001", "002", "003"]
    learner, test = load_learner(first), load_data(config.data)["test"].whole()
    result = json.loads((first / "result.json").read_text())
    assert evaluate(learner, test, config.seed) == pytest.approx(result["test_loss"], abs=1e-7)
    saved = load_config(str(first / "config.json"))
    assert dataclasses.replace(saved, walk=config.walk) == config
    if kind == "ebt":
        model = make_learner(config.model, load_task(config.data), config.seed).model
        assert saved.walk.step_size == round(model.step_size.item(), 6) != model.standard_step_size()
    weights, tensors = learner.model.state_dict(), Checkpoints(first / "checkpoints").newest()[0].tensors
    equal = [all((tensors[f"{prefix}.{name}"] == weights[name]).all() for name in weights)
             for prefix in ("model", "average") if f"{prefix}.embed.weight" in tensors]
    assert equal == ([True] if average is None else [False, True])


@pytest.mark.parametrize("kind, depth", [("ebt", 1), ("transformer", 3), ("gru", 2)])
def test_weights_are_counted_without_memory(kind, depth):
    config = tiny(f"model.kind={kind}", f"model.depth={depth}")
    model = make_learner(config.model, 8, 0).model
    assert number_of_weights(config, Vectors(8)) == sum(weight.numel() for weight in model.parameters())
    assert 2**20 < free_memory(torch.device("cpu")) < 2**60


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_the_golden_runs(runs, name):
    known = json.loads(FILE.read_text())
    assert known.keys() == RUNS.keys() and len(known[name]) == 8
    assert losses(name, runs) == pytest.approx(known[name], rel=1e-6, abs=0), (
        f"losses of {name} differ from {FILE.name}; if that is intended: python tests/golden.py")


def test_training_on_video_files(runs, real_data):
    folder = trained(runs, f"data.folder={real_data / 'video'}", "data.spacing=0.2", "optimiser.updates=3")
    assert len(log_of(folder)) == 3
    assert json.loads((folder / "result.json").read_text())["test_loss"] > 0


def test_training_in_memory_fails_at_a_non_finite_batch():
    model, clips = make_learner(tiny().model, 8, 0), torch.randn(4, 5, 8, generator=generator(0))
    spoiled = clips.clone()
    spoiled[1, 2, 3] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        fit(model, [clips, spoiled, clips], clips, tiny())


def test_training_in_memory_and_in_a_folder_have_one_loop(runs):
    """The same losses and evaluations, batch for batch; seconds are summed in memory."""
    config = tiny("optimiser.updates=5", "eval_every=3")
    task = load_task(config.data)
    learner = make_learner(config.model, task, config.seed)
    batches = batches_of(task.splits["train"], config.optimiser.batch, config.seed)
    rows = fit(learner, batches, task.items("valid"), config)
    logged = log_of(train(config, runs, progress=False))
    assert [row["loss"] for row in rows] == [row["loss"] for row in logged]
    assert [row.get("valid_loss") for row in rows] == [row.get("valid_loss") for row in logged]
    assert ["valid_loss" in row for row in rows] == [False, False, True, False, True]
    assert all(before["seconds"] < after["seconds"] for before, after in pairwise(rows))


@pytest.mark.parametrize("entry", [
    "model.kind=lstm", "model.heads=3", "data.folder=nowhere", "model.kind=joint_ebt",
    "data.kind=states", "text data.tokenizer=train:100000", "text model.candidates=latent", "text data.source=no.txt"])
def test_a_run_that_cannot_start_leaves_no_file(runs, entry):
    *text, entry = entry.split()
    config = load_config("smoke", [*(tiny_text(runs.parent) if text else []), entry])
    with pytest.raises(ConfigError):
        train(config, runs, progress=False)
    assert not runs.exists()


@pytest.mark.parametrize("batch", [4, 5])
def test_accumulated_gradients_are_those_of_the_whole_batch(runs, batch):
    given = ["model.kind=transformer", f"optimiser.batch={batch}"]
    one, two = (log_of(trained(runs, *given, f"optimiser.accumulate={n}")) for n in (1, 2))
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in one] == pytest.approx([row[name] for row in two], rel=1e-3)


@pytest.mark.parametrize("kind", ["ebt", "transformer"])
def test_parts_of_a_batch_count_by_their_scored_targets(kind):
    """The last item has none."""
    batch = torch.randint(1, 7, (4, 6), generator=generator(0, "tokens"))
    batch[2, 3:] = batch[3, 1:] = 0
    learner = make_learner(ModelConfig(kind, 16, 1, 2), Tokens(7, ignore_index=0), 0, walk=WalkConfig(start="zeros"))
    whole, *parts = (Trainer(learner, load_config("smoke", [f"optimiser.accumulate={n}"])) for n in (1, 2, 4))
    expected = whole.backward(batch)
    for trainer in parts:
        trainer.optimiser.zero_grad()
        assert trainer.backward(batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["ebt", "transformer"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_without_scored_targets_is_skipped(kind, accumulate):
    batch = torch.zeros(4, 6, dtype=torch.long)
    batch[:, 0] = 1
    learner = make_learner(ModelConfig(kind, 16, 1, 2), Tokens(7, ignore_index=0), 0, walk=WalkConfig(start="zeros"))
    before = [weight.detach().clone() for weight in learner.model.parameters()]
    row = Trainer(learner, load_config("smoke", [f"optimiser.accumulate={accumulate}"])).update(batch)
    assert row["skipped"] and all(map(torch.equal, before, learner.model.parameters()))


def test_the_kind_of_data_may_be_given_after_its_entries():
    entries = ["data.source=notes.txt", "data.length=9", "data.kind=text"]
    assert load_config("smoke", entries) == load_config("smoke", entries[::-1])


def test_the_step_size_stays_above_its_lower_bound(runs):
    rows = log_of(trained(runs, "walk.step_size=1e-3", "optimiser.step_size_multiplier=1e6"))
    assert min(row["step_size"] for row in rows) >= OptimiserConfig().smallest_step_size * 0.999


def test_the_step_size_has_a_separate_learning_rate():
    model = make_learner(ModelConfig(dim=16, depth=1, heads=2), 16, 0).model
    model.step_size.data.fill_(20.0)
    matrices, norms, alpha = groups = make_optimiser(model, OptimiserConfig(learning_rate=1e-3)).param_groups
    assert alpha["params"] == [model.step_size] and alpha["lr"] == pytest.approx(1e-3 * 3 * 20)
    assert alpha["weight_decay"] == norms["weight_decay"] == 0 < matrices["weight_decay"]
    assert all(weight.ndim > 1 for weight in matrices["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_schedule_warms_up_and_ends_at_a_tenth():
    config = OptimiserConfig(updates=100, warmup=10)
    factors = [learning_rate_factor(n, config) for n in range(101)]
    assert factors[0] == 0.1 and factors[9] == factors[10] == 1
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0.1)
    longer = OptimiserConfig(updates=100, warmup=10, schedule=40)
    assert [learning_rate_factor(n, longer) for n in (40, 41, 99)] == pytest.approx([0.1] * 3)


def test_the_average_of_the_weights_keeps_its_decay_and_follows_early_weights_faster():
    layer, average = torch.nn.Linear(1, 1, bias=False), {"weight": torch.zeros(1, 1)}
    torch.nn.init.ones_(layer.weight)
    update_average(average, layer, 0.9, 10_000)
    assert average["weight"].item() == pytest.approx(0.1)
    update_average(average, layer, 0.9, 0)
    assert average["weight"].item() == pytest.approx(0.1 + 0.9 * 0.9)


# Logs


def test_each_row_has_pace_memory_and_a_probe_at_every_monitored_update(runs):
    """Also with bf16 products, which change losses a little."""
    rows, low = (log_of(trained(runs, "run.monitor_every=3", f"run.precision={precision}"))
                 for precision in ("32-true", "bf16-mixed"))
    for row in rows:
        assert row["items_per_second"] == pytest.approx(4 / row["seconds"])
        assert 0 < row["flops_utilisation"] < 2 and row["peak_mib"] > 50
    probed = [row for row in rows if "energy_gap" in row]
    assert [row["update"] for row in probed] == [1, 3, 6]
    assert all(0 <= row["rising"] <= 1 and row["inner_gradient"] > 0 for row in probed)
    for one, other in zip(low, rows, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05) and one["loss"] != other["loss"]


def test_tensorboard_has_the_values_of_the_log(runs):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = trained(runs, "run.logger=tensorboard", "run.monitor_every=1")
    seen, rows = events.EventAccumulator(str(folder / "tensorboard")).Reload(), log_of(folder)
    for name in ("loss", "grad_norm", "step_size", "energy_gap", "items_per_second"):
        assert [event.step for event in seen.Scalars(name)] == [row["update"] for row in rows]
        assert [event.value for event in seen.Scalars(name)] == pytest.approx([row[name] for row in rows])


def test_weights_and_biases_has_the_values_of_the_log(runs, monkeypatch):
    calls, wandb = [], ModuleType("wandb")
    run = SimpleNamespace(log=calls.append, finish=lambda: calls.append("end"),
                          define_metric=lambda name, step_metric: calls.append((name, step_metric)))
    wandb.init = lambda **about: calls.append(about) or run
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    folder = trained(runs, "run.logger=wandb")
    about, axis, *rows, end = calls
    assert about["name"] == folder.name and about["config"]["model"]["dim"] == 16 and end == "end"
    assert axis == ("*", "update"), "rows after a rollback have earlier updates, which a step may not"
    shown = lambda rows: [(row["update"], row["loss"]) for row in rows]
    assert shown(rows) == shown(log_of(folder))


def test_energies_stay_in_float32_with_bf16_products():
    learner, states = make_learner(tiny().model, 8, 0), torch.randn(2, 3, 8, generator=generator(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert learner.model.landscape(states)(states).dtype == torch.float32


@pytest.mark.parametrize("kind", ["ebt", "transformer", "gru"])
def test_errors_are_not_rounded_to_bf16(kind):
    """Products are."""
    tokens = torch.randint(1, 30, (4, 17), generator=generator(0, "tokens"))
    learner = make_learner(ModelConfig(kind, 16, 1, 2), Tokens(30), 0, walk=WalkConfig(start="zeros"))
    world = SingleProcess(torch.device("cpu"), "bf16-mixed")
    scored = learner._replace(predict=lambda *inputs: world.forward(learner.predict, *inputs))
    losses = position_losses(scored, tokens, 0)
    assert losses.dtype == torch.float32 and not torch.equal(losses, losses.bfloat16().float())
    assert evaluate(scored, tokens, 0) == pytest.approx(evaluate(learner, tokens, 0), rel=0.02)


# Configurations


def test_overrides_that_need_each_other_come_in_any_order():
    entries = ["data.symbolic=true", "data.encoder=pixels", "data.size=none"]
    found = [load_config("game-xxs", order) for order in itertools.permutations(entries)]
    assert found[0].data.symbolic and all(config == found[0] for config in found)
    with pytest.raises(ConfigError, match=r"data\.sise"):
        load_config("game-xxs", [*entries, "data.sise=3"])


def test_overrides_keep_their_types():
    entries = ["model.depth=2", "model.compile=True", "optimiser.clip=1", "data.folder=clips", "seed=7"]
    config = load_config("next_frame", entries)
    found = config.model.depth, config.model.compile, config.optimiser.clip, config.data.folder, config.seed
    assert found == (2, True, 1.0, "clips", 7)
    assert [type(value) for value in found] == [int, bool, float, str, int]
    assert load_config("next_frame", ["data.folder=none"]) == Config()


def test_old_names_are_read_from_files():
    config = load_config("text-xxs-s1", ["walk.steps=5", "walk.start=last"])
    values = as_dict(config)
    walk = values.pop("walk")
    values["model"] |= {**walk, "step": values["model"].pop("step_conditioning")}
    assert {f"model.{name}" for name in (*walk, "step")} == configuration.RENAMED.keys()
    assert configuration.from_dict(values) == config


def test_the_kind_of_data_selects_its_entries():
    config = load_config("smoke", ["data.kind=text", "data.length=9"])
    assert config.data == TextConfig(length=9)
    assert configuration.override(config, "data.kind", "text") == config
    assert configuration.override(config, "data.kind", "clips").data == ClipsConfig()
    assert configuration.override(config, "data.kind", "states").data == StatesConfig()
    assert "data.kind: 'clips' is now 'text'" in configuration.differences(load_config("smoke"), config)


def test_a_batch_larger_than_the_data_is_reduced_with_a_warning(runs):
    entries, data = ["data.held_out=0.2", "optimiser.batch=256", "optimiser.accumulate=2", *SHAPE], torch.eye(29, 15)
    data = data.reshape(29, 5, 3)
    with pytest.warns(UserWarning, match=r"optimiser\.batch=256: .* has 17 items; training uses optimiser\.batch=16"):
        folder = train("smoke", runs, progress=False, data=data, overrides=entries)
    assert load_run(folder).config.optimiser.batch == 16
    with pytest.raises(Stopped), pytest.warns(UserWarning, match="training uses"):
        train("smoke", runs, False, lambda row: row["update"] == 2, data, entries)
    resume(runs / "002", progress=False, data=data)


LAUNCHED = {"RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize("size, missing, rule", [
    ("2", "RANK", "is set without RANK"), ("many", "RANK", "is set without RANK"),
    ("2", "MASTER_ADDR", "is set without MASTER_ADDR"), ("2", "", "must be an integer above RANK='2'"),
    ("many", "", "must be an integer above RANK='2'")])
def test_a_number_of_processes_that_nothing_has_started_is_refused(runs, monkeypatch, size, missing, rule):
    for name, value in ({"WORLD_SIZE": size} | LAUNCHED).items():
        monkeypatch.setenv(name, value)
    if missing:
        monkeypatch.delenv(missing)
    with pytest.raises(ConfigError, match=f"WORLD_SIZE='{size}': {rule}"):
        trained(runs)
    assert not runs.exists()
