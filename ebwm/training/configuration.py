"""Configurations of training runs: typed entries, and changes by name."""

import dataclasses
import itertools
import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, Literal, get_args, get_origin

from ebwm import checks
from ebwm.data.configs import CONFIGS, ClipsConfig, check_numbers
from ebwm.usage import UsageError

__all__ = ["ENERGY_MODELS", "RENAMED", "RESUMABLE_FIELDS", "Config", "ConfigError", "FaultConfig", "ModelConfig",
           "OptimiserConfig", "RecipeConfig", "RunConfig", "WalkConfig", "as_dict", "differences", "flat", "from_dict",
           "override"]


ENERGY_MODELS = ("ebt", "joint_ebt")  # kinds of models that have a training recipe and sampling settings


class ConfigError(UsageError):
    """A run that cannot start; the message names the entry, its value and the rule."""


def _check(config: Any, check: Any, *names: str) -> None:
    """Apply a check to some entries that are not None."""
    for name in names:
        if (value := getattr(config, name)) is not None:
            check(name, value, error=ConfigError)


_at_least_1 = partial(checks.at_least, least=1)
_check_numbers = partial(check_numbers, error=ConfigError)


# Sections


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a model."""

    kind: str = "ebt"  # "ebt" | "joint_ebt" | "transformer" | "gru" | "diffusion"
    dim: int = 256  # width; a GRU has as many weights as a Transformer++ of this width
    depth: int = 4  # layers
    heads: int = 4  # attention heads
    candidates: str = "state"  # EBT: "state" | "latent"
    step_conditioning: str = "none"  # EBT: how the energy depends on the step: "context_token" in the papers' text models
    embedding_std: float = 1.0  # standard deviation of initial token embeddings; 1 in the papers; 0.03 for small EBTs
    diffusion_steps: int = 1  # diffusion: denoising steps of a sample, a divisor of 1000; 1 gives the regression
    diffusion_samples: int = 1  # diffusion: samples whose mean is the prediction
    gradient: str = "auto"  # EBT: rule of inner gradients: "auto" | "fused" | "handwritten" | "eager"
    recompute: bool = False  # EBT: recompute activations in inner gradients: less memory, a third more work
    compile: bool = False  # EBT: compile the sweeps; exact up to rounding

    def __post_init__(self):
        _check(self, _at_least_1, "dim", "depth", "heads", "diffusion_steps", "diffusion_samples")
        _check(self, checks.positive, "embedding_std")
        _check_numbers(self)


@dataclass(frozen=True)
class WalkConfig:
    """Sampling of an EBT in training and evaluation."""

    steps: int = 2  # steps
    start: str = "noise"  # initial candidates: "noise" | "last" | "zeros"
    step_size: float | Literal["auto"] = "auto"  # alpha at the start of training; "auto": measured on a first batch
    update: str = "code"  # tokens: update of the authors' "code" or of their "paper"

    def __post_init__(self):
        _check(self, _at_least_1, "steps")
        if self.step_size != "auto":
            _check(self, checks.positive, "step_size")
        _check_numbers(self)


@dataclass(frozen=True)
class RecipeConfig:
    """Training recipe of an EBT; the section `walk` sets its sampling."""

    name: str = "s1"  # "s1": detached steps, loss of each step | "s2": loss of the last step, through the walk
    stream: bool = True  # S1: free the graph of each step before the next: memory of one step
    most: int | None = None  # S2: maximum number of steps, drawn for each batch; None: walk.steps + 1
    unroll: int | None = None  # S2: number of last steps to differentiate through; None: all
    noise: float = 0.1  # S2: standard deviation of the noise added to candidates
    spread: float = 2.0  # S2: step sizes are drawn from [alpha / spread, alpha * spread]
    replay: float = 0.5  # S2: number of replayed candidates added to a batch, as a share of the batch
    capacity: int = 192  # S2: size of the replay buffer
    clamp: float | None = None  # S2: largest absolute entry of an inner gradient; None: no bound

    def __post_init__(self):
        checks.one_of("name", self.name, ("s1", "s2"), ConfigError)
        _check(self, _at_least_1, "spread", "capacity")
        _check(self, checks.finite, "noise", "replay")
        _check_numbers(self)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with linear warm-up and a cosine to a tenth of the peak (EBT, training details)."""

    updates: int = 600  # optimiser steps
    batch: int = 32  # items of a batch
    learning_rate: float = 1e-3  # peak
    warmup: int = 50  # updates of linear warm-up
    weight_decay: float = 0.01  # of matrices; norms and the step size are not decayed
    clip: float = 1.0  # largest norm of the gradient
    step_size_multiplier: float = 3.0  # rate of alpha: learning_rate * this * initial alpha; 0: alpha is fixed
    smallest_step_size: float = 1e-4  # lower bound of alpha, as in the authors' code
    schedule: int | None = None  # updates of the cosine; None: all; 1,000,000 in the papers
    accumulate: int = 1  # parts of a batch whose gradients are accumulated, to save memory
    average: float | None = None  # decay of an exponential moving average of the weights; None: no average

    def __post_init__(self):
        _check(self, _at_least_1, "updates", "batch", "accumulate", "schedule")
        _check(self, checks.finite, "warmup", "weight_decay", "step_size_multiplier")
        _check(self, checks.positive, "learning_rate", "clip", "smallest_step_size")
        if self.average is not None and not 0 < self.average < 1:
            raise checks.refusal("average", self.average, "must be above 0 and below 1", error=ConfigError)
        _check_numbers(self)


@dataclass(frozen=True)
class FaultConfig:
    """Handling of non-finite numbers and of spikes of the loss."""

    patience: int = 3  # consecutive updates that may be skipped because of a non-finite number
    rollbacks: int = 2  # returns to the last checkpoint before the run fails
    lower: float = 0.5  # factor of learning rates and step size at each return; at most 1
    window: int = 100  # number of losses with which a loss is compared
    spike: float = 10.0  # deviations above their median beyond which a loss is a spike

    def __post_init__(self):
        _check(self, _at_least_1, "patience", "window")
        _check(self, checks.finite, "rollbacks")
        _check(self, checks.positive, "spike", "lower")
        _check_numbers(self, lower=1)


MOST_WORKERS = 1024  # more than a machine can start
CHOICES = {"logger": ("tensorboard", "wandb", "none"), "precision": ("32-true", "bf16-mixed"),
           "strategy": ("auto", "ddp", "fsdp")}


@dataclass(frozen=True)
class RunConfig:
    """Execution of a run."""

    save_every: int = 500  # updates between checkpoints
    keep: int = 3  # number of last checkpoints that are kept, besides the best
    monitor_every: int = 50  # updates between probes of the inner walk
    workers: int = 0  # processes that load data
    logger: str = "tensorboard"  # "tensorboard" | "wandb" | "none"; log.jsonl is always written
    precision: str = "32-true"  # "32-true" | "bf16-mixed": products in bf16, energies and sums in float32
    strategy: str = "auto"  # with several processes: "auto" | "ddp" | "fsdp" (sharded weights)

    def __post_init__(self):
        _check(self, _at_least_1, "save_every", "keep", "monitor_every")
        _check(self, checks.finite, "workers")
        _check_numbers(self, workers=MOST_WORKERS)
        for name, known in CHOICES.items():
            checks.one_of(name, getattr(self, name), known, ConfigError)


# Fields that may change when a run is resumed, because results do not depend on them.
RESUMABLE_FIELDS = {"run.save_every", "run.keep", "run.monitor_every", "run.workers", "run.logger", "run.strategy",
                    "data.workers"}


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: Any = field(default_factory=ClipsConfig)  # of a class in CONFIGS
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    seed: int = 0  # fixes initial weights, batch order and noise, each by a separate generator
    eval_every: int = 100  # updates between evaluations
    walk: WalkConfig = field(default_factory=WalkConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self):
        _check(self, checks.finite, "seed")
        _check(self, _at_least_1, "eval_every")
        _check_numbers(self, seed=math.inf)


# Changes by name

RENAMED = {"model.steps": "walk.steps", "model.start": "walk.start", "model.step_size": "walk.step_size",
           "model.update": "walk.update", "model.step": "model.step_conditioning"}
TYPES = {bool: "must be true or false", int: "must be an integer", float: "must be a number", str: "must be a text"}


def override(
    config: Config,  # a configuration
    key: str,  # dotted name of an entry, as in "optimiser.updates"
    text: str,  # new value, as written on a command line
) -> Config:  # a changed copy
    """Change one entry of a configuration."""
    if key in RENAMED:
        raise ConfigError(f"{key}={text!r}: the entry was renamed; write {RENAMED[key]}={text}")
    return _set(config, key, text, _parsed)


def _set(config: Any, key: str, value: Any, convert: Any, section: str = "") -> Any:
    """A copy of a section with one entry changed."""
    name, _, rest = key.partition(".")
    types = {f.name: f.type for f in fields(config)}
    current, path = getattr(config, name, None), f"{section}{name}"
    if name not in types or bool(rest) != is_dataclass(current):
        raise ConfigError(f"{section}{key}={value!r}: unknown key; {_hint(config, section, name)}")
    if rest == "kind" and name == "data":
        return replace(config, data=_other_task(current, value))
    new = _set(current, rest, value, convert, f"{path}.") if rest else convert(path, value, types[name])
    try:
        return replace(config, **{name: new})
    except ValueError as error:
        raise error if section == "" else ConfigError(f"{section}{error}") from None


def _hint(config: Any, section: str, name: str) -> str:
    nested = {f.name: is_dataclass(getattr(config, f.name)) for f in fields(config)}
    known = [f"{section}{key}{'.…' if nested[key] else ''}" for key in nested]
    close = checks.suggestion(name, nested)
    return close or checks.allowed(known)


def _other_task(current: Any, kind: Any) -> Any:
    """The entries of another task start with their defaults."""
    checks.one_of("data.kind", kind, CONFIGS, ConfigError)
    return current if kind == current.kind else CONFIGS[kind]()


def _kind_of(declared: Any) -> tuple[type, tuple[Any, ...]]:
    """The type of an entry, and the other values that it may have."""
    kind, *others = get_args(declared) or (declared,)
    words = [get_args(other) if get_origin(other) is Literal else (None,) for other in others]
    return kind, tuple(itertools.chain(*words))


def _wrong_type(key: str, value: Any, kind: type, others: tuple[Any, ...]) -> Exception:
    words = "".join(f", or {_text(other)}" for other in others)
    return checks.refusal(key, value, TYPES[kind] + words, error=ConfigError)


def _text(value: Any) -> str:
    return str(value).lower()


def _parsed(key: str, text: str, declared: Any) -> Any:
    """Read the value of an entry from a command line."""
    kind, others = _kind_of(declared)
    if text.lower() in (words := {_text(other): other for other in others}):
        return words[text.lower()]
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise _wrong_type(key, text, kind, others) from None


def _typed(key: str, value: Any, declared: Any) -> Any:
    """Check the type of a value from JSON; an integer is a number."""
    kind, others = _kind_of(declared)
    if value in others:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _wrong_type(key, value, kind, others)
    return value


# Dictionaries


def from_dict(
    values: dict[str, Any],  # nested, as made by `as_dict`; entries under their old names are read too
) -> Config:
    """A configuration from its dictionary; unknown entries and wrong types are refused."""
    if not values:
        raise ConfigError("config={}: must have entries; the config.json of a run has all of them")
    config = Config()
    for key, value in sorted(flat(values), key=lambda pair: pair[0] != "data.kind"):
        config = _set(config, RENAMED.get(key, key), value, _typed)
    return config


def flat(
    values: dict[str, Any],  # nested
    prefix: str = "",  # of the keys
) -> list[tuple[str, Any]]:  # dotted keys and values
    """Nested dictionaries as pairs."""
    pairs = []
    for name, value in values.items():
        pairs += flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def as_dict(
    config: Config,  # a configuration
) -> dict[str, Any]:  # nested
    """A configuration as it is saved."""
    return dataclasses.asdict(config)


def differences(
    old: Config,  # a configuration
    new: Config,  # another
) -> list[str]:  # "key: old is now new"
    """Entries in which two configurations differ, except RESUMABLE_FIELDS."""
    before, after = (dict(flat(as_dict(config))) for config in (old, new))
    return [f"{key}: {before.get(key)!r} is now {after.get(key)!r}"
            for key in before | after if key not in RESUMABLE_FIELDS and before.get(key) != after.get(key)]
