"""Trials of a figure's settings: its notebook is executed up to the cell tagged `tuning`, which makes them."""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ebwm.compat import require
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.inputs import PACKAGE
from ebwm.figures.manifest import JOB
from ebwm.figures.notebook import cells_of
from ebwm.figures.plan import plan
from ebwm.files import write_json

__all__ = ["TUNING", "tune"]

TUNING = "tuning"  # tag of the cell with the declared trials
FILE = "tuning.json"
RECORDED = "cpu"  # scale of the trials on record


def tune(
    id: str,  # a figure whose notebook declares trials
    scale: str | None = None,  # default: that of the trials on record
    overrides: Mapping[str, Any] | None = None,  # parameters by name
    only: Sequence[str] = (),  # kinds to search; the trials of the others on record are kept; default: all
) -> Path:  # figures/ID/tuning.json, or a file in figures/ID/runs at another scale or with other parameters
    """Make the trials that a figure's notebook declares, and write them."""
    planned = plan(id, scale or RECORDED, overrides)
    notebook, config = planned.figure.notebook, planned.config
    tagged = [place for place, cell in enumerate(cells_of(notebook)) if TUNING in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise FigureError(f"{notebook.name} has {len(tagged)} cells tagged {TUNING!r}; exactly one must declare trials")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / JOB, {"tune": list(only)})
        _execute(notebook, tagged[0] + 1, {**planned.parameters, "out": name}, config.root, folder)
        if not (folder / FILE).is_file():
            raise FigureError(f"{notebook.name} made no trials; its cell tagged {TUNING!r} must call Experiment.tune()")
        recorded = planned.scale == RECORDED and not overrides
        place = config.figures / id / (FILE if recorded else f"runs/tuning-{planned.scale}.json")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / FILE, place)
    return place


def _execute(notebook: Path, count: int, parameters: dict[str, Any], root: Path, folder: Path) -> None:
    """Run the first cells of a notebook; their output goes to stderr."""
    papermill, nbformat = require("papermill", "figures"), require("nbformat", "figures")
    content = nbformat.read(notebook, as_version=4)
    content.cells = content.cells[:count]
    options = dict(kernel_name="python3", kernel_manager_class=_kernel_manager(), cwd=root, progress_bar=False,
                   stdout_file=sys.stderr, stderr_file=sys.stderr)
    try:
        papermill.execute_notebook(content, folder / notebook.name, parameters=parameters, **options)
    except papermill.PapermillExecutionError as error:
        raise NotebookError(f"trials of figure {notebook.stem!r} failed: {error.ename}: {error.evalue}") from error


def _kernel_manager() -> type:
    """A kernel of the running interpreter that imports this ebwm."""
    client, kernel = require("jupyter_client", "figures"), require("ipykernel.kernelspec", "figures")
    spec = client.kernelspec.KernelSpec(**kernel.get_kernel_dict())
    spec.argv = [sys.executable, *spec.argv[1:]]
    path = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    spec.env = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    return type("KernelManager", (client.AsyncKernelManager,), {"kernel_spec": spec})
