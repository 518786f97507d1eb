"""Comparison of two runs to the last bit: tables, results and pictures."""

import functools
import json
import operator
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    tolerances: Mapping[str, Any],  # by pattern of FILE.COLUMN or results.PATH
    times: Sequence[str] = (),  # patterns of further measured times
    drawing: bool = True,  # whether the runs differ in code that may draw
    only: Collection[str] | None = None,  # files of the tables to compare, without results and pictures; None: all
) -> dict[str, int]:  # numbers of tables, results and pictures that are the same, and of times not compared
    """Compare two runs to the last bit; the error names the first difference.

    Not compared are measured times, which differ in every run: columns and results, with all below them, that `times`
    names, or that have "seconds" in their name and the tolerance `any`. A picture of a figure with such columns may
    differ, unless the code that may draw differs. Other arrays with the tolerance `any` vary between machines, not
    between two runs on one.
    """
    manifests = old, new = read_manifest(one), read_manifest(other)
    if differing := [name for name in SAME if old.get(name) != new.get(name)]:
        raise FigureError(f"the entry {differing[0]!r} of the manifests differs")
    is_time = functools.partial(_is_time, tolerances=tolerances, times=times)
    chosen = [[name for name in manifest["data"] if only is None or name in only] for manifest in manifests]
    clocked = _check_columns(one, other, is_time, {Path(name).stem for name in chosen[0] + chosen[1]})
    tables = [_tables(folder, names, clocked) for folder, names in zip((one, other), chosen, strict=True)]
    if name := _first_difference(*tables):
        raise FigureError(f"table {name} differs in columns, types or signs of zeros")
    if only is not None:
        return {"tables": len(tables[0]), "results": 0, "pictures": 0, "not_compared": len(clocked)}
    results = [dict(_leaves(manifest["results"])) for manifest in manifests]
    timed = {path for path in results[0].keys() | results[1].keys() if _is_below_time(path, is_time)}
    checked = [{path: value for path, value in by_path.items() if path not in timed} for by_path in results]
    if path := _first_difference(*checked):
        before, now = (textwrap.shorten(by_path.get(path, "none"), 60) for by_path in checked)
        raise FigureError(f"{path} differs: {before} before, {now} now")
    same = [name for name, digest in old["pictures"].items() if new["pictures"].get(name) == digest]
    picture = _first_difference(old["pictures"], new["pictures"])
    if picture and (drawing or not clocked):
        raise FigureError(f"picture {picture} differs")
    return {"tables": len(tables[0]), "results": len(checked[0]), "pictures": len(same),
            "not_compared": len(clocked | timed)}


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first name with different values, or with none on one side; empty if there is no such name."""
    return next((name for name in {**old, **new} if old.get(name) != new.get(name)), "")


def _check_columns(one: Path, other: Path, is_time: Callable[[str], bool], tables: Collection[str]) -> set[str]:
    """Raise if the values of a column differ, except measured times; returns the names of these."""
    rows = [row for row in compare(one, other, {}) if row.array.partition(".")[0] in tables]
    clocked = {row.array for row in rows if is_time(row.array)}
    if drifted := [row for row in rows if row.verdict == "drifted" and row.array not in clocked]:
        raise FigureError(f"column {drifted[0].array} {_difference(drifted[0], one, other)}")
    return clocked


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


def _tables(folder: Path, names: Sequence[str], left_out: set[str]) -> dict[str, tuple[list[str], bytes]]:
    """The names of all columns of each table, and its bytes without some of them."""
    read = require("pandas", "figures").read_parquet
    frames = {Path(name).stem: read(folder / name) for name in names}
    kept = {name: [column for column in frame if f"{name}.{column}" not in left_out] for name, frame in frames.items()}
    return {name: (list(frame), frame[kept[name]].to_parquet(index=False)) for name, frame in frames.items()}


def _leaves(value: Any, path: str = "results") -> Iterator[tuple[str, str]]:
    """The values of nested mappings and of lists of mappings, as JSON, by path."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield path, json.dumps(value)
        return
    for name, below in value.items():
        yield from _leaves(below, f"{path}.{name}")


def _is_below_time(path: str, is_time: Callable[[str], bool]) -> bool:
    """Whether a result, or a mapping that holds it, is a measured time."""
    parts = path.split(".")
    return any(is_time(".".join(parts[:count])) for count in range(2, len(parts) + 1))


def _is_time(name: str, tolerances: Mapping[str, Any], times: Sequence[str]) -> bool:
    """Whether an array or a result is a measured time."""
    if any(fnmatch(name, pattern) for pattern in times):
        return True
    allowed = next((value for pattern, value in reversed(tolerances.items()) if fnmatch(name, pattern)), 0.0)
    return "seconds" in name.rpartition(".")[2] and allowed == ANY
