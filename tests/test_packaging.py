"""One installation for pip and conda, pinned dependencies, light imports, and the Makefile."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ebwm

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = ("energy", "evaluation.statistics", "sampler", "blocks", "attention", "ebt", "baselines", "objective",
        "thinking")
HEAVY = ("matplotlib", "scipy", "pandas", "sklearn", "av", "datasets", "timm", "torchvision", "plotly",
         "papermill", "lightning", "tensorboard", "diffusers")


def test_conda_and_make_install_the_same():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    made = shlex.split(re.search(r"pip install -q (.+)", makefile)[1])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    part = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert shlex.split(" ".join(part)) == made == ["-c", "constraints.txt", "-e", ".[dev]"]
    version = next(entry.partition("=")[2] for entry in conda if str(entry).startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_every_dependency_is_pinned_once_and_inside_its_range():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.!+-]+)", line) for line in lines if line and line[0] != "#"]
    assert all(pairs), "every line of constraints.txt is NAME==VERSION"
    pinned = {canonicalize_name(pair[1]): pair[2] for pair in pairs}
    assert len(pinned) == len(pairs)
    entries = [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]
    required = [r for r in map(Requirement, entries) if r.name != PROJECT["name"]]
    outside = [str(r) for r in required if not r.specifier.contains(pinned.get(canonicalize_name(r.name), "0"))]
    assert required and outside == []


LIGHT = f"""
import json, random, sys, numpy, torch
state = lambda: (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
                 torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
before = state()
import {', '.join(f'ebwm.{name}' for name in CORE)}
from ebwm import {', '.join(ebwm.EXPORTS)}
heavy = [name for name in {HEAVY} if name in sys.modules]
import ebwm.settings, ebwm.data.video, ebwm.training.trainer, ebwm.figures, ebwm.cli
print(json.dumps([heavy, before == state()]))
"""


def test_the_core_imports_nothing_heavy_and_imports_change_no_global_state():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], True]


# The Makefile

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    of_the_outer_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "SCALE", "ONLY", "PROFILE")
    environment = {name: value for name, value in os.environ.items() if name not in of_the_outer_make}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@needs_make
def test_make_lists_every_command(tmp_path):
    targets = re.search(r"\.PHONY: (.+)", (ROOT / "Makefile").read_text(encoding="utf-8"))[1].split()
    listed = re.findall(r"^  make (\w+) +\S", make(tmp_path).stdout, re.MULTILINE)
    assert listed == targets


@needs_make
def test_an_old_python_is_refused_before_anything_is_made(tmp_path):
    (old := tmp_path / "python-old").write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = make(tmp_path, "export", f"PYTHON={old}")
    assert result.returncode != 0 and "3.11 or newer" in result.stdout and not (tmp_path / ".venv").exists()


@needs_make
@pytest.mark.parametrize("arguments, command", [
    ([], "ebwm figures run --headline"),
    (["SCALE=smoke"], "ebwm figures run --headline --scale smoke"),
    (["ONLY=one,two", "SCALE=cpu"], "ebwm figures run one two --scale cpu"),
    (["ONLY=all", "PROFILE=profiles/slurm"], "ebwm figures run --all --profile profiles/slurm"),
])
def test_make_figures_passes_its_variables(tmp_path, arguments, command):
    printed = make(tmp_path, "-n", "figures", *arguments).stdout
    assert printed.strip().endswith(command)
