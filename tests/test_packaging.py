"""One installation for pip and conda, pinned dependencies, light imports, and the Makefile."""

import importlib.metadata
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
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import ebwm.compat
from ebwm.figures.packages import PINS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = ("energy", "evaluation.statistics", "sampler", "blocks", "attention", "ebt", "baselines", "objective",
        "thinking")
HEAVY = ("matplotlib", "scipy", "pandas", "sklearn", "av", "datasets", "timm", "torchvision", "plotly",
         "papermill", "lightning", "tensorboard", "diffusers")


def test_conda_and_make_install_the_same():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    made = shlex.split(re.search(r"pip install -q --no-compile (.+)", makefile)[1])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    part = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert shlex.split(" ".join(part)) == made == ["-c", "constraints.txt", "-e", ".[dev]"]
    version = next(entry.partition("=")[2] for entry in conda if str(entry).startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_every_place_names_the_same_version():
    version, text = ebwm.__version__, lambda name: (ROOT / name).read_text(encoding="utf-8")
    assert yaml.safe_load(text("CITATION.cff"))["version"] == version
    latest = re.search(r"^## (\S+) - (\S+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert latest.groups() == (version, str(yaml.safe_load(text("CITATION.cff"))["date-released"]))
    assert re.findall(r"^Version ([\d.]+\d)\.", text("README.md"), re.MULTILINE) == [version]


def pinned_versions():
    """The version of each package; every line is NAME==VERSION."""
    lines = [line for name in PINS for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.!+-]+)", line).groups() for line in lines if line and line[0] != "#"]
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs)
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_once_and_inside_its_range():
    pinned = pinned_versions()
    entries = [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]
    required = [r for r in map(Requirement, entries) if r.name != PROJECT["name"]]
    outside = [str(r) for r in required if not r.specifier.contains(pinned.get(canonicalize_name(r.name), "0"))]
    assert required and outside == []


def required(extra):
    """The packages that ebwm with an extra installs, those that they require among them."""
    core = [Requirement(line).name for line in PROJECT["dependencies"]]
    found, waiting = set(), [(name, ()) for name in core + ebwm.compat.extras()[extra]]
    while waiting:
        name, extras = waiting.pop()
        found.add(canonicalize_name(name))
        for line in importlib.metadata.requires(name) or [] if ebwm.compat.installed(name) else []:
            entry = Requirement(line)
            wanted = not entry.marker or any(entry.marker.evaluate({"extra": part}) for part in extras or ("",))
            if wanted and canonicalize_name(entry.name) not in found:
                waiting.append((entry.name, tuple(entry.extras)))
    return found


def test_the_extra_that_a_message_names_installs_the_package():
    modules, named = importlib.metadata.packages_distributions(), set()
    for path in (ROOT / "ebwm").rglob("*.py"):
        named |= set(re.findall(r'require\("(\w+)[\w.]*", "(\w+)"\)', path.read_text(encoding="utf-8")))
    assert ("av", "policy") in named
    for module, extra in sorted(named):
        packages = {canonicalize_name(name) for name in modules.get(module, [module])}
        assert packages & required(extra), f"ebwm[{extra}] does not install {module}"


def test_the_lowest_python_can_install_every_pin():
    """As far as the pinned versions are installed here."""
    pinned, lowest = pinned_versions(), PROJECT["requires-python"].removeprefix(">=")
    found = {canonicalize_name(d.name): d for d in importlib.metadata.distributions()}
    here = [found[name] for name, version in pinned.items()
            if name in found and SpecifierSet(f"=={version}").contains(found[name].version)]
    refused = [d.name for d in here if not SpecifierSet(d.metadata.get("Requires-Python", "")).contains(lowest)]
    assert here and refused == []


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
    of_the_outer_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "SCALE", "ONLY", "PROFILE", "NOTEBOOK")
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
def test_make_lab_opens_a_notebook_without_asking_for_news(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", "jupyter"):
        (path := tmp_path / ".venv/bin" / name).write_text('#!/bin/sh\necho "$@"\n')
        path.chmod(0o755)
    (tmp_path / ".venv/.ready").touch()
    printed = make(tmp_path, "-o", ".venv/.ready", "lab", "NOTEBOOK=nbs/index.ipynb").stdout
    assert printed.splitlines()[-1] == "lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/nbs/index.ipynb"
    overrides = json.loads((tmp_path / ".venv/share/jupyter/lab/settings/overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


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


def test_the_guide_lists_every_extra():
    guide = (ROOT / "nbs/guides/install.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)) == sorted(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_the_wheel_contains_every_file_of_the_package(tmp_path):
    """Installed elsewhere, with no repository around, it generates text with the included model."""
    copy, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(ROOT / "ebwm", copy / "ebwm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "-q"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EBWM_", "PYTHON"))}
    python = lambda *words, **place: subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True,
                                                    cwd=tmp_path, env=environment | place)
    python("pip", "install", *options, "--target", "installed", str(copy)).check_returncode()
    files = lambda root: {path.relative_to(root) for path in (root / "ebwm").rglob("*") if path.is_file()}
    assert files(installed) == files(copy)
    text = python("ebwm", "generate", "Return a new", "--tokens", "8", PYTHONPATH=str(installed)).stdout
    assert text.startswith("Return a new") and len(text) > 15
    assert {path.name for path in tmp_path.iterdir()} == {"source", "installed"}
