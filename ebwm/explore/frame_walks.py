"""Walks of the frames explorer: from settings to predictions of a frame, step by step and several times."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..checks import one_of, positive, refusal, whole
from ..data.shown import PLAYED, ShownClips
from ..diagnostics import Trace, energy_trace
from ..objective import smooth_l1
from ..sampler import gradient_descent, init_candidates, run
from ..settings import generator
from ..states import states_of
from ..training.configuration import Config
from ..training.learner import Trained, load_run
from ..writing import INCLUDED
from .scenes import MAX_WALKS, OnePosition

__all__ = ["MAX_STEPS", "OWN", "SOURCES", "FrameModels", "FramesResult", "Settings", "check_settings", "compute",
           "included_models", "run_models", "summary_lines", "warning"]

MAX_STEPS = 40
CLIPS = 64  # maximum number, none of which was in training
OWN = "own run"  # source of the clips of finished runs
SOURCES = {  # of the clips of included models, with what they are
    "digits": "moving digits; the digits of these clips were not in training",
    "game": "the game push, a step of which follows an action: the blue agent pushes the block, which is yellow or red, and "
            "the green switch changes its colour; these episodes were not in training",
    "camera": "a camera that moves over seven photographs; the movements of these clips were not in training, and those "
              "over other photographs are far harder",
}


@dataclass(frozen=True)
class Settings:
    """Settings of the frames explorer: plain values that can be saved as JSON."""

    source: str = "digits"  # of the clips: one of SOURCES, or OWN
    clip: int = 0  # index of a clip
    position: int = 4  # number of frames that the models see; they predict the next one
    action: str = PLAYED  # of a game, after these frames: its name, or PLAYED
    steps: int = 8  # of each walk
    step: int = 8  # shown step; 0 is the initial candidate
    walks: int = 3  # number of walks, from different initial candidates
    factor: float = 1.0  # of the step size that was trained
    seed: int = 0  # of the initial candidates


class FrameModels(NamedTuple):
    """An EBT of frames, and what to compare it with."""

    model: nn.Module  # EBT
    baseline: nn.Module | None  # Transformer++, predicts the next frame in one pass
    clips: ShownClips
    start: str  # initial candidates: "noise" | "last" | "zeros"
    note: str  # description
    source: str = OWN  # of the clips

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions to choose from."""
        return (PLAYED, *self.clips.actions)


class FramesResult(NamedTuple):
    """Walks towards the next frame; images have values from 0 to 1 and, if coloured, an axis of 3; errors are SmoothL1."""

    settings: Settings
    note: str  # description of the models
    context: Float[Tensor, "position height width *colours"]  # frames that the models see
    truth: Float[Tensor, "height width *colours"]  # the next frame
    baseline: Float[Tensor, "height width *colours"] | None  # prediction of the Transformer++
    candidates: Float[Tensor, "places walks height width *colours"]  # from the start to the end
    energies: Float[Tensor, "places walks"]  # of the candidates
    errors: Float[Tensor, "places walks"]  # of the candidates
    last_error: float  # of repeating the last frame
    baseline_error: float | None  # of the Transformer++
    facts: dict[str, str] = {}  # what there is to say about the clip, by name

    @property
    def spread(self) -> Float[Tensor, "places height width"]:
        """Standard deviation of each pixel over the walks; of colours, the mean."""
        found = self.candidates.std(1, correction=0)
        return found.mean(-1) if self.truth.ndim == 3 else found


# Models


@lru_cache(maxsize=len(SOURCES))
def included_models(
    source: str = "digits",  # one of SOURCES
) -> FrameModels:
    """The included EBT and Transformer++ of a source of clips."""
    one_of("source", source, SOURCES)
    trained, other = load_run(INCLUDED / source), load_run(INCLUDED / f"{source}_transformer").learner
    config = trained.config
    clips = trained.task.shown(CLIPS)
    note = (f"EBT of width {config.model.dim} and depth {config.model.depth}, trained with {config.walk.steps} steps "
            f"on {SOURCES[source]}")
    return _models(trained, other.model, clips, note, source)


def run_models(
    folder: Path | str,  # of a finished run of an EBT on clips, on a game or on a moving camera
    baseline: Path | str | None = None,  # of a finished run of a Transformer++ on the same data
) -> FrameModels:
    """The models of finished runs, with clips that were not in training."""
    trained = load_run(folder)
    config = trained.config
    if config.model.kind != "ebt":
        raise refusal("folder", str(folder), f"must be a run of an EBT, not of model.kind={config.model.kind}")
    clips = trained.task.shown(CLIPS)
    other = None if baseline is None else _baseline(baseline, config)
    note = f"run {Path(folder).name}, trained for {config.optimiser.updates} updates with {config.walk.steps} steps"
    return _models(trained, other, clips, note)


def _baseline(folder: Path | str, config: Config) -> nn.Module:
    learner, _, other = load_run(folder)
    if other.model.kind != "transformer":
        raise refusal("baseline", str(folder), f"must be a Transformer++, not model.kind={other.model.kind}")
    if other.data != config.data:
        raise refusal("baseline", str(folder), "must be a run on the same data as the EBT")
    return learner.model


def _models(trained: Trained, baseline: nn.Module | None, clips: ShownClips, note: str, source: str = OWN) -> FrameModels:
    model = trained.learner.model
    for part in filter(None, (model, baseline)):
        part.eval().requires_grad_(False)
    return FrameModels(model, baseline, clips, trained.config.walk.start, note, source)


# Walks


def check_settings(
    models: FrameModels,  # available models and clips
    settings: Settings,  # to check
) -> None:
    """Refuse settings that are out of range."""
    one_of("source", settings.source, (models.source,))
    limits = {"clip": (0, len(models.clips) - 1), "position": (1, models.clips.frames - 1), "steps": (1, MAX_STEPS),
              "walks": (1, MAX_WALKS), "seed": (0, 10**9)}
    for name, (low, high) in limits.items():
        whole(name, getattr(settings, name), low, high)
    whole("step", settings.step, 0, settings.steps)
    positive("factor", settings.factor)
    one_of("action", settings.action, models.actions)


@torch.no_grad()
def compute(
    models: FrameModels,  # to predict with
    settings: Settings,  # of the walks
    starts: Float[Tensor, "walks dim"] | None = None,  # initial candidates; None: drawn from the seed
) -> FramesResult:
    """Predict a frame by several walks; equal settings give equal results."""
    check_settings(models, settings)
    model = models.model
    context, target, facts = models.clips.beginning(settings.clip, settings.position, settings.action)
    recent, trace = model.encode(context)[0, -1].expand(MAX_WALKS, -1), Trace()
    if starts is None:
        starts = init_candidates(models.start, recent, generator(settings.seed, "start"))[:settings.walks]
    kernel = gradient_descent(float(model.step_size) * settings.factor)
    found = run(OnePosition(model.landscape(context)), starts, kernel, settings.steps, callback=trace)
    decoded, seen = model.decode(torch.cat([starts[None], trace.places])), states_of(context)[0]
    errors = lambda frames: smooth_l1(frames, target.expand_as(frames), reduction="none").mean(-1)
    other = None if models.baseline is None else models.baseline(context)[0, -1]
    images = lambda frames: models.clips.images(frames.nan_to_num(0, 0, 0))
    return FramesResult(
        settings, models.note, images(seen), images(target), None if other is None else images(other),
        images(decoded), energy_trace(found), errors(decoded), float(errors(seen[-1])),
        None if other is None else float(errors(other)), facts)


def _numbers(values: Tensor) -> str:
    return " → ".join(f"{float(value):.3g}" for value in values)


def summary_lines(
    result: FramesResult,  # to summarise
) -> dict[str, str]:  # value of each quantity, by name
    """Energies, errors and spread, as means over the walks."""
    ends, chosen = [0, -1], int(result.energies[-1].nan_to_num(torch.inf).argmin())
    lines = result.facts | {
        "Energy, start → end": _numbers(result.energies[ends].mean(1)),
        "SmoothL1, start → end": _numbers(result.errors[ends].mean(1)),
        "SmoothL1, shown step": f"{float(result.errors[result.settings.step].mean()):.3g}",
        "SmoothL1, lowest energy": f"{float(result.errors[-1, chosen]):.3g} (walk {chosen + 1})",
        "SmoothL1, last frame": f"{result.last_error:.3g}"}
    if result.baseline_error is not None:
        lines["SmoothL1, Transformer++"] = f"{result.baseline_error:.3g}"
    return lines | {"Spread, start → end": _numbers(result.spread[ends].mean((1, 2)))}


def warning(
    result: FramesResult,  # to check
) -> str:  # one line; empty if there is no problem
    """Name the problem of walks that diverged or increased the energy."""
    finite = result.energies.isfinite() & result.errors.isfinite()
    if not finite.all():
        return f"Not finite from step {int((~finite).any(1).nonzero()[0])} on. Lower the step size."
    rising = int((result.energies[-1] > result.energies[0]).sum())
    return f"{rising} of {result.settings.walks} walks increased the energy. Lower the step size." if rising else ""
