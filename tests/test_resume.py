"""A resumed run ends with the same bytes as one that did not stop, for every task and recipe."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
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
    stopping,
    tiny,
    tiny_states,
    trained,
    whole,
)

from ebwm import cli
from ebwm.data.tasks import load_task
from ebwm.training import run as running
from ebwm.training.checkpoint import CheckpointError, Checkpoints
from ebwm.training.configuration import RESUMABLE_FIELDS, ConfigError
from ebwm.training.learner import load_learner, make_learner
from ebwm.training.presets import load_config
from ebwm.training.run import Stopped
from ebwm.training.signals import recorded_signals
from ebwm.training.trainer import Trainer, restore

ACCUMULATE = "optimiser.accumulate=2"
AVERAGED = [*S2, "optimiser.average=0.99", ACCUMULATE]
CASES = [  # task, entries
    ("clips", S2), ("clips", AVERAGED), ("text", [*S2, "recipe.noise=3", "data.packing=documents", ACCUMULATE]),
    ("states", ["run.workers=1"]), ("actions", S2),
    ("pairs", [*S2, "optimiser.average=0.9", "model.step_conditioning=adaln"])]
MORE = [
    ("clips", [*S2, "optimiser.step_size_multiplier=0"]),
    ("clips", ["model.kind=transformer", "optimiser.average=0.9"]),
    ("text", ["data.tokenizer=train:280", "model.kind=transformer"])]


@pytest.fixture
def parts(runs):
    """A copy of a run that was stopped after its third update."""
    return copied(halted(*S2), runs)


def stop(path, update, *entries, **options):
    """Resume a run, and stop it after an update."""
    with pytest.raises(Stopped, match=f"callback: stopped after update {update} of 8, and saved"):
        resumed(path, *entries, callback=stopping(update), **options)


@pytest.mark.parametrize("task, entries", [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)])
def test_a_resumed_run_ends_as_if_it_had_not_stopped(runs, task, entries):
    """Stopped at the end of a pass over the items, and again in the middle of the next one."""
    parts, expected = copied(halted(*entries, task=task), runs), whole(*entries, task=task)
    assert [row["update"] for row in log_of(parts)] == [1, 2, 3]
    stop(parts, 5, task=task)
    assert resumed(parts, task=task) == parts
    assert_same_end(parts, expected)
    assert [row["update"] for row in log_of(parts)] == [*range(1, 9)]
    written = [{path.name: path.read_bytes() for path in folder.glob("t*.json")} for folder in (parts, expected)]
    assert written[0] == written[1] and bool(written[0]) == (task != "clips")


def test_a_run_can_stop_after_every_update(runs):
    """At a checkpoint, it is not written again, and keeps its validation loss."""
    parts, name = copied(halted(*AVERAGED), runs), "checkpoints/00000004.safetensors"
    for update in range(4, 8):
        stop(parts, update)
        assert files_of(parts)[name] == files_of(whole(*AVERAGED))[name]
    assert_same_end(resumed(parts), whole(*AVERAGED))
    assert [row["kind"] for row in events_of(parts)] == ["stopped", "resumed"] * 5


def test_resuming_a_finished_run_changes_nothing(runs):
    again = copied(whole(*S2), runs)
    before = files_of(again)
    resumed(again)
    assert [row["kind"] for row in events_of(again)] == ["resumed"]
    assert files_of(again) | {"events.jsonl": b""} == before | {"events.jsonl": b""}


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_stops_after_the_update_and_saves(runs, monkeypatch, capfd, name, status):
    """As a cluster or Ctrl-C sends it, to loader workers too; the message has the command that resumes."""
    train, config = running.train, tiny(*S2, "run.workers=1")
    send = at(5, os.killpg, 0, signal.Signals[name])
    monkeypatch.setattr(running, "train", lambda *given, **named: train(config, callback=send, progress=False))
    assert exit_code_of(cli.main, ["train", "smoke"]) == status
    last, parts = capfd.readouterr().err.splitlines()[-1], runs / "001"
    command = f"ebwm train --resume {parts}"
    assert last.startswith(f"ebwm: {name}: stopped after update 5 of 8") and last.endswith(command)
    assert events_of(parts)[-1] == {"update": 5, "batch": 5, "kind": "stopped", "what": name}
    assert not (parts / "model.safetensors").exists()
    assert cli.main([*command.split()[1:], "run.workers=0"]) == 0
    assert capfd.readouterr().out == f"{parts}\n"
    assert_same_end(parts, whole(*S2))


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_checkpoint(runs):
    """Also while its loader workers still run, and with an incomplete last line of the log."""
    die = at(5, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert exit_code_of(lambda: trained(runs, "run.workers=1", task="text", callback=die)) == -signal.SIGKILL
    parts = runs / "001"
    assert [row["update"] for row in log_of(parts)] == [1, 2, 3, 4, 5]
    with (parts / "log.jsonl").open("a") as log:
        log.write('{"update": 6, "loss": 0.3')
    (parts / ".77.log.jsonl").write_text("half")
    resumed(parts, task="text")
    assert not (parts / ".77.log.jsonl").exists()
    assert [(row["update"], row["batch"]) for row in events_of(parts, "resumed")] == [(4, 4)]
    assert_same_end(parts, whole("run.workers=1", task="text"))


def test_a_second_interrupt_does_not_wait_and_other_threads_set_no_handler():
    before = signal.getsignal(signal.SIGINT)
    with recorded_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received == ["SIGINT"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with ThreadPoolExecutor() as pool:
        assert pool.submit(recorded_signals().__enter__).result() == []


# Changes of configuration and data


@pytest.mark.parametrize("changed, entry, reason", [
    (False, "data.train_clips=20", "data.train_clips: .*--changed"), (False, "seed=5", "seed: 0 is now 5.*--changed"),
    (False, "optimiser.updates=9", "optimiser.updates: .*--changed"),
    (False, "run.precision=bf16-mixed", "run.precision: .*--changed"),
    (False, "eval_every=3", "eval_every: .*--changed"), (True, "optimiser.average=0.9", "optimiser.average"),
    (True, "model.dim=32", "has shape"), (True, "model.depth=2", "different weights")])
def test_a_changed_configuration_is_refused_and_nothing_is_written(runs, changed, entry, reason):
    """And a state that does not fit, even if changes are accepted."""
    before = files_of(halted(*S2))
    with pytest.raises(CheckpointError if changed else ConfigError, match=reason):
        resumed(halted(*S2), entry, "run.keep=2", changed=changed)
    assert files_of(halted(*S2)) == before


def altered(config, **given):
    """The clips of a configuration with one changed pixel."""
    task = load_task(config, **given)
    train = task.splits["train"]
    clips = train.dataset.clips.copy()
    clips[0, 0, 0, 0] += 1
    train.dataset.clips = train.clips = clips
    return task


@pytest.mark.parametrize("task, entries, given, reason", [
    ("clips", S2, {}, "data train: its digest has changed"),
    ("states", ["run.workers=1"], {"data": tiny_states() + 1e-3}, "data train: its digest has changed"),
    ("states", ["run.workers=1"], {"data": 100 * tiny_states()}, "data standardisation of states: its digest"),
    ("pairs", S2, {"data": None}, r"data\.source=None.*resume\(folder, data=\.\.\.\)"),
])
def test_changed_data_are_refused_and_nothing_is_written(runs, monkeypatch, task, entries, given, reason):
    """Tensors must be given again."""
    folder = halted(*entries, task=task)
    before = files_of(folder)
    if task == "clips":
        monkeypatch.setattr(running, "load_task", altered)
    with pytest.raises(ConfigError, match=reason):
        running.resume(folder, progress=False, **given)
    assert files_of(folder) == before


def test_changes_that_are_accepted_become_the_configuration_and_are_saved_before_the_next_update(parts, monkeypatch):
    monkeypatch.setattr(running, "load_task", altered)
    with pytest.raises(ZeroDivisionError):
        resumed(parts, "seed=1", "optimiser.batch=2", changed=True, callback=lambda row: 1 / 0)
    assert load_config(str(parts / "config.json")) == tiny(*S2, "seed=1", "optimiser.batch=2")
    with pytest.raises(ConfigError, match="seed: 1 is now 0"):
        resumed(parts, "seed=0")
    resumed(parts)
    assert events_of(parts, "resumed")[-1]["update"] == 3
    assert [row["update"] for row in log_of(parts)] == [*range(1, 9)]


def test_the_replay_buffer_starts_anew_with_other_data(runs):
    """Its items are of the data before, and may have another shape."""
    parts, longer = copied(halted(*S2, task="states"), runs), tiny_states().repeat(1, 2, 1)
    running.resume(parts, progress=False, changed=True, data=longer)
    assert [row["update"] for row in log_of(parts)] == [*range(1, 9)]
    [checkpoint, _] = Checkpoints(parts / "checkpoints").newest()
    kept = [value.shape[1] for name, value in checkpoint.tensors.items() if ".replay." in name]
    assert kept and set(kept) == {longer.shape[1] - 1}


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_results_do_not_depend_on_resumable_fields(parts):
    changed = {"run.save_every": 3, "run.keep": 1, "run.monitor_every": 1, "run.workers": 2,
               "run.logger": "tensorboard", "run.strategy": "ddp"}
    assert changed.keys() == RESUMABLE_FIELDS - {"data.workers"}
    resumed(parts, *(f"{key}={value}" for key, value in changed.items()))
    weights = [load_learner(path).model.state_dict() for path in (parts, whole(*S2))]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [*(parts / "tensorboard").iterdir()]


def test_with_another_world_size_noise_and_replay_start_anew(parts):
    checkpoint, _ = Checkpoints(parts / "checkpoints").newest()
    config = tiny(*S2)
    trainer = Trainer(make_learner(config.model, 8, 0, config.recipe, config.walk), config)
    fresh = trainer.noise.get_state()
    restore(trainer, checkpoint.tensors, checkpoint.meta | {"world_size": 2})
    assert (trainer.noise.get_state() == fresh).all() and len(trainer.learner.replay) == 0
    restore(trainer, checkpoint.tensors, checkpoint.meta)
    assert (trainer.noise.get_state() != fresh).any() and len(trainer.learner.replay) == 6
