"""Text from a trained model as a person reads it: as it comes, or token by token with energies and steps."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ebwm.generation import Generated, gathered, generate_tokens, texts_of
from ebwm.training.trainer import Language
from ebwm.walk import energy_change

__all__ = ["WritingError", "begun", "ends_of", "find_model", "settings_of", "told", "write"]


class WritingError(ValueError):
    """Text that cannot be written; the message names the option, its value and the remedy."""


def find_model(
    word: str,  # name of a model that comes along, a run's name, or a folder
    shipped: Path,  # folder of the models that come along
    runs: Path,  # folder of runs
) -> Path:
    """The folder of a model of text."""
    for folder in (Path(word), shipped / word, runs / word):
        if (folder / "model.safetensors").is_file():
            return folder
    there = sorted(path.parent.name for path in shipped.glob("*/model.safetensors"))
    has = f"those that come along are {', '.join(there)}" if there else f"none came along in {shipped}"
    raise WritingError(f"model {word!r} is neither a finished run's name nor a folder with model.safetensors; "
                       f"{has}; train one: ebwm train text")


def begun(
    language: Language,  # a model and its tokenizer
    texts: list[str],  # to go on from
    times: int = 1,  # how often from each
) -> list[list[int]]:  # tokens; each stands at the beginning of a document
    """Texts as tokens."""
    rows = [language.begin(text) for text in texts]
    if not all(rows):
        raise WritingError("a text is empty, and this model, trained with data.packing=documents, never saw how one "
                           "begins; give a text to go on from")
    return [row for row in rows for _ in range(times)]


def ends_of(
    language: Language,  # a model and its tokenizer
    words: list[str],  # each a single token, such as "."
) -> set[int]:
    """Tokens at which a text ends: that of the end, and those asked for."""
    ends = {language.tokenizer.end}
    for word in words:
        tokens = language.tokenizer.encode(word)
        if len(tokens) != 1:
            parts = ", ".join(repr(language.tokenizer.decode([token])) for token in tokens) or "none"
            raise WritingError(f"--stop {word!r} is {len(tokens)} tokens of this model ({parts}); give one that is "
                               "a single token")
        ends.add(tokens[0])
    return ends


def settings_of(
    language: Language,  # a model
    asked: dict[str, Any],  # steps, samples, adaptive: what was asked for; None: as in training
) -> dict[str, Any]:
    """How the model is to think, as `generate_tokens` takes it."""
    asked = {name: value for name, value in asked.items() if value is not None}
    if asked and language.config.model.kind != "ebt":
        raise WritingError(f"--{', --'.join(asked)}: a {language.config.model.kind} predicts in one pass and has no energy; "
                           "leave it out, or take an EBT")
    if (tolerance := asked.pop("adaptive", None)) is not None:
        if not tolerance > 0:
            raise WritingError(f"--adaptive is {tolerance}; it must be a change of energy above 0")
        asked["stop"] = energy_change(tolerance)
    return language.thinking() | asked


def write(
    language: Language,  # a model and its tokenizer
    prompts: list[list[int]],  # from `begun`
    count: int,  # tokens to add to each, at most
    show: bool = False,  # a line for each token, with energy and steps
    **settings: Any,  # as for `generate_tokens`
) -> Iterator[str]:  # pieces; one text comes piece by piece, several come whole, one after the other
    """Go on with texts, to be printed."""
    positions = generate_tokens(language.model, prompts, count, window=language.config.data.length, **settings)
    if len(prompts) > 1:
        yield from _several(language, prompts, gathered(positions), show)
        return
    if show:
        yield HEAD
        yield from (told(language, _at(position, 0)) for position in positions)
    else:
        yield language.tokenizer.decode(prompts[0])
        yield from (new for new, in texts_of(positions, language.tokenizer))
    yield "\n"


def _at(found: Generated, index: int) -> Generated:
    """One text of several, or one token of a text."""
    return Generated(*(None if part is None else part[index] for part in found))


HEAD = f"{'token':<16}{'bits':>8}{'energy':>12}{'steps':>7}{'energies asked for':>20}\n"


def told(
    language: Language,  # whose tokenizer made the token
    row: Generated,  # one token
) -> str:
    """A token, how unlikely it was, its energy, the steps of its walk, and what that cost: a line."""
    token = repr(language.tokenizer.decode([int(row.tokens)]))
    if int(row.tokens) == language.tokenizer.end:
        token = "(end)"
    energy = "-" if row.energy is None else f"{float(row.energy):.4f}"
    bits = -float(row.logp) / math.log(2)
    return f"{token:<16}{bits:>8.2f}{energy:>12}{int(row.steps):>7}{int(row.evaluations):>20}\n"


def _several(language: Language, prompts: list[list[int]], found: Generated, show: bool) -> Iterator[str]:
    for number, prompt in enumerate(prompts):
        one = _at(found, number)
        last = int(one.going.sum())  # the position of the end token, if there was one
        yield f"== {number + 1}\n"
        if show:
            yield HEAD
            yield from (told(language, _at(one, place)) for place in range(min(last + 1, len(one.tokens))))
        else:
            yield language.tokenizer.decode([*prompt, *one.tokens[:last].tolist()]) + "\n"
