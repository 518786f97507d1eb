"""Settings: the file, the environment, generators, devices."""

import os
from pathlib import Path

import pytest
import torch

from ebwm import settings
from ebwm.settings import SettingsError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("EBWM_")]:
        monkeypatch.delenv(name)
    (tmp_path / "nbs" / "core").mkdir(parents=True)
    (tmp_path / "settings.ini").write_text("[paths]\ndata = clips\n[figures]\nscale = smoke\nseeds = 3, 4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(text=None):
    """The message with which settings.ini, rewritten if `text` is given, is refused."""
    if text is not None:
        Path("settings.ini").write_text(text)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file_is_found_from_folders_below_it(project):
    found = settings.load(project / "nbs" / "core")
    assert found.root == project and found.data == project / "clips" and found.runs == project / "runs"
    assert found.scale == "smoke" and found.seeds == (3, 4) and found.threads == 0 and found.device == "auto"


def test_defaults_where_there_is_no_file(project, monkeypatch):
    (project / "settings.ini").unlink()
    monkeypatch.chdir(project / "nbs")
    assert settings.load() == settings.Settings(
        root=project / "nbs", data=project / "nbs/data", cache=project / "nbs/data/cache",
        runs=project / "nbs/runs", figures=project / "nbs/figures", notebooks=project / "nbs/nbs")


def test_a_foreign_settings_file_is_passed_over(project):
    (project / "nbs" / "settings.ini").write_text("[other]\nthing = 1\n")
    assert settings.find_root(project / "nbs") == project


def test_environment_overrides_the_file(project, monkeypatch):
    given = {"SCALE": "gpu", "SEEDS": "9", "DATA": "/elsewhere", "THREADS": "2", "DEVICE": "cpu"}
    for name, value in given.items():
        monkeypatch.setenv(f"EBWM_{name}", value)
    found = settings.load()
    assert (found.scale, found.seeds, found.threads, found.device) == ("gpu", (9,), 2, "cpu")
    assert found.data == Path("/elsewhere")


@pytest.mark.parametrize("text, message", [
    ("[figures]\nscale = big\n", "setting 'scale' is 'big'; it must be one of smoke, cpu, gpu"),
    ("[figures]\nseeds =\n", "setting 'seeds' is ''; it must be different whole numbers from 0"),
    ("[figures]\nseeds = 0 -1\n", "setting 'seeds' is '0 -1'"),
    ("[figures]\nseeds = 1 1\n", "setting 'seeds' is '1 1'; it must be different whole numbers"),
    ("[figures]\nscale = cpu\n[compute]\nscale = gpu\n", "entry 'scale' stands in two sections; keep one"),
    ("[figures]\nseeds = 0 one\n", "setting 'seeds' is '0 one'"),
    ("[compute]\nthreads = 1.5\n", "setting 'threads' is '1.5'; it must be a whole number from 0"),
    ("[compute]\ndevice = tpu9\n", "setting 'device' is 'tpu9'; it must be auto, cpu, cuda or cuda:N"),
    ("[figures]\nscael = cpu\n", "settings.ini: unknown entry 'scael'; allowed: cache, data, device"),
    ("scale = cpu\n", "settings.ini: File contains no section headers"),
    ("[figures]\nscale = cpu\nscale = gpu\n", "already exists"),
])
def test_what_is_refused(project, text, message):
    assert message in refusal(text)


def test_environment_is_checked_as_the_file_is(project, monkeypatch):
    monkeypatch.setenv("EBWM_THREADS", "many")
    assert "'threads' is 'many'" in refusal()


def test_the_repositorys_own_file_states_every_setting(monkeypatch):
    for name in [name for name in os.environ if name.startswith("EBWM_")]:
        monkeypatch.delenv(name)
    found = settings.load(ROOT)
    stated = settings._read_file(ROOT / "settings.ini")
    assert stated.keys() == vars(found).keys() - {"root"} and found.root == ROOT


def test_device(project, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert settings.device() == torch.device("cpu") == settings.device("auto")
    with pytest.raises(SettingsError, match="'device' is 'cuda:1', but torch finds no GPU here"):
        settings.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert settings.device("auto") == torch.device("cuda")


def test_generators_repeat_and_their_streams_differ():
    def draw(*name):
        return tuple(torch.randint(2**31, (4,), generator=settings.generator(*name)).tolist())

    assert draw(0, "data") == draw(0, "data")
    names = [(seed, stream) for seed in range(20) for stream in ("", "data", "dataset", "weights", "noise")]
    assert len({draw(*name) for name in names}) == len(names)


def test_generators_leave_the_global_one_alone():
    before = torch.random.get_rng_state()
    settings.generator(5, "noise")
    assert torch.equal(before, torch.random.get_rng_state())
