"""Two processes learn what one learns, by DDP and by FSDP2, and go on after a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ebwm.files import sha256
from ebwm.training.checkpoint import Checkpoints, load_tensors

ROOT = Path(__file__).parents[1]
pytest.importorskip("lightning_fabric")
pytestmark = pytest.mark.slow

# Settings in which nothing is left to chance but the initial weights, so that any number of processes agree.
SETTINGS = {
    "S1": [],
    "in parts": ["optimiser.accumulate=2"],
    "by autograd": ["model.gradient=eager", "recipe.stream=false"],
    "through the walk": [f"recipe.{x}" for x in ("name=s2", "most=2", "noise=0", "spread=1", "replay=0")],
    "averaged": ["optimiser.average=0.9"],
}
TINY = ["model.dim=16", "model.heads=2", "model.depth=2", "model.start=last"]

LEARN = f"""
import sys
import torch
from ebwm import settings
from ebwm.training.checkpoint import save_tensors
from ebwm.training.configuration import load_config
from ebwm.training.distributed import full, processes
from ebwm.training.learner import make_learner
from ebwm.training.trainer import Trainer

torch.set_num_threads(1)
clips = torch.randn(3, 8, 6, 12, dtype=torch.float64, generator=settings.generator(0, "clips"))
with processes(torch.device("cpu"), strategy=sys.argv[1]) as others:
    for name, entries in {SETTINGS!r}.items():
        config = load_config("smoke", {TINY!r} + entries)
        learner = make_learner(config.model, 12, 0, config.recipe)
        learner.model.double()
        others.take(learner.model)
        trainer = Trainer(learner, config, others=others)
        for number, batch in enumerate(clips):
            row = trainer.update(batch.chunk(others.ranks)[others.rank])
            if number == 0:
                weights = learner.model.named_parameters()
                first = {{f"gradient.{{key}}": full(weight.grad).clone() for key, weight in weights}}
        with trainer.averaged() as scored, torch.no_grad():
            prediction = scored.predict(clips[0, :, :-1], trainer.noise)
        tensors = first | trainer.state()[0] | {{"prediction": prediction, "loss": torch.tensor(row["loss"])}}
        if not others.rank:
            save_tensors(f"{{sys.argv[2]}}/{{name}}.safetensors", tensors)
"""


def run(script: str, *words: object, count: int = 1) -> str:
    """Run a script, in some processes where there are to be several."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [sys.executable, *(several if count > 1 else []), str(script), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "EBWM_DEVICE": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """What one process learns, and two by each strategy."""
    folder = tmp_path_factory.mktemp("learned")
    script = folder / "learn.py"
    script.write_text(LEARN)
    for name, count in (("auto", 1), ("ddp", 2), ("fsdp", 2)):
        (folder / name).mkdir()
        run(script, name, folder / name, count=count)
    return folder


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(learned, strategy, settings):
    one, _ = load_tensors(learned / "auto" / f"{settings}.safetensors")
    two, _ = load_tensors(learned / strategy / f"{settings}.safetensors")
    shared = {name for name in one if not name.startswith("process")}
    assert shared == {name for name in two if not name.startswith("process")}
    assert any(name.startswith("gradient") for name in shared) and "gradient.step_size" in shared
    for name in shared:
        told = lambda why, name=name: f"{name}: {why}"
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-8, msg=told)


TRAIN = f"""
import sys
from pathlib import Path
import torch
from ebwm.training import trainer as training
from ebwm.training.configuration import load_config

torch.set_num_threads(1)
job, folder, *entries = sys.argv[1:]
base = {TINY!r} + ["run.logger=none", "run.save_every=1", "run.keep=9"]
base += ["data.features=12", "optimiser.updates=4"]
config = load_config("smoke", base + entries)
if job == "resume":
    training.resume(Path(folder), entries, progress=False)
else:
    stop = (lambda row: row["update"] == 2) if job == "stop" else None
    try:
        training.train(config, Path(folder), progress=False, callback=stop)
    except training.Stopped:
        pass
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "train.py"
    path.write_text(TRAIN)
    return path


def last(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint, refused = Checkpoints(folder / "checkpoints").newest()
    assert not refused
    return checkpoint.tensors


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_go_on_exactly(tmp_path, script, strategy):
    entries = f"run.strategy={strategy}", "recipe.name=s2", "model.start=noise"
    run(script, "whole", tmp_path / "whole", *entries, count=2)
    run(script, "stop", tmp_path / "parts", *entries, count=2)
    run(script, "resume", tmp_path / "parts" / "001", count=2)
    whole, parts = last(tmp_path / "whole" / "001"), last(tmp_path / "parts" / "001")
    assert {"process0.noise", "process1.noise", "process1.replay.part0"} <= whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    files = [tmp_path / name / "001" / "model.safetensors" for name in ("whole", "parts")]
    assert sha256(files[0]) == sha256(files[1])


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_with_weights_and_optimiser(tmp_path, script, before, after):
    entries = ("run.strategy=fsdp",)
    run(script, "whole", tmp_path / "whole", *entries, count=before)
    run(script, "stop", tmp_path / "parts", *entries, count=before)
    folder = tmp_path / "parts" / "001"
    stopped = last(folder)
    assert len(Checkpoints(folder / "checkpoints").all()) == 3
    run(script, "resume", folder, count=after)
    at = {path.stem: path for path in Checkpoints(folder / "checkpoints").all()}
    kept, _ = load_tensors(at["00000002"])
    assert all(torch.equal(kept[name], stopped[name]) for name in stopped)
    whole, parts = last(tmp_path / "whole" / "001"), last(folder)
    for name in (name for name in whole if not name.startswith("process")):
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)


def stand_in(folder: Path, name: str, script: str) -> None:
    """A command of Slurm's, as far as the script needs it."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Start the Slurm script as a job would."""
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1", "MASTER_PORT": "0"}
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "EBWM_RUNS": str(folder / "runs"),
           "EBWM_DEVICE": "cpu", "EBWM_CACHE": str(folder / "cache")}
    script = ROOT / "profiles" / "slurm" / "train.sh"
    return subprocess.Popen(["bash", str(script), *words], env=os.environ | job | own, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_slurm_script_saves_when_time_is_over_and_goes_on(tmp_path):
    stand_in(tmp_path, "srun", f"echo $$ > {tmp_path}/pid; exec \"$@\"")
    stand_in(tmp_path, "scontrol", f"echo \"$@\" >> {tmp_path}/asked; [ \"$1\" = requeue ] || echo localhost")
    words = ["smoke", *TINY, "optimiser.updates=300", "run.logger=none", "eval_every=300"]
    run = tmp_path / "runs" / "job-7" / "001"
    job, log = start(tmp_path, *words), run / "log.jsonl"
    while job.poll() is None and not (log.is_file() and log.read_text().count("\n") >= 3):
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    told, _ = job.communicate(timeout=120)
    assert "the job goes on" in told and "requeue 7" in (tmp_path / "asked").read_text()
    assert not (run / "result.json").exists()
    again = start(tmp_path, *words)
    assert again.communicate(timeout=240) and again.returncode == 0
    rows = [json.loads(line)["update"] for line in log.read_text().splitlines()]
    assert rows == list(range(1, 301)) and (run / "result.json").is_file()
