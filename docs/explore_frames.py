"""Files of the page of the frames explorer: clips, recorded walks, and models."""

import base64
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import explore_assets
import explorers
import numpy as np
import torch
from torch import nn

from ebwm.data.acting import GameClips
from ebwm.data.shown import ShownClips
from ebwm.explore.frame_walks import SOURCES
from ebwm.explore.frames import FrameModels, FramesResult, Settings, compute, included_models
from ebwm.training.learner import load_run

STEPS, WALKS = 8, 3  # of the recorded walks
FOLDERS = {"digits": "frames", "game": "frames_game", "camera": "frames_camera"}  # of the models, by source of clips


class Shown(NamedTuple):
    """What the page has of a source."""

    clips: int  # number of clips from the start
    recorded: tuple[int, ...]  # those with recorded walks
    positions: tuple[int, ...]  # of recorded walks
    every: bool = False  # whether walks of every action are recorded


SHOWN = {"digits": Shown(24, (0, 1, 2, 3, 4, 5), (1, 4, 7)), "game": Shown(16, (0, 1, 2), (2, 5), True),
         "camera": Shown(32, (0, 1, 24), (2, 6))}


def write(
    folder: Path,  # of the scripts of explorers in the built site
    cache: Path | None = None,  # keeps packages and exported models; None: that of the settings
) -> None:
    """Write clips and recorded walks, as a script that also loads from a file, and models if they can be made here."""
    found = recorded()
    for source, values in found.items():
        values["bytes"] = explore_assets.write(folder, FOLDERS[source], files_of(source), load, cache)
    explorers.write_data(folder, "frames", found)


def files_of(
    source: str,  # of the clips
) -> dict[str, tuple[str, ...]]:
    """The files of each model of a source."""
    return {source: ("prefill.onnx", "step.onnx", "decode.onnx"), f"{source}_transformer": ("forward.onnx",)}


def load(
    folder: Path,  # of an included model of frames
) -> nn.Module:
    """The model."""
    return load_run(folder).learner.model


def recorded() -> dict[str, dict[str, Any]]:
    """Everything that the page shows without the models, by source: clips, and walks for some of them at seed 0."""
    return {source: _recorded(source, SHOWN[source]) for source in sources()}


def sources() -> list[str]:
    """The sources of clips that can be made here: the camera needs scikit-image, which has the photographs."""
    here = importlib.util.find_spec("skimage") is not None
    if not here:
        print("the page of the frames explorer has no camera: pip install 'ebwm[features]'", file=sys.stderr)
    return [source for source in SOURCES if here or source != "camera"]


def _recorded(source: str, shown: Shown) -> dict[str, Any]:
    models = included_models(source)
    clips = models.clips
    states = [state(models, Settings(source, clip, position, action, STEPS, walks=WALKS))
              for clip in shown.recorded for position in shown.positions
              for action in (models.actions if shown.every else models.actions[:1])]
    return {"note": models.note, "folder": FOLDERS[source], "size": [*clips.clips.shape[2:4]],
            "channels": clips.clips[0, 0].size // math.prod(clips.clips.shape[2:4]), "frames": clips.frames,
            "clips": base64.b64encode(clips.clips[:shown.clips].tobytes()).decode(),
            "mean": _short(clips.scale.mean), "std": _short(clips.scale.std),
            "about": [_about(clips, clip) for clip in range(shown.clips)],
            "stepSize": models.model.step_size.item(), "dim": models.model.candidate_dim,
            "steps": STEPS, "walks": WALKS, "states": states,
            **(_game(clips, shown.clips) if clips.actions else dict(actions=[], taken=[], after=""))}


def _about(clips: ShownClips, clip: int) -> str:
    """What there is to say about a clip."""
    return ", ".join(f"{name}: {value}" for name, value in clips.facts(clip).items())


def _short(values: list[float] | float) -> list[float] | float:
    """Numbers of a standardisation, with enough digits."""
    return [float(f"{value:.6g}") for value in values] if isinstance(values, list) else values


def _game(clips: GameClips, count: int) -> dict[str, Any]:
    """Actions, those that were played, and the game's next frame after each action at each position."""
    after = np.stack([clips.after(clip, position) for clip in range(count) for position in range(1, clips.frames)])
    return {"actions": [*clips.actions], "taken": clips.taken[:count].tolist(),
            "after": base64.b64encode(after.tobytes()).decode()}


def state(
    models: FrameModels,  # to predict with
    settings: Settings,  # of the walks
) -> dict[str, Any]:  # as `predict` of frames_model.js; images are bytes, one for each colour of a pixel, in base64
    """Walks from the starts that the page draws."""
    result = walks(models, settings)
    numbers = lambda values: [[float(f"{value:.6g}") for value in row] for row in values.T.tolist()]
    return {"clip": settings.clip, "position": settings.position, "action": settings.action,
            "baseline": _bytes(result.baseline), "candidates": _bytes(result.candidates),
            "energies": numbers(result.energies), "errors": numbers(result.errors), "lastError": result.last_error,
            "baselineError": result.baseline_error}


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
