"""Draw the pictures of a record again from its own tables, without a new run of the figure's parts."""

import dataclasses
import functools
import operator
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebwm.compat import require
from ebwm.figures.errors import FigureError
from ebwm.figures.identical import identical
from ebwm.figures.job import run_job
from ebwm.figures.ledger import replace_record
from ebwm.figures.manifest import MANIFEST, files_of, read_manifest, sealed
from ebwm.figures.notebook import parameter_defaults
from ebwm.figures.plan import Job, jobs_of, plan
from ebwm.files import sha256, write_json
from ebwm.settings import Settings

__all__ = ["redraw"]

COSTS = ("key", "seconds", "peak_memory_mib")  # entries of a manifest that describe the cost of a part


def redraw(
    id: str,  # a figure with a record
    manifest: dict[str, Any],  # new manifest of the record: the inputs of the present commit, the old pictures
    config: Settings,  # settings in effect
) -> None:
    """Replace the pictures and the manifest of a record.

    The notebook is executed with the tables of its parts from the record, where a run joins those of its jobs. Raises if
    a table or a result differs from the record in one bit: then more than the drawing has changed.
    """
    record = config.figures / id
    with tempfile.TemporaryDirectory(prefix="ebwm-redraw-") as place:
        drawn = run_job(_job(id, manifest, record, Path(place)))
        identical(record, drawn, {}, pictures=False)
        new = manifest | {"pictures": read_manifest(drawn)["pictures"]}
        for name in manifest["data"]:
            shutil.copyfile(record / name, drawn / name)
        write_json(drawn / MANIFEST, sealed(new))
        replace_record(drawn, record, files_of(new))


def _job(id: str, manifest: dict[str, Any], record: Path, place: Path) -> Job:
    """The job that joins the parts of a figure; these are written from the record."""
    planned = plan(id, manifest["scale"])
    *parts, whole = jobs_of(planned)
    if whole.inputs != manifest["inputs"]:
        raise FigureError("the running ebwm is not that of the present commit")
    each = planned.figure.each
    if not each:
        raise FigureError("the figure has no parts whose tables are on record")
    defaults = parameter_defaults(planned.figure.notebook)
    made = [_part(job, defaults | job.parameters, each, manifest, record, place / f"part-{number}")
            for number, job in enumerate(parts or [whole])]
    return dataclasses.replace(whole, folder=str(place / "drawn"), each=each, parts=tuple(made), needs=(),
                               threads=manifest["threads"] or whole.threads)


def _part(
    job: Job, effective: dict[str, Any], each: Sequence[str], manifest: dict[str, Any], record: Path, folder: Path
) -> str:
    """Write the rows of one job's item as the result of that job; returns the folder."""
    folder.mkdir(parents=True)
    item = {name: effective[name][0] for name in each}
    names = [name for name in manifest["data"] if _write_rows(record / name, item, folder / name)]
    cost = next((part for part in manifest["parts"] if part["part"] == Path(job.folder).name), manifest)
    content = {"scale": manifest["scale"], "seeds": manifest["seeds"], "results": {}, "pictures": {},
               "data": {name: sha256(folder / name) for name in names}, "parameters": {"effective": effective}}
    write_json(folder / MANIFEST, sealed(content | {name: cost[name] for name in COSTS}))
    return str(folder)


def _write_rows(table: Path, item: dict[str, Any], place: Path) -> bool:
    """Write the rows of an item; False for a table without the columns of an item, which is not one of the parts."""
    frame = require("pandas", "figures").read_parquet(table)
    if not item.keys() <= set(frame):
        return False
    same = [frame[name] == value for name, value in item.items()]
    frame[functools.reduce(operator.and_, same)].to_parquet(place, index=False)
    return True
