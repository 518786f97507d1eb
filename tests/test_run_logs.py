"""Logs of a run: pace, memory, probes of the inner walk, TensorBoard, Weights & Biases, precision."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ebwm.evaluation.cost import matrix_speed
from ebwm.training import run as running
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.learner import load_learner
from ebwm.training.presets import load_config

TINY = ["model.dim=16", "model.heads=2", "data.features=16", "optimiser.updates=4", "run.monitor_every=1"]


def train(runs, *entries):
    config = load_config("smoke", [*TINY, *entries])
    folder = running.train(config, runs, progress=False)
    return folder, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_each_row_has_pace_and_memory(runs):
    _, rows = train(runs, "run.logger=none")
    for row in rows:
        assert row["items_per_second"] == pytest.approx(4 / row["seconds"])
        assert 0 < row["flops_utilisation"] < 2 and row["peak_mib"] > 50
    assert [row["update"] for row in rows if "energy_gap" in row] == [1, 2, 3, 4]
    assert all(0 <= row["rising"] <= 1 and row["inner_gradient"] > 0 for row in rows)


def test_probes_follow_monitor_every(runs):
    _, rows = train(runs, "run.logger=none", "run.monitor_every=3", "optimiser.updates=8")
    assert [row["update"] for row in rows if "energy_gap" in row] == [1, 3, 6]


def test_probes_change_no_loss(runs):
    (_, often), (_, seldom) = (train(runs, "run.logger=none", f"run.monitor_every={n}", "recipe.name=s2")
                               for n in (1, 1000))
    assert [row["loss"] for row in often] == [row["loss"] for row in seldom]


def test_tensorboard_has_the_values_of_the_log(runs):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, rows = train(runs)
    seen = events.EventAccumulator(str(folder / "tensorboard")).Reload()
    for name in ("loss", "grad_norm", "step_size", "energy_gap", "items_per_second"):
        assert [event.step for event in seen.Scalars(name)] == [row["update"] for row in rows]
        assert [event.value for event in seen.Scalars(name)] == pytest.approx([row[name] for row in rows])


def test_weights_and_biases_has_the_values_of_the_log(runs, monkeypatch):
    calls, wandb = [], ModuleType("wandb")
    note = lambda row, step: calls.append((step, row["loss"]))
    run = SimpleNamespace(log=note, finish=lambda: calls.append("end"))
    wandb.init = lambda **about: calls.append(about) or run
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    folder, rows = train(runs, "run.logger=wandb")
    about, *steps, end = calls
    assert about["name"] == folder.name and about["config"]["model"]["dim"] == 16 and end == "end"
    assert steps == [(row["update"], row["loss"]) for row in rows]


def test_a_missing_logger_is_reported_before_a_run_starts(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'ebwm\[wandb\]'"):
        train(runs, "run.logger=wandb")
    assert not runs.exists()


def test_energies_stay_in_float32_with_bf16_products(runs):
    _, low = train(runs, "run.logger=none", "run.precision=bf16-mixed")
    folder, full = train(runs, "run.logger=none")
    for one, other in zip(low, full, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05) and one["loss"] != other["loss"]
    learner = load_learner(folder)
    states = torch.randn(2, 3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert learner.model.landscape(states)(torch.randn(2, 3, 16)).dtype == torch.float32


def test_the_average_of_the_weights_is_the_result(runs):
    folder, _ = train(runs, "run.logger=none", "optimiser.average=0.9", "optimiser.learning_rate=0.01")
    checkpoint, _ = Checkpoints(folder / "checkpoints").newest()
    saved = load_learner(folder).model.state_dict()
    assert all(torch.equal(saved[name], checkpoint.tensors[f"average.{name}"]) for name in saved)
    assert not torch.equal(saved["embed.weight"], checkpoint.tensors["model.embed.weight"])


def test_the_speed_of_products_is_measured():
    assert matrix_speed(size=256) > 1e8
