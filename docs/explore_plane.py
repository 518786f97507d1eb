"""Data of the trained EBT on the page of the landscape explorer: planes, energies, walks, and parts for the model."""

import base64
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import explore_frames
import explorers
import torch
from torch import Tensor, nn

from ebwm.data.digits import moving_digits
from ebwm.data.video import VideoDataset
from ebwm.explore.scenes import Scene, Settings, Slice, next_frame, turned
from ebwm.explore.walks import Trajectories, walk
from ebwm.onnx_export import Prefill
from ebwm.settings import generator
from ebwm.training.configuration import Config
from ebwm.training.learner import load_run
from ebwm.writing import INCLUDED

CLIPS, SEEN, STEPS, GRID = (6, 3, 4), 4, 24, 64  # clips; frames of the context; steps of a walk; points along a side
TURNS = tuple(range(0, 91, 15))  # degrees of the vertical axis from the truth to a random direction
FACTORS = (0.5, 1.0, 2.0)  # of the step size
SHARES = {"gradient descent": 1.0, "Nesterov": 0.25, "Langevin": 0.25, "MALA": 0.25, "HMC": 0.2}
FOLDER, GRAPHS = explore_frames.FOLDERS["digits"], ("step.onnx", "decode.onnx")  # that the page loads
TEMPERATURE = 0.003  # T of the density exp(-E / T)


def write(
    folder: Path,  # of the scripts of explorers in the built site
) -> None:
    """Write the data as a script, which also loads from a file; the model is that of the page of frames."""
    runtime = [path for path in (folder / "runtime").glob("*") if path.is_file()]
    files = [*runtime, *(folder / FOLDER / name for name in GRAPHS)]
    size = sum(path.stat().st_size for path in files) if runtime and all(path.is_file() for path in files) else 0
    explorers.write_data(folder, "plane", described() | {"bytes": size})


def described() -> dict[str, Any]:
    """Everything that the page shows of the trained EBT, as JSON."""
    model, config, clips = trained()
    found = [clip(scene) | {"live": live(model, clips[number], scene)}
             for number, scene in zip(CLIPS, _scenes(model, config, clips), strict=True)]
    return {"steps": STEPS, "trained": config.walk.steps, "grid": GRID, "turns": TURNS, "factors": FACTORS,
            "size": config.data.size, "samplers": list(SHARES), "clips": found, "folder": FOLDER,
            "stepSize": model.step_size.item(), "mean": clips.mean, "std": clips.std,
            "cacheShape": [*cached(model, clips[0]).shape]}


def trained() -> tuple[nn.Module, Config, VideoDataset]:
    """The included EBT, its configuration, and clips that were not in training."""
    learner, _, config = load_run(INCLUDED / "digits")
    data, model = config.data, learner.model.eval().requires_grad_(False)
    clips = moving_digits("test", clips=max(CLIPS) + 1, frames=data.frames, size=data.size, turn=data.turn,
                          seed=config.seed)
    return model, config, clips


def scenes() -> tuple[Config, list[Scene]]:
    """The configuration of the included EBT, and its energy of the next frame of each clip."""
    model, config, clips = trained()
    return config, _scenes(model, config, clips)


def _scenes(model: nn.Module, config: Config, clips: VideoDataset) -> list[Scene]:
    usual = Settings("EBT", step_size=model.step_size.item(), temperature=TEMPERATURE, steps=config.walk.steps,
                     start=config.walk.start)
    return [next_frame(model, clips[clip][: SEEN + 1], usual, clips.images) for clip in CLIPS]


def clip(
    scene: Scene,  # the energy of the next frame of a clip
) -> dict[str, Any]:
    """Planes, maps, and walks."""
    start = scene.settings.start
    flat, *turns = (scene.slice(start, 0, float(turn)) for turn in TURNS)
    axes = all_axes(flat)
    way = flat.known[0] - flat.origin
    return {"centre": flat.centre, "half": flat.half_width, "truth": _short(axes @ way), "far": float(way.norm()),
            "energyTruth": float(flat.energy(flat.known)[0]), "lastError": flat.last_loss,
            "last": _bytes(flat.frames.last), "next": _bytes(flat.frames.truth),
            "maps": [energies(one) for one in (flat, *turns)],
            "walks": [[recorded(walk_of(scene, name, factor), axes) for factor in FACTORS] for name in SHARES]}


def live(
    model: nn.Module,  # the EBT
    states: Tensor,  # [frames dim], of a clip
    scene: Scene,  # its energy
) -> dict[str, str]:
    """What the model needs in the page for walks from other places of the plane, as 32-bit floats."""
    where = scene.slice(scene.settings.start, 0)
    parts = {"origin": where.origin, "axes": all_axes(where), "cache": cached(model, states), "target": states[SEEN]}
    return {name: base64.b64encode(part.numpy().astype("<f4").tobytes()).decode() for name, part in parts.items()}


def cached(model: nn.Module, states: Tensor) -> Tensor:
    """Keys and values of the context."""
    return Prefill(model)(states[None, :SEEN])


def all_axes(where: Slice) -> Tensor:  # [3 dim]
    """The axes of a plane, and the direction to which it turns."""
    return torch.cat([where.axes, turned(where.axes, 90.0, generator(0, "plane"))[1:]])


def energies(
    where: Slice,  # a plane
) -> dict[str, Any]:
    """Energies on the grid, a row for each y from the top, in 16 bits; `high` is the highest that is coloured."""
    values = where.grid[2].flip(0)
    low, high, top = (float(values.quantile(share)) for share in (0.0, 0.9, 1.0))
    scaled = (values - low) / (top - low) * 65535
    levels = base64.b64encode(scaled.round().numpy().astype("<u2").tobytes()).decode()
    return {"low": low, "high": high, "top": top, "values": levels}


def walk_of(
    scene: Scene,  # the energy
    sampler: str,  # its name
    factor: float,  # of its step size
) -> Trajectories:
    """A walk by the library's sampler."""
    alpha = scene.settings.step_size
    size = SHARES[sampler] * (math.sqrt(2 * alpha) if sampler == "HMC" else alpha)
    return walk({"EBT": scene}, replace(scene.settings, sampler=sampler, step_size=factor * size, steps=STEPS, walks=1))


def recorded(
    walks: Trajectories,  # one walk
    axes: Tensor,  # [3 dim]: of the plane, and the direction to which it turns
) -> dict[str, Any]:
    """Places along the three axes, distance from them, length of each step, energies, errors and images."""
    found, where = walks.candidates[:, 0], walks.slice
    offset = found - where.origin
    places = offset @ axes.T
    return {"size": walks.settings.step_size, "places": [_short(place) for place in places],
            "rest": _short((offset - places @ axes).norm(dim=-1)), "lengths": _short(found.diff(dim=0).norm(dim=-1)),
            "energies": _short(walks.energies[:, 0]), "errors": _short(where.loss(found)),
            "accepted": walks.accepted[:, 0].int().tolist(), "images": _bytes(where.frames.image(found))}


def _short(values: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def _bytes(images: Tensor) -> str:
    return base64.b64encode((images.clamp(0, 1) * 255).round().byte().numpy().tobytes()).decode()
