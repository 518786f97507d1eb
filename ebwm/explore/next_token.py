"""The next token after a context: walks of an EBT of text step by step, and the prediction of a Transformer."""

import functools
import math
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import between, instance, refusal, whole
from ..diagnostics import Trace, energy_trace
from ..settings import generator
from ..walk import Walk
from ..writing import INCLUDED, Language, load_language

__all__ = ["EXAMPLES", "MAX_SEED", "MAX_STEPS", "MAX_WALKS", "TEMPERATURES", "Example", "Models", "TokensResult", "TokensSettings", "compute",
           "entropy", "included", "note", "readable", "summary_lines"]

MAX_SEED, MAX_STEPS, MAX_WALKS = 9999, 24, 16
TEMPERATURES = 0.1, 3.0  # smallest and largest
TOP = 10  # tokens that are shown
VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})


class Example(NamedTuple):
    """A context whose next token is known."""

    text: str
    following: str  # text that begins with the true next token
    entropy: float  # bits of the EBT's prediction with the default settings, as measured


EXAMPLES = (  # from easy to hard: by entropy
    Example("Return the number of items in the list. If the argument is not a list, raise a Type", "Error", 0.6),
    Example("Open the file for reading and return a new", " file", 2.4),
    Example("Added in version 3.", "2", 3.9),
    Example("Raises a ValueError if x is", " not", 4.9),
    Example("Create a new", " object", 6.1),
    Example("The weather in the north of the", " country", 8.1),
)


@dataclass(frozen=True)
class TokensSettings:
    """Settings of the tokens explorer."""

    example: int = 1  # number of the built-in context, from 1
    text: str = ""  # own context; empty: that of the example
    steps: int = 2  # number of steps of each walk
    walks: int = 4  # number of walks, of which the one with the lowest final energy is chosen
    step: int = 2  # shown step; 0: the start
    temperature: float = 1.0  # divisor of the logits
    seed: int = 0  # of the starts


class Models(NamedTuple):
    """Two models with the same tokens."""

    ebt: Language
    transformer: Language  # predicts in one pass


class ContextScores(NamedTuple):
    """Scores of each token of the context but the first, given the tokens before it."""

    energy: Float[Tensor, " n"]  # of the token itself
    excess: Float[Tensor, " n"]  # this energy less that of the EBT's prediction, at the end of one walk
    bits: Float[Tensor, " n"]  # -log2 of the EBT's probability of the token
    transformer_bits: Float[Tensor, " n"]  # the same of the Transformer


class TokensResult(NamedTuple):
    """Predictions for the token after a context."""

    settings: TokensSettings
    models: Models
    text: str  # the context
    tokens: list[int]  # of the context that the models see
    dropped: int  # tokens before it
    truth: int | None  # true next token of an example
    logits: Float[Tensor, "places walks vocabulary"]  # from the start to the end of each walk
    energies: Float[Tensor, "places walks"]  # of these candidates
    transformer: Float[Tensor, " vocabulary"]  # the Transformer's logits
    context: ContextScores

    @property
    def chosen(self) -> int:
        """Index of the walk with the lowest final energy."""
        return int(self.energies[-1].argmin())

    @property
    def log_p(self) -> Float[Tensor, "places vocabulary"]:
        """Log-probabilities of the chosen walk from its start to its end, at the temperature."""
        return (self.logits[:, self.chosen] / self.settings.temperature).log_softmax(-1)

    @property
    def transformer_log_p(self) -> Float[Tensor, " vocabulary"]:
        """The Transformer's log-probabilities, at the temperature."""
        return (self.transformer / self.settings.temperature).log_softmax(-1)

    @property
    def entropy(self) -> Float[Tensor, " places"]:
        """Entropy of the chosen walk's distribution in bits."""
        return entropy(self.log_p)

    @property
    def evaluations(self) -> int:
        """Energy evaluations of all walks."""
        return self.energies.numel()

    @property
    def truth_bits(self) -> Float[Tensor, " places"] | None:
        """Bits of the true next token along the chosen walk."""
        return None if self.truth is None else -self.log_p[:, self.truth] / math.log(2)

    def top(
        self,
        count: int = TOP,  # number of tokens
    ) -> Int[Tensor, " count"]:
        """The most likely tokens at the shown step."""
        return self.log_p[self.settings.step].topk(count).indices

    def label(
        self,
        token: int,  # its number
    ) -> str:
        """A token as readable text."""
        return readable(self.models.ebt, token)


def entropy(
    log_p: Float[Tensor, "*items vocabulary"],  # log-probabilities
) -> Float[Tensor, "*items"]:
    """Entropy in bits."""
    return torch.special.entr(log_p.exp()).sum(-1) / math.log(2)


def readable(
    language: Language,  # whose tokenizer made the token
    token: int,  # its number
) -> str:
    """A token with visible spaces and line breaks; many spaces are counted."""
    text = language.tokenizer.decode([token]).translate(VISIBLE)
    return re.sub("␣{3,}", lambda found: f"␣×{len(found[0])}", text) or "(end)"


@functools.cache
def included() -> Models:
    """The models of text in the package."""
    return Models(*(load_language(INCLUDED / name) for name in ("text", "text_transformer")))


# Computation


def _check(settings: TokensSettings) -> None:
    instance("text", settings.text, str, "must be a text")
    for name, low, high in (("example", 1, len(EXAMPLES)), ("steps", 1, MAX_STEPS), ("walks", 1, MAX_WALKS),
                            ("step", 0, settings.steps), ("seed", 0, MAX_SEED)):
        whole(name, getattr(settings, name), low, high)
    between("temperature", settings.temperature, *TEMPERATURES)


def _walk(language: Language, steps: int) -> Walk:
    """The walk of inference with another number of steps."""
    return replace(language.walk()["walk"], steps=steps)


def _walks(model: Any, context: Tensor, walk: Walk, settings: TokensSettings) -> tuple[Tensor, Tensor]:
    """Logits [places walks vocabulary] and energies [places walks] after a context [1 s], as in generation."""
    recent = model.encode(context[:, -1:])[0].expand(settings.walks, -1)
    starts = walk.initial(recent, generator(settings.seed, "generation/starts"))[:, None, None]
    landscape, trace = model.cache(1, context.shape[1]).append(context).last(), Trace()
    result = walk.run(model, landscape.expand(settings.walks), starts, callback=trace)
    return torch.cat([starts[None], trace.places])[:, :, 0, 0], energy_trace(result)[:, :, 0, 0]


def _context_scores(models: Models, context: Tensor, walk: Walk, seed: int) -> tuple[ContextScores, Tensor]:
    """Scores of the tokens of a context [1 s], and the Transformer's logits for the one after it."""
    model, targets, other = models.ebt.model, context[:, 1:], models.transformer.model(context)
    bits = lambda logits: torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="none") / math.log(2)
    landscape, truths = model.landscape(context[:, :-1]), model.encode(targets)
    start = walk.initial(truths, generator(seed, "explore/context"))
    end = walk.run(model, landscape, start).state
    energy = landscape(truths)[0]
    return ContextScores(energy, energy - end.energy[0], bits(end.y), bits(other[:, :-1])), other[0, -1]


@torch.no_grad()
def compute(
    settings: TokensSettings,  # context and walks
    models: Models | None = None,  # None: the included ones
) -> TokensResult:
    """Predict the token after a context; equal settings give equal results."""
    _check(settings)
    models, example = models or included(), EXAMPLES[settings.example - 1]
    text, window = settings.text or example.text, models.ebt.config.data.length
    tokens = models.ebt.prompt(text)
    if len(tokens) < 2:
        raise refusal("text", text, "must have at least one token", "write some words")
    seen = tokens[-window:]
    truth = None if settings.text else _next(tokens, models.ebt.prompt(example.text + example.following))
    context, walk = torch.tensor([seen]), _walk(models.ebt, settings.steps)
    scores, transformer = _context_scores(models, context, walk, settings.seed)
    logits, energies = _walks(models.ebt.model, context, walk, settings)
    return TokensResult(settings, models, text, seen, len(tokens) - len(seen), truth, logits, energies, transformer,
                        scores)


def _next(tokens: list[int], whole: list[int]) -> int | None:
    """The token that follows; None if a tokenizer divides the whole text in another way."""
    return whole[len(tokens)] if len(whole) > len(tokens) and whole[: len(tokens)] == tokens else None


# Summary


def _arrow(values: Tensor) -> str:
    """First and last of some values."""
    return f"{float(values[0]):.3g} → {float(values[-1]):.3g}"


def _likely(result: TokensResult, log_p: Tensor) -> str:
    """The most likely token with its probability."""
    return f"{result.label(int(log_p.argmax()))} {float(log_p.max().exp()):.0%}"


def summary_lines(
    result: TokensResult,  # to summarise
) -> dict[str, str]:  # value of each quantity, by name
    """The most likely tokens, energies, entropies, the true next token and costs."""
    settings, log_p, other = result.settings, result.log_p, result.transformer_log_p
    ends = result.energies[-1]
    lines = {f"EBT, after step {settings.step}": _likely(result, log_p[settings.step]),
             "Transformer": _likely(result, other),
             "Energy, start → end": _arrow(result.energies[:, result.chosen]),
             "Final energies of the walks": f"{float(ends.min()):.4g} to {float(ends.max()):.4g}",
             "Entropy in bits, start → end": _arrow(result.entropy),
             "Entropy of the Transformer": f"{float(entropy(other)):.3g}"}
    if result.truth is not None:
        lines |= {"True next token": result.label(result.truth),
                  "Its bits, start → end": _arrow(result.truth_bits),
                  "Its bits by the Transformer": f"{-float(other[result.truth]) / math.log(2):.3g}"}
    return lines | {"Chosen walk": f"{result.chosen + 1} of {settings.walks}",
                    "Energy evaluations": str(result.evaluations)}


def note(
    result: TokensResult,  # to describe
) -> str:
    """What the text is, and what the numbers mean."""
    number, ebt = result.settings.example, result.models.ebt
    about = "Own text" if result.settings.text else (
        f"Example {number} of {len(EXAMPLES)}, from easy to hard: "
        f"entropies are {', '.join(f'{example.entropy:g}' for example in EXAMPLES)} bits")
    cut = f"; its last {len(result.tokens)} tokens are used" if result.dropped else ""
    return f"{about}{cut}. The EBT was trained with {ebt.walk()['walk'].steps} steps."
