"""Answers of figures, written as templates in the registry and filled with the statistics on record."""

import json
import math
import operator
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ebwm import settings
from ebwm.figures.errors import FigureError
from ebwm.figures.manifest import MANIFEST, load_manifest
from ebwm.figures.notebook import fits
from ebwm.figures.registry import Figure, Finding, Statement, registry
from ebwm.files import write_whole
from ebwm.settings import Settings

__all__ = ["Answer", "answer_cell", "answer_of", "answers", "contradicted", "opening", "result_at", "stated", "with_numbers",
           "with_run", "write_answer"]

PLACE = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
MARK = "**Answer.** "  # begins the last paragraphs of a notebook's opening cell
WIDTH = 120  # of its lines


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
        for finding in figure.findings:
            statement = finding if finding.found else figure.answer
            text = _filled(statement, figure, config, f"finding {finding.asks!r}")
            found.append(Answer(figure, finding.asks, text.removesuffix(".")))
    return found


def answer_cell(
    figure: Figure,  # entry of the registry, with an answer
    config: Settings,  # settings in effect
) -> str:  # Markdown
    """The answer of a figure, as its notebook shows it; raises if it does not follow from the record."""
    paragraphs = "\n\n".join(filter(None, (figure.answer.found, figure.answer.detail)))
    whole = figure.answer.model_copy(update={"found": MARK + paragraphs})
    return "\n\n".join(map(_wrapped, _filled(whole, figure, config, "answer").split("\n\n")))


def _wrapped(text: str) -> str:
    together = text.replace(" %", "\0%")  # a line that begins with % is a comment in MyST
    return textwrap.fill(together, WIDTH, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def answer_of(
    figure: Figure,  # entry of the registry, with an answer
    results: dict[str, Any],  # of a run
) -> tuple[str, list[str]]:  # sentences, comparisons that do not hold
    """The answer of a figure with the numbers of any run."""
    where = f"figure {figure.id!r}: answer"
    return with_numbers(figure.answer.found, results, where), list(contradicted(figure.answer.holds, results, where))


def stated(
    statement: Statement | Finding,  # sentences of the registry
    figure: Figure,  # the figure with the statistics
    config: Settings,  # settings in effect
    name: str,  # of the statement, for messages
) -> str:
    """Sentences with the numbers on record; raises if one of their comparisons does not hold."""
    return _filled(statement, figure, config, name)


def with_run(
    text: str,  # sentences, in which {run.NAME} stands for a parameter, and {run.A*run.B} for a product
    manifest: dict[str, Any],  # of a record
    where: str,  # place of the text, for messages
) -> str:
    """A description of a run with the parameters and results on record; items of lists are run.NAME.0 to run.NAME.last."""
    results = manifest["results"] | {"run": {name: _indexed(value) for name, value in
                                             manifest["parameters"]["effective"].items()}}

    def show(match: re.Match) -> str:
        values = [result_at(path.strip(), results, where) for path in match[1].split("*")]
        if len(values) > 1 and not all(fits(value, 0.0) for value in values):
            raise FigureError(f"{where}: {match[1]!r} has the factors {values!r}; a product needs numbers")
        return _shown(match[1], values[0] if len(values) == 1 else math.prod(values), match[2] or ".4g", where)

    return PLACE.sub(show, text)


def _indexed(value: Any) -> Any:
    """A list as a dictionary by index, and its last item as "last"."""
    if not isinstance(value, list):
        return value
    items = {str(index): _indexed(item) for index, item in enumerate(value)}
    return items | ({"last": _indexed(value[-1])} if value else {})


def opening(
    figure: Figure,  # entry of the registry
) -> str:  # empty if there is none
    """The answer in a figure's notebook, from its mark to the end of the cell."""
    content = json.loads(figure.notebook.read_text(encoding="utf-8"))
    return next((MARK + source.partition(MARK)[2] for _, source in _marked(content)), "")


def write_answer(
    figure: Figure,  # entry of the registry
    config: Settings,  # settings in effect
) -> bool:  # whether the notebook was changed
    """Write the answer on record into the opening cell of a figure's notebook."""
    if figure.answer is None or opening(figure) == (written := answer_cell(figure, config)):
        return False
    content = json.loads(figure.notebook.read_text(encoding="utf-8"))
    marked = _marked(content)
    if len(marked) != 1:
        raise FigureError(f"{figure.notebook.name} has {len(marked)} cells with {MARK.strip()}; exactly one must have it")
    cell, source = marked[0]
    cell["source"] = (source.partition(MARK)[0] + written).splitlines(keepends=True)
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    write_whole(figure.notebook, lambda draft: draft.write_text(text, encoding="utf-8"))
    return True


def _marked(content: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The cells with an answer, and their sources."""
    cells = [(cell, "".join(cell["source"])) for cell in content["cells"] if cell["cell_type"] == "markdown"]
    return [(cell, source) for cell, source in cells if MARK in source]


def _filled(statement: Statement | Finding, figure: Figure, config: Settings, name: str) -> str:
    """The sentences with the numbers on record, if all comparisons hold."""
    results, where = _results(statement, figure, config), f"figure {figure.id!r}: {name}"
    for comparison in contradicted(statement.holds, results, where):
        raise FigureError(f"{where}: {comparison!r} does not hold on record; correct figures.yaml, then run: make readme")
    return with_numbers(statement.found, results, where)


def _results(statement: Statement | Finding, figure: Figure, config: Settings) -> dict[str, Any]:
    """The results of a figure on record, and under their ids those of further figures with which paths of the sentences
    begin."""
    results = load_manifest(config.figures / figure.id)["results"]
    heads = {match[1].partition(".")[0] for match in PLACE.finditer(statement.found)}
    heads |= {word.partition(".")[0] for comparison in statement.holds for word in comparison.split()}
    others = {head for head in heads - results.keys() if (config.figures / head / MANIFEST).is_file()}
    return results | {head: load_manifest(config.figures / head)["results"] for head in others}


def contradicted(
    comparisons: Sequence[str],  # of statistics, as in "gain.low > 0"
    results: dict[str, Any],  # of a run
    where: str,  # place of the comparisons, for messages
) -> Iterator[str]:
    """The comparisons that do not hold."""
    return (comparison for comparison in comparisons if not _holds(comparison, results, where))


def with_numbers(
    text: str,  # sentences, in which {path} stands for a statistic
    results: dict[str, Any],  # of a run
    where: str,  # place of the text, for messages
) -> str:
    """Sentences with the numbers of a run."""
    return PLACE.sub(lambda match: _shown(match[1], result_at(match[1], results, where), match[2] or ".4g", where), text)


def result_at(
    path: str,  # keys with dots between them, as in "gain.s2.low"; a key may have dots itself
    results: Any,  # of a run
    where: str,  # place of the path, for messages
) -> Any:
    """The statistic at a path."""
    try:
        return _at(results, path.split("."))
    except KeyError:
        raise FigureError(f"{where}: no result {path!r} on record; promote a run that has it, or correct the path") from None


def _at(value: Any, names: Sequence[str]) -> Any:
    """The value at nested keys, which may contain dots, as in "law.0.4.variance"."""
    if not names:
        return value
    for count in range(1, len(names) + 1 if isinstance(value, dict) else 1):
        if ".".join(names[:count]) in value:
            return _at(value[".".join(names[:count])], names[count:])
    raise KeyError(".".join(names))


def _shown(path: str, value: Any, digits: str, where: str) -> str:
    """A number, or a value with its interval in parentheses."""
    numbers = [value]
    if isinstance(value, dict):
        numbers = [value.get("value", value.get("gain")), value.get("low"), value.get("high")]
    if not all(fits(number, 0.0) for number in numbers):
        raise FigureError(f"{where}: result {path!r} is {value!r}; sentences need numbers")
    middle, *ends = (f"{float(number):z{digits}}" for number in numbers)
    return f"{middle} ({' to '.join(ends)})" if ends else middle


def _holds(comparison: str, results: dict[str, Any], where: str) -> bool:
    """Whether a chain of comparisons of numbers and statistics holds, as in "0 < gain.low <= 1"."""
    first, *rest = re.split(r"\s+(<=|>=|<|>)\s+", comparison)
    values = [_operand(text, results, where) for text in (first, *rest[1::2])]
    return bool(rest) and all(OPERATORS[sign](a, b) for sign, a, b in zip(rest[::2], values, values[1:], strict=False))


def _operand(text: str, results: dict[str, Any], where: str) -> float:
    try:
        return float(text)
    except ValueError:
        value = result_at(text, results, where)
    if not fits(value, 0.0):
        raise FigureError(f"{where}: result {text!r} is {value!r}; a comparison needs a number")
    return value
