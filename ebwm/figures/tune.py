"""Trials of a figure's settings: its notebook is executed up to the cell tagged `tuning`, which makes them."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ebwm.compat import require
from ebwm.figures.batch import signals_as_interrupts
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.execution import execute_cells, kernel_manager
from ebwm.figures.manifest import JOB
from ebwm.figures.notebook import cells_of
from ebwm.figures.plan import plan
from ebwm.figures.trials import BEYOND, TUNING
from ebwm.files import write_json

__all__ = ["TAG", "tune"]

TAG = "tuning"  # of the cell with the declared trials
RECORDED = "cpu"  # scale of the trials on record


def tune(
    id: str,  # a figure whose notebook declares trials
    scale: str | None = None,  # default: that of the trials on record
    overrides: Mapping[str, Any] | None = None,  # parameters by name
    only: Sequence[str] = (),  # kinds to search; the trials of the others on record are kept; default: all
    beyond: bool = False,  # instead try the next value of each setting whose best value is at an end of those tried
) -> Path:  # figures/ID/tuning.json or beyond.json; in figures/ID/runs at another scale or with other parameters
    """Make the trials that a figure's notebook declares, and write them.

    The trials of `beyond` change no record: they tell whether the trials on record went far enough.
    """
    planned = plan(id, scale or RECORDED, overrides)
    notebook, config = planned.figure.notebook, planned.config
    tagged = [place for place, cell in enumerate(cells_of(notebook)) if TAG in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise FigureError(f"{notebook.name} has {len(tagged)} cells tagged {TAG!r}; exactly one must declare trials")
    with signals_as_interrupts(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = BEYOND if beyond else TUNING
        write_json(folder / JOB, {"tune": list(only), "beyond": beyond})
        _execute(notebook, tagged[0] + 1, folder, {**planned.parameters, "out": name}, config.root)
        if not (folder / file).is_file():
            raise FigureError(f"{notebook.name} made no trials; its cell tagged {TAG!r} must call Experiment.tune()")
        recorded = planned.scale == RECORDED and not overrides
        place = config.figures / id / (file if recorded else f"runs/{Path(file).stem}-{planned.scale}.json")
        place.parent.mkdir(parents=True, exist_ok=True)
        if beyond and only and place.is_file():
            _keep_others(folder / file, place)
        shutil.copyfile(folder / file, place)
    return place


def _keep_others(made: Path, place: Path) -> None:
    """Add the trials beyond the ends of other kinds, which are there already."""
    content, earlier = (json.loads(path.read_text(encoding="utf-8")) for path in (made, place))
    write_json(made, content | {"trials": earlier["trials"] | content["trials"]})


def _execute(notebook: Path, count: int, folder: Path, parameters: dict[str, Any], root: Path) -> None:
    papermill = require("papermill", "figures")
    try:
        execute_cells(notebook, count, folder, parameters, root, kernel_manager())
    except papermill.PapermillExecutionError as error:
        raise NotebookError(f"trials of figure {notebook.stem!r} failed: {error.ename}: {error.evalue}") from error
