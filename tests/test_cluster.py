"""Slurm, as far as one machine can tell: what is submitted, what comes back, what is cancelled."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm
import yaml
from tiny_figure import rewrite

import ebwm
from ebwm import figures
from ebwm.figures.batch import _rule
from ebwm.figures.job import _devices, torchrun

pytest.importorskip("snakemake_executor_plugin_slurm", reason="not installed: pip install 'ebwm[cluster]'")
ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "profiles/slurm/config.yaml"
SOONER = "slurm-init-seconds-before-status-checks: 1\nseconds-between-status-checks: 1\n"


@pytest.fixture
def cluster(project):
    """The small project on a machine with Slurm's commands; starts `ebwm figures run` there."""
    slurm.write_commands(project)
    (project / "profiles/slurm").mkdir(parents=True)
    (project / "profiles/slurm/config.yaml").write_text(PROFILE.read_text() + SOONER)
    path = os.pathsep.join([str(project / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(ebwm.__file__).parents[1])}

    def start(*words):
        run = ["figures", "run", "tiny", "--profile", "profiles/slurm", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
        called = [sys.executable, "-m", "ebwm", *run]
        return subprocess.Popen(called, env=environment, preexec_fn=heard, **pipes)

    return start


def calls(project, name):
    lines = (project / "calls.txt").read_text().splitlines()
    return [line for line in lines if line.startswith(f"{name} ")]


def test_jobs_are_submitted_with_what_they_take(project, cluster):
    process = cluster()
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert printed.startswith("tiny  made  figures/tiny/runs/smoke\n")
    manifest = json.loads((project / "figures/tiny/runs/smoke/manifest.json").read_text())
    assert manifest["seeds"] == [0, 1]
    (submitted,) = calls(project, "sbatch")
    for option in ("-A research", "-p gpu", "-t 12", "--mem 4096", "--cpus-per-task=1"):
        assert f" {option} " in submitted
    assert calls(project, "srun") and calls(project, "sacct") and not calls(project, "scancel")


def test_an_interrupted_batch_cancels_its_jobs(project, cluster):
    notebook = project / "nbs/figures/tiny.ipynb"
    text = notebook.read_text().replace("import sys\\n", "import sys, time\\ntime.sleep(300)\\n", 1)
    assert "sleep" in text
    notebook.write_text(text)
    process = cluster()
    running = project / "slurm-jobs/1.state"
    deadline = time.monotonic() + 60
    while not list(project.glob("figures/.batch/*/status/tiny.json")):
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.endswith("ebwm: interrupted\n")
    assert running.read_text() == "CANCELLED" and calls(project, "scancel") == ["scancel 1"]


def test_jobs_on_one_machine_hold_different_gpus(project, monkeypatch):
    job = dataclasses.replace(figures.jobs_of(figures.plan("tiny"))[0], gpus=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    with _devices(job, project):
        first = os.environ["CUDA_VISIBLE_DEVICES"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
        with _devices(job, project):
            assert (first, os.environ["CUDA_VISIBLE_DEVICES"]) == ("3", "GPU-5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    with _devices(job, project):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    with _devices(dataclasses.replace(job, gpus=0), project):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-5"


def test_several_processes_are_started_by_torchrun_and_ask_for_as_many_gpus(project):
    job = dataclasses.replace(figures.jobs_of(figures.plan("tiny"))[0], processes=4, gpus=4, memory=0.1)
    rule = _rule(job, Path("jobs/tiny.json"), set(), here=True)
    launched = " ".join(torchrun(job, Path("jobs/tiny.json")))
    count = "torch.distributed.run --standalone --nproc-per-node 4"
    assert launched.endswith(f"{count} -m ebwm.figures jobs/tiny.json")
    assert rule["command"].endswith("-m ebwm.figures jobs/tiny.json")
    assert rule["gpu"] == 4 and rule["mem_mb"] == 410


def test_a_cluster_is_asked_for_what_this_machine_lacks(project):
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


def test_a_gpu_that_is_not_there_is_told(project, monkeypatch):
    job = dataclasses.replace(figures.jobs_of(figures.plan("tiny"))[0], gpus=1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("ebwm.figures.job.gpus", lambda: 0)
    with pytest.raises(figures.NotebookError, match="it needs a GPU, and there is none on"):
        _devices(job, project).__enter__()


def test_the_profile_names_what_a_person_changes():
    content = yaml.safe_load(PROFILE.read_text())
    assert content["executor"] == "slurm"
    assert {"slurm_account", "slurm_partition"} <= content["default-resources"].keys()
    shown = (ROOT / "README.md").read_text()
    for key in ("slurm_account", "slurm_partition"):
        line = re.search(rf"^ *{key}: .*$", PROFILE.read_text(), re.M)[0]
        assert line.strip() in shown
