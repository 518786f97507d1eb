"""Tasks: what a model predicts, the data it learns from, and how predictions are scored."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ebwm.checks import refusal, sizes
from ebwm.files import write_json
from ebwm.settings import generator

__all__ = ["SPLITS", "Items", "Rows", "Scale", "Sequences", "StateSpec", "Task", "Tokens", "Vectors",
           "by_counts", "chunks", "count", "next_state", "read_task", "save_task", "select", "split_items", "stack", "state_errors",
           "token_errors"]

SPLITS = ("train", "valid", "test")


# What a model predicts


def state_errors(
    prediction: Float[Tensor, "*items state_dim"],  # predicted states
    target: Float[Tensor, "*items state_dim"],  # true states
) -> Float[Tensor, "..."]:  # [*items], mean over the features of each state
    """SmoothL1 error of each predicted state; infinite if the prediction is NaN."""
    errors = F.smooth_l1_loss(prediction, target, reduction="none").mean(-1)
    return errors.masked_fill(errors.isnan(), torch.inf)


def token_errors(
    prediction: Float[Tensor, "b s v"],  # logits
    target: Int[Tensor, "b s"],  # true tokens
    ignore_index: int | None = None,  # token that is not scored
) -> Float[Tensor, "b s"]:  # in nats; NaN where the target is not scored
    """Cross-entropy of each token; infinite if the prediction is NaN."""
    scored = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    errors = F.cross_entropy(prediction.transpose(1, 2), target.where(scored, 0).long(), reduction="none")
    return errors.masked_fill(errors.isnan(), torch.inf).where(scored, torch.nan)


class StateSpec(ABC):
    """Specification of the states that a model predicts: `Vectors`, `Tokens` or `Rows`."""

    ignore_index: ClassVar[int | None] = None  # target that is not scored
    auto_step: ClassVar[str] = "one over the curvature of the initial energy at starts, on a first batch"  # in words

    @staticmethod
    def pair(batch: Any) -> tuple[Any, Tensor]:
        """Context and target of a batch, for data without a task."""
        return next_state(batch)

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Training loss of a model that predicts in one pass: a scalar."""

    @abstractmethod
    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Error of each predicted state."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Arguments of a model's constructor."""


@dataclass(frozen=True)
class Vectors(StateSpec):
    """States that are vectors; contexts may also hold an action for each state."""

    dim: int  # features of a state
    action_dim: int | None = None  # features of an action; None: there are no actions

    def __post_init__(self):
        sizes(dim=self.dim, action_dim=self.action_dim)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(prediction, target)

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        return state_errors(prediction, target)

    def sizes(self) -> dict[str, int]:
        actions = {} if self.action_dim is None else {"action_dim": self.action_dim}
        return {"state_dim": self.dim} | actions


@dataclass(frozen=True)
class Tokens(StateSpec):
    """States that are tokens."""

    vocabulary: int  # number of tokens
    ignore_index: int | None = None  # target that is not scored, such as padding
    auto_step: ClassVar[str] = "with which a step at the targets changes logits by the logarithm of the number of tokens"

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        ignored = -100 if self.ignore_index is None else self.ignore_index
        return F.cross_entropy(prediction.flatten(0, -2), target.flatten().long(), ignore_index=ignored)

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        return token_errors(prediction, target, self.ignore_index)

    def sizes(self) -> dict[str, int]:
        return {"vocabulary": self.vocabulary}


@dataclass(frozen=True)
class Rows(StateSpec):
    """Candidates of several rows that share one energy."""

    rows: int  # rows of a candidate
    dim: int  # features of a row
    context_dim: int  # features of a context row

    @staticmethod
    def pair(batch: Any) -> tuple[Tensor, Tensor]:
        context, target = batch
        return context, target

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(prediction, target)

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        return state_errors(prediction, target).mean(-1)

    def sizes(self) -> dict[str, int]:
        return {"rows": self.rows, "candidate_dim": self.dim, "state_dim": self.context_dim}


# Batches: tensors, or tuples and dictionaries of tensors


def stack(
    items: Sequence[Any],  # tensors, or tuples or dictionaries of tensors, all of one structure
) -> Any:  # the same structure with a batch axis in front
    """Join items to a batch."""
    return tree_map(lambda *parts: torch.stack(parts), *items)


def count(
    batch: Any,  # tensor, or tuple or dictionary of tensors, each [items ...]
) -> int:
    """Number of items of a batch."""
    return len(tree_leaves(batch)[0])


def select(
    batch: Any,  # tensor, or tuple or dictionary of tensors, each [items ...]
    index: int | slice,  # of items
) -> Any:  # the same structure
    """Some items of a batch, or a single item."""
    return tree_map(lambda tensor: tensor[index], batch)


def chunks(
    batch: Any,  # tensor, or tuple or dictionary of tensors, each [items ...]
    size: int,  # items of a chunk; the last may have fewer
) -> list[Any]:  # batches
    """Split a batch along its items."""
    return [select(batch, slice(start, start + size)) for start in range(0, count(batch), size)]


def next_state(
    batch: Tensor | Sequence[Tensor],  # sequences [b s ...], or (states, actions) with one action for each state
) -> tuple[Any, Tensor]:  # context: all but the last state, with actions if there are any; target: all but the first
    """Pair each state of a sequence with the states before it."""
    if isinstance(batch, Tensor):
        return batch[:, :-1], batch[:, 1:]
    states, actions = batch
    return (states[:, :-1], actions[:, :-1]), states[:, 1:]


def spread_items(
    split: torch.utils.data.Dataset,  # to take items of
    limit: int | None,  # largest number of items; None: all
) -> Any:  # batch
    """Evenly spaced items of a data set, which stand for all of it, also if their order matters."""
    count = len(split) if limit is None else min(limit, len(split))
    return torch.utils.data.default_collate([split[n * len(split) // count] for n in range(count)])


class Items(torch.utils.data.Dataset):
    """A data set in memory: a tensor with an item axis, or a tuple of such tensors."""

    def __init__(
        self,
        tensors: Tensor | tuple[Tensor, ...],  # each [items ...]
    ):
        self.tensors = tensors

    def __len__(self) -> int:
        return count(self.tensors)

    def __getitem__(self, index: int) -> Any:
        return select(self.tensors, index)

    def whole(
        self,
        limit: int | None = None,  # number of items from the start; None: all
    ) -> Any:  # [items ...]
        """All items in their order, for evaluation."""
        return select(self.tensors, slice(limit))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shapes, types and values."""
        digest = hashlib.sha256()
        for tensor in tree_leaves(self.tensors):
            digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy())
        return digest.hexdigest()


# Tasks


class Task(ABC):
    """Data of one modality, and how the training loop uses it."""

    in_memory: ClassVar[bool] = False  # whether `load` accepts tensors
    usage: ClassVar[Callable[[Path], str]] = staticmethod(lambda folder: "")  # hint for a finished run
    scales: Mapping[str, "Scale"] = MappingProxyType({})  # standardisation of each array; empty: none

    def __init__(
        self,
        config: Any,  # the section `data` of a configuration
        state: StateSpec,  # what a model predicts
        splits: dict[str, torch.utils.data.Dataset] | None = None,  # "train", "valid", "test"; empty at inference
    ):
        self.config, self.state, self.splits = config, state, splits or {}

    @classmethod
    @abstractmethod
    def load(cls, config: Any, seed: int = 0, data: Any = None) -> "Task":
        """Read or make the data; `data` replaces the source of the configuration."""

    @classmethod
    @abstractmethod
    def restore(cls, config: Any, folder: Path, tensors: dict[str, Tensor]) -> "Task":
        """The task of a finished run, without data, from its folder and its weights."""

    @staticmethod
    @abstractmethod
    def pair(batch: Any) -> tuple[Any, Tensor]:
        """Context and target of a batch; a context is a tensor or a tuple (states, actions)."""

    def errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Error of each predicted state."""
        return self.state.errors(prediction, target)

    def items(self, split: str) -> Any:
        """The items of a split that are scored."""
        return self.splits[split].whole(self.config.scored)

    def digests(self) -> dict[str, str]:
        """SHA-256 of each split, and of the standardisation, by which a resumed run recognises its data."""
        scales = {f"standardisation of {name}": scale.digest for name, scale in self.scales.items()}
        return {name: split.digest for name, split in self.splits.items()} | scales

    def summary(self, errors: Tensor, target: Tensor) -> dict[str, Any]:
        """Scores of a test set, by name."""
        return {"smooth_l1": float(errors.nanmean())}

    @staticmethod
    def describe(summary: dict[str, Any]) -> str:
        """Scores in words, if there is more to say than the loss."""
        return ""

    def shown(
        self,
        count: int = 64,  # maximum number of clips
    ) -> Any:  # as in `ebwm.data.shown`
        """Clips to show beside predictions, none of which was in training; a finished run makes them again."""
        remedy = "choose a run on clips, on a game or on a moving camera"
        raise refusal("data.kind", self.config.kind, "has no images to show", remedy)

    @abstractmethod
    def baselines(self) -> dict[str, float]:
        """Test losses of trivial baselines, by name."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write to a run's folder the files that `restore` needs."""


class Sequences(Task):
    """Sequences whose next state is predicted from the states before it."""

    pair = staticmethod(next_state)

    def training_targets(self) -> Tensor:
        """Targets of evenly spaced training sequences, as many as are scored of other splits."""
        return self.pair(spread_items(self.splits["train"], self.config.scored))[1]

    def baselines(self) -> dict[str, float]:
        """Repeat the last state, and the mean state of training sequences."""
        context, target = self.pair(self.items("test"))
        last = context if isinstance(context, Tensor) else context[0]
        mean = self.training_targets().flatten(0, 1).mean(0)
        guesses = {"last state": last, "mean state": mean.expand_as(target)}
        return {name: float(self.errors(guess, target).nanmean()) for name, guess in guesses.items()}


# Standardisation

ROUNDING = 1e-14  # largest relative standard deviation that a constant feature can have by rounding


@dataclass(frozen=True)
class Scale:
    """Standardisation of features: (x - mean) / std."""

    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "*items features"],  # of the training split
    ) -> "Scale":
        """Fit mean and standard deviation of each feature; a constant feature is only centred."""
        flat = values.reshape(-1, values.shape[-1]).double()
        std, rounding = flat.std(0, correction=0), ROUNDING * flat.abs().amax(0)
        if not std.isfinite().all():
            raise refusal("features", float(flat.abs().max()), "are too large to be standardised", "rescale them")
        return cls(flat.mean(0).tolist(), std.where(std > rounding, 1.0).tolist())

    @property
    def digest(self) -> str:
        """SHA-256 of mean and standard deviation to six digits."""
        numbers = [f"{number:.6g}" for number in (*self.mean, *self.std)]
        return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()

    def standardise(
        self,
        values: Float[Tensor, "*items features"],  # in their units
    ) -> Float[Tensor, "*items features"]:
        """Values of mean 0 and standard deviation 1."""
        return ((values.double() - _like(self.mean, values)) / _like(self.std, values)).float()

    def restore(
        self,
        values: Float[Tensor, "*items features"],  # standardised, such as predictions
    ) -> Float[Tensor, "*items features"]:
        """Values in their units, of the same type: give float64 where they are far from 0 for their scatter."""
        return (values.double() * _like(self.std, values) + _like(self.mean, values)).to(values.dtype)


def _like(numbers: list[float], values: Tensor) -> Float[Tensor, " features"]:
    """Numbers in double precision on the device of values."""
    return torch.tensor(numbers, dtype=torch.float64, device=values.device)


def split_items(
    count: int,  # number of items
    held_out: float,  # share of validation, and of test
    seed: int,  # fixes which items they are
    source: str,  # for the message
    remedy: str = "one item is one sequence",  # for the message
) -> dict[str, Int[Tensor, " items"]]:  # indices, by split
    """Split items at random; validation and test have at least one item each."""
    held = max(1, round(held_out * count))
    if count < 2 * held + 1:
        raise refusal("data.source", source, f"must hold at least 3 items, not {count}", remedy)
    order = torch.randperm(count, generator=generator(seed, "split"))
    parts = order.split([count - 2 * held, held, held])
    return {name: part.sort().values for name, part in zip(SPLITS, parts, strict=True)}


def by_counts(
    counts: list[int],  # items of each split, which lie one after the other
) -> dict[str, Int[Tensor, " items"]]:  # indices, by split
    """The splits of data that come with their own; each must have an item."""
    if empty := [name for name, count in zip(SPLITS, counts, strict=True) if not count]:
        raise refusal(empty[0], 0, "must have at least 1 item")
    return dict(zip(SPLITS, torch.arange(sum(counts)).split(counts), strict=True))


def save_task(
    folder: Path,  # of a run
    state: StateSpec,  # what its model predicts
    scales: dict[str, Scale],  # by name of the array
) -> None:
    """Write task.json: the states of a run and their standardisation."""
    write_json(folder / "task.json", {"state": asdict(state), "scales": {k: asdict(v) for k, v in scales.items()}})


def read_task(
    folder: Path,  # of a run
    kind: type[StateSpec],  # class of its states
) -> tuple[StateSpec, dict[str, Scale]]:
    """Read task.json."""
    path = folder / "task.json"
    if not path.is_file():
        raise refusal("folder", str(folder), "must hold the task.json of a finished run")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return kind(**saved["state"]), {name: Scale(**scale) for name, scale in saved["scales"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refusal("folder", str(folder), f"holds a task.json that cannot be read ({error})", "train again") from None
