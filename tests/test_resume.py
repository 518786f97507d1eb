"""A run that was stopped and goes on ends with the same bytes as one that never stopped."""

import dataclasses
import os
import signal

import pytest
from tiny_run import (
    S2,
    Child,
    assert_same_end,
    command,
    events_of,
    files_of,
    log_of,
    stopping,
    tiny,
    trained,
)

from ebwm import cli
from ebwm.training import trainer as training
from ebwm.training.checkpoint import CheckpointError, Checkpoints
from ebwm.training.configuration import FREE
from ebwm.training.learner import load_data

CASES = {
    "s1": [],
    "s1, whole graph": ["recipe.stream=false", "model.start=last"],
    "s2": S2,
    "s2, latents": [*S2, "model.candidates=latent", "recipe.unroll=1", "recipe.most=4"],
    "average": ["optimiser.average=0.9"],
    "accumulated": [*S2, "optimiser.accumulate=2"],
    "fixed step size": [*S2, "optimiser.step_size_multiplier=0", "optimiser.average=0.99"],
    "transformer": ["model.kind=transformer"],
    "gru": ["model.kind=gru"],
}
EVERY = [*S2, "optimiser.accumulate=2", "optimiser.average=0.99"]


def stop(path, update, **options):
    """Go on with a run, and stop it after an update."""
    with pytest.raises(training.Stopped, match=f"callback: stopped after update {update} of 8, and saved"):
        training.resume(path, progress=False, callback=stopping(update), **options)


def begun(runs, update, *entries):
    """A run that was stopped after an update."""
    with pytest.raises(training.Stopped, match="ebwm train --resume"):
        training.train(tiny(*entries), runs, progress=False, callback=stopping(update))
    return max(runs.iterdir())


@pytest.mark.parametrize("name", CASES)
def test_stopped_it_ends_as_if_it_never_was(runs, name):
    """At the end of a pass over the clips, and again amid the next one."""
    whole, parts = trained(runs, *CASES[name]), begun(runs, 3, *CASES[name])
    assert [row["update"] for row in log_of(parts)] == [1, 2, 3]
    stop(parts, 5)
    assert training.resume(parts, progress=False) == parts
    assert_same_end(parts, whole)
    assert [row["update"] for row in log_of(parts)] == [*range(1, 9)]


def test_stopped_after_every_update_it_ends_as_if_it_never_was(runs):
    whole, parts = trained(runs, *EVERY), begun(runs, 1, *EVERY)
    for update in range(2, 8):
        stop(parts, update)
    assert_same_end(training.resume(parts, progress=False), whole)
    assert [row["kind"] for row in events_of(parts)] == [*["stopped", "resumed"] * 7]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_as_many_loader_workers_as_one_likes(runs):
    whole, parts = trained(runs), begun(runs, 2, "run.workers=2")
    for update, workers in ((3, 0), (5, 1)):
        stop(parts, update, overrides=[f"run.workers={workers}"])
    training.resume(parts, ["run.workers=2"], progress=False)
    assert_same_end(parts, whole)


def test_a_stop_at_a_checkpoint_keeps_what_that_checkpoint_scored(runs):
    """Its bytes stay: it isn't written again without its validation loss."""
    whole, parts = trained(runs), begun(runs, 4)
    name = "checkpoints/00000004.safetensors"
    assert files_of(parts)[name] == files_of(whole)[name]
    assert Checkpoints(parts / "checkpoints").best().name == "00000004.safetensors"
    stop(parts, 6)
    assert files_of(parts)[name] == files_of(whole)[name]


def test_a_run_that_has_ended_ends_again(runs):
    whole = trained(runs, *S2)
    before = files_of(whole)
    training.resume(whole, progress=False)
    after = files_of(whole)
    assert [row["kind"] for row in events_of(whole)] == ["resumed"]
    for files in (before, after):
        del files["events.jsonl"]
    assert after == before


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_lets_the_update_end_saves_and_leaves(runs, name, status):
    whole = trained(runs, *S2)
    with Child(*S2, "run.workers=1") as child:
        child.until(5)
        child.tell(signal.Signals[name])
        code, errors = child.end()
    parts = runs / "002"
    assert code == status, errors
    told = f"ebwm: {name}: stopped after update 5 of 8, and saved; go on with: ebwm train --resume {parts}"
    assert errors.splitlines()[-1] == told
    assert events_of(parts)[-1] == {"update": 5, "batch": 5, "kind": "stopped", "what": name}
    assert not (parts / "model.safetensors").exists()
    assert command("train", "--resume", "002", "run.workers=0") == (0, f"{parts}\n", "")
    assert_same_end(parts, whole)


def test_killed_between_checkpoints_it_goes_on_from_the_last_one(runs):
    """At once, though loader workers of the killed process may live on for a while; a line was cut."""
    whole = trained(runs, *S2)
    with Child(*S2, "run.workers=1") as child:
        child.until(5)
        assert child.kill() == -signal.SIGKILL
    parts = runs / "002"
    assert [row["update"] for row in log_of(parts)] == [1, 2, 3, 4, 5]
    with (parts / "log.jsonl").open("a") as log:
        log.write('{"update": 6, "loss": 0.3')
    (parts / ".77.log.jsonl").write_text("half")
    training.resume(parts, progress=False)
    assert not (parts / ".77.log.jsonl").exists()
    assert events_of(parts, "resumed") == [
        {"update": 4, "batch": 4, "kind": "resumed", "what": "after update 4"}]
    assert_same_end(parts, whole)


def test_a_second_interruption_does_not_wait(runs):
    before = signal.getsignal(signal.SIGINT)
    with training.signals_noted() as came:
        os.kill(os.getpid(), signal.SIGINT)
        assert came == ["SIGINT"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# What may not change, and what may


@pytest.mark.parametrize("entry, told", [
    ("data.train_clips=20", "data.train_clips: 14 is now 20"),
    ("data.folder=elsewhere", "data.folder: None is now 'elsewhere'"),
    ("data.turn=0.1", "data.turn: 0.0 is now 0.1"),
    ("optimiser.batch=2", "optimiser.batch: 4 is now 2"),
    ("optimiser.batch=100", "optimiser.batch: 4 is now 100"),
    ("optimiser.updates=9", "optimiser.updates: 8 is now 9"),
    ("model.dim=32", "model.dim: 16 is now 32"),
    ("recipe.name=s2", "recipe.name: 's1' is now 's2'"),
    ("faults.patience=9", "faults.patience: 3 is now 9"),
    ("run.precision=bf16-mixed", "run.precision: '32-true' is now 'bf16-mixed'"),
    ("eval_every=3", "eval_every: 4 is now 3"),
    ("seed=1", "seed: 0 is now 1"),
])
def test_another_configuration_is_refused_by_its_keys_and_nothing_is_touched(stopped, entry, told):
    before = files_of(stopped)
    with pytest.raises(training.ConfigError) as refusal:
        training.resume(stopped, [entry, "run.keep=2"], progress=False)
    assert str(refusal.value) == f"this isn't the run that stopped: {told}. Undo that, or say --changed"
    assert files_of(stopped) == before


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, clips):
    """A run that was stopped after its third update, for those who leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBWM_CACHE", str(clips))
        patch.setenv("EBWM_DEVICE", "cpu")
        yield begun(tmp_path_factory.mktemp("runs"), 3)


def test_on_the_command_line_too(stopped, capsys):
    assert cli.main(["train", "--resume", str(stopped), "seed=1"]) == 2
    told = "ebwm: this isn't the run that stopped: seed: 0 is now 1. Undo that, or say --changed\n"
    assert capsys.readouterr() == ("", told)


def test_several_keys_are_all_named(stopped):
    with pytest.raises(training.ConfigError, match="batch: 4 is now 2; seed: 0 is now 5"):
        training.resume(stopped, ["seed=5", "optimiser.batch=2"], progress=False)


def altered(config):
    """The clips that a configuration asks for, but for one pixel."""
    data = load_data(config)
    clips = data["train"].dataset.clips.copy()
    clips[0, 0, 0, 0] += 1
    data["train"].dataset.clips = data["train"].clips = clips
    return data


def test_other_clips_under_the_same_name_are_refused(stopped, monkeypatch):
    monkeypatch.setattr(training, "load_data", altered)
    before = files_of(stopped)
    with pytest.raises(training.ConfigError, match="isn't the run that stopped: data train: its digest has"):
        training.resume(stopped, progress=False)
    assert files_of(stopped) == before


def test_what_has_changed_is_gone_on_with_when_told_so_and_is_the_run_from_then_on(runs, monkeypatch):
    parts = begun(runs, 3)
    monkeypatch.setattr(training, "load_data", altered)
    stop(parts, 5, overrides=["optimiser.batch=2"], changed=True)
    assert training.load_config(str(parts / "config.json")) == tiny("optimiser.batch=2")
    training.resume(parts, progress=False)
    assert [row["update"] for row in log_of(parts)] == [*range(1, 9)]
    assert training.load_learner(parts).model.step_size > 0


def test_what_has_changed_is_on_disk_before_the_next_update(runs):
    parts = begun(runs, 3)
    with pytest.raises(ZeroDivisionError):
        training.resume(parts, ["seed=1"], progress=False, changed=True, callback=lambda row: 1 / 0)
    training.resume(parts, progress=False)
    assert events_of(parts, "resumed")[-1]["update"] == 3
    with pytest.raises(training.ConfigError, match="seed: 1 is now 0"):
        training.resume(parts, ["seed=0"], progress=False)


def test_no_number_depends_on_what_is_free(runs):
    free = {"run.save_every": 3, "run.keep": 1, "run.monitor_every": 1, "run.workers": 1,
            "run.logger": "tensorboard", "run.strategy": "ddp"}
    assert free.keys() == FREE
    whole, parts = trained(runs, *S2), begun(runs, 3, *S2)
    training.resume(parts, [f"{key}={value}" for key, value in free.items()], progress=False)
    assert_same_weights(parts, whole)
    assert [*(parts / "tensorboard").iterdir()]


def assert_same_weights(folder, other):
    assert (folder / "model.safetensors").read_bytes() != b""
    tensors = [training.load_learner(path).model.state_dict() for path in (folder, other)]
    assert all((tensors[0][name] == tensors[1][name]).all() for name in tensors[0])


@pytest.mark.parametrize("entries", [["optimiser.average=0.9"], ["model.dim=32"]])
def test_a_state_that_does_not_fit_is_refused_even_when_told_to_go_on(stopped, entries):
    before = files_of(stopped)
    with pytest.raises(CheckpointError, match=r"moving average isn't the configuration's|has shape"):
        training.resume(stopped, entries, progress=False, changed=True)
    assert files_of(stopped) == before


def test_what_is_no_run_is_named(runs, tmp_path):
    with pytest.raises(training.ConfigError, match=f"{tmp_path} is no run: it has no config.json"):
        training.resume(tmp_path, progress=False)
    empty = begun(runs, 1)
    for path in (empty / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=f"{empty} has no checkpoint to go on from: there is none"):
        training.resume(empty, progress=False)


def test_another_number_of_processes_begins_noise_and_walks_anew(runs):
    """Their state is that of a process; the rest of it is restored."""
    parts = begun(runs, 3, *S2)
    checkpoint, _ = Checkpoints(parts / "checkpoints").newest()
    learner = training.make_learner(tiny(*S2).model, 8, 0, tiny(*S2).recipe)
    trainer = training.Trainer(learner, dataclasses.replace(tiny(*S2)))
    fresh = trainer.noise.get_state()
    trainer.restore(checkpoint.tensors, checkpoint.meta | {"processes": 2})
    assert (trainer.noise.get_state() == fresh).all() and len(learner.replay) == 0
    trainer.restore(checkpoint.tensors, checkpoint.meta)
    assert (trainer.noise.get_state() != fresh).any() and len(learner.replay) == 6
