"""A run of a moment: its configuration, where it ended, and a process that waits at each update."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import ebwm
from ebwm.training import trainer as training
from ebwm.training.checkpoint import Checkpoints

TINY = ["model.dim=16", "model.heads=2", "data.features=8", "data.frames=5", "data.train_clips=14",
        "data.eval_clips=4", "optimiser.updates=8", "eval_every=4", "run.save_every=2", "run.logger=none"]
MEASURED = {"seconds", "items_per_second", "flops_utilisation", "peak_mib"}
S2 = ["recipe.name=s2", "recipe.replay=1", "recipe.capacity=6", "recipe.clamp=5"]


def tiny(*entries):
    """Eight updates, three of them to a pass over the clips, with a checkpoint after every second one."""
    return training.load_config("smoke", [*TINY, *entries])


def trained(folder, *entries):
    return training.train(tiny(*entries), folder, progress=False)


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
    (one, refused), (two, others) = (Checkpoints(path / "checkpoints").newest() for path in (folder, other))
    assert refused == others == []
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, two.tensors[name], atol=0, rtol=0, msg=name)
    assert one.meta == two.meta
    assert untimed(folder) == untimed(other)


PROGRAM = """
import sys
from ebwm import cli
from ebwm.training import trainer as training

def wait(row):
    print(row["update"], flush=True)
    sys.stdin.readline()

train = training.train
training.train = lambda config, **options: train(config, **options | {"callback": wait, "progress": False})
BEFORE
sys.exit(cli.main(["train", *sys.argv[1:]]))
"""


def environment():
    """That of a process which shall find the package that is tested."""
    return {**os.environ, "PYTHONPATH": str(Path(ebwm.__file__).parents[1])}


def command(*words):
    """What `ebwm` with these words gives: exit status, output and complaints."""
    called = [sys.executable, "-m", "ebwm", *words]
    done = subprocess.run(called, capture_output=True, text=True, env=environment())
    return done.returncode, done.stdout, done.stderr


class Child:
    """A run in a process of its own, which tells each update and then waits until it may go on."""

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
        """Let it go on until it tells this."""
        while (told := self.process.stdout.readline()) != f"{word}\n":
            assert told, self.process.communicate()[1]
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def tell(self, number):
        """Send a signal to it and to all its processes, as a cluster or Ctrl-C does."""
        os.killpg(self.process.pid, number)

    def end(self):
        """Let it go on to its end: its exit status and what it complained of."""
        errors = self.process.communicate("\n" * 100)[1]
        return self.process.returncode, errors

    def kill(self):
        """End it without a warning; processes that load its data may live on for some seconds."""
        self.process.kill()
        return self.process.wait()
