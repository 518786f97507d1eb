"""Data of the trained EBT on the page of the landscape explorer: planes, energies on a grid, and recorded walks."""

import base64
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import explorers
import torch
from torch import Tensor

from ebwm.data.digits import moving_digits
from ebwm.explore.scenes import Scene, Settings, Slice, next_frame, turned
from ebwm.explore.walks import Trajectories, walk
from ebwm.settings import generator
from ebwm.training.configuration import Config
from ebwm.training.learner import load_run
from ebwm.writing import INCLUDED

CLIPS, SEEN, STEPS, GRID = (6, 3, 4), 4, 24, 64  # clips; frames of the context; steps of a walk; points along a side
TURNS = tuple(range(0, 91, 15))  # degrees of the vertical axis from the truth to a random direction
FACTORS = (0.5, 1.0, 2.0)  # of the step size
SHARES = {"gradient descent": 1.0, "Nesterov": 0.25, "Langevin": 0.25, "MALA": 0.25, "HMC": 0.2}
TEMPERATURE = 0.003  # T of the density exp(-E / T)


def write(
    folder: Path,  # of the scripts of explorers in the built site
) -> None:
    """Write the data as a script, which also loads from a file."""
    explorers.write_data(folder, "plane", described())


def described() -> dict[str, Any]:
    """Everything that the page shows of the trained EBT, as JSON."""
    config, found = scenes()
    return {"steps": STEPS, "trained": config.walk.steps, "grid": GRID, "turns": TURNS, "factors": FACTORS,
            "size": config.data.size, "samplers": list(SHARES), "clips": [clip(scene) for scene in found]}


def scenes() -> tuple[Config, list[Scene]]:
    """The configuration of the included EBT, and its energy of the next frame of each clip."""
    learner, _, config = load_run(INCLUDED / "digits")
    data, model = config.data, learner.model.eval()
    clips = moving_digits("test", clips=max(CLIPS) + 1, frames=data.frames, size=data.size, turn=data.turn,
                          seed=config.seed)
    usual = Settings("EBT", step_size=model.step_size.item(), temperature=TEMPERATURE, steps=config.walk.steps,
                     start=config.walk.start)
    return config, [next_frame(model, clips[clip][: SEEN + 1], usual, clips.images) for clip in CLIPS]


def clip(
    scene: Scene,  # the energy of the next frame of a clip
) -> dict[str, Any]:
    """Planes, maps, and walks."""
    start = scene.settings.start
    flat, *turns = (scene.slice(start, 0, float(turn)) for turn in TURNS)
    away = turned(flat.axes, 90.0, generator(0, "plane"))[1]
    axes = torch.cat([flat.axes, away[None]])
    way = flat.known[0] - flat.origin
    return {"centre": flat.centre, "half": flat.half_width, "truth": _short(axes @ way), "far": float(way.norm()),
            "energyTruth": float(flat.energy(flat.known)[0]), "lastError": flat.last_loss,
            "last": _bytes(flat.frames.last), "next": _bytes(flat.frames.truth),
            "maps": [energies(one) for one in (flat, *turns)],
            "walks": [[recorded(walk_of(scene, name, factor), axes) for factor in FACTORS] for name in SHARES]}


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
