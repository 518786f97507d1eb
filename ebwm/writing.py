"""Text generation with trained models: for the command line and for Python."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ebwm.checks import positive, refusal, suggestion
from ebwm.data.tokenizer import Tokenizer
from ebwm.generation import Generated, gathered, generate_tokens, texts_of
from ebwm.saving import FILE
from ebwm.stopping import energy_change
from ebwm.training.configuration import ENERGY_MODELS, Config, ConfigError
from ebwm.training.learner import ModelSettings, load_run

__all__ = ["HEAD", "INCLUDED", "Language", "WritingError", "end_tokens", "find_model", "load_language", "prompts_of",
           "row_of", "sampling_options", "write"]

INCLUDED = Path(__file__).with_name("models")  # folder of the included models


class WritingError(ValueError):
    """Text that cannot be generated; the message names the option, its value and the remedy."""


class Language(NamedTuple):
    """A trained model of tokens with its tokenizer."""

    model: nn.Module
    tokenizer: Tokenizer
    config: Config

    def walk(self) -> dict[str, Any]:  # empty for a model that predicts in one pass
        """Sampling as in training, as arguments of `generate_tokens`."""
        config = self.config
        if config.model.kind not in ENERGY_MODELS:
            return {}
        return {"walk": ModelSettings(config.model, config.walk, config.recipe).make_recipe().inference}

    def prompt(
        self,
        text: str,  # to continue; may be empty for a model that was trained on packed windows
    ) -> list[int]:  # tokens
        """Tokens of a text at the start of a document; packed windows have an end token before it."""
        packed = self.config.data.packing == "packed"
        return [*([self.tokenizer.end] if packed else []), *self.tokenizer.encode(text)]


def load_language(
    folder: Path | str,  # of a finished run on text
) -> Language:
    """Load a trained model of tokens with its tokenizer."""
    try:
        learner, task, config = load_run(folder)
    except ValueError as error:
        cause = error.__cause__
        while isinstance(cause, ValueError):
            cause = cause.__cause__
        if isinstance(cause, ImportError):  # a package that the tokenizer needs
            raise cause from None
        raise
    tokenizer = getattr(task, "tokenizer", None)
    if tokenizer is None:
        rule = f"must hold a model of text; this one was trained on {config.data.kind}"
        raise refusal("model", str(folder), rule, error=ConfigError)
    return Language(learner.model.eval(), tokenizer, config)


def find_model(
    name: str,  # of an included model or of a run, or a folder
    runs: Path,  # folder of runs
    included: Path = INCLUDED,  # folder of the included models
) -> Path:
    """The folder of a model of text."""
    for folder in (Path(name), included / name, runs / name):
        if (folder / FILE).is_file():
            return folder
    known = sorted(path.parent.name for path in included.glob("*/tokenizer.json"))
    rule = f"must be a finished run, a folder with {FILE}, or an included model ({', '.join(known) or 'none'})"
    raise refusal("--model", name, rule, suggestion(name, known) or "train one: ebwm train text", WritingError)


def prompts_of(
    language: Language,  # a model and its tokenizer
    texts: list[str],  # to continue
    times: int = 1,  # continuations of each
) -> list[list[int]]:  # tokens
    """Prompts of texts, each at the start of a document."""
    rows = [language.prompt(text) for text in texts]
    if not all(rows):
        rule = "must not be empty for a model that was trained with data.packing=documents"
        raise refusal("TEXT", "", rule, "give a text to continue", WritingError)
    return [row for row in rows for _ in range(times)]


def end_tokens(
    language: Language,  # a model and its tokenizer
    words: list[str],  # each a single token, such as "."
) -> set[int]:
    """Tokens that end a text: the end token, and those of the words."""
    ends = {language.tokenizer.end}
    for word in words:
        tokens = language.tokenizer.encode(word)
        if len(tokens) != 1:
            parts = ", ".join(repr(language.tokenizer.decode([token])) for token in tokens) or "none"
            raise refusal("--stop", word, f"must be a single token of the model, not {len(tokens)} ({parts})",
                          error=WritingError)
        ends.add(tokens[0])
    return ends


def sampling_options(
    language: Language,  # a model
    given: dict[str, Any],  # steps, samples, adaptive; None: as in training
) -> dict[str, Any]:
    """Sampling of the model, as arguments of `generate_tokens`."""
    given = {name: value for name, value in given.items() if value is not None}
    if given and not language.walk():
        name, value = next(iter(given.items()))
        rule = f"not for a {language.config.model.kind}, which predicts in one pass"
        raise refusal(f"--{name}", value, rule, "omit it, or choose an EBT", WritingError)
    if (tolerance := given.pop("adaptive", None)) is not None:
        positive("--adaptive", tolerance, WritingError)
        given["stop"] = energy_change(tolerance)
    return language.walk() | given


def write(
    language: Language,  # a model and its tokenizer
    prompts: list[list[int]],  # from `prompts_of`
    count: int,  # maximum number of tokens to add to each
    show: bool = False,  # one line for each token, with energy and steps
    **options: Any,  # as for `generate_tokens`
) -> Iterator[str]:  # pieces: a single text as it is generated, several texts one after the other
    """Continue texts, for printing."""
    positions = generate_tokens(language.model, prompts, count, window=language.config.data.length, **options)
    if len(prompts) > 1:
        yield from _several(language, prompts, gathered(positions), show)
        return
    if show:
        yield HEAD
        yield from (row_of(language, _at(position, 0)) for position in positions)
    else:
        yield language.tokenizer.decode(prompts[0])
        yield from (new for new, in texts_of(positions, language.tokenizer))
    yield "\n"


def _at(found: Generated, index: int) -> Generated:
    """One text of several, or one token of a text."""
    return Generated(*(None if part is None else part[index] for part in found))


HEAD = f"{'token':<16}{'bits':>8}{'energy':>12}{'steps':>7}{'energy evaluations':>20}\n"


def row_of(
    language: Language,  # whose tokenizer made the token
    row: Generated,  # one token
) -> str:
    """Line of a token: text, bits, energy, steps and energy evaluations."""
    token = repr(language.tokenizer.decode([int(row.tokens)]))
    if int(row.tokens) == language.tokenizer.end:
        token = "(end)"
    energy = "-" if row.energy is None else f"{float(row.energy):.4f}"
    bits = -float(row.logp) / math.log(2)
    return f"{token:<16}{bits:>8.2f}{energy:>12}{int(row.steps):>7}{int(row.evaluations):>20}\n"


def _several(language: Language, prompts: list[list[int]], found: Generated, show: bool) -> Iterator[str]:
    for number, prompt in enumerate(prompts):
        one = _at(found, number)
        last = int(one.active.sum())  # position of the end token, if there is one
        yield f"== {number + 1}\n"
        if show:
            yield HEAD
            yield from (row_of(language, _at(one, place)) for place in range(min(last + 1, len(one.tokens))))
        else:
            yield language.tokenizer.decode([*prompt, *one.tokens[:last].tolist()]) + "\n"
