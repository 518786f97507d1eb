"""Trials of a figure's settings: its notebook is executed up to the cell tagged `tuning`, which makes them."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ebwm.compat import require
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.execution import execute_cells, kernel_manager
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
    tagged = [place for place, cell in enumerate(cells_of(notebook)) if TUNING in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise FigureError(f"{notebook.name} has {len(tagged)} cells tagged {TUNING!r}; exactly one must declare trials")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / JOB, {"tune": list(only)})
        _execute(notebook, tagged[0] + 1, folder, {**planned.parameters, "out": name}, config.root)
        if not (folder / FILE).is_file():
            raise FigureError(f"{notebook.name} made no trials; its cell tagged {TUNING!r} must call Experiment.tune()")
        recorded = planned.scale == RECORDED and not overrides
        place = config.figures / id / (FILE if recorded else f"runs/tuning-{planned.scale}.json")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / FILE, place)
    return place


def _execute(notebook: Path, count: int, folder: Path, parameters: dict[str, Any], root: Path) -> None:
    papermill = require("papermill", "figures")
    try:
        execute_cells(notebook, count, folder, parameters, root, kernel_manager())
    except papermill.PapermillExecutionError as error:
        raise NotebookError(f"trials of figure {notebook.stem!r} failed: {error.ename}: {error.evalue}") from error
