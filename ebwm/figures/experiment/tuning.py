"""Searches over the settings of a figure: trials of one setting after another, and the file tuning.json."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebwm import checks
from ebwm.figures.errors import FigureError
from ebwm.figures.trials import MEASURED, best, beyond
from ebwm.files import write_json

__all__ = ["SEED", "Search", "Times", "make_trials", "search", "times", "trials_beyond", "write_trials"]

SEED = 100  # seed of the trials; no comparison uses it

Score = Callable[..., float]  # (kind, seed, **settings) -> validation loss


@dataclass(frozen=True)
class Times:
    """A value of a setting relative to the best one so far."""

    factor: float


times = Times


@dataclass(frozen=True)
class Search:
    """Values of one setting after another, each tried with the best values of the others so far."""

    stages: tuple[tuple[str, tuple[Any, ...]], ...]
    first: dict[str, Any]


def search(
    *stages: tuple[str, Iterable[Any]],  # name of a setting, and its values; `times(x)` is relative to the best one
    **first: Any,  # settings that a later stage tries, before that stage
) -> Search:
    """Declare a search."""
    return Search(tuple((name, tuple(values)) for name, values in stages), first)


def make_trials(
    searched: Search,  # the values
    score: Callable[..., float],  # called with the settings by name
    report: Callable[[dict[str, Any]], Any] = print,  # receives each trial
) -> list[dict[str, Any]]:  # settings, `valid_loss` and `seconds` of each trial
    """Make the trials of one search."""
    rows: list[dict[str, Any]] = []
    settings = dict(searched.first)
    for name, values in searched.stages:
        base = None
        for value in values:
            if isinstance(value, Times):
                base = best(rows)[name] if base is None else base
                value = float(f"{base * value.factor:.12g}")
            chosen = settings | {name: value}
            if not any(chosen.items() <= row.items() for row in rows):
                rows.append(chosen | _scored(score, chosen))
                report(rows[-1])
        settings[name] = best(rows)[name]
    return rows


def trials_beyond(
    trials: Sequence[Mapping[str, Any]],  # of one kind
    score: Callable[..., float],  # called with the settings by name
    report: Callable[[dict[str, Any]], Any] = print,  # receives each trial
) -> list[dict[str, Any]]:  # trials with an entry `beyond`: the name of the setting that is changed; "": none
    """Repeat the best trial, and try the next value of each setting whose best value is at an end of those tried.

    The best trial is repeated for a comparison within one version of the code. No trials if nothing is at an end.
    """
    chosen = {name: value for name, value in best(trials).items() if name not in MEASURED}
    further, rows = beyond(trials), []
    for name, value in {"": None, **further}.items() if further else ():
        settings = chosen | ({name: value} if name else {})
        rows.append({**settings, "beyond": name, **_scored(score, settings)})
        report(rows[-1])
    return rows


def _scored(score: Callable[..., float], settings: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        loss = float(score(**settings))
    except FloatingPointError:
        loss = None
    return {"valid_loss": loss, "seconds": round(time.perf_counter() - started, 1)}


def write_trials(
    path: Path,  # tuning.json of a figure
    trials: Mapping[str, list[dict[str, Any]]],  # of each kind
    settings: Mapping[str, Any],  # parameters that all trials share
    key: str = "model",  # name of the kind in a trial
    **more: Any,  # further entries of the file
) -> dict[str, Any]:
    """Write the trials of all kinds, the best of each, and their cost."""
    if not trials:
        raise checks.refusal("searches", {}, "must name at least one kind", error=FigureError)
    rows = {kind: [{key: kind, **row} for row in made] for kind, made in trials.items()}
    content = {
        "seed": SEED, **more, "settings": dict(settings),
        "trials": [row for made in rows.values() for row in made],
        "chosen": {kind: best(made) for kind, made in rows.items()},
        "seconds": round(sum(row["seconds"] for made in rows.values() for row in made), 1),
    }
    write_json(path, content)
    return content
