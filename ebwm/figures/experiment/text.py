"""What the figures of text share: the task, chosen settings, sets of windows with their losses, and walks of tokens."""

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ebwm.data.ngram import NGram
from ebwm.data.questions import text_windows
from ebwm.data.task import token_errors
from ebwm.data.tasks import Text, TextConfig, load_task
from ebwm.data.text import perplexity
from ebwm.evaluation.statistics import ratio_of_sums, ratio_shares
from ebwm.figures.experiment.runs import Experiment
from ebwm.figures.experiment.tables import crossed
from ebwm.figures.experiment.walks import Walks, initial, library_agreement, traces
from ebwm.objective import StreamedLoss, cross_entropy
from ebwm.sampler import gradient_descent, run
from ebwm.training.configuration import OptimiserConfig, RecipeConfig
from ebwm.training.learner import Learner, position_losses

__all__ = ["HELD_OUT", "S2_TEXT", "WindowSets", "WindowWalks", "chosen_settings", "corrupted", "departures", "entropy",
           "ngram_perplexity", "percent_gain", "provenance", "raw_learner", "text_learner", "text_optimiser", "text_task"]

HELD_OUT = "held-out"
FIELDS = ("source", "tokenizer", "length", "packing", "documents", "held_out", "eval_windows")
SETTINGS = ("tokenizer", "length", "dim", "depth", "heads", "batch", "updates")
S2_TEXT = RecipeConfig("s2", most=3, unroll=1, noise=3.0)  # as in the authors' runs of text


def text_task(
    parameters: Mapping[str, Any],  # of the notebook
    **changes: Any,  # fields of `TextConfig`
) -> Text:
    """The task of a figure's text."""
    given = {name: parameters[name] for name in FIELDS if name in parameters} | changes
    return load_task(TextConfig(**given | {"documents": given.get("documents") or None}))


def provenance(
    task: Text,  # the text
) -> dict[str, Any]:
    """Corpus and tokenizer, for a manifest."""
    pieces = task.tokenizer
    return {"corpus_digest": task.splits["test"].corpus_digest,
            "tokenizer": dict(name=pieces.name, vocabulary=pieces.vocabulary, digest=pieces.digest)}


# Settings


def chosen_settings(
    tuning: Mapping[str, Any],  # content of tuning.json
    kinds: Iterable[str],  # rows
    learning_rate: Mapping[str, float] | None = None,  # instead of the chosen ones
    step_size: Mapping[str, float] | None = None,  # instead of the chosen ones
    embedding_std: Mapping[str, float] | None = None,  # instead of the chosen ones
) -> pd.DataFrame:  # learning_rate, step_size and embedding_std of each kind
    """The best settings of the trials, or those that are given instead."""
    given = {"learning_rate": learning_rate, "step_size": step_size, "embedding_std": embedding_std}
    chosen = pd.DataFrame(tuning["chosen"]).T.reindex(index=list(kinds), columns=list(given)).astype(float)
    chosen = chosen.fillna({"embedding_std": 1.0})
    return chosen.assign(**{name: pd.Series(values, dtype=float) for name, values in given.items() if values})


def departures(
    tuning: Mapping[str, Any],  # content of tuning.json
    parameters: Mapping[str, Any],  # of the notebook
) -> dict[str, dict[str, Any]]:
    """Settings of the figure that differ from those of the trials."""
    trials = tuning["settings"]
    return {name: dict(trials=trials[name], here=parameters[name]) for name in SETTINGS if trials[name] != parameters[name]}


def text_learner(
    experiment: Experiment,  # gives the shape and the number of steps
    task: Text,  # the text
    kind: str,  # "transformer", or an EBT: "s2" learns by that recipe, "paper" has the paper's update
    seed: int,  # fixes the initial weights
    settings: Mapping[str, float],  # step_size of an EBT, and embedding_std
    start: str = "noise",  # initial candidates
    recipe: RecipeConfig = S2_TEXT,  # of the kind "s2"; all others learn by recipe S1
    **model: Any,  # fields of `ModelConfig`
) -> Learner:
    """A model of text."""
    std = float(settings["embedding_std"])
    if kind == "transformer":
        return experiment.learner(kind, task, seed, embedding_std=std, **model)
    walk = experiment.walk(float(settings["step_size"]), start, update="paper" if kind == "paper" else "code")
    return experiment.learner("ebt", task, seed, walk, recipe if kind == "s2" else None, embedding_std=std, **model)


def text_optimiser(
    experiment: Experiment,  # gives the parameters `warmup` and `schedule`
    kind: str,  # S2 has a fixed step size
    learning_rate: float,  # peak
    updates: int | None = None,  # default: the parameter
    **fields: Any,  # of `OptimiserConfig`; None: the default
) -> OptimiserConfig:
    """The settings of a training run on text."""
    given = {name: experiment.parameters.get(name) for name in ("warmup", "schedule")} | fields
    return experiment.optimiser(learning_rate, updates, step_size_multiplier=0.0 if kind == "s2" else 3.0, **given)


# Windows and their losses


def corrupted(
    text: str,  # to change
    share: float,  # of the alphabetic characters
    order: np.random.Generator,  # source of randomness
) -> str:
    """A text with a share of its alphabetic characters replaced by random ones."""
    characters = np.array(list(text))
    changed = np.char.isalpha(characters) & (order.random(len(characters)) < share)
    characters[changed] = order.choice(list(ascii_lowercase), changed.sum())
    return "".join(characters)


def entropy(
    logits: Float[Tensor, "... vocabulary"],  # predictions
) -> Float[Tensor, "..."]:  # nats
    """Entropy of predicted tokens."""
    log = torch.log_softmax(logits, -1)
    return -(log.exp() * log).sum(-1)


def percent_gain(
    interval: Mapping[str, float | None],  # of a difference in nats per token
) -> dict[str, float | None]:  # positive if the perplexity is lower
    """Change of the perplexity in percent."""
    return {name: None if value is None else 100 * (1 - np.exp(-value)) for name, value in interval.items()}


def ngram_perplexity(
    order: int,  # tokens of an n-gram
    tokens: Int[np.ndarray, " n"],  # to count
    windows: Int[Tensor, "windows length"],  # to score, on the CPU
    task: Text,  # the text
) -> dict[str, float]:
    """Perplexity of an interpolated n-gram model."""
    pieces, targets = task.tokenizer, windows[:, 1:]
    model = NGram.fit(tokens, order, pieces.vocabulary)
    nats = torch.from_numpy(-model.log_probabilities(windows.numpy())[:, 1:])
    if task.state.ignore_index is not None:
        nats[targets == task.state.ignore_index] = torch.nan
    return perplexity(nats, pieces.bytes[targets])._asdict()


class WindowSets:
    """Sets of windows of tokens: which targets count, and statistics of losses."""

    def __init__(
        self,
        held_out: Any,  # the test split
        texts: Mapping[str, Sequence[str]],  # further sets
        limit: int,  # windows of the test split
        length: int,  # of a window
        lead: bool = False,  # whether the token that ends texts leads a text
    ):
        self.tokenizer = held_out.tokenizer
        end, encode = self.tokenizer.end, self.tokenizer.encode
        self.windows: dict[str, Tensor] = {HELD_OUT: held_out.whole(limit)}
        self.windows |= {name: text_windows(some, encode, end, length, lead=lead) for name, some in texts.items()}
        filling = {HELD_OUT: held_out.ignore}
        self.counted: dict[str, Bool[np.ndarray, "windows tokens"]] = {
            name: (windows[:, 1:] != filling.get(name, end)).numpy() for name, windows in self.windows.items()}
        self.tokens = {name: counted.sum(1) for name, counted in self.counted.items()}
        self.bytes = {name: (self.tokenizer.bytes[windows[:, 1:]].numpy() * self.counted[name]).sum(1)
                      for name, windows in self.windows.items()}

    def __iter__(self):
        return iter(self.windows)

    def table(self) -> pd.DataFrame:
        """Tokens, bytes and windows of each set."""
        return pd.DataFrame({name: dict(tokens=self.tokens[name].sum(), bytes=self.bytes[name].sum(),
                                        windows=len(self.windows[name])) for name in self}).T

    def nats(
        self,
        learner: Learner,  # to score
        name: str,  # of a set
        seed: int,  # fixes the noise of walks
        device: torch.device,  # of the learner
    ) -> pd.DataFrame:  # sums of losses over the tokens of each window
        """Losses of a model."""
        losses = position_losses(learner, self.windows[name].to(device), seed).cpu().numpy()
        nats = np.where(self.counted[name], losses, 0).sum(1)
        return pd.DataFrame(dict(window=range(len(nats)), nats=nats))

    def by_window(
        self,
        name: str,  # of a set
        values: Mapping[str, Float[np.ndarray, " tokens"]],  # of the tokens that count, in order
    ) -> dict[str, Any]:
        """Sums over the tokens of each window."""
        counted = self.counted[name]
        sums = {key: np.bincount(np.nonzero(counted)[0], part, len(counted)) for key, part in values.items()}
        return dict(window=range(len(counted))) | sums

    def per_token(
        self,
        nats: Float[np.ndarray, "seeds windows"],  # sums of losses
        name: str,  # of the set
    ) -> Float[np.ndarray, "seeds windows"]:
        """Contributions of the windows to the loss of a token; windows may differ in length."""
        return ratio_shares(nats, self.tokens[name])

    def score(
        self,
        nats: Float[np.ndarray, "seeds windows"],  # sums of losses
        name: str,  # of the set
    ) -> dict[str, Any]:
        """Perplexity and bits per byte of the mean over seeds, with standard errors over windows."""
        mean, error = ratio_of_sums(nats.mean(0), self.tokens[name])
        bits, bits_error = ratio_of_sums(nats.mean(0) / np.log(2), self.bytes[name])
        return dict(perplexity=np.exp(mean), error=np.exp(mean) * error, bits_per_byte=bits, bits_error=bits_error,
                    tokens=int(self.tokens[name].sum()), windows=nats.shape[-1])

    def interval(
        self,
        nats: Float[np.ndarray, "seeds windows"],  # sums of losses
        name: str,  # of the set
    ) -> dict[str, float | None]:
        """Loss of a token with its interval over seeds and windows."""
        return crossed(self.per_token(nats, name))


# Walks


class WindowWalks:
    """Walks of the models of one figure from the starts that a seed fixes, on sets of windows."""

    def __init__(
        self,
        experiment: Experiment,  # gives the device and the generators
        sets: WindowSets,  # test windows
        most_steps: int,  # of the longest walks
        portion: int,  # windows at once
    ):
        self.experiment, self.sets, self.most_steps, self.portion = experiment, sets, most_steps, portion

    def of(
        self,
        model: nn.Module,  # an EBT of tokens
        windows: Tensor,  # [b s+1]
        counted: Bool[np.ndarray, "b s"],  # positions that count
        steps: Sequence[int],  # of each sample
        seed: int,  # fixes the starts
    ) -> Walks:
        """Losses of the true tokens and energies of walks in every context; items: the positions that count."""
        generator, last = self.experiment.generator(seed, "walks"), counted.any(0).nonzero()[0].max() + 2
        parts = []
        for part in windows[:, :last].to(self.experiment.device).split(self.portion):
            measure = lambda y, targets=part[:, 1:]: token_errors(y, targets)
            parts.append(traces(model, part[:, :-1], steps, measure, generator))
        losses, energies = (np.concatenate(tables, 2) for tables in zip(*parts, strict=True))
        return Walks(losses, energies).take(counted[:, :losses.shape[-1]])

    def on(
        self,
        model: nn.Module,  # an EBT of tokens
        name: str,  # of a set
        steps: Sequence[int],  # of each sample
        seed: int,  # fixes the starts
        count: int | None = None,  # only the first windows
    ) -> Walks:
        """Walks on a set."""
        return self.of(model, self.sets.windows[name][:count], self.sets.counted[name][:count], steps, seed)

    def agreement(
        self,
        model: nn.Module,  # an EBT of tokens
        name: str,  # of a set
        tolerance: float,  # of the stopping rule
        seed: int,  # fixes the starts
    ) -> float:
        """`library_agreement` on a few windows of a set."""
        few = self.sets.windows[name][:min(self.portion, 8)].to(self.experiment.device)
        walks = self.of(model, few, np.ones(few[:, 1:].shape, dtype=bool), [self.most_steps], seed)
        return library_agreement(model, few[:, :-1], walks, tolerance, self.experiment.generator(seed, "walks"))


def raw_learner(
    learner: Learner,  # an EBT of tokens
    start: str,  # initial candidates
    steps: int,  # of a walk
    ignore_index: int | None,  # target that is not scored
) -> Learner:  # trained by recipe S1: detached steps, the loss of each
    """The same model with its landscape as a function of logits without softmax, and plain gradient descent."""
    model = learner.model

    def descend(landscape: Any, context: Tensor, generator: torch.Generator, **options: Any) -> Any:
        begin = initial(model, context, generator, start)
        return run(landscape, begin, gradient_descent(model.step_size), steps, final_energy=False, **options)

    def loss(context: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        streamed, losses = StreamedLoss(model.landscape(context)), []
        compare = lambda index, state, info: losses.append(
            streamed.add(cross_entropy(state.y, targets, ignore_index) / steps))
        descend(streamed.landscape, context, generator, create_graph=True, callback=compare)
        return streamed.finish(torch.stack(losses).sum())

    predict = lambda context, generator: descend(model.landscape(context), context, generator).state.y
    return Learner(model, loss, predict, errors=learner.errors, ignore_index=ignore_index)
