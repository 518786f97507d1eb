"""Execute the last cells of a figure again with the tables of its parts from the record: no model is trained."""

import dataclasses
import functools
import operator
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebwm.compat import require
from ebwm.figures.errors import FigureError
from ebwm.figures.job import run_job
from ebwm.figures.ledger import replace_record
from ebwm.figures.manifest import MANIFEST, files_of, read_manifest, sealed
from ebwm.figures.notebook import parameter_defaults
from ebwm.figures.plan import Job, jobs_of, plan
from ebwm.files import sha256, write_json
from ebwm.settings import Settings

if TYPE_CHECKING:
    import pandas

__all__ = ["rejoin"]

COSTS = ("key", "seconds", "peak_memory_mib")  # entries of a manifest that describe the cost of a part


def rejoin(
    id: str,  # a figure with a record
    manifest: dict[str, Any],  # new manifest of the record: the inputs of the present commit, the old results
    tables: Mapping[str, Sequence[str]],  # files that the figure's parts write, with the columns that name an item
    config: Settings,  # settings in effect
) -> bool:  # whether a result has changed
    """Replace the results, pictures and joined tables of a record by those that its notebook makes of its parts now."""
    record = config.figures / id
    with tempfile.TemporaryDirectory(prefix="ebwm-rejoin-") as place:
        made = run_job(_job(id, manifest, tables, config, Path(place)))
        found = read_manifest(made)
        new = manifest | {name: found[name] for name in ("results", "pictures", "data", "part_tables")}
        write_json(made / MANIFEST, sealed(new))
        replace_record(made, record, files_of(new))
    return found["results"] != manifest["results"]


def _job(id: str, manifest: dict[str, Any], tables: Mapping[str, Sequence[str]], config: Settings, place: Path) -> Job:
    """The job that joins the parts of a figure; these are written from the record."""
    planned, record = plan(id, manifest["scale"], config=config), config.figures / id
    *parts, whole = jobs_of(planned)
    if whole.inputs != manifest["inputs"]:
        raise FigureError("the running ebwm is not that of the present commit")
    if absent := [name for name in tables if name not in manifest["data"]]:
        raise FigureError(f"the table {absent[0]} of its parts is not on record")
    each, defaults = planned.figure.each, parameter_defaults(planned.figure.notebook)
    read = require("pandas", "figures").read_parquet
    frames = {name: (read(record / name), columns) for name, columns in tables.items()}
    made = [_part(dataclasses.replace(job, each=each), defaults | job.parameters, manifest, frames, place / f"part-{number}")
            for number, job in enumerate(parts or [whole])]
    return dataclasses.replace(whole, folder=str(place / "joined"), each=each, parts=tuple(made), needs=(),
                               threads=manifest["threads"] or whole.threads)


def _part(
    job: Job, effective: dict[str, Any], manifest: dict[str, Any],
    tables: Mapping[str, tuple["pandas.DataFrame", Sequence[str]]], folder: Path,
) -> str:
    """Write the rows of one job's item as the result of that job; returns the folder."""
    folder.mkdir(parents=True)
    for name, (frame, columns) in tables.items():
        same = [frame[column] == effective[listed][0] for column, listed in zip(columns, job.each, strict=True)]
        frame[functools.reduce(operator.and_, same)].to_parquet(folder / name, index=False)
    cost = next((part for part in manifest["parts"] if part["part"] == Path(job.folder).name), manifest)
    content = {"scale": manifest["scale"], "seeds": manifest["seeds"], "results": {}, "pictures": {},
               "data": {name: sha256(folder / name) for name in tables}, "parameters": {"effective": effective}}
    write_json(folder / MANIFEST, sealed(content | {name: cost[name] for name in COSTS}))
    return str(folder)
