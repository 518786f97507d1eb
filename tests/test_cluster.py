"""Slurm, with stand-ins for its commands: submission, resources, cancellation; GPUs on one machine."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import slurm
from script_job import leave_cell
from test_engine import wait_for, write_fan
from tiny_figure import code, rewrite, write_notebook

from ebwm import figures
from ebwm.figures.batch import _rule
from ebwm.figures.inputs import PACKAGE
from ebwm.figures.job import _devices, torchrun

pytest.importorskip("snakemake_executor_plugin_slurm", reason="not installed: pip install 'ebwm[cluster]'")
ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "profiles/slurm/config.yaml"
SHORTER = "slurm-init-seconds-before-status-checks: 1\nseconds-between-status-checks: 1\n"


def calls(project, name):
    lines = (project / "calls.txt").read_text().splitlines()
    return [line for line in lines if line.startswith(f"{name} ")]


@pytest.mark.slow
def test_jobs_are_submitted_with_their_resources_and_cancelled_by_an_interrupt(project):
    """A job that runs, and one that waits in the queue."""
    slurm.write_commands(project)
    (project / "busy").write_text("fan.seeds-1")
    (project / "profiles/slurm").mkdir(parents=True)
    (project / "profiles/slurm/config.yaml").write_text(PROFILE.read_text() + SHORTER)
    path = project / "nbs/figures/tiny.ipynb"
    write_notebook(path, json.loads(path.read_text())["cells"][0], code(leave_cell(), id="l"))
    write_fan(project, "time.sleep(300)", sizes="[8]")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent),
                   "PATH": os.pathsep.join([str(project / "bin"), os.environ["PATH"]])}
    words = ["figures", "run", "tiny", "fan", "--profile", "profiles/slurm"]
    command = [sys.executable, str(ROOT / "tests/script_job.py"), *words]
    default = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell ignore SIGINT
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, preexec_fn=default, **pipes)
    made = project / "figures/tiny/runs/smoke/manifest.json"
    status = "figures/.batch/*/status/{}.json"
    wait_for(lambda: made.is_file() and list(project.glob(status.format("fan.seeds-0_sizes-8"))), 300)
    now = lambda: [path.read_text().strip() for path in project.glob("slurm-jobs/*.state")]
    wait_for(lambda: {"COMPLETED", "PENDING"} <= {*now()}, 300)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.endswith("ebwm: interrupted\n")
    submitted = calls(project, "sbatch")
    assert len(submitted) == 3 and made.is_file()
    for option in ("-A research", "-p gpu", "-t 62", "--mem 4096", "--cpus-per-task=1"):
        assert all(f" {option} " in call for call in submitted)
    assert calls(project, "srun") and calls(project, "sacct")
    assert now().count("CANCELLED") >= 2 and not list(project.glob("figures/fan/runs/*/*/manifest.json"))


def test_jobs_on_one_machine_lock_different_gpus(project, monkeypatch):
    """A job without a GPU sees what the machine has; without any, a job that needs one fails."""
    job = dataclasses.replace(figures.jobs_of(figures.plan("tiny"))[0], gpus=1)

    @contextlib.contextmanager
    def devices(gpus=1):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
        with _devices(dataclasses.replace(job, gpus=gpus), project):
            yield os.environ["CUDA_VISIBLE_DEVICES"]

    with devices() as first, devices() as second:
        assert (first, second) == ("3", "GPU-5")
    with devices() as first, devices(gpus=0) as every:
        assert (first, every) == ("3", "3,GPU-5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("ebwm.figures.job.gpus", lambda: 0)
    with pytest.raises(figures.NotebookError, match=r"it needs a GPU, and .* has none"):
        _devices(job, project).__enter__()


def test_several_processes_run_under_torchrun_with_a_gpu_each(project):
    job = dataclasses.replace(figures.jobs_of(figures.plan("tiny"))[0], processes=4, gpus=4, memory=0.1)
    rule = _rule(job, Path("jobs/tiny.json"), set(), here=True)
    launched = " ".join(torchrun(job, Path("jobs/tiny.json")))
    count = "torch.distributed.run --standalone --nproc-per-node 4"
    assert launched.endswith(f"{count} -m ebwm.figures jobs/tiny.json")
    assert rule["command"].endswith("-m ebwm.figures jobs/tiny.json")
    assert rule["gpu"] == 4 and rule["mem_mb"] == 410


def test_a_cluster_job_requests_more_than_this_machine_has(project, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    rewrite(project / "settings.ini", "threads = 1", "threads = 0")
    rewrite(project / "figures/figures.yaml", "headline:", """device: {gpu: cuda}
    threads: {gpu: 6}
    processes: {gpu: 2}
    memory: {gpu: 100000}
    headline:""")
    (job,) = figures.jobs_of(figures.plan("tiny", "gpu", cluster=True))
    rule = _rule(job, Path("jobs/tiny.json"), set(), here=False)
    assert job.inputs["device"] == "cuda" and job.threads == 6
    assert (rule["gpu"], rule["threads"], rule["mem_mb"]) == (2, 12, 2 * 100_000 * 1024)
    assert _rule(job, Path("jobs/tiny.json"), set(), here=True)["mem_mb"] < 2 * 100_000 * 1024
    assert figures.jobs_of(figures.plan("fan", cluster=True))[0].gpus == 0
