"""Tiny training runs of every task: their configuration, their results, and runs in processes that are killed."""

import json
import multiprocessing
import os
import shutil
from copy import deepcopy
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.utils._pytree import tree_leaves

from ebwm.settings import generator
from ebwm.training import run
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.presets import load_config
from ebwm.training.run import Stopped
from ebwm.training.trainer import trainer_state

SHAPE = ["model.dim=16", "model.heads=2", "optimiser.updates=8", "eval_every=4", "run.save_every=2",
         "run.logger=none"]
CLIPS = ["data.features=8", "data.frames=5", "data.train_clips=14", "data.eval_clips=4"]
MEASURED = {"seconds", "items_per_second", "flops_utilisation", "peak_mib"}
S2 = ["recipe.name=s2", "recipe.replay=1", "recipe.capacity=6", "recipe.clamp=5", "walk.step_size=10"]


def tiny(*entries, task="clips"):
    """Eight updates, with a checkpoint after every second one; of clips, three updates to a pass."""
    settings = {"clips": CLIPS, "states": [], "actions": ["data.kind=states"],  # tensors are states by default
                "pairs": ["data.kind=pairs", "model.kind=joint_ebt"]}
    chosen = tiny_text(Path(os.environ["EBWM_CACHE"])) if task == "text" else [*SHAPE, *settings[task]]
    return load_config("smoke", [*chosen, *entries])


def tensors(task):
    """The data of a task that is trained on tensors, as an argument."""
    made = {"states": tiny_states, "actions": lambda: tiny_states(actions=2), "pairs": tiny_pairs}
    return {"data": made[task]()} if task in made else {}


count = run.update_flops
COUNTED = {}  # FLOPs of an update, by configuration and shapes of a batch


def update_flops(trainer, batch):
    """FLOPs of an update, counted once for all runs of a configuration: it takes longer than an update.

    The count must leave the trainer as it was.
    """
    key = repr((trainer.config, [leaf.shape for leaf in tree_leaves(batch)]))
    if not COUNTED.get(key):
        before = deepcopy(trainer_state(trainer))
        COUNTED[key] = count(trainer, batch)
        torch.testing.assert_close(trainer_state(trainer), before, rtol=0, atol=0, equal_nan=True)
    return COUNTED[key]


def trained(folder, *entries, task="clips", **options):
    with mock.patch.object(run, "update_flops", update_flops):
        return run.train(tiny(*entries, task=task), folder, progress=False, **tensors(task), **options)


def stopped(folder, *entries, task="clips", after=3):
    """A run that is stopped after an update."""
    with pytest.raises(Stopped, match="ebwm train --resume"):
        trained(folder, *entries, task=task, callback=stopping(after))
    return max(folder.iterdir())


@cache
def whole(*entries, task="clips"):
    """A finished run that all tests share, and that none may change."""
    return trained(Path(os.environ["EBWM_CACHE"]) / "whole", *entries, task=task)


@cache
def halted(*entries, task="clips", after=3):
    """A stopped run that all tests share, and that none may change."""
    return stopped(Path(os.environ["EBWM_CACHE"]) / "halted", *entries, task=task, after=after)


def copied(folder, runs):
    return shutil.copytree(folder, runs / folder.name, dirs_exist_ok=True)


def resumed(path, *entries, task="clips", **options):
    with mock.patch.object(run, "update_flops", update_flops):
        return run.resume(path, entries, progress=False, **tensors(task), **options)


def stopping(update):
    """A callback that stops a run after an update."""
    return at(update, lambda: True)


def at(update, act, *arguments):
    """A callback that acts after an update."""
    return lambda row: act(*arguments) if row["update"] == update else None


def tiny_text(folder, *entries):
    """Entries of a run on a corpus of short documents, which is written to a folder."""
    path, words = folder / "lines.jsonl", ("one", "two", "three", "four", "five", "six", "seven")
    texts = [f"{a} and {b} make {a} {b}, not {words[(i + k) % 7]}" for k, a in enumerate(words)
             for i, b in enumerate(words)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return [*SHAPE, "data.kind=text", "data.length=12", "data.eval_windows=6", "walk.step_size=2",
            f"data.source={path}", "data.held_out=0.2", *entries]


def tiny_states(features=3, actions=0):
    """Rotations at random phases, [20 6 features], and actions if there are any."""
    noise = generator(0, "states")
    time = torch.rand(20, 1, 1, generator=noise) * 6 + torch.arange(6.0)[:, None] / 2
    states = (time + torch.arange(features)).sin() * 2 + 1
    return (states, torch.randn(20, 6, actions, generator=noise)) if actions else states


def tiny_pairs():
    """Two rows, and one row that is their sum: [20 2 4] and [20 1 4]."""
    context = torch.randn(20, 2, 4, generator=generator(0, "pairs"))
    return context, context.sum(1, keepdim=True)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def untimed(folder):
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in log_of(folder)]


def events_of(folder, kind=None):
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if kind is None or row["kind"] == kind]


def files_of(folder):
    """Every file of a run and its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_end(folder, other):
    """The same weights, result and last checkpoint, to the last bit, and the same lines of log."""
    for name in ("model.safetensors", "result.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    (one, _), (two, _) = found = [Checkpoints(path / "checkpoints").newest() for path in (folder, other)]
    assert [refused for _, refused in found] == [[], []]
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, two.tensors[name], atol=0, rtol=0, msg=name)
    assert one.meta == two.meta
    assert untimed(folder) == untimed(other)


def exit_code_of(act, *arguments):
    """Run a function in a process with a process group of its own, in which nothing needs to be undone."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(act, *arguments))
    process.start()
    process.join(120)
    return process.exitcode


def _alone(act, *arguments):
    os.setsid()
    torch.set_num_threads(1)
    raise SystemExit(act(*arguments))
