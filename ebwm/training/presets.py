"""Presets: the papers' models with their recipes, small models for CPUs, and configurations from files."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ebwm import checks
from ebwm.data.configs import (
    ClipsConfig,
    FramesConfig,
    GameConfig,
    PairsConfig,
    PatchesConfig,
    StatesConfig,
    TextConfig,
)
from ebwm.sizes import SIZES
from ebwm.training.configuration import (
    Config,
    ConfigError,
    ModelConfig,
    OptimiserConfig,
    RecipeConfig,
    RunConfig,
    WalkConfig,
    from_dict,
    override,
)

__all__ = ["LEARNING_RATES", "PRESETS", "REGIMES", "TEXT_BATCHES", "Regime", "load_config", "override_all",
           "presets"]


class Regime(NamedTuple):
    """Sampling and training of one modality in the papers."""

    steps: int  # of a walk
    step_size: float  # initial alpha
    multiplier: float  # of alpha's learning rate, relative to its initial value; 0: fixed
    recipe: RecipeConfig
    step_conditioning: str = "none"  # how the energy depends on the step


_s2 = partial(RecipeConfig, "s2", most=3, unroll=1)
REGIMES = {
    "text-s1": Regime(2, 500.0, 3.0, RecipeConfig(), "context_token"),
    "text-s2": Regime(2, 5.0, 0.0, _s2(noise=3.0), "context_token"),
    "video-s1": Regime(2, 30_000.0, 3.0, RecipeConfig()),
    "video-s2": Regime(2, 3_000.0, 0.0, _s2(noise=1.0)),
    "denoise-s1": Regime(1, 3_000.0, 3.0, RecipeConfig()),
}
LEARNING_RATES = {"4xs": 2.4e-3, "3xs": 1.8e-3, "xxs": 1.2e-3, "xs": 9e-4, "small": 6e-4, "medium": 3e-4,
                  "large": 2.5e-4, "xl": 2e-4}


def _paper(modality: str, size: str, recipe: str, data: Any, optimiser: OptimiserConfig) -> Config:
    """A model of one of the papers' sizes, with one of their recipes."""
    depth, dim, heads = SIZES[size]
    shape = dict(dim=dim, depth=depth, heads=heads)
    rest = dict(run=RunConfig(save_every=2_000), eval_every=2_000)
    if recipe == "transformer":
        return Config(ModelConfig("transformer", **shape), data, optimiser, **rest)
    regime = REGIMES[f"{modality}-{recipe}"]
    model = ModelConfig(**shape, step_conditioning=regime.step_conditioning)
    optimiser = replace(optimiser, step_size_multiplier=regime.multiplier)
    walk = WalkConfig(regime.steps, step_size=regime.step_size)
    return Config(model, data, optimiser, walk=walk, recipe=regime.recipe, **rest)


def _video(size: str, recipe: str) -> Config:
    """Frames of 56 by 56 pixels, as many numbers as the papers' latents."""
    rate = LEARNING_RATES[size] / (1 if recipe == "transformer" else 3)
    optimiser = OptimiserConfig(100_000, 256, rate, warmup=10_000, schedule=1_000_000)
    return _paper("video", size, recipe, ClipsConfig(size=56), optimiser)


def _ssv2() -> Config:
    """Something-Something V2 as the papers' DINOv2 class tokens, by a model of their size "small"."""
    data = FramesConfig(source="something-something-v2", layout="ssv2", short="spread", per_video=1, size=224, pool="cls",
                        encoder="timm:vit_base_patch14_dinov2.lvd142m", eval_clips=4096, workers=8)
    optimiser = OptimiserConfig(100_000, 256, LEARNING_RATES["small"] / 3, warmup=10_000, schedule=1_000_000)
    return _paper("video", "small", "s1", data, optimiser)


TEXT_BATCHES = {"4xs": 32, "3xs": 32, "xxs": 32, "xs": 46, "small": 90, "medium": 170, "large": 256,
                "xl": 256}  # windows; those of the two smallest and of the largest model are ours


def _text(size: str, recipe: str) -> Config:
    """One window of each document of RedPajama, in a single pass; S2 makes more updates with larger batches."""
    updates, batch = (1_000_000, 128) if recipe == "s2" else (105_000, TEXT_BATCHES[size])
    documents = math.ceil(1.01 * updates * batch)
    data = TextConfig(source="redpajama", tokenizer="EleutherAI/gpt-neox-20b", packing="documents",
                      documents=documents, held_out=0.0005)
    optimiser = OptimiserConfig(updates, batch, LEARNING_RATES[size], warmup=10_000, schedule=1_000_000)
    return _paper("text", size, recipe, data, optimiser)


def _small_text(kind: str) -> Config:
    """Python's documentation in ten passes: half an hour on one core for an EBT."""
    std = 0.03 if kind == "ebt" else 1.0
    model = ModelConfig(kind, dim=128, depth=3, embedding_std=std)
    data = TextConfig(tokenizer="train:2048", length=128)
    optimiser = OptimiserConfig(12_000, 4, 3e-3, warmup=500, weight_decay=0.3, average=0.999)
    run, walk = RunConfig(save_every=1_000), WalkConfig(step_size=60.0)
    return Config(model, data, optimiser, eval_every=1_000, run=run, walk=walk)


PRESETS = {
    "next_frame": Config(),
    "next_frame_transformer": Config(model=ModelConfig(kind="transformer")),
    "smoke": Config(
        model=ModelConfig(depth=1),
        data=ClipsConfig(train_clips=64, eval_clips=16),
        optimiser=OptimiserConfig(updates=3, batch=4, warmup=1),
        eval_every=3,
    ),
    "states": Config(model=ModelConfig(dim=128, depth=3), data=StatesConfig(),
                     optimiser=OptimiserConfig(updates=2_000)),
    "pairs": Config(model=ModelConfig("joint_ebt", dim=128, depth=3), data=PairsConfig(),
                    optimiser=OptimiserConfig(updates=2_000, batch=64, learning_rate=3e-3)),
    "features-xxs": Config(
        model=ModelConfig(dim=384, depth=6, heads=6),
        data=FramesConfig(encoder="dinov2_shaped", size=84, train_clips=256, eval_clips=32),
        optimiser=OptimiserConfig(updates=300, batch=8, learning_rate=3e-4),
        walk=WalkConfig(start="last"),
    ),
    "game-xxs": Config(model=ModelConfig(dim=192, depth=3),
                       data=GameConfig(encoder="principal:48", size=24, train_episodes=2048),
                       # the best of five rates from 5e-4 to 8e-3, by validation after 300 updates of walks from noise;
                       # walks from the last state then had less than half of the loss
                       optimiser=OptimiserConfig(updates=1_000, batch=16, learning_rate=2e-3),
                       walk=WalkConfig(start="last")),
    "ssv2-dinov2": _ssv2(),
    "patches": Config(model=ModelConfig(dim=128, depth=3), data=PatchesConfig(),
                      optimiser=OptimiserConfig(updates=2_000, batch=64)),
    "text": _small_text("ebt"),
    "text_transformer": _small_text("transformer"),
    **{f"{modality}-{size}-{recipe}": make(size, recipe)
       for modality, make in (("video", _video), ("text", _text))
       for size in SIZES for recipe in ("s1", "s2", "transformer")},
}


def presets() -> list[str]:  # names that `load_config` takes
    """The names of the presets."""
    return list(PRESETS)


def load_config(
    source: str,  # name of a preset, or path of a JSON file
    overrides: Iterable[str] = (),  # "key=value", dotted keys
) -> Config:
    """A preset or a saved configuration, with some entries changed."""
    checks.instance("config", source, str, "must be the name of a preset or the path of a JSON file")
    return override_all(PRESETS.get(source) or _read(Path(source)), overrides)


def override_all(
    config: Config,  # a configuration
    overrides: Iterable[str],  # "key=value", dotted keys
) -> Config:  # a changed copy
    """A configuration with some entries changed; their order does not matter, unless one is given twice."""
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise checks.refusal("overrides", overrides, 'must be a list such as ["seed=3"]', error=ConfigError)
    waiting, refused = sorted(map(_assignment, overrides), key=lambda pair: pair[0] != "data.kind"), []
    while waiting:
        for key, text in waiting:
            try:
                config = override(config, key, text)
            except ConfigError as error:  # it may only be allowed together with a later one
                refused.append((key, text, error))
        if len(refused) == len(waiting):
            raise refused[0][2]
        waiting, refused = [(key, text) for key, text, _ in refused], []
    return config


def _assignment(entry: Any) -> tuple[str, str]:
    """The key and the value of "key=value"."""
    key, equals, text = entry.partition("=") if isinstance(entry, str) else ("", "", "")
    if not equals:
        raise ConfigError(f"entry={entry!r}: must have the form key=value; a preset is only for a new run, and comes first")
    return key, text


def _read(path: Path) -> Config:
    if not path.is_file():
        remedy = checks.suggestion(str(path), PRESETS) or f"presets: {', '.join(PRESETS)}"
        raise checks.refusal("config", str(path), "must be a preset or a JSON file", remedy, ConfigError)
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once))
    except ConfigError:
        raise
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        raise checks.refusal("config", str(path), f"must be a configuration ({error})", error=ConfigError) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that occurs twice is refused, of which JSON keeps the last."""
    names = [name for name, _ in pairs]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the key {repeated!r} occurs twice")
    return dict(pairs)
