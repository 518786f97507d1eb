"""Faults are detected and handled: damaged files, full disks, non-finite numbers, lost processes."""

import contextlib
import json
import math
import multiprocessing.connection
import os
import pickle
import re
import resource
import shutil
import signal
import statistics
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_run import (
    S2,
    assert_same_end,
    at,
    copied,
    events_of,
    exit_code_of,
    files_of,
    halted,
    log_of,
    resumed,
    stopped,
    tiny,
    trained,
    untimed,
    whole,
)
from torch.utils._pytree import tree_flatten, tree_unflatten

from ebwm import saving
from ebwm.data.task import stack
from ebwm.energy import Wrapper
from ebwm.files import sha256
from ebwm.joint import JointEBT
from ebwm.saving import CheckpointError, load_tensors, save_tensors
from ebwm.settings import generator
from ebwm.training import checkpoint, trainer
from ebwm.training import run as running
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.faults import MAX_DISTANCE, FaultState, Spikes, probe
from ebwm.training.folder import RunFolder
from ebwm.training.history import read
from ebwm.training.learner import make_learner
from ebwm.training.optimiser import learning_rate_factor
from ebwm.training.presets import load_config
from ebwm.training.reports import scores
from ebwm.training.run import RunError, Stopped
from ebwm.training.trainer import Trainer, roll_back, trainer_state
from ebwm.walk import Walk


def checkpoint_of(folder, update):
    return folder / "checkpoints" / f"{update:08d}.safetensors"


# Killed while saving, and a full disk


def train_and_die(runs, place):
    """Train until the checkpoint of update 4 is half written, or has no digest yet."""
    module = saving if place == "_save_file" else checkpoint
    inner = getattr(module, place)

    def die(*given):
        path = given[place == "_save_file"]
        if "00000004" not in path.name:
            return inner(*given)
        if place == "_save_file":
            inner(*given)
            path.write_bytes(path.read_bytes()[:1000])
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, place, die)
    trained(runs, *S2)


@pytest.mark.parametrize("place", ["_save_file", "sha256"])
def test_a_run_killed_while_saving_resumes_from_the_last_good_checkpoint(runs, place):
    assert exit_code_of(train_and_die, runs, place) == -signal.SIGKILL
    parts = runs / "001"
    left = [[*parts.rglob(f"{start}00000004.safetensors")] for start in (".*.", "")]
    assert [len(paths) for paths in left] == [place == "_save_file", place == "sha256"]
    resumed(parts)
    refused = [row["what"] for row in events_of(parts, "refused")]
    assert ["sha256 is missing" in text for text in refused] == [True] * (place == "sha256")
    assert events_of(parts, "resumed")[0]["update"] == 2
    assert not [*parts.rglob(".[0-9]*")]
    assert_same_end(parts, whole(*S2))


def test_a_second_writer_is_refused_before_it_reads_any_data(runs, monkeypatch):
    def resume_as_well():
        monkeypatch.setattr(running, "load_task", None)
        with pytest.raises(CheckpointError, match="another process is writing here"):
            resumed(runs / "001")

    trained(runs, callback=at(3, resume_as_well))


def train_on_a_full_disk(runs, limit):
    fill = at(5, resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    last, command = checkpoint_of(runs / "001", 4), f"ebwm train --resume {runs / '001'}"
    with pytest.raises(RunError, match=f"the disk is full; the last good checkpoint is {last}; .*{command}$"):
        trained(runs, callback=fill)


@pytest.mark.parametrize("limit", [20_000, 1], ids=["for a checkpoint", "for a line of log"])
def test_a_full_disk_is_reported_and_the_last_checkpoint_stays(runs, limit):
    parts = runs / "001"
    assert exit_code_of(train_on_a_full_disk, runs, limit) == 0
    assert checkpoint_of(parts, 4).stat().st_size > 20_000 > (parts / "log.jsonl").stat().st_size > 1
    assert [row["update"] for row in log_of(parts)] == [*range(1, 7 if limit > 1 else 6)]
    assert not [*parts.rglob(".[0-9]*")]
    resumed(parts)
    assert_same_end(parts, whole())


@pytest.mark.parametrize("moved", [True, False])
def test_a_run_whose_folder_vanishes_stops_at_the_next_save_and_writes_nothing_in_its_place(runs, moved):
    place, other = runs / "001", runs / "elsewhere"
    vanish = at(3, lambda: place.rename(other) and None) if moved else at(3, shutil.rmtree, place)
    with pytest.raises(RunError, match=f"{place}: the folder of the run was moved or deleted"):
        trained(runs, callback=vanish)
    assert [path.name for path in runs.iterdir()] == ["elsewhere"] * moved
    if moved:
        assert_same_end(resumed(other), whole())


# Damaged checkpoints


class Payload:
    """Unpickling it runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def sealed(path, content):
    """Write a file and its digest."""
    path.write_bytes(content)
    path.with_name(path.name + ".sha256").write_text(f"{sha256(path)}  {path.name}\n")


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def foreign(path, meta):
    """A file of another program, with some JSON in its header."""
    save_file({"weight": torch.ones(3)}, path, {"meta": meta})
    sealed(path, path.read_bytes())


FOREIGN = "not a safetensors checkpoint"
DAMAGE = {
    "cut, with its digest": (lambda path: sealed(path, path.read_bytes()[:-100]), FOREIGN),
    "a bit of a weight": (lambda path: flipped(path, -5), "the file is damaged (SHA-256 differs from "),
    "empty, with its digest": (lambda path: sealed(path, b""), "the file is empty"),
    "no digest": (lambda path: path.with_name(f"{path.name}.sha256").unlink(), ".safetensors.sha256 is missing"),
    "an earlier format": (lambda path: foreign(path, '{"format": 1}'), "must be 2"),
    "a later format": (lambda path: foreign(path, '{"format": 3}'), "must be 2"),
    "a foreign header": (lambda path: foreign(path, "[1]"), f"{FOREIGN} (meta=list"),
    "no JSON": (lambda path: foreign(path, "{"), FOREIGN),
    "deep JSON": (lambda path: foreign(path, "[" * 100_000), FOREIGN),
    "a pickle, with its digest": (lambda path: sealed(path, pickle.dumps(Payload(path.parents[1] / "mark"))), FOREIGN),
}


@pytest.fixture
def parts(runs):
    """A copy of a stopped run, with checkpoints 2, 4 and 5."""
    return copied(halted(*S2, after=5), runs)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_is_read(parts, name):
    (damage, reason), path, kept = DAMAGE[name], checkpoint_of(parts, 5), Checkpoints(parts / "checkpoints")
    damage(path)
    found, (refused,) = kept.newest()
    assert str(path) in refused and reason in refused
    assert found.path == kept.best() == checkpoint_of(parts, 4)
    assert not (parts / "mark").exists()


def test_a_run_whose_last_checkpoint_is_damaged_resumes_from_the_one_before_it(parts):
    flipped(checkpoint_of(parts, 5), -5)
    resumed(parts)
    (refused,), (restarted,) = events_of(parts, "refused"), events_of(parts, "resumed")
    assert "is damaged" in refused["what"] and refused["update"] == restarted["update"] == 4
    assert sha256(parts / "model.safetensors") == sha256(whole(*S2) / "model.safetensors")
    assert untimed(parts) == untimed(whole(*S2))


def spoiled_meta(**values):
    """Change entries of a checkpoint's header; None removes one."""
    return lambda tensors, meta: (tensors, {k: v for k, v in (meta | values).items() if v is not None})


def spoiled_tensor(name):
    return lambda tensors, meta: (tensors | {name: torch.ones(3).byte()}, meta)


@pytest.mark.parametrize("change", [
    spoiled_meta(config=None), spoiled_meta(data=None), spoiled_meta(faults=None), spoiled_meta(world_size=None),
    spoiled_meta(updates="many"), spoiled_meta(losses=["low"]), spoiled_meta(rate_factor=math.nan),
    spoiled_meta(batches=10**30), spoiled_tensor("process0.noise"), spoiled_tensor("adamw.exp_avg.norm.weight"),
    spoiled_tensor("adamw.exp_avg.nothing")])
def test_an_intact_checkpoint_of_another_program_is_refused_in_one_line(parts, change):
    path = checkpoint_of(parts, 5)
    save_tensors(path, *change(*load_tensors(path)))
    sealed(path, path.read_bytes())
    with pytest.raises(CheckpointError, match=f"{path}: not a checkpoint of this run .*; delete it") as refusal:
        resumed(parts)
    assert "\n" not in str(refusal.value)


def test_damaged_lines_of_log_and_events_are_dropped(parts):
    for name in ("log.jsonl", "events.jsonl"):
        with (parts / name).open("ab") as file:
            file.write(b'\xff\xfe\n[1]\n{"update": 1}\n{"update": "x", "batch": 1}\n{"up')
    assert_same_end(resumed(parts), whole(*S2))
    assert len(events_of(parts)) == 2


def test_the_payload_of_the_pickles_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_without_a_good_checkpoint_nothing_is_written(parts):
    for path in Checkpoints(parts / "checkpoints").all():
        flipped(path, -1)
    before = files_of(parts)
    with pytest.raises(CheckpointError) as refusal:
        resumed(parts)
    assert str(refusal.value).count("is damaged") == 3
    assert files_of(parts) == before


def test_an_unreadable_checkpoint_is_refused(parts, monkeypatch):
    def fail(path):
        if path.name == "00000005.safetensors":
            raise OSError(5, "Input/output error", str(path))
        return sha256(path)

    monkeypatch.setattr(checkpoint, "sha256", fail)
    found, refused = Checkpoints(parts / "checkpoints").newest()
    assert found.path.name == "00000004.safetensors"
    assert len(refused) == 1 and "Input/output error" in refused[0]


# Retention of checkpoints


def checkpoints(folder, scores, keep=2):
    kept = Checkpoints(folder, keep)
    for update, score in scores.items():
        kept.save(update, {"weight": torch.tensor([[float(update), 0.0], [-1.0, 1.0]]).mT}, {"seed": 3}, score)
    return kept, [int(path.stem) for path in kept.all()]


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path):
    kept, numbers = checkpoints(tmp_path, {1: math.nan, 2: 1.0, 3: None, 4: 2.0, 5: None, 6: None})
    assert numbers == [2, 5, 6] and kept.best().name == "00000002.safetensors"
    path, tensors, meta = kept.newest()[0]
    assert path.name == "00000006.safetensors" and meta["seed"] == 3
    assert tensors["weight"].tolist() == [[6.0, -1.0], [0.0, 1.0]]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"0000000{number}.safetensors{end}" for number in (2, 5, 6) for end in ("", ".sha256")}


@pytest.mark.parametrize("meta", ['{"score": "low"}', "{", "[" * 100_000])
def test_files_with_later_numbers_do_not_replace_saved_checkpoints(tmp_path, meta):
    """Such as a refused newest checkpoint, or a file of another program."""
    kept, numbers = checkpoints(tmp_path, {2: None, 4: None, 9: None}, keep=1)
    assert numbers == [9]
    flipped(kept.all()[-1], -1)
    foreign(tmp_path / "99999999.safetensors", meta)
    kept, numbers = checkpoints(tmp_path, {5: None, 6: 3.0, 7: None}, keep=1)
    assert numbers == [6, 7, 9, 99999999]
    assert kept.newest()[0].path.name == "00000007.safetensors" and len(kept.newest()[1]) == 2


# Non-finite numbers


def tiny_trainer(*entries):
    config = tiny(*entries)
    return Trainer(make_learner(config.model, 8, 0, config.recipe, config.walk), config)


def spoil(tensor, wrong):
    tensor.view(-1)[0] = wrong


def spoiled_batch(trainer, batch, wrong):
    leaves, structure = tree_flatten(batch)
    leaves = [leaf.clone() for leaf in leaves]
    spoil(leaves[-1], wrong)
    return tree_unflatten(leaves, structure)


def spoiled_memory(trainer, batch, wrong):
    spoil(next(iter(trainer.optimiser.state.values()))["exp_avg_sq"], wrong)
    return batch


@torch.no_grad()
def spoiled_weights(trainer, batch, wrong):
    spoil(next(trainer.learner.model.parameters()), wrong)
    return batch


def spoiled_outer_gradient(trainer, batch, wrong):
    weight = next(trainer.learner.model.parameters())
    handle = weight.register_hook(lambda grad: (handle.remove(), grad * wrong)[1])
    return batch


class Changed(Wrapper):
    """A landscape whose gradients are changed by a function."""

    def __init__(self, inner, change):
        super().__init__(inner)
        self.change = change

    def value_and_grad(self, y, create_graph=False):
        energies, grad = self.inner.value_and_grad(y, create_graph)
        return energies, self.change(grad)


def first_entry(tensor):
    return (torch.arange(tensor.numel()) == 0).view_as(tensor)


def spoiled_inner_gradient(trainer, batch, wrong):
    """One entry of each gradient of the next walk, before any bound on the gradient."""
    model, landscape = trainer.learner.model, trainer.learner.model.landscape

    def once(context):
        del model.landscape
        return Changed(landscape(context), lambda grad: grad.masked_fill(first_entry(grad), wrong))

    model.landscape = once
    return batch


def state_of(trainer):
    """The state without the noise, as bytes, which are equal for NaN too."""
    tensors = trainer_state(trainer)[0]
    return {name: value.numpy().tobytes() for name, value in tensors.items() if name != "process0.noise"}


def make_faulty(monkeypatch, fault, batches, wrong=math.nan):
    """Spoil updates of some batches; whether skipped updates kept the state."""
    update, kept = Trainer.update, []

    def spoiled(trainer, batch):
        if trainer.batches in batches:
            batch = fault(trainer, batch, wrong)
        before = state_of(trainer)
        row = update(trainer, batch)
        if row["skipped"]:
            kept.append(before == state_of(trainer))
        return row

    monkeypatch.setattr(Trainer, "update", spoiled)
    return kept


def faults_of(folder):
    """Skipped and consecutively skipped updates, spikes, rollbacks."""
    return FaultState(**json.loads((folder / "result.json").read_text())["faults"])


def assert_finite(folder):
    for path in Checkpoints(folder / "checkpoints").all():
        floats = [value for value in load_tensors(path)[0].values() if value.is_floating_point()]
        assert floats and all(value.isfinite().all() for value in floats)


def spoiled_at_last(trainer, batch, wrong):
    """Two bad batches, then spoiled weights and a damaged checkpoint."""
    if trainer.batches < 6:
        return spoiled_batch(trainer, batch, wrong)
    flipped(checkpoint_of(Path(os.environ["EBWM_RUNS"]) / "001", 4), -1)
    return spoiled_weights(trainer, batch, wrong)


# Events, batches of the log, counts of faults, row from which learning rates are halved.
SKIP = ["skipped 4"], [1, 2, 3, 4, 6, 7, 8, 9], (1, 0, 0, 0), 8
BACK = [*["skipped 5"] * 3, "rolled back 4"], [1, 2, 3, 4, 9, 10, 11, 12], (3, 0, 0, 1), 4
START = [*["skipped 1"] * 3, "rolled back 0"], [*range(5, 13)], (3, 0, 0, 1), 0
DAMAGED = (["skipped 2", "skipped 3", "skipped 4", "skipped 4", "refused 4", "rolled back 2"],
           [1, 2, *range(9, 15)], (4, 0, 0, 1), 2)
AVERAGE = "optimiser.average=0.9"


@pytest.mark.parametrize("task, entries, fault, batches, wrong, reason, expected", [
    ("clips", S2, spoiled_batch, {4}, math.inf, "not finite: batch", SKIP),
    ("actions", [], spoiled_batch, {4}, math.nan, "not finite: batch", SKIP),
    ("clips", [AVERAGE], spoiled_inner_gradient, {4}, math.nan, "loss", SKIP),
    ("clips", S2, spoiled_inner_gradient, {4}, math.inf, "loss", SKIP),
    ("clips", ["model.kind=transformer"], spoiled_outer_gradient, {4}, math.nan, "loss", SKIP),
    ("text", ["recipe.stream=false"], spoiled_inner_gradient, {4}, math.nan, "loss", SKIP),
    ("text", S2, spoiled_inner_gradient, {4}, math.nan, "loss", SKIP),
    ("pairs", [], spoiled_inner_gradient, {4}, math.nan, "loss", SKIP),
    ("clips", [*S2, AVERAGE], spoiled_memory, {5}, math.nan, "not finite: optimiser", BACK),
    ("pairs", S2, spoiled_weights, {5}, math.inf, "not finite: weights", BACK),
    ("clips", ["run.save_every=100"], spoiled_memory, {1}, math.nan, "not finite: optimiser", START),
    ("clips", ["faults.patience=2"], spoiled_at_last, {2, 4, 6}, math.nan, "not finite: ", DAMAGED),
])
def test_a_non_finite_update_is_skipped_and_several_in_a_row_cause_a_rollback(
        runs, monkeypatch, task, entries, fault, batches, wrong, reason, expected):
    """A skipped update changes nothing; after a rollback, learning rates and step size are halved."""
    kept, constant = make_faulty(monkeypatch, fault, batches, wrong), "optimiser.schedule=100000000"
    folder = trained(runs, *entries, "optimiser.warmup=0", constant, task=task)
    events, rows, (names, used, counts, first) = events_of(folder), log_of(folder), expected
    assert [f"{row['kind']} {row['update']}" for row in events] == names
    assert all(row["what"].startswith(reason) for row in events if row["kind"] == "skipped")
    assert [row["update"] for row in rows] == [*range(1, 9)] and [row["batch"] for row in rows] == used
    assert kept == [True] * counts[0] and faults_of(folder) == counts
    assert_finite(folder)
    assert [round(row["learning_rate"], 9) for row in rows] == [1e-3] * first + [5e-4] * (8 - first)
    if first < 8:
        assert events[-1]["what"].endswith("times 0.5")
        before = rows[first - 1]["step_size"] if first else load_config(str(folder / "config.json")).walk.step_size
        assert rows[first]["step_size"] == pytest.approx(before / 2, rel=0.01)


@pytest.mark.parametrize("task, entries", [("clips", S2), ("clips", [AVERAGE, "model.kind=transformer"])])
def test_a_run_with_skipped_updates_resumes_exactly(runs, monkeypatch, task, entries):
    make_faulty(monkeypatch, spoiled_batch, {1, 4, 5})
    expected = trained(runs, *entries, task=task)
    assert faults_of(expected) == (3, 0, 0, 0)
    assert_same_end(resumed(stopped(runs, *entries, task=task, after=4), task=task), expected)


def test_a_stop_after_a_skipped_update_is_saved_with_the_batches_that_were_used(runs, monkeypatch):
    def spoiled_and_stopped(trainer, batch, wrong):
        os.kill(os.getpid(), signal.SIGTERM)
        return spoiled_batch(trainer, batch, wrong)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped after update 4 of 8"):
        make_faulty(patch, spoiled_and_stopped, {4})
        trained(runs)
    resumed(runs / "001")
    assert events_of(runs / "001", "resumed")[0]["batch"] == 5
    assert [row["batch"] for row in log_of(runs / "001")] == SKIP[1]


def test_a_rollback_continues_noise_and_batches_and_remedies_accumulate(draw):
    """Also when the checkpoint was saved after a rollback."""
    trainer, batches = tiny_trainer("faults.lower=0.25", AVERAGE), draw(5, 4, 5, 8).float()
    trainer.update(batches[0])
    first = deepcopy(trainer_state(trainer))
    for factor in (1 / 4, 1 / 16, 1 / 64):
        tensors, meta = deepcopy(trainer_state(trainer)) if factor == 1 / 64 else first
        trainer.update(batches[1])
        noise, batch = trainer.noise.get_state(), trainer.batches
        assert roll_back(trainer, deepcopy(tensors), meta).endswith(f"times {factor:g}")
        assert (trainer.batches, trainer.updates, trainer.rate_factor) == (batch, 1, factor)
        after = trainer_state(trainer)[0]
        assert torch.equal(after["process0.noise"], noise)
        for name in ("model.step_size", "average.step_size"):
            assert after[name] == first[0][name] * factor
        changed = [name for name, value in tensors.items() if not torch.equal(value, after[name])]
        assert changed == ["model.step_size", "average.step_size", "process0.noise"]
    assert trainer.update(batches[2])["learning_rate"] == pytest.approx(
        learning_rate_factor(1, trainer.config.optimiser) * trainer.config.optimiser.learning_rate / 64)


def test_a_run_fails_after_its_rollbacks_and_can_be_resumed(runs, monkeypatch):
    with monkeypatch.context() as patch:
        make_faulty(patch, spoiled_batch, range(5, 100))
        with pytest.raises(RunError, match=r"faults.rollbacks=1 is reached"):
            trained(runs, "faults.patience=2", "faults.rollbacks=1")
    folder = runs / "001"
    kinds = ["skipped", "skipped", "rolled back", "skipped", "skipped", "gave up"]
    assert [row["kind"] for row in events_of(folder)] == kinds
    left = {".lock", "config.json", "checkpoints", "events.jsonl", "log.jsonl"}
    assert {path.name for path in folder.iterdir()} == left
    assert_finite(folder)
    resumed(folder)
    assert [row["kind"] for row in events_of(folder)] == ["resumed"]
    assert [row["update"] for row in log_of(folder)] == [*range(1, 9)]


@pytest.mark.parametrize("update, back", [(4, 2), (5, 4)])
def test_a_non_finite_state_is_not_saved_by_a_run(runs, monkeypatch, update, back):
    """Neither at a regular checkpoint (update 4) nor at a stop (update 5)."""
    step, folder = Trainer.step, runs / "001"

    def spoiled(trainer):
        row = step(trainer)
        if trainer.updates == trainer.batches + 1 == update:
            spoiled_memory(trainer, None, math.nan)
        return row

    monkeypatch.setattr(Trainer, "step", spoiled)
    stops = pytest.raises(Stopped, match="stopped after update 4 of 8") if update == 5 else contextlib.nullcontext()
    with stops:
        trained(runs, callback=at(5, lambda: update == 5))
    (event,) = events_of(folder, "rolled back")
    assert event["update"] == back and event["what"].startswith(f"after update {update}: adamw.exp_avg_sq.")
    assert_finite(folder)
    assert (folder / "model.safetensors").exists() == (update == 4)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_every_process_refuses_a_non_finite_state(tmp_path, wrong):
    """Not only the one that writes, so that all roll back together."""
    config, trainer = tiny(), tiny_trainer()
    spoiled_weights(trainer, None, wrong)
    folders = [RunFolder(tmp_path, config, writes) for writes in (True, False)]
    for save in (*(partial(folder.save, trainer) for folder in folders),
                 partial(Checkpoints(tmp_path).save, 1, trainer_state(trainer)[0])):
        with pytest.raises(FloatingPointError, match=r"model\.step_size holds non-finite"):
            save({})
    assert [*tmp_path.iterdir()] == []


# Data loaders


def gone(process):
    """Wait until a process has closed its files."""
    multiprocessing.connection.wait([process.sentinel])


def dead(process):
    """Wait until the system reports the end of a child process."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def kill_loader(wait):
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGKILL)
    wait(process)


WAITID = pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system has no waitid")


@pytest.mark.parametrize("task, wait", [("clips", gone), pytest.param("clips", dead, marks=WAITID), ("pairs", gone)])
def test_a_killed_loader_worker_changes_no_byte(runs, monkeypatch, task, wait):
    """PyTorch's signal handler does not interrupt an update."""
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    expected, handler = whole(task=task), signal.getsignal(signal.SIGCHLD)
    folder = trained(runs, "run.workers=1", task=task, callback=at(3, kill_loader, wait))
    (event,) = events_of(folder)
    assert event["kind"] == "loader" and event["what"].startswith("restarted: ")
    assert_same_end(folder, expected)
    assert signal.getsignal(signal.SIGCHLD) is handler


@pytest.mark.parametrize("workers, error, restarts", [
    (2, RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), 3),
    (2, ConnectionRefusedError(111, "Connection refused"), 3), (2, EOFError("got end of file during message"), 3),
    (1, RuntimeError("Caught RuntimeError in DataLoader worker process 0."), 0),
    (1, FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0."), 0),
    (1, RuntimeError("the clips have different lengths"), 0), (0, FileNotFoundError("clip.mp4"), 0)])
def test_a_lost_loader_is_restarted_three_times_and_an_error_of_the_data_set_is_raised(
        runs, monkeypatch, workers, error, restarts):
    def failing(data, config, trainer):
        yield stack([data[item] for item in range(4)])
        raise error

    monkeypatch.setattr(running, "_loader", failing)
    message = f"failed four times: {error}" if restarts else str(error)
    with pytest.raises(RunError if restarts else type(error), match=re.escape(message)):
        trained(runs, f"run.workers={workers}")
    assert [row["what"] for row in events_of(runs / "001")] == [f"restarted: {error}"] * restarts
    assert len(log_of(runs / "001")) == restarts + 1


# Spikes

LOSSES = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(LOSSES | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=30, max_size=60),
       st.integers(19, 30), st.floats(0.1, 20))
@settings(max_examples=80, deadline=None)
def test_a_spike_lies_above_the_threshold_of_the_recent_losses(losses, window, deviations):
    """Against the definition, with at least twenty losses; non-finite losses are no spikes and are not stored."""
    spikes, seen = Spikes(window, deviations), []
    for loss in losses:
        past = seen[-window:]
        assert list(spikes.losses) == past
        expected = False
        if math.isfinite(loss) and len(past) >= 20:
            middle = statistics.median(past)
            spread = 1.4826 * statistics.median([abs(value - middle) for value in past])
            expected = loss > middle + deviations * max(spread, abs(middle) / 1000)
        assert spikes(loss) is expected
        seen += [loss] if math.isfinite(loss) else []


def test_a_spike_is_an_event_and_training_continues(runs, monkeypatch):
    monkeypatch.setattr(trainer, "Spikes", lambda *given, **named: Spikes(*given, least=3, **named))
    make_faulty(monkeypatch, lambda trainer, batch, wrong: batch * wrong, {5}, 1e3)
    folder = trained(runs, "model.kind=transformer")
    assert faults_of(folder) == (0, 0, 1, 0)
    assert [row["spike"] for row in log_of(folder)] == [False] * 5 + [True] + [False] * 2
    text = f"loss {log_of(folder)[5]['loss']:.4g}"
    assert events_of(folder) == [{"update": 6, "batch": 6, "kind": "spike", "what": text}]


# Probes of the inner walk


@pytest.mark.parametrize("step_size, slope, alarm", [
    (0.3, 1.0, None), (0.3, 1e-9, "landscape is flat"), (0.3, -1.0, "energy rises"),
    (1e4, 1.0, "with the step size 1e+04: lower it"), (1e-3, 1.0, "raise it"), (0.3, math.nan, "not finite")])
def test_an_unhealthy_walk_raises_an_alarm(make_model, draw, step_size, slope, alarm):
    """Of a model whose inner gradient is scaled by a factor."""
    model = make_model(step_size=step_size, state_dim=16)
    inner = model.landscape
    model.landscape = lambda states: Changed(inner(states), lambda grad: slope * grad)
    found = probe(model, draw(4, 5, 16), Walk(3), torch.Generator().manual_seed(0))
    if alarm is None:
        assert found.alarms == [] and found.energy_gap > 0 and found.inner_gradient > 0
        assert found.rising < 0.5 and 0 < found.distance < MAX_DISTANCE
    else:
        assert any(alarm in line for line in found.alarms)


def test_a_healthy_walk_from_zeros_raises_no_alarm(draw):
    """Zeros have no norm to compare with, and joint candidates start there also from `last`."""
    model = JointEBT(16, 1, 2, 3, state_dim=16, step_size=0.3, generator=generator(0)).double()
    found = probe(model, draw(4, 2, 16), Walk(3, "last"), generator(0))
    assert found.alarms == [] and found.distance == 1


def test_alarms_are_events(runs):
    folder = trained(runs, "walk.step_size=1e-4", "run.monitor_every=3", "optimiser.step_size_multiplier=0")
    assert {(row["update"], row["kind"]) for row in events_of(folder)} == {(n, "alarm") for n in (1, 3, 6)}
    assert "Alarm at update 6: walks end" in scores(read(folder))
