"""Findings: answers of figures, written as templates in the registry and filled with the statistics on record."""

import operator
import re
from dataclasses import dataclass
from typing import Any

from ebwm import settings
from ebwm.figures.errors import FigureError
from ebwm.figures.manifest import load_manifest
from ebwm.figures.notebook import fits
from ebwm.figures.registry import Figure, registry
from ebwm.settings import Settings

__all__ = ["Answer", "answers"]

PLACE = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Answer:
    """A question, and its answer with the numbers on record."""

    figure: Figure  # entry of the registry
    asks: str  # question
    found: str  # answer


def answers(
    config: Settings | None = None,  # default: the settings in effect
) -> list[Answer]:  # in the order of the registry
    """The findings of all figures; raises if the verdict of one no longer follows from the record."""
    config = config or settings.load()
    found = []
    for figure in registry(config).figures.values():
        results = load_manifest(config.figures / figure.id)["results"] if figure.findings else {}
        for finding in figure.findings:
            where = f"figure {figure.id!r}: finding {finding.asks!r}"
            for comparison in finding.holds:
                if not _holds(comparison, results, where):
                    raise FigureError(f"{where}: {comparison!r} does not hold on record; correct the answer")
            text = PLACE.sub(lambda m, w=where, r=results: _shown(_value(m[1], r, w), m[2] or ".4g"), finding.found)
            found.append(Answer(figure, finding.asks, text))
    return found


def _value(path: str, results: Any, where: str) -> Any:
    """The statistic at a path of keys, as in "gain.s2.low"."""
    value = results
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise FigureError(f"{where}: no result {path!r} on record; promote a run that has it, or correct the path")
        value = value[name]
    return value


def _shown(value: Any, digits: str) -> str:
    """A number, or a value with its interval in parentheses."""
    if not isinstance(value, dict):
        return f"{value:{digits}}"
    middle = value["value"] if "value" in value else value["gain"]
    return f"{middle:{digits}} ({value['low']:{digits}} to {value['high']:{digits}})"


def _holds(comparison: str, results: dict[str, Any], where: str) -> bool:
    """Whether a chain of comparisons of numbers and statistics holds, as in "0 < gain.low <= 1"."""
    first, *rest = re.split(r"\s+(<=|>=|<|>)\s+", comparison)
    values = [_operand(text, results, where) for text in (first, *rest[1::2])]
    return bool(rest) and all(OPERATORS[sign](a, b) for sign, a, b in zip(rest[::2], values, values[1:], strict=False))


def _operand(text: str, results: dict[str, Any], where: str) -> float:
    try:
        return float(text)
    except ValueError:
        value = _value(text, results, where)
    if not fits(value, 0.0):
        raise FigureError(f"{where}: result {text!r} is {value!r}; a comparison needs a number")
    return value
