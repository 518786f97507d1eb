"""Files of the page of the frames explorer: clips, recorded walks, and models."""

import base64
from pathlib import Path
from typing import Any

import explore_assets
import explorers
import torch
from torch import nn

from ebwm.explore.frames import FrameModels, FramesResult, Settings, compute, included_models
from ebwm.training.learner import load_run

CLIPS, RECORDED, POSITIONS = 24, (0, 1, 2, 3, 4, 5), (1, 4, 7)  # all; those with recorded walks
STEPS, WALKS = 8, 3  # of the recorded walks
MODELS = {"digits": ("prefill.onnx", "step.onnx", "decode.onnx"), "digits_transformer": ("forward.onnx",)}


def write(
    folder: Path,  # of the scripts of explorers in the built site
    cache: Path | None = None,  # keeps packages and exported models; None: that of the settings
) -> None:
    """Write clips and recorded walks, as a script that also loads from a file, and models if they can be made here."""
    size = explore_assets.write(folder, "frames", MODELS, load, cache)
    explorers.write_data(folder, "frames", recorded() | {"bytes": size})


def load(
    folder: Path,  # of an included model of frames
) -> nn.Module:
    """The model."""
    return load_run(folder).learner.model


def recorded() -> dict[str, Any]:
    """Everything that the page shows without the models: clips, and walks for some of them at seed 0."""
    models = included_models()
    clips = models.clips
    states = [state(models, Settings(clip, position, STEPS, walks=WALKS))
              for clip in RECORDED for position in POSITIONS]
    return {"note": models.note, "size": [*clips.clips.shape[2:]], "frames": clips.frames,
            "clips": base64.b64encode(clips.clips[:CLIPS].tobytes()).decode(), "mean": clips.mean, "std": clips.std,
            "stepSize": models.model.step_size.item(), "dim": models.model.candidate_dim,
            "steps": STEPS, "walks": WALKS, "states": states}


def state(
    models: FrameModels,  # to predict with
    settings: Settings,  # of the walks
) -> dict[str, Any]:  # as `predict` of frames_model.js; images are bytes, one for each pixel, in base64
    """Walks from the starts that the page draws."""
    result = walks(models, settings)
    numbers = lambda values: [[float(f"{value:.6g}") for value in row] for row in values.T.tolist()]
    return {"clip": settings.clip, "position": settings.position, "baseline": _bytes(result.baseline),
            "candidates": _bytes(result.candidates), "energies": numbers(result.energies),
            "errors": numbers(result.errors), "lastError": result.last_error, "baselineError": result.baseline_error}


def walks(
    models: FrameModels,  # to predict with
    settings: Settings,  # of the walks
) -> FramesResult:
    """Walks from the starts of `randomStream` of landscape.js."""
    count = models.model.candidate_dim
    drawn = explore_assets.normals((settings.seed + 1) * 0x9E3779B1 % 2**32, settings.walks * count)
    return compute(models, settings, torch.from_numpy(drawn.astype("float32")).view(settings.walks, count))


def _bytes(images: torch.Tensor) -> str:
    return base64.b64encode((images * 255).round().byte().numpy().tobytes()).decode()
