"""A resumed run ends with the same bytes as one that did not stop, for every task and recipe."""

import os
import shutil
import signal
from functools import cache

import pytest
import torch
from tiny_run import (
    S2,
    SHAPE,
    Child,
    assert_same_end,
    command,
    events_of,
    files_of,
    log_of,
    stopping,
    tiny,
    tiny_pairs,
    tiny_states,
    tiny_text,
)

from ebwm.data.tasks import load_task
from ebwm.training import run as running
from ebwm.training.checkpoint import CheckpointError, Checkpoints
from ebwm.training.configuration import RESUMABLE_FIELDS, ConfigError
from ebwm.training.learner import load_learner, make_learner
from ebwm.training.presets import load_config
from ebwm.training.run import Stopped, resume, train
from ebwm.training.signals import recorded_signals
from ebwm.training.trainer import Trainer, restore

DOCUMENTS = ["data.packing=documents", "optimiser.accumulate=2"]
ACCUMULATE = ["optimiser.accumulate=2"]
CASES = {
    "clips, s1": ("clips", []),
    "clips, s1, whole graph": ("clips", ["recipe.stream=false", "walk.start=last"]),
    "clips, s2": ("clips", S2),
    "clips, s2, latents": ("clips", [*S2, "model.candidates=latent", "recipe.unroll=1", "recipe.most=4"]),
    "clips, s2, average, accumulated": ("clips", [*S2, "optimiser.average=0.99", *ACCUMULATE]),
    "clips, fixed step size": ("clips", [*S2, "optimiser.step_size_multiplier=0"]),
    "clips, transformer": ("clips", ["model.kind=transformer", "optimiser.average=0.9"]),
    "clips, gru": ("clips", ["model.kind=gru"]),
    "text, paper's update, whole graph": ("text", ["walk.update=paper", "recipe.stream=false"]),
    "text, step token": ("text", ["model.step_conditioning=context_token"]),
    "text, s2, documents": ("text", [*S2, "recipe.noise=3", *DOCUMENTS]),
    "text, trained tokenizer": ("text", ["data.tokenizer=train:280"]),
    "text, transformer": ("text", ["model.kind=transformer"]),
    "states, s1": ("states", ["run.workers=1"]),
    "states, s2": ("states", S2),
    "states and actions, s1": ("actions", ["recipe.stream=false"]),
    "states and actions, s2": ("actions", S2),
    "pairs, s1": ("pairs", ["run.workers=1", *ACCUMULATE]),
    "pairs, s2": ("pairs", [*S2, "optimiser.average=0.9", "model.step_conditioning=adaln"]),
}


@pytest.fixture(scope="module")
def make(tmp_path_factory, clips):
    """Configuration and data of a case, and runs that are trained once for all tests."""
    folder = tmp_path_factory.mktemp("whole")
    settings = {"text": lambda: tiny_text(folder), "states": lambda: [*SHAPE, "data.kind=states"],
                "pairs": lambda: [*SHAPE, "data.kind=pairs", "model.kind=joint_ebt"]}
    settings["actions"] = settings["states"]
    tensors = {"states": tiny_states, "actions": lambda: tiny_states(actions=2), "pairs": tiny_pairs}

    class Make:
        def __init__(self):
            self.whole, self.stopped = cache(self.train_whole), cache(self.train_until_3)

        def config(self, name):
            task, entries = CASES[name]
            return tiny(*entries) if task == "clips" else load_config("smoke", [*settings[task](), *entries])

        def data(self, name):
            return {"data": tensors[CASES[name][0]]()} if CASES[name][0] in tensors else {}

        def train_whole(self, name):
            return train(self.config(name), folder, progress=False, **self.data(name))

        def train_until_3(self, name):
            """A run that was stopped after its third update; copy it to resume it."""
            with pytest.raises(Stopped, match="ebwm train --resume"):
                train(self.config(name), folder / "stopped", False, stopping(3), **self.data(name))
            return max((folder / "stopped").iterdir())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBWM_CACHE", str(clips))
        patch.setenv("EBWM_DEVICE", "cpu")
        yield Make()


@pytest.fixture
def whole(make):
    return make.whole("clips, s2")


@pytest.fixture
def parts(make, runs):
    """A copy of the run that was stopped after its third update."""
    return copied(make.stopped("clips, s2"), runs)


def copied(folder, runs):
    return shutil.copytree(folder, runs / folder.name, dirs_exist_ok=True)


def stop(path, update, **options):
    """Resume a run, and stop it after an update."""
    with pytest.raises(Stopped, match=f"callback: stopped after update {update} of 8, and saved"):
        resume(path, progress=False, callback=stopping(update), **options)


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_ends_as_if_it_had_not_stopped(make, runs, name):
    """Stopped at the end of a pass over the items, and again in the middle of the next one."""
    parts, data = copied(make.stopped(name), runs), make.data(name)
    assert [row["update"] for row in log_of(parts)] == [1, 2, 3]
    stop(parts, 5, **data)
    assert resume(parts, progress=False, **data) == parts
    assert_same_end(parts, make.whole(name))
    assert [row["update"] for row in log_of(parts)] == [*range(1, 9)]
    folders = parts, make.whole(name)
    written = [{path.name: path.read_bytes() for path in folder.glob("t*.json")} for folder in folders]
    assert written[0] == written[1] and bool(written[0]) == (CASES[name][0] != "clips")


def test_a_run_can_stop_after_every_update(make, runs):
    name = "clips, s2, average, accumulated"
    parts = copied(make.stopped(name), runs)
    for update in range(4, 8):
        stop(parts, update)
    assert_same_end(resume(parts, progress=False), make.whole(name))
    assert [row["kind"] for row in events_of(parts)] == [*["stopped", "resumed"] * 5]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_number_of_loader_workers_may_change(whole, parts):
    for update, workers in ((4, 0), (5, 1)):
        stop(parts, update, overrides=[f"run.workers={workers}"])
    resume(parts, ["run.workers=2"], progress=False)
    assert_same_end(parts, whole)


def test_a_stop_at_a_checkpoint_does_not_write_it_again(make, whole, parts):
    """It keeps its validation loss."""
    stop(parts, 4)
    name = "checkpoints/00000004.safetensors"
    assert files_of(parts)[name] == files_of(whole)[name]
    assert Checkpoints(parts / "checkpoints").best().name == "00000004.safetensors"


def test_resuming_a_finished_run_changes_nothing(make, whole, runs):
    again = copied(whole, runs)
    before = files_of(again)
    resume(again, progress=False)
    after = files_of(again)
    assert [row["kind"] for row in events_of(again)] == ["resumed"]
    for files in (before, after):
        del files["events.jsonl"]
    assert after == before


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_stops_after_the_update_and_saves(whole, runs, name, status):
    with Child(*S2, "run.workers=1") as child:
        child.until(5)
        child.signal(signal.Signals[name])
        code, errors = child.end()
    parts = runs / "001"
    assert code == status, errors
    last = errors.splitlines()[-1]
    assert f"{name}: stopped after update 5 of 8" in last and last.endswith(f"ebwm train --resume {parts}")
    assert events_of(parts)[-1] == {"update": 5, "batch": 5, "kind": "stopped", "what": name}
    assert not (parts / "model.safetensors").exists()
    assert command("train", "--resume", "001", "run.workers=0") [:2] == (0, f"{parts}\n")
    assert_same_end(parts, whole)


def test_a_killed_run_resumes_from_its_last_checkpoint(whole, runs):
    """Also while its loader workers still run, and with an incomplete last line of the log."""
    with Child(*S2, "run.workers=1") as child:
        child.until(5)
        assert child.kill() == -signal.SIGKILL
    parts = runs / "001"
    assert [row["update"] for row in log_of(parts)] == [1, 2, 3, 4, 5]
    with (parts / "log.jsonl").open("a") as log:
        log.write('{"update": 6, "loss": 0.3')
    (parts / ".77.log.jsonl").write_text("half")
    resume(parts, progress=False)
    assert not (parts / ".77.log.jsonl").exists()
    assert [(row["update"], row["batch"]) for row in events_of(parts, "resumed")] == [(4, 4)]
    assert_same_end(parts, whole)


def test_a_second_interrupt_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    with recorded_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received == ["SIGINT"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# Changes of configuration and data


@pytest.mark.parametrize("entry", [
    "data.train_clips=20", "data.folder=elsewhere", "optimiser.batch=2", "optimiser.updates=9",
    "model.dim=32", "recipe.name=s1", "faults.patience=9", "run.precision=bf16-mixed",
    "eval_every=3", "walk.start=last"])
def test_a_changed_configuration_is_refused_and_nothing_is_written(make, entry):
    stopped = make.stopped("clips, s2")
    before = files_of(stopped)
    with pytest.raises(ConfigError) as refusal:
        resume(stopped, [entry, "run.keep=2", "seed=5"], progress=False)
    words = f"{entry.split('=')[0]}: ", "seed: 0 is now 5", "--changed"
    assert all(text in str(refusal.value) for text in words)
    assert files_of(stopped) == before


def altered(config, **given):
    """The clips of a configuration with one changed pixel."""
    task = load_task(config, **given)
    train = task.splits["train"]
    clips = train.dataset.clips.copy()
    clips[0, 0, 0, 0] += 1
    train.dataset.clips = train.clips = clips
    return task


@pytest.mark.parametrize("name", ["clips, s2", "states, s1"])
def test_changed_data_are_refused_and_nothing_is_written(make, monkeypatch, name):
    stopped, before = make.stopped(name), files_of(make.stopped(name))
    given = {"data": tiny_states() + 1e-3} if name.startswith("states") else {}
    if not given:
        monkeypatch.setattr(running, "load_task", altered)
    with pytest.raises(ConfigError, match="data train: its digest has changed"):
        resume(stopped, progress=False, **given)
    assert files_of(stopped) == before


def test_tensors_must_be_given_again(make):
    with pytest.raises(ConfigError, match=r"data\.source=None"):
        resume(make.stopped("pairs, s1"), progress=False)


def test_changes_that_are_accepted_become_the_configuration(parts, monkeypatch):
    monkeypatch.setattr(running, "load_task", altered)
    stop(parts, 5, overrides=["optimiser.batch=2"], changed=True)
    assert load_config(str(parts / "config.json")) == tiny(*S2, "optimiser.batch=2")
    resume(parts, progress=False)
    assert [row["update"] for row in log_of(parts)] == [*range(1, 9)]
    assert load_learner(parts).model.step_size > 0


def test_accepted_changes_are_saved_before_the_next_update(parts):
    with pytest.raises(ZeroDivisionError):
        resume(parts, ["seed=1"], progress=False, changed=True, callback=lambda row: 1 / 0)
    resume(parts, progress=False)
    assert events_of(parts, "resumed")[-1]["update"] == 3
    with pytest.raises(ConfigError, match="seed: 1 is now 0"):
        resume(parts, ["seed=0"], progress=False)


def test_results_do_not_depend_on_resumable_fields(whole, parts):
    changed = {"run.save_every": 3, "run.keep": 1, "run.monitor_every": 1, "run.workers": 1,
               "run.logger": "tensorboard", "run.strategy": "ddp"}
    assert changed.keys() == RESUMABLE_FIELDS
    resume(parts, [f"{key}={value}" for key, value in changed.items()], progress=False)
    weights = [load_learner(path).model.state_dict() for path in (parts, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [*(parts / "tensorboard").iterdir()]


@pytest.mark.parametrize("entry", ["optimiser.average=0.9", "model.dim=32"])
def test_a_state_that_does_not_fit_is_refused_even_with_changed(make, entry):
    stopped = make.stopped("clips, s2")
    before = files_of(stopped)
    with pytest.raises(CheckpointError, match=r"optimiser.average|has shape"):
        resume(stopped, [entry], progress=False, changed=True)
    assert files_of(stopped) == before


def test_with_another_world_size_noise_and_replay_start_anew(parts):
    checkpoint, _ = Checkpoints(parts / "checkpoints").newest()
    config = tiny(*S2)
    trainer = Trainer(make_learner(config.model, 8, 0, config.recipe, config.walk), config)
    fresh = trainer.noise.get_state()
    restore(trainer, checkpoint.tensors, checkpoint.meta | {"world_size": 2})
    assert (trainer.noise.get_state() == fresh).all() and len(trainer.learner.replay) == 0
    restore(trainer, checkpoint.tensors, checkpoint.meta)
    assert (trainer.noise.get_state() != fresh).any() and len(trainer.learner.replay) == 6


