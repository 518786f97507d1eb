"""Figures on a machine without papermill, Jupyter, nbdev and snakemake: notebooks run as scripts, jobs in a queue."""

import json
import os
import subprocess
import sys

import pytest
from tiny_figure import FAN_PARAMETERS, code, write_notebook

from ebwm.figures.inputs import PACKAGE

HIDDEN = ("papermill", "ipykernel", "nbformat", "nbclient", "jupyter_client", "nbdev", "execnb", "snakemake")
SITE = f"""
import importlib.metadata, sys
found = importlib.metadata.distributions
importlib.metadata.distributions = lambda **given: iter(()) if given.get("name") in {HIDDEN} else found(**given)

class Hidden:
    def find_spec(self, name, *given):
        if name.partition(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def bare(project):
    """Run `ebwm figures` in the project, in a Python that lacks these packages."""
    (project / "site").mkdir()
    (project / "site/sitecustomize.py").write_text(SITE)
    paths = os.pathsep.join([str(project / "site"), str(PACKAGE.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    run = lambda *words: subprocess.run([sys.executable, "-m", "ebwm", "figures", *words], cwd=project, env=environment,
                                        capture_output=True, text=True)
    with_papermill = subprocess.run([sys.executable, "-c", "import papermill"], env=environment, capture_output=True)
    assert with_papermill.returncode
    return run


FAN = """
import pandas as pd

from ebwm.figures.record import Record

record = Record("fan", globals())
made = record.each(lambda seed, size: {"losses": pd.DataFrame({"loss": [size + seed]})}, seed=seeds, size=sizes)
"""


def write_fan(project, first=""):
    cells = [code(FAN_PARAMETERS, "parameters", id="p"), code(first + FAN, "parts", id="a")]
    join = code('record.close(total=float(made["losses"].loss.sum()))', id="j")
    write_notebook(project / "nbs/figures/fan.ipynb", *cells, join)


@pytest.mark.slow
def test_figures_are_made_as_scripts_in_a_queue(project, bare):
    write_fan(project)
    done = bare("run", "tiny", "fan", "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny: made:") and "fan: made:" in done.stdout
    for name in ("tiny", "fan"):
        run = project / f"figures/{name}/runs/smoke"
        assert json.loads((run / "manifest.json").read_text())["parameters"]["effective"]["scale"] == "smoke"
        cells = json.loads((run / f"{name}.ipynb").read_text())["cells"]
        (injected,) = [cell for cell in cells if "injected-parameters" in cell["metadata"].get("tags", [])]
        assert "scale = 'smoke'" in injected["source"]
        assert not [*run.glob(".*.py")]
    assert "up to date" in bare("run", "tiny", "fan").stdout


@pytest.mark.slow
def test_one_part_is_made_alone_and_kept_for_the_whole(project, bare):
    write_fan(project)
    refused = bare("run", "fan", "--part", "seeds-2_sizes-8")
    assert refused.returncode == 2 and "part='seeds-2_sizes-8': must be one of seeds-0_sizes-8" in refused.stderr
    assert bare("run", "fan", "--part", "seeds-0_sizes-8").stdout == "fan: part seeds-0_sizes-8: made\n"
    runs = project / "figures/fan/runs"
    assert [path.name for path in runs.iterdir()] == ["smoke.parts"]
    assert [path.name for path in (runs / "smoke.parts").iterdir()] == ["seeds-0_sizes-8"]
    assert bare("run", "fan", "--part", "seeds-0_sizes-8").stdout == "fan: part seeds-0_sizes-8: up to date\n"


@pytest.mark.slow
def test_a_failed_script_is_reported_and_other_jobs_go_on(project, bare):
    write_fan(project, "assert seeds != [1], 'no such seed'\n")
    done = bare("run", "fan", "tiny")
    assert done.returncode == 1 and "tiny: made:" in done.stdout
    lines = done.stderr.splitlines()
    assert any("'fan.seeds-1_sizes-8'" in line and "AssertionError: no such seed" in line for line in lines)
    assert any("'fan' was not run: it needs fan.seeds-1" in line for line in lines)
    assert (project / "figures/fan/runs/smoke.parts").is_dir()
    alone = bare("run", "fan", "--part", "seeds-1_sizes-8")
    assert alone.returncode == 1 and not alone.stdout.strip() and "no such seed" in alone.stderr
