"""What all tests share: generators, tiny models, and where real data lies if there is any."""

import os
import sys
from functools import partial
from pathlib import Path

import matplotlib
import pytest
import shapes
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported

shapes.check()

import lab  # noqa: E402
from tiny_figure import write_project  # noqa: E402

from tests import helpers  # noqa: E402

matplotlib.use("agg")


@pytest.fixture
def make_model():
    """Make a tiny EBT in float64 with weights fixed by a seed."""
    return partial(helpers.ebt, 16, step_size=1.0)


@pytest.fixture
def draw():
    """Draw float64 tensors from named streams."""
    return helpers.draw


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project with one figure, as the working folder, with no settings from the environment."""
    for name in [name for name in os.environ if name.startswith("EBWM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(write_project(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder that keeps the clips of tiny runs."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def runs(tmp_path, clips, monkeypatch):
    """A folder for tiny runs, here and in processes of their own."""
    for name, value in {"CACHE": clips, "RUNS": tmp_path / "runs", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"EBWM_{name}", str(value))
    return tmp_path / "runs"


@pytest.fixture
def real_data():
    """The folder of real clips and texts that EBWM_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("EBWM_TEST_DATA")
    if not folder:
        pytest.skip("EBWM_TEST_DATA is not set: no real data to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def official():
    """The models of the checkout of OFFICIAL_EBT; without it the test is skipped."""
    if not os.environ.get("OFFICIAL_EBT"):
        pytest.skip("OFFICIAL_EBT is not set: no checkout of the official code to compare with")
    from benchmarks.official import load

    return load()


@pytest.fixture(scope="module")
def browser():
    """A browser; skips where there is none."""
    reason = "playwright is not installed: pip install 'ebwm[dev]'"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    if not lab.chromium():
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    with api.sync_playwright() as play:
        made = play.chromium.launch(executable_path=lab.chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture(scope="session")
def page_files():
    """A function: runtime and models that a page of an explorer loads, by path; skips if they cannot be made here."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
    import explore_assets

    from ebwm import settings

    def made(folder, models, load):
        cache = settings.load(explore_assets.ROOT).cache
        try:
            runtime = explore_assets.package_files(explore_assets.RUNTIME, cache)
            exported = explore_assets.model_files(models, load, cache)
        except (explore_assets.AssetError, ImportError) as error:
            pytest.skip(str(error))
        return {f"/_static/explore/{name}/{path.name}": path
                for name, paths in (("runtime", runtime), (folder, exported)) for path in paths}

    return made
