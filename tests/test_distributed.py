"""Two processes train as one does, by DDP and by FSDP2, and resume exactly."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

import psutil
import pytest
import slurm
import torch
from world import MIXED, RUNS, SETTINGS, TINY, learn_all, resume_one, together, train_one

from ebwm import cli
from ebwm.compat import installed
from ebwm.files import sha256
from ebwm.saving import load_tensors
from ebwm.training.checkpoint import Checkpoints

ROOT = Path(__file__).parents[1]
RANDOM = [name for name in RUNS if name != "plain"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not installed("lightning_fabric"), reason="not installed")]


@pytest.fixture(scope="module")
def session(tmp_path_factory, clips):
    """Folder of everything that one process and two processes have trained."""
    folder = tmp_path_factory.mktemp("session")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBWM_CACHE", str(clips))
        patch.setenv("EBWM_DEVICE", "cpu")
        for strategy in ("auto", "ddp", "fsdp"):
            (folder / strategy).mkdir()
        learn_all("auto", folder / "auto")
        train_one("plain", folder / "one" / "whole")
        train_one("plain", folder / "one" / "parts", update=2)
        whole, parts = folder / "whole", folder / "parts"
        together(*((learn_all, strategy, folder / strategy) for strategy in ("ddp", "fsdp")),
                 *((train_one, name, whole / name) for name in RANDOM),
                 *((train_one, name, parts / name, 2) for name in RUNS))
        together(*((resume_one, name, parts / name / "001") for name in RANDOM),
                 (resume_one, "plain", folder / "one" / "parts" / "001"))
        yield folder


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_as_one_does(session, strategy, name):
    one, _ = load_tensors(session / "auto" / f"{name}.safetensors")
    two, _ = load_tensors(session / strategy / f"{name}.safetensors")
    shared = {key for key in one if not key.startswith("process")}
    assert shared == {key for key in two if not key.startswith("process")}
    assert any(key.startswith("gradient.") for key in shared)
    for key in shared:
        message = lambda why, key=key: f"{key}: {why}"
        torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-8, msg=message)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_as_one_does_in_mixed_precision(session, strategy, name):
    one, two = (load_tensors(session / kind / f"mixed {name}.safetensors")[0] for kind in ("auto", strategy))
    assert one.keys() - {"process0.noise"} == two.keys() - {"process0.noise", "process1.noise"}
    for key in (key for key in one if key.startswith("gradient.")):
        assert two[key].dtype == torch.float32
        assert (two[key] - one[key]).norm() < 0.05 * one[key].norm(), key


def last(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint, refused = Checkpoints(folder / "checkpoints").newest()
    assert not refused
    return checkpoint.tensors


@pytest.mark.parametrize("name", RANDOM)
def test_two_processes_resume_exactly(session, name):
    folders = [session / kind / name / "001" for kind in ("whole", "parts")]
    whole, parts = map(last, folders)
    assert {"process0.noise", "process1.noise", "process1.replay.part0"} <= whole.keys() == parts.keys()
    assert not torch.equal(whole["process0.noise"], whole["process1.noise"])
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert sha256(folders[0] / "model.safetensors") == sha256(folders[1] / "model.safetensors")


def test_one_process_resumes_the_run_of_two_and_two_the_run_of_one(session, tmp_path, monkeypatch):
    """Weights and optimiser continue; noise differs with the number of processes."""
    monkeypatch.setenv("EBWM_DEVICE", "cpu")
    folder = shutil.copytree(session / "parts" / "plain" / "001", tmp_path / "001")
    resume_one("plain", folder)
    expected = last(session / "one" / "whole" / "001")
    for parts in map(last, (folder, session / "one" / "parts" / "001")):
        for key in (key for key in expected if not key.startswith("process")):
            torch.testing.assert_close(parts[key], expected[key], rtol=1e-4, atol=1e-6)


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Start the script as a job, with stand-ins for the commands of Slurm."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1", "MASTER_PORT": "0"}
    variables = {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = ROOT / "profiles" / "slurm" / "train.sh"
    return subprocess.Popen(["bash", str(script), *words], env=os.environ | job | variables, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_slurm_script_saves_at_the_time_limit_and_resumes(tmp_path, runs, capsys):
    """And 100 updates lower the loss. The second job runs in this process what it asks of torchrun."""
    slurm.write_commands(tmp_path)
    words = ["smoke", *TINY, "data.features=12", "walk.step_size=10", "optimiser.updates=100", "run.logger=none",
             "eval_every=100"]
    run, calls = runs / "job-7" / "001", tmp_path / "calls.txt"
    job, log = start(tmp_path, *words), run / "log.jsonl"
    while job.poll() is None and not (log.is_file() and log.read_text().count("\n") >= 3):
        time.sleep(0.05)
    (torchrun,) = psutil.Process(job.pid).children()
    torchrun.terminate()
    output, _ = job.communicate(timeout=600)
    assert "requeued" in output and calls.read_text().endswith("scontrol requeue 7\n")
    assert not (run / "result.json").exists()
    slurm.write_commands(tmp_path, ["torchrun"])
    again = start(tmp_path, *words)
    assert again.communicate(timeout=600)[0] == "" and again.returncode == 0
    (line,) = [line for line in calls.read_text().splitlines() if line.startswith("torchrun ")]
    options, _, asked = line.partition(" -m ebwm ")
    assert "--nnodes 1 --nproc-per-node 1" in options
    assert cli.main(shlex.split(asked)) == 0 and capsys.readouterr().out == f"{run}\n"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(1, 101)) and (run / "result.json").is_file()
    assert fmean(row["loss"] for row in rows[-20:]) < 0.9 * fmean(row["loss"] for row in rows[:20])
