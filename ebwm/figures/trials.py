"""Trials of a setting: the best one, and whether it is at an end of the values tried."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ebwm.figures.errors import FigureError

__all__ = ["BEYOND", "GRID", "KEYS", "MEASURED", "TUNING", "best", "beyond", "by_kind", "values_of"]

TUNING, BEYOND = "tuning.json", "beyond.json"  # files of trials, and of further ones beyond the ends of their grids
KEYS = ("model", "recipe", "start", "way")  # names under which trials have their kind
MEASURED = ("valid_loss", "seconds")  # entries of a trial that are no settings
GRID = 3  # fewest values of a setting that have an end: two are a choice


def best(
    trials: Iterable[Mapping[str, Any]],  # at least one with a loss
) -> Mapping[str, Any]:
    """The trial with the lowest validation loss; trials whose training diverged have none."""
    ended = [row for row in trials if row["valid_loss"] is not None]
    if not ended:
        raise FigureError("all trials diverged; try lower values")
    return min(ended, key=lambda row: row["valid_loss"])


def by_kind(
    trials: Iterable[Mapping[str, Any]],  # each with its kind
    key: str | None = None,  # name of the entry with the kind; None: the one of KEYS that it has
) -> dict[str, list[dict[str, Any]]]:  # without the entry with the kind
    """The trials of each kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in trials:
        name = key or next(name for name in KEYS if name in row)
        found.setdefault(row[name], []).append({entry: value for entry, value in row.items() if entry != name})
    return found


def beyond(
    trials: Sequence[Mapping[str, Any]],  # of one kind
) -> dict[str, float]:
    """The settings whose best value is the smallest or the largest one tried, and the next value in that direction."""
    chosen, found = best(trials), {}
    for name, value in sorted(chosen.items()):
        tried = values_of(trials, name)
        if len(tried) >= GRID and value in (tried[0], tried[-1]):
            other = tried[1] if value == tried[0] else tried[-2]
            found[name] = float(f"{value ** 2 / other:.12g}")
    return found


def values_of(
    trials: Iterable[Mapping[str, Any]],  # of one kind
    name: str,  # a setting
) -> list[float]:  # in order; empty if they are no positive numbers
    """The values of a setting that were tried."""
    if name in MEASURED:
        return []
    return sorted({row[name] for row in trials if isinstance(row.get(name), int | float) and row[name] > 0})
