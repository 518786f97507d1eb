"""Comparison of two runs to the last bit: tables, results and pictures."""

import json
import operator
import textwrap
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ebwm.compat import require
from ebwm.figures.comparison import Compared, compare
from ebwm.figures.errors import FigureError
from ebwm.figures.manifest import read_manifest
from ebwm.figures.registry import ANY

__all__ = ["identical"]

SAME = ("scale", "seeds", "parameters", "dataset", "threads", "device")  # entries of manifests that must agree


def identical(
    one: Path,  # folder of a run
    other: Path,  # folder of a run with the same parameters
    tolerances: Mapping[str, Any],  # by pattern of FILE.COLUMN or results.PATH; only `any` counts
    drawing: bool = True,  # whether the runs differ in code that may draw
) -> dict[str, int]:  # numbers of tables, results and pictures that are the same, and of arrays and results not compared
    """Compare two runs to the last bit; the error names the first difference.

    Values whose tolerance is `any`, and all values below a result with it, are not compared. A picture of a figure that
    has such arrays may differ, as far as no code that may draw is another.
    """
    manifests = old, new = read_manifest(one), read_manifest(other)
    if differing := [name for name in SAME if old.get(name) != new.get(name)]:
        raise FigureError(f"the entry {differing[0]!r} of the manifests differs")
    free = _check_columns(one, other, tolerances)
    tables = [_tables(folder, manifest, free) for folder, manifest in zip((one, other), manifests, strict=True)]
    if name := _first_difference(*tables):
        raise FigureError(f"table {name} differs in types, order of columns or signs of zeros")
    results = [dict(_leaves(manifest["results"])) for manifest in manifests]
    unsettled = {path for path in results[0].keys() | results[1].keys() if _is_free(path, tolerances)}
    checked = [{path: value for path, value in by_path.items() if path not in unsettled} for by_path in results]
    if path := _first_difference(*checked):
        before, now = (textwrap.shorten(by_path.get(path, "none"), 60) for by_path in checked)
        raise FigureError(f"{path} differs: {before} before, {now} now")
    same = [name for name, digest in old["pictures"].items() if new["pictures"].get(name) == digest]
    picture = _first_difference(old["pictures"], new["pictures"])
    if picture and (drawing or not free):
        raise FigureError(f"picture {picture} differs")
    return {"tables": len(tables[0]), "results": len(checked[0]), "pictures": len(same),
            "not_compared": len(free | unsettled)}


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first name with different values, or with none on one side; empty if there is no such name."""
    return next((name for name in {**old, **new} if old.get(name) != new.get(name)), "")


def _check_columns(one: Path, other: Path, tolerances: Mapping[str, Any]) -> set[str]:
    """Raise if the values of a column differ; returns the columns with the tolerance `any`."""
    rows = compare(one, other, {pattern: value if value == ANY else 0.0 for pattern, value in tolerances.items()})
    if drifted := [row for row in rows if row.verdict == "drifted"]:
        raise FigureError(f"column {drifted[0].array} {_difference(drifted[0], one, other)}")
    return {row.array for row in rows if row.verdict == "not compared"}


def _difference(row: Compared, one: Path, other: Path) -> str:
    """By how much a column differs, in words."""
    if row.difference:
        return f"differs by {row.difference:.2g} of its largest value"
    name, _, column = row.array.partition(".")
    old, new = (_shown(folder / f"{name}.parquet", column) for folder in (one, other))
    if len(old) != len(new):
        return f"has {len(old) or 'no'} rows before, {len(new) or 'none'} now"
    return f"differs in {sum(map(operator.ne, old, new))} of {len(old)} rows"


def _shown(table: Path, column: str) -> list[str]:
    """The values of a column as text; empty if there is no such column."""
    frame = require("pandas", "figures").read_parquet(table) if table.is_file() else {}
    return list(map(repr, frame[column])) if column in frame else []


def _tables(folder: Path, manifest: Mapping[str, Any], free: set[str]) -> dict[str, bytes]:
    """The bytes of each table without some columns."""
    read = require("pandas", "figures").read_parquet
    frames = {Path(name).stem: read(folder / name) for name in manifest["data"]}
    return {name: frame[[column for column in frame if f"{name}.{column}" not in free]].to_parquet(index=False)
            for name, frame in frames.items()}


def _leaves(value: Any, path: str = "results") -> Iterator[tuple[str, str]]:
    """The values of nested mappings and of lists of mappings, as JSON, by path."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield path, json.dumps(value)
        return
    for name, below in value.items():
        yield from _leaves(below, f"{path}.{name}")


def _is_free(path: str, tolerances: Mapping[str, Any]) -> bool:
    """Whether the tolerance of a result, or of a mapping that holds it, is `any`."""
    parts = path.split(".")
    above = [".".join(parts[:count]) for count in range(2, len(parts) + 1)]
    return any(_tolerance(name, tolerances) == ANY for name in above)


def _tolerance(name: str, tolerances: Mapping[str, Any]) -> Any:
    """The tolerance of the last pattern that matches."""
    return next((value for pattern, value in reversed(tolerances.items()) if fnmatch(name, pattern)), 0.0)
