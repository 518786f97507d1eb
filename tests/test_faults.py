"""Faults are detected and handled: damaged files, full disks, non-finite numbers, lost processes."""

import contextlib
import json
import math
import multiprocessing.connection
import os
import pickle
import re
import shutil
import signal
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import (
    S2,
    Child,
    assert_same_end,
    events_of,
    files_of,
    log_of,
    stopping,
    tiny,
    trained,
    untimed,
)

from ebwm.energy import Wrapper
from ebwm.files import sha256
from ebwm.training import checkpoint, trainer
from ebwm.training import run as running
from ebwm.training.checkpoint import CheckpointError, Checkpoints, load_tensors, save_tensors
from ebwm.training.faults import MAX_DISTANCE, FaultState, Spikes, probe
from ebwm.training.folder import RunFolder
from ebwm.training.learner import make_learner
from ebwm.training.optimiser import learning_rate_factor
from ebwm.training.run import RunError, Stopped, resume, train
from ebwm.training.trainer import Trainer, roll_back, trainer_state
from ebwm.walk import Walk

# Killed while saving


HELD = """
from ebwm.training import checkpoint

inner = checkpoint.PLACE

def held(*given):
    path = given[WHICH]
    if "00000004" in path.name:
        if WHICH == 1:
            inner(*given)
            path.write_bytes(path.read_bytes()[:1000])
        print("held", flush=True)
        sys.stdin.readline()
    return inner(*given)

checkpoint.PLACE = held
"""
WHERE = {"amid the tensors": ("_save_file", "1"), "before the digest": ("sha256", "0")}


@pytest.mark.parametrize("where", WHERE)
def test_a_run_killed_while_saving_resumes_from_the_last_good_checkpoint(runs, monkeypatch, where):
    """While it is alive, a second writer is refused before it reads any data."""
    whole, parts, (place, which) = trained(runs, *S2), runs / "002", WHERE[where]
    with Child(*S2, before=HELD.replace("PLACE", place).replace("WHICH", which)) as child:
        child.until("held")
        left = {path.name for path in (parts / "checkpoints").iterdir()}
        with monkeypatch.context() as patch:
            patch.setattr(running, "load_task", lambda *given, **named: pytest.fail("data were read"))
            with pytest.raises(CheckpointError, match="another process is training here"):
                resume(parts, progress=False)
        assert child.kill() == -signal.SIGKILL
    draft, name = f".{child.process.pid}.00000004.safetensors", "00000004.safetensors"
    assert (draft in left, name in left) == (place == "_save_file", place == "sha256")
    resume(parts, progress=False)
    refused = [row["what"] for row in events_of(parts, "refused")]
    assert ["sha256 is missing" in text for text in refused] == [True] * (place == "sha256")
    assert events_of(parts, "resumed")[0]["update"] == 2
    assert not [*parts.rglob(f".{child.process.pid}.*")]
    assert_same_end(parts, whole)


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


def resealed(path, **changes):
    """Change the header of a checkpoint, and its digest."""
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors, meta | changes)
    sealed(path, path.read_bytes())


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def foreign(path, meta):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3)}, path, meta)
    sealed(path, path.read_bytes())


def torch_save(path):
    torch.save({"payload": Payload(path.parents[1] / "mark")}, path)
    sealed(path, path.read_bytes())


def beside(path):
    return path.with_name(path.name + ".sha256")


def payload(path):
    return pickle.dumps(Payload(path.parents[1] / "mark"))


OTHERS = "the file is damaged (SHA-256 differs from "
FOREIGN = "not a safetensors checkpoint"
DAMAGE = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), OTHERS),
    "cut, with its digest": (lambda path: sealed(path, path.read_bytes()[:-100]), FOREIGN),
    "a bit of a weight": (lambda path: flipped(path, -5), OTHERS),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty (SHA-256 differs"),
    "empty, with its digest": (lambda path: sealed(path, b""), "the file is empty"),
    "no digest": (lambda path: beside(path).unlink(), "00000005.safetensors.sha256 is missing"),
    "an earlier format": (lambda path: resealed(path, format=0), "must be 2"),
    "a later format": (lambda path: resealed(path, format=3), "must be 2"),
    "another program's": (lambda path: foreign(path, {"format": "pt"}), "must be 2"),
    "a foreign header": (lambda path: foreign(path, {"meta": "[1]"}), f"{FOREIGN} (meta=list"),
    "deep JSON": (lambda path: foreign(path, {"meta": "[" * 100_000}), FOREIGN),
    "a pickle, with its digest": (lambda path: sealed(path, payload(path)), FOREIGN),
    "what torch saves, with its digest": (torch_save, FOREIGN),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory, clips):
    """A run that was not stopped, and one that was stopped after its fifth update."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBWM_CACHE", str(clips))
        patch.setenv("EBWM_DEVICE", "cpu")
        whole = trained(folder, *S2)
        with pytest.raises(Stopped):
            train(tiny(*S2), folder, progress=False, callback=stopping(5))
    return whole, folder / "002"


@pytest.fixture
def parts(pair, runs):
    """A copy of the stopped run, with checkpoints 2, 4 and 5."""
    shutil.copytree(pair[1], runs / "001")
    return runs / "001"


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_is_used(pair, parts, name):
    damage, reason = DAMAGE[name]
    path = parts / "checkpoints" / "00000005.safetensors"
    damage(path)
    resume(parts, progress=False)
    (refused,), (resumed,) = events_of(parts, "refused"), events_of(parts, "resumed")
    assert str(path) in refused["what"] and reason in refused["what"]
    assert refused["update"] == resumed["update"] == 4
    assert not (parts / "mark").exists()
    assert_same_weights(parts, pair[0])
    assert untimed(parts) == untimed(pair[0])


def assert_same_weights(folder, other):
    assert sha256(folder / "model.safetensors") == sha256(other / "model.safetensors")


def test_without_a_good_checkpoint_nothing_is_written(parts):
    for path in Checkpoints(parts / "checkpoints").all():
        flipped(path, -1)
    before = files_of(parts)
    with pytest.raises(CheckpointError) as refusal:
        resume(parts, progress=False)
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
        kept.save(update, {"weight": torch.full((2,), float(update))}, {}, score)
    return kept


def numbers(kept):
    return [int(path.stem) for path in kept.all()]


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path):
    kept = checkpoints(tmp_path, {1: math.nan, 2: 1.0, 3: None, 4: 2.0, 5: None, 6: None})
    assert numbers(kept) == [2, 5, 6] and kept.best().name == "00000002.safetensors"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"0000000{number}.safetensors{end}" for number in (2, 5, 6) for end in ("", ".sha256")}


def test_files_with_later_numbers_do_not_replace_saved_checkpoints(tmp_path):
    """Such as a refused newest checkpoint, or a file of another program."""
    kept = checkpoints(tmp_path, {2: None, 4: None, 9: None}, keep=1)
    assert numbers(kept) == [9]
    flipped(kept.all()[-1], -1)
    foreign(tmp_path / "99999999.safetensors", {"meta": '{"score": "low"}'})
    checkpoints(tmp_path, {5: None, 6: 3.0, 7: None}, keep=1)
    assert numbers(kept) == [6, 7, 9, 99999999]
    assert kept.newest()[0].path.name == "00000007.safetensors" and len(kept.newest()[1]) == 2


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_non_finite_state_is_not_saved_as_a_checkpoint(tmp_path, wrong):
    kept = Checkpoints(tmp_path)
    with pytest.raises(FloatingPointError, match="b holds non-finite values"):
        kept.save(1, {"a": torch.ones(2), "b": torch.tensor([1.0, wrong]), "c": torch.ones(1).long()}, {})
    assert [*tmp_path.iterdir()] == []


# A full disk


FULL = """
import resource

resource_wait = wait

def wait(row):
    if row["update"] == 5:
        resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, BYTES))
    resource_wait(row)
"""


@pytest.mark.parametrize("limit", [20_000, 1], ids=["for a checkpoint", "for a line of log"])
def test_a_full_disk_is_reported_and_the_last_checkpoint_stays(runs, limit):
    whole, parts = trained(runs), runs / "002"
    with Child(before=FULL.replace("BYTES", str(limit))) as child:
        code, errors = child.end()
    last = parts / "checkpoints" / "00000004.safetensors"
    assert last.stat().st_size > 20_000 > (parts / "log.jsonl").stat().st_size > 1
    message = errors.splitlines()[-1]
    assert code == 1 and "the disk is full" in message and str(last) in message
    assert message.endswith(f"ebwm train --resume {parts}")
    assert [row["update"] for row in log_of(parts)] == [*range(1, 7 if limit > 1 else 6)]
    assert not [*parts.rglob(".[0-9]*")]
    resume(parts, progress=False)
    assert_same_end(parts, whole)


def test_errors_of_the_operating_system_are_os_errors(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"Is a directory|No such file") as failure:
        checkpoint._save_file({"a": torch.ones(1)}, tmp_path, {})
    assert failure.value.errno and failure.value.filename == str(tmp_path)

    def fail(*given):
        raise checkpoint.SafetensorError("header too large")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(checkpoint.SafetensorError, match="header too large"):
        checkpoint.save_tensors(tmp_path / "x", {})


# Non-finite numbers


def spoil(tensor, wrong):
    tensor.view(-1)[0] = wrong


def spoiled_batch(trainer, batch, wrong):
    batch = batch.clone()
    spoil(batch, wrong)
    return batch


def spoiled_memory(trainer, batch, wrong):
    state = next(iter(trainer.optimiser.state.values()))
    spoil(state["exp_avg_sq"], wrong)
    return batch


@torch.no_grad()
def spoiled_weights(trainer, batch, wrong):
    spoil(next(trainer.learner.model.parameters()), wrong)
    return batch


def spoiled_outer_gradient(trainer, batch, wrong):
    weight = next(trainer.learner.model.parameters())
    handle = weight.register_hook(lambda grad: (handle.remove(), grad * wrong)[1])
    return batch


class Spoiled(Wrapper):
    """A landscape whose first evaluation has a non-finite energy, or one non-finite entry in its gradient."""

    def __init__(self, inner, part, wrong):
        super().__init__(inner)
        self.part, self.wrong, self.left = part, wrong, [1]

    def value_and_grad(self, y, create_graph=False):
        energies, grad = self.inner.value_and_grad(y, create_graph)
        if not self.left:
            return energies, grad
        self.left.clear()
        if self.part == "energy":
            return energies * self.wrong, grad * self.wrong
        mask = torch.zeros_like(grad)
        spoil(mask, self.wrong)
        return energies, grad + mask


def spoiled_walk(part):
    """A fault in the next walk, before any bound on the gradient."""
    def fault(trainer, batch, wrong):
        model, landscape = trainer.learner.model, trainer.learner.model.landscape

        def once(context):
            del model.landscape
            return Spoiled(landscape(context), part, wrong)

        model.landscape = once
        return batch
    return fault


class Faulty:
    """`Trainer.update` with faults in some batches; records whether skipped updates kept the state."""

    def __init__(self, monkeypatch, fault, batches, wrong=math.nan):
        self.fault, self.batches, self.wrong, self.skipped = fault, batches, wrong, []
        self.update = Trainer.update
        monkeypatch.setattr(Trainer, "update", lambda trainer, batch: self(trainer, batch))

    def __call__(self, trainer, batch):
        if trainer.batches in self.batches:
            batch = self.fault(trainer, batch, self.wrong)
        before = kept(trainer)
        row = self.update(trainer, batch)
        if row["skipped"]:
            self.skipped.append(all(same(before[name], value) for name, value in kept(trainer).items()))
            assert before.keys() == kept(trainer).keys()
        return row


def kept(trainer):
    tensors = trainer_state(trainer)[0]
    return {name: value.clone() for name, value in tensors.items() if name != "process0.noise"}


def same(one, other):
    """Bitwise equality, which includes NaN."""
    return torch.equal(*(value.reshape(-1).view(torch.uint8) for value in (one, other)))


def faults_of(folder):
    """Skipped and consecutively skipped updates, spikes, rollbacks."""
    return FaultState(**json.loads((folder / "result.json").read_text())["faults"])


def assert_finite(folder):
    for path in Checkpoints(folder / "checkpoints").all():
        floats = [value for value in load_tensors(path)[0].values() if value.is_floating_point()]
        assert floats and all(value.isfinite().all() for value in floats)


TRANSIENT = {
    "batch": ([], spoiled_batch),
    "energy": ([], spoiled_walk("energy")),
    "inner gradient": (["optimiser.average=0.9"], spoiled_walk("gradient")),
    "inner gradient, clamped": (S2, spoiled_walk("gradient")),
    "outer gradient": (["model.kind=transformer"], spoiled_outer_gradient),
}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("name", TRANSIENT)
def test_a_non_finite_update_is_skipped_and_changes_nothing(runs, monkeypatch, name, wrong):
    entries, fault = TRANSIENT[name]
    faulty = Faulty(monkeypatch, fault, {4}, wrong)
    folder = trained(runs, *entries)
    assert faulty.skipped == [True]
    assert faults_of(folder) == (1, 0, 0, 0)
    (event,) = events_of(folder, "skipped")
    assert event == event | {"update": 4, "batch": 5}
    assert event["what"] == "not finite: batch" or "gradient norm " in event["what"]
    assert [row["batch"] for row in log_of(folder)] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert_finite(folder)


@pytest.mark.parametrize("entries", [S2, ["optimiser.average=0.9", "model.kind=transformer"]])
def test_a_run_with_skipped_updates_resumes_exactly(runs, monkeypatch, entries):
    Faulty(monkeypatch, spoiled_batch, {1, 4, 5})
    whole = trained(runs, *entries)
    assert faults_of(whole)[0] == 3
    with pytest.raises(Stopped):
        train(tiny(*entries), runs, progress=False, callback=stopping(4))
    assert_same_end(resume(runs / "002", progress=False), whole)


STAYING = {"optimiser": spoiled_memory, "weights": spoiled_weights}


@pytest.mark.parametrize("name, wrong", [("optimiser", math.nan), ("weights", math.inf)])
def test_consecutive_skips_cause_a_rollback_with_a_remedy(runs, monkeypatch, name, wrong):
    faulty = Faulty(monkeypatch, STAYING[name], {5}, wrong)
    folder = trained(runs, *S2, "optimiser.average=0.9", "optimiser.warmup=0", "optimiser.schedule=100000000")
    assert faulty.skipped == [True] * 3
    assert faults_of(folder) == (3, 0, 0, 1)
    *skips, rollback = [(row["kind"], row["what"]) for row in events_of(folder)]
    assert skips == [("skipped", f"not finite: {name}")] * 3 and rollback[0] == "rolled back"
    assert rollback[1].startswith("after update 5: 3 ") and rollback[1].endswith("times 0.5")
    rows = log_of(folder)
    assert [(row["update"], row["batch"]) for row in rows] == [
        (1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (6, 10), (7, 11), (8, 12)]
    assert [round(row["learning_rate"], 9) for row in rows] == [1e-3] * 4 + [5e-4] * 4
    assert rows[4]["step_size"] == pytest.approx(rows[3]["step_size"] / 2, rel=0.01)
    assert_finite(folder)


def test_a_run_can_return_to_its_start(runs, monkeypatch):
    """The optimiser has no state there, and its later state is removed."""
    Faulty(monkeypatch, spoiled_memory, {1})
    folder = trained(runs, "run.save_every=100")
    assert faults_of(folder) == (3, 0, 0, 1)
    assert [row["batch"] for row in log_of(folder)] == [*range(5, 13)]
    assert events_of(folder, "rolled back")[0]["what"].startswith("after update 1: 3 ")


def test_a_rollback_continues_noise_and_batches_and_remedies_accumulate(draw):
    config = tiny("faults.lower=0.25")
    trainer = Trainer(make_learner(config.model, 8, 0, config.recipe, config.walk), config)
    batches = draw(5, 4, 5, 8).float()
    trainer.update(batches[0])
    tensors, meta = trainer_state(trainer)
    saved = {name: value.clone() for name, value in tensors.items()}
    for factor in (0.25, 0.0625):
        trainer.update(batches[1])
        noise, batch = trainer.noise.get_state(), trainer.batches
        remedy = roll_back(trainer, {name: value.clone() for name, value in saved.items()}, meta)
        assert remedy.endswith(f"times {factor:g}")
        assert torch.equal(trainer.noise.get_state(), noise) and trainer.batches == batch
        assert trainer.rate_factor == factor and trainer.updates == 1
        after = trainer_state(trainer)[0]
        assert after["model.step_size"] == saved["model.step_size"] * factor
        changed = [name for name, value in saved.items() if not torch.equal(value, after[name])]
        assert changed == ["model.step_size", "process0.noise"]
    assert trainer.update(batches[2])["learning_rate"] == pytest.approx(
        0.0625 * learning_rate_factor(1, config.optimiser) * config.optimiser.learning_rate)


def test_a_rollback_after_consecutive_skips_ignores_damaged_checkpoints(runs, monkeypatch):
    """Skips with a good update between them do not cause a rollback."""
    def spoiled(trainer, batch, wrong):
        if trainer.batches < 6:
            return spoiled_batch(trainer, batch, wrong)
        flipped(runs / "001" / "checkpoints" / "00000004.safetensors", -1)
        return spoiled_weights(trainer, batch, wrong)

    Faulty(monkeypatch, spoiled, {2, 4, 6})
    folder = trained(runs, "faults.patience=2")
    events = [(row["kind"], row["update"]) for row in events_of(folder)]
    assert events == [("skipped", 2), ("skipped", 3), ("skipped", 4), ("skipped", 4), ("refused", 4),
                      ("rolled back", 2)]
    assert [row["update"] for row in log_of(folder)] == [*range(1, 9)]


def test_a_run_fails_after_its_rollbacks_and_can_be_resumed(runs, monkeypatch):
    with monkeypatch.context() as patch:
        Faulty(patch, spoiled_batch, range(5, 100))
        with pytest.raises(RunError) as failure:
            trained(runs, "faults.patience=2", "faults.rollbacks=1")
    folder = runs / "001"
    assert "faults.rollbacks=1 is reached" in str(failure.value)
    assert [row["kind"] for row in events_of(folder)] == [
        "skipped", "skipped", "rolled back", "skipped", "skipped", "gave up"]
    assert not (folder / "model.safetensors").exists() and not (folder / "result.json").exists()
    assert_finite(folder)
    resume(folder, progress=False)
    assert [row["kind"] for row in events_of(folder)] == ["resumed"]
    assert [row["update"] for row in log_of(folder)] == [*range(1, 9)]


@pytest.mark.parametrize("update", [4, 5])
def test_a_non_finite_state_is_not_saved_by_a_run(runs, update):
    """Neither at a regular checkpoint (update 4) nor at a stop (update 5)."""
    spoilt = []

    def callback(row):
        if row["update"] == update and not spoilt:
            spoilt.append(trainers[-1])
            spoiled_memory(trainers[-1], None, math.nan)
            return update == 5

    with pytest.MonkeyPatch.context() as patch:
        trainers = []
        watched = lambda *given, **named: trainers.append(Trainer(*given, **named)) or trainers[-1]
        patch.setattr(running, "Trainer", watched)
        stops = pytest.raises(Stopped, match="stopped after update 4 of 8") if update == 5 else None
        with stops or contextlib.nullcontext():
            train(tiny(), runs, progress=False, callback=callback)
    folder, back = runs / "001", 2 if update == 4 else 4
    (event,) = events_of(folder, "rolled back")
    assert event["update"] == back and event["what"].startswith(f"after update {update}: adamw.exp_avg_sq.")
    assert_finite(folder)
    assert (folder / "model.safetensors").exists() == (update == 4)


def test_every_process_refuses_a_non_finite_state(tmp_path):
    """Not only the one that writes, so that all roll back together."""
    config = tiny()
    trainer = Trainer(make_learner(config.model, 8, 0, config.recipe, config.walk), config)
    spoiled_weights(trainer, None, math.nan)
    for writes in (True, False):
        with pytest.raises(FloatingPointError, match=r"model\.step_size holds non-finite"):
            RunFolder(tmp_path, config, writes).save(trainer, {})
    assert [*tmp_path.iterdir()] == []


# Loader workers


def gone(process):
    """Wait until a process has closed its files."""
    multiprocessing.connection.wait([process.sentinel])


def dead(process):
    """Wait until the system reports the end of a child process."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def killing(update, wait):
    """A callback that kills a loader worker."""
    def callback(row):
        if row["update"] == update:
            (process,) = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGKILL)
            wait(process)
    return callback


@pytest.mark.parametrize("wait", [gone, pytest.param(dead, marks=pytest.mark.skipif(
    not hasattr(os, "waitid"), reason="this system has no waitid"))])
def test_a_killed_loader_worker_changes_no_byte(runs, monkeypatch, wait):
    """PyTorch's signal handler does not interrupt an update."""
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    whole, handler = trained(runs), signal.getsignal(signal.SIGCHLD)
    folder = train(tiny("run.workers=1"), runs, progress=False, callback=killing(3, wait))
    (event,) = events_of(folder)
    assert event["kind"] == "loader" and event["what"].startswith("restarted: ")
    assert_same_end(folder, whole)
    assert signal.getsignal(signal.SIGCHLD) is handler


def failing(error):
    def loader(data, config, trainer):
        yield data.whole(4)
        raise error
    return loader


GONE = [RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        ConnectionRefusedError(111, "Connection refused"), EOFError("got end of file during message")]


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
def test_a_run_fails_when_its_loader_fails_four_times(runs, monkeypatch, error):
    monkeypatch.setattr(running, "_loader", failing(error))
    with pytest.raises(RunError, match=re.escape(f"failed four times: {error}")):
        trained(runs, "run.workers=2")
    assert [row["what"] for row in events_of(runs / "001", "loader")] == [f"restarted: {error}"] * 3
    assert len(log_of(runs / "001")) == 4


@pytest.mark.parametrize("workers, error", [
    (1, RuntimeError("Caught RuntimeError in DataLoader worker process 0.")),
    (1, FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")),
    (1, RuntimeError("the clips have different lengths")),
    (0, FileNotFoundError("clip.mp4")),
])
def test_an_error_of_the_data_set_is_not_a_lost_loader(runs, monkeypatch, workers, error):
    monkeypatch.setattr(running, "_loader", failing(error))
    with pytest.raises(type(error), match=str(error)):
        trained(runs, f"run.workers={workers}")
    assert events_of(runs / "001") == []


# Spikes

LOSSES = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(LOSSES | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=60), st.integers(1, 30),
       st.floats(0.1, 20))
@settings(max_examples=80, deadline=None)
def test_a_spike_lies_above_the_threshold_of_the_recent_losses(losses, window, deviations):
    """Against the definition, for each loss; non-finite losses are no spikes and are not stored."""
    spikes, seen = Spikes(window, deviations, least=5), []
    for loss in losses:
        before, past = list(spikes.losses), seen[-window:]
        assert before == past
        expected = False
        if math.isfinite(loss) and len(past) >= 5:
            middle = statistics.median(past)
            spread = 1.4826 * statistics.median([abs(value - middle) for value in past])
            expected = loss > middle + deviations * max(spread, abs(middle) / 1000)
        assert spikes(loss) is expected
        seen += [loss] if math.isfinite(loss) else []


def test_a_spike_is_an_event_and_training_continues(runs, monkeypatch):
    monkeypatch.setattr(trainer, "Spikes", lambda *given, **named: Spikes(*given, least=3, **named))
    Faulty(monkeypatch, lambda trainer, batch, wrong: batch * wrong, {5}, 1e3)
    folder = trained(runs, "model.kind=transformer")
    assert faults_of(folder) == (0, 0, 1, 0)
    assert [row["spike"] for row in log_of(folder)] == [False] * 5 + [True] + [False] * 2
    text = f"loss {log_of(folder)[5]['loss']:.4g}"
    assert events_of(folder) == [{"update": 6, "batch": 6, "kind": "spike", "what": text}]


# Probes of the inner walk


@pytest.fixture
def probed(make_model, draw):
    """Probe a model with some step size, whose gradient is scaled by a factor."""
    def call(step_size, slope=1.0):
        model = make_model(step_size=step_size, state_dim=16)
        inner = model.landscape
        model.landscape = lambda states: Sloped(inner(states), slope)
        return probe(model, draw(4, 5, 16), Walk(3), torch.Generator().manual_seed(0))
    return call


class Sloped(Wrapper):
    """A landscape whose gradient is scaled by a factor."""

    def __init__(self, inner, slope):
        super().__init__(inner)
        self.slope = slope

    def value_and_grad(self, y, create_graph=False):
        energies, grad = self.inner.value_and_grad(y, create_graph)
        return energies, self.slope * grad


def test_a_healthy_walk_raises_no_alarm(probed):
    found = probed(0.3)
    assert found.alarms == [] and found.energy_gap > 0 and found.inner_gradient > 0
    assert found.rising < 0.5 and 0 < found.distance < MAX_DISTANCE


@pytest.mark.parametrize("step_size, slope, alarm", [
    (0.3, 1e-9, "landscape is flat"), (0.3, -1.0, "energy rises"), (1e4, 1.0, "norms of a state away"),
    (0.3, math.nan, "not finite")])
def test_an_unhealthy_walk_raises_an_alarm(probed, step_size, slope, alarm):
    assert any(alarm in line for line in probed(step_size, slope).alarms)


def test_alarms_are_events(runs):
    folder = trained(runs, "walk.step_size=1e-4", "run.monitor_every=3", "optimiser.step_size_multiplier=0")
    assert [(row["update"], row["kind"]) for row in events_of(folder)] == [
        (number, "alarm") for number in (1, 3, 6)]
    assert ["energy_gap" in row for row in log_of(folder)] == [
        number in (1, 3, 6) for number in range(1, 9)]
