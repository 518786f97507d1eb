"""Settings: file, environment, generators and devices. Refusals are in refusals/figures.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ebwm
from ebwm import settings
from ebwm.data.task import Rows, Vectors
from ebwm.ebt import EBM
from ebwm.training.configuration import ENERGY_MODELS, ModelConfig
from ebwm.training.learner import LEARNERS, make_learner

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(project):
    """The small project with other settings."""
    (project / "settings.ini").write_text("[paths]\ndata = clips\n[figures]\nscale = smoke\nseeds = 3, 4\n")
    return project


def test_the_file_is_found_from_folders_below_it(project):
    (project / "nbs/settings.ini").write_text("[other]\nthing = 1\n")  # of another program
    found = settings.load(project / "nbs/figures")
    assert found.root == project and found.data == project / "clips" and found.runs == project / "runs"
    assert found.scale == "smoke" and found.seeds == (3, 4) and found.threads == 0 and found.device == "auto"


def test_defaults_without_a_file(project, monkeypatch):
    """Without a file, nothing is cached in the working folder."""
    (project / "settings.ini").unlink()
    monkeypatch.chdir(project / "nbs")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    places = {"linux": "~/.cache", "darwin": "~/Library/Caches", "win32": "~/AppData/Local"}
    for platform, place in places.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert settings.load().cache == Path(place).expanduser() / "ebwm"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(project))
    assert settings.load() == settings.Settings(
        root=project / "nbs", data=project / "nbs/data", cache=project / "ebwm",
        runs=project / "nbs/runs", figures=project / "nbs/figures", notebooks=project / "nbs/nbs")


def test_the_environment_overrides_the_file(project, monkeypatch):
    values = {"SCALE": "gpu", "SEEDS": "9", "DATA": "/elsewhere", "RUNS": "~/runs", "THREADS": "2", "DEVICE": "cpu"}
    for name, value in values.items():
        monkeypatch.setenv(f"EBWM_{name}", value)
    found = settings.load()
    assert (found.scale, found.seeds, found.threads, found.device) == ("gpu", (9,), 2, "cpu")
    assert (found.data, found.runs) == (Path("/elsewhere"), Path.home() / "runs")
    monkeypatch.setenv("EBWM_THREADS", "many")
    with pytest.raises(settings.SettingsError, match="threads='many'"):
        settings.load()
    monkeypatch.setenv("EBWM_RUNS", "~no-such-user/runs")
    with pytest.raises(settings.SettingsError, match="runs='~no-such-user/runs'"):
        settings.load()
    (project / "settings.ini").write_bytes(b"[paths]\ndata = caf\xe9\n")
    with pytest.raises(settings.SettingsError, match=r"settings\.ini"):
        settings.load()


def test_the_file_of_this_repository_states_every_setting(project):
    found = settings.load(ROOT)
    assert settings._read_file(ROOT / "settings.ini").keys() == vars(found).keys() - {"root"}
    assert found.root == ROOT


def test_device(project, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert settings.device() == torch.device("cpu") == settings.device("auto")
    with pytest.raises(settings.SettingsError, match="device='cuda:1'"):
        settings.device("cuda:1")
    monkeypatch.setattr(settings, "_has_gpu_driver", lambda: True)
    assert settings.device_kind() == "cpu", "a driver without a GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for beyond in ("cuda:2", f"cuda:{10**15}"):
        with pytest.raises(settings.SettingsError, match=f"device='{beyond}'"):
            settings.device(beyond)
    assert settings.device("auto") == torch.device("cuda") and settings.device_kind() == "cuda"
    assert settings.device_kind("cpu") == "cpu" and settings.device_kind("cuda:1") == "cuda"
    monkeypatch.setattr(settings, "_has_gpu_driver", lambda: False)
    assert settings.device_kind() == "cpu"


def test_generators_repeat_and_their_streams_differ():
    draw = lambda *name: tuple(torch.randint(2**31, (4,), generator=settings.generator(*name)).tolist())
    before = torch.random.get_rng_state()
    assert draw(0, "data") == draw(0, "data")
    names = [(seed, stream) for seed in range(20) for stream in ("", "data", "dataset", "weights", "noise")]
    assert len({draw(*name) for name in names}) == len(names)
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator must not change"


WITHOUT_TORCH = """
import contextlib, sys
from ebwm.cli import main
def run(commands):
    for words, status in commands.items():
        with contextlib.suppress(SystemExit):
            assert main(words.split()) == status, words
run({"--version": 0, "--help": 0, "figurs": 2, "train --list": 0, "train": 2, "train no": 2, "train smoke seed=-1": 2,
     "train smoke model.dpth=2": 2, "train --resume no": 2, "runs list": 0, "runs show no": 2, "runs compare no": 2})
assert "ebwm.figures" not in sys.modules
run({"figures list": 0, "figures run no": 2})
heavy = {"torch", "numpy", "pandas", "scipy", "papermill", "matplotlib"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_the_command_line_answers_without_torch(project):
    result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True,
                            env={**os.environ, "EBWM_DEVICE": "cpu", "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"ebwm {ebwm.__version__}\n")


def test_models_with_an_energy_are_those_with_a_recipe():
    state = lambda kind: Rows(2, 3, 4) if Rows in kind.states else Vectors(3)
    models = {name: make_learner(ModelConfig(name, 8, 1, 1), state(kind), 0).model for name, kind in LEARNERS.items()}
    assert {name for name, model in models.items() if isinstance(model, EBM)} == set(ENERGY_MODELS)
