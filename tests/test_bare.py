"""Figures on a machine without papermill, Jupyter, nbdev and snakemake: notebooks run as scripts, jobs in a queue."""

import json
import os
import subprocess
import sys

import pytest
from script_job import leave_cell
from tiny_figure import FAN_PARAMETERS, NOTEBOOKS, PARAMETERS, code, write_notebook

from ebwm import cli
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


def write_fan(project):
    """Make `fan` a script of two parts, one of which fails until there is a file `mended`."""
    fails = "import os\nassert seeds != [1] or os.path.exists('mended'), 'no such seed'\n"
    cells = [code(FAN_PARAMETERS.replace("[8, 16]", "[8]"), "parameters", id="p"),
             code(fails + leave_cell("[seeds, sizes]"), "parts", id="a"), code(leave_cell("'joined'"), id="j")]
    write_notebook(project / "nbs/figures/fan.ipynb", *cells)


@pytest.mark.slow
def test_figures_are_made_as_scripts_in_a_queue_and_a_failed_part_is_made_alone_for_the_whole(project, bare, capsys):
    write_fan(project)
    write_notebook(project / NOTEBOOKS[0], code(PARAMETERS, "parameters", id="p"), code(leave_cell(), id="l"))
    parts = ["--part", "seeds-0_sizes-8"], ["--part", "seeds-1_sizes-8"]
    alone = bare("run", "fan", *parts[1])
    assert alone.returncode == 1 and not alone.stdout.strip() and "no such seed" in alone.stderr

    done = bare("run", "fan", "tiny", "--cores", "2")
    assert done.returncode == 1 and done.stdout.startswith("tiny: made:") and "fan" not in done.stdout
    lines = done.stderr.splitlines()
    assert any("'fan.seeds-1_sizes-8'" in line and "AssertionError: no such seed" in line for line in lines)
    assert any("'fan' was not run: it needs fan.seeds-1" in line for line in lines)
    run, runs = project / "figures/tiny/runs/smoke", project / "figures/fan/runs"
    assert json.loads((run / "manifest.json").read_text())["parameters"]["effective"]["scale"] == "smoke"
    cells = json.loads((run / "tiny.ipynb").read_text())["cells"]
    (injected,) = [cell for cell in cells if "injected-parameters" in cell["metadata"].get("tags", [])]
    assert "scale = 'smoke'" in injected["source"]
    assert not [*run.glob(".*.py")]

    (project / "mended").touch()
    assert bare("run", "fan", *parts[1]).stdout == "fan: part seeds-1_sizes-8: made\n"
    assert [path.name for path in runs.iterdir()] == ["smoke.parts"]
    for part in parts:
        assert cli.main(["figures", "run", "fan", *part]) == 0
        assert capsys.readouterr().out == f"fan: part {part[1]}: up to date\n"
    assert cli.main(["figures", "run", "fan", "--part", "seeds-2_sizes-8"]) == 2
    assert "part='seeds-2_sizes-8': must be one of seeds-0_sizes-8" in capsys.readouterr().err
    whole = bare("run", "tiny", "fan")
    assert "tiny: up to date: " in whole.stdout and "fan: made: " in whole.stdout, whole.stderr
    assert json.loads((runs / "smoke/manifest.json").read_text())["results"] == {"values": "joined"}
