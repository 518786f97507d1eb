"""Presets of the landscape explorer: settings that show one idea each."""

from dataclasses import replace
from typing import NamedTuple

from .scenes import Scene, Settings
from .walks import MAX_STEPS

__all__ = ["FREE", "Preset", "preset_of", "presets"]

FREE = "none"  # settings of no preset


class Preset(NamedTuple):
    """Settings, and what they show."""

    settings: Settings
    lesson: str  # one sentence


PRESETS = {
    "a step too large": Preset(
        Settings("quadratic", step_size=0.15, steps=30, x=-2.2, y=1.0, sampler_2="gradient descent", step_size_2=0.17),
        "The curvature along y[1] is 12: above a step size of 2/12 each step overshoots by more than it corrects, and "
        "the walk diverges."),
    "momentum in a valley": Preset(
        Settings("banana", step_size=0.004, steps=150, x=-1.0, y=1.0, sampler_2="Nesterov"),
        "On the floor of the valley gradients are small: gradient descent creeps, while Nesterov's velocity adds up."),
    "Langevin against descent": Preset(
        Settings("mixture", step_size=0.1, steps=150, walks=4, x=-0.3, y=0.2, sampler_2="Langevin"),
        "Descent ends in one mode, the same for all walks; Langevin dynamics visits the modes by their weights."),
    "a test that corrects": Preset(
        Settings("double well", "Langevin", 0.04, temperature=0.3, steps=200, walks=8, seed=5, sampler_2="MALA"),
        "At a large step size Langevin dynamics samples a density that is too wide; MALA rejects some steps and samples "
        "exp(−E / T)."),
    "HMC against MALA": Preset(
        Settings("banana", "HMC", 0.1, steps=60, walks=4, x=-1.0, y=1.0, sampler_2="MALA", step_size_2=0.02),
        "MALA moves by small random steps and leaves the start slowly; a proposal of HMC follows the valley, at 8 "
        "evaluations a step."),
}


def presets(
    scenes: dict[str, Scene],  # available energies, by name
) -> dict[str, Preset]:
    """The presets of these energies; for an energy of a model, one with more steps than in training."""
    found = {name: preset for name, preset in PRESETS.items() if preset.settings.energy in scenes}
    for name, scene in scenes.items():
        if scene.turns:
            longer = replace(scene.settings, energy=name, steps=_more(scene.settings.steps))
            found[f"more steps than trained: {name}"] = Preset(
                longer, "Further steps lower the energy, but the objective never saw them: see whether the distance to "
                "the truth follows.")
    return found


def _more(steps: int) -> int:
    """More steps than a model was trained with: ten times as many, but about 40 at most unless it was trained with as many."""
    return min(10 * steps, max(40, 2 * steps), MAX_STEPS)


def preset_of(
    known: dict[str, Preset],  # by name
    settings: Settings,  # at any step
) -> str:  # its name, or FREE
    """The preset that has these settings."""
    plain = replace(settings, step=None)
    return next((name for name, preset in known.items() if replace(preset.settings, step=None) == plain), FREE)
