"""Configurations of training runs: typed entries, and changes by name."""

import dataclasses
import os
from dataclasses import field, fields, is_dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from ebwm import checks
from ebwm.data.configs import CONFIGS, ClipsConfig
from ebwm.entries import (
    LARGEST,
    Amount,
    Count,
    Fraction,
    Number,
    Positive,
    Workers,
    from_text,
    from_value,
    section,
)
from ebwm.usage import UsageError

__all__ = ["ENERGY_MODELS", "RENAMED", "RESUMABLE_FIELDS", "Config", "ConfigError", "FaultConfig", "ModelConfig",
           "OptimiserConfig", "RecipeConfig", "RunConfig", "WalkConfig", "as_dict", "differences", "flat", "from_dict",
           "override"]


ENERGY_MODELS = ("ebt", "joint_ebt")  # kinds of models that have a training recipe and sampling settings


class ConfigError(UsageError):
    """A run that cannot start; the message names the entry, its value and the rule."""


Whole = Annotated[int, Field(ge=0, le=LARGEST), "must be at least 0"]
Seed = Annotated[int, Field(ge=0), "must be at least 0"]
Factor = Annotated[float, Field(ge=1, le=1e30), "must be at least 1"]
Share = Annotated[float, Field(gt=0, le=1), "must be above 0 and at most 1"]


# Sections


@section(ConfigError)
class ModelConfig:
    """Architecture of a model."""

    kind: str = "ebt"  # "ebt" | "joint_ebt" | "transformer" | "gru" | "diffusion"
    dim: Count = 256  # width; a GRU has as many weights as a Transformer++ of this width
    depth: Count = 4  # layers
    heads: Count = 4  # attention heads
    candidates: str = "state"  # EBT: "state" | "latent"
    step_conditioning: str = "none"  # EBT: how the energy depends on the step: "context_token" in the papers' text models
    embedding_std: Positive = 1.0  # standard deviation of initial token embeddings; 1 in the papers; 0.03 for small EBTs
    diffusion_steps: Count = 1  # diffusion: denoising steps of a sample, a divisor of 1000; 1 gives the regression
    diffusion_samples: Count = 1  # diffusion: samples whose mean is the prediction
    gradient: str = "auto"  # EBT: rule of inner gradients: "auto" | "fused" | "handwritten" | "eager"
    recompute: bool = False  # EBT: recompute activations in inner gradients: less memory, a third more work
    compile: bool = False  # EBT: compile the sweeps; exact up to rounding


@section(ConfigError)
class WalkConfig:
    """Sampling of an EBT in training and evaluation."""

    steps: Count = 2  # steps
    start: str = "noise"  # initial candidates: "noise" | "last" | "zeros"
    step_size: Positive | Literal["auto"] = "auto"  # alpha at the start of training; "auto": measured on a first batch
    update: str = "code"  # tokens: update of the authors' "code" or of their "paper"


@section(ConfigError)
class RecipeConfig:
    """Training recipe of an EBT; the section `walk` sets its sampling."""

    name: Literal["s1", "s2"] = "s1"  # "s1": detached steps, loss of each step | "s2": loss of the last step, through the walk
    stream: bool = True  # S1: free the graph of each step before the next: memory of one step
    most: Count | None = None  # S2: maximum number of steps, drawn for each batch; None: walk.steps + 1
    unroll: Count | None = None  # S2: number of last steps to differentiate through; None: all
    noise: Amount = 0.1  # S2: standard deviation of the noise added to candidates
    spread: Factor = 2.0  # S2: step sizes are drawn from [alpha / spread, alpha * spread]
    replay: Amount = 0.5  # S2: number of replayed candidates added to a batch, as a share of the batch
    capacity: Count = 192  # S2: size of the replay buffer
    clamp: Number | None = None  # S2: largest absolute entry of an inner gradient; None: no bound


@section(ConfigError)
class OptimiserConfig:
    """AdamW with linear warm-up and a cosine to a tenth of the peak (EBT, training details)."""

    updates: Count = 600  # optimiser steps
    batch: Count = 32  # items of a batch
    learning_rate: Positive = 1e-3  # peak
    warmup: Whole = 50  # updates of linear warm-up
    weight_decay: Amount = 0.01  # of matrices; norms and the step size are not decayed
    clip: Positive = 1.0  # largest norm of the gradient
    step_size_multiplier: Amount = 3.0  # rate of alpha: learning_rate * this * initial alpha; 0: alpha is fixed
    smallest_step_size: Positive = 1e-4  # lower bound of alpha, as in the authors' code
    schedule: Count | None = None  # updates of the cosine; None: all; 1,000,000 in the papers
    accumulate: Count = 1  # parts of a batch whose gradients are accumulated, to save memory; random numbers are drawn for each
    average: Fraction | None = None  # decay of an exponential moving average of the weights; None: no average


@section(ConfigError)
class FaultConfig:
    """Handling of non-finite numbers and of spikes of the loss."""

    patience: Count = 3  # consecutive updates that may be skipped because of a non-finite number
    rollbacks: Whole = 2  # returns to the last checkpoint before the run fails
    lower: Share = 0.5  # factor of learning rates and step size at each return; at most 1
    window: Count = 100  # number of losses with which a loss is compared
    spike: Positive = 10.0  # deviations above their median beyond which a loss is a spike


@section(ConfigError)
class RunConfig:
    """Execution of a run."""

    save_every: Count = 500  # updates between checkpoints
    keep: Count = 3  # number of last checkpoints that are kept, besides the best
    monitor_every: Count = 50  # updates between probes of the inner walk
    workers: Workers = 0  # processes that load data
    logger: Literal["tensorboard", "wandb", "none"] = "tensorboard"  # "tensorboard" | "wandb" | "none"; log.jsonl is always written
    precision: Literal["32-true", "bf16-mixed"] = "32-true"  # "32-true" | "bf16-mixed": products in bf16, energies and sums in float32
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # with several processes: "auto" | "ddp" | "fsdp" (sharded weights)


# Fields that may change when a run is resumed, because results do not depend on them.
RESUMABLE_FIELDS = {"run.save_every", "run.keep", "run.monitor_every", "run.workers", "run.logger", "run.strategy",
                    "data.workers"}


@section(ConfigError)
class Config:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: Any = field(default_factory=ClipsConfig)  # of a class in CONFIGS
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    seed: Seed = 0  # fixes initial weights, batch order and noise, each by a separate generator
    eval_every: Count = 100  # updates between evaluations
    walk: WalkConfig = field(default_factory=WalkConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    run: RunConfig = field(default_factory=RunConfig)


# Changes by name

SYNONYMS = {"lr": "learning_rate", "batch_size": "batch", "epochs": "updates"}  # as other libraries call entries
RENAMED = {"model.steps": "walk.steps", "model.start": "walk.start", "model.step_size": "walk.step_size",
           "model.update": "walk.update", "model.step": "model.step_conditioning"}


def override(
    config: Config,  # a configuration
    key: str,  # dotted name of an entry, as in "optimiser.updates"
    text: str,  # new value, as written on a command line
) -> Config:  # a changed copy
    """Change one entry of a configuration; ~ at the start of a value is the home folder."""
    if key in RENAMED:
        raise ConfigError(f"{key}={text!r}: the entry was renamed; write {RENAMED[key]}={text}")
    return _set(config, key, os.path.expanduser(text), from_text)


def _set(config: Any, key: str, value: Any, read: Any, section: str = "") -> Any:
    """A copy of a section with one entry changed."""
    name, _, rest = key.partition(".")
    types = {f.name: f.type for f in fields(config)}
    current = getattr(config, name, None)
    if name not in types or bool(rest) != is_dataclass(current):
        raise ConfigError(f"{section}{key}={value!r}: unknown key; {_hint(config, section, key)}")
    if rest == "kind" and name == "data":
        return replace(config, data=_other_task(current, value))
    if rest:
        return replace(config, **{name: _set(current, rest, value, read, f"{section}{name}.")})
    try:
        return replace(config, **{name: read(name, value, types[name], ConfigError)})
    except ValueError as error:
        raise ConfigError(f"{section}{error}") from None


def _hint(config: Any, section: str, key: str) -> str:
    """What may have been meant: an entry of this name or a similar one, anywhere below the section; or what there is."""
    nested = {f.name: is_dataclass(getattr(config, f.name)) for f in fields(config)}
    known = [f"{section}{name}{'.…' if nested[name] else ''}" for name in nested]
    if nested.get(key):
        return f"it is a section; {checks.allowed([f'{section}{key}.{f.name}' for f in fields(getattr(config, key))])}"
    entries = [name for name, _ in flat(dataclasses.asdict(config))]
    last = key.rpartition(".")[2]
    last = SYNONYMS.get(last, last)
    same = [f"{section}{name}" for name in entries if name.rpartition(".")[2] == last]
    if same:
        return f"did you mean {' or '.join(same)}?"
    return checks.suggestion(key.partition(".")[0], nested) or checks.suggestion(key, entries) or checks.allowed(known)


def _other_task(current: Any, kind: Any) -> Any:
    """The entries of another task start with their defaults."""
    checks.one_of("data.kind", kind, CONFIGS, ConfigError)
    return current if kind == current.kind else CONFIGS[kind]()


# Dictionaries


def from_dict(
    values: dict[str, Any],  # nested, as made by `as_dict`; entries under their old names are read too
) -> Config:
    """A configuration from its dictionary; unknown entries and wrong types are refused."""
    if not values:
        raise ConfigError("config={}: must have entries; the config.json of a run has all of them")
    config = Config()
    for key, value in sorted(flat(values), key=lambda pair: pair[0] != "data.kind"):
        config = _set(config, RENAMED.get(key, key), value, from_value)
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


def with_section(
    config: Config,  # that was refused
    message: str,  # as `name=value: rule`
) -> str:
    """A message that names the entry with its section, if a single one has this name."""
    name = message.partition("=")[0]
    found = [key for key, _ in flat(as_dict(config)) if key.rpartition(".")[2] == name]
    return found[0] + message[len(name):] if len(found) == 1 else message
