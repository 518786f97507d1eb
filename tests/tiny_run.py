"""Tiny training runs: their configuration, their results, and a child process that waits at each update."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import ebwm
from ebwm.settings import generator
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.presets import load_config
from ebwm.training.run import train

SHAPE = ["model.dim=16", "model.heads=2", "optimiser.updates=8", "eval_every=4", "run.save_every=2",
         "run.logger=none"]
TINY = [*SHAPE, "data.features=8", "data.frames=5", "data.train_clips=14", "data.eval_clips=4"]
MEASURED = {"seconds", "items_per_second", "flops_utilisation", "peak_mib"}
S2 = ["recipe.name=s2", "recipe.replay=1", "recipe.capacity=6", "recipe.clamp=5"]


def tiny(*entries):
    """Eight updates, three to a pass over the clips, with a checkpoint after every second one."""
    return load_config("smoke", [*TINY, *entries])


def trained(folder, *entries):
    return train(tiny(*entries), folder, progress=False)


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


def stopping(update):
    """A callback that stops a run after an update."""
    return lambda row: row["update"] == update


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


PROGRAM = """
import sys
from ebwm import cli
from ebwm.training import run

def wait(row):
    print(row["update"], flush=True)
    sys.stdin.readline()

train = run.train
run.train = lambda config, **options: train(config, **options | {"callback": wait, "progress": False})
BEFORE
sys.exit(cli.main(["train", *sys.argv[1:]]))
"""


def environment():
    """Environment in which a child process imports the package under test."""
    return {**os.environ, "PYTHONPATH": str(Path(ebwm.__file__).parents[1])}


def command(*words):
    """Exit status, output and errors of a command."""
    called = [sys.executable, "-m", "ebwm", *words]
    done = subprocess.run(called, capture_output=True, text=True, env=environment())
    return done.returncode, done.stdout, done.stderr


class Child:
    """A run in a child process that prints the number of each update and waits for a line of input."""

    def __init__(self, *entries, before=""):
        called = [sys.executable, "-c", PROGRAM.replace("BEFORE", before), "smoke", *TINY, *entries]
        options = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"env": environment()}
        self.process = subprocess.Popen(called, text=True, start_new_session=True, **options)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.__exit__(*error)

    def until(self, word):
        """Continue until it prints a word."""
        while (line := self.process.stdout.readline()) != f"{word}\n":
            assert line, self.process.communicate()[1]
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def signal(self, number):
        """Send a signal to its process group, as a cluster or Ctrl-C does."""
        os.killpg(self.process.pid, number)

    def end(self):
        """Continue to the end: exit status and errors."""
        errors = self.process.communicate("\n" * 100)[1]
        return self.process.returncode, errors

    def kill(self):
        """Send SIGKILL; its loader processes may run for some more seconds."""
        self.process.kill()
        return self.process.wait()
