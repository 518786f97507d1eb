"""Refusals of ebwm.explore."""

import math
from dataclasses import replace
from pathlib import Path

from ebwm.explore.plots import figure
from ebwm.explore.scenes import Settings, analytic_scenes, run_scene
from ebwm.explore.walks import compute

SCENES = analytic_scenes()
TEXT_MODEL = Path(__file__).parents[2] / "data" / "checkpoints" / "text"


def walks(**changes):
    """Compute walks with some settings changed."""
    return lambda: compute(SCENES, replace(Settings(), **changes))


CASES = [
    ("unknown energy", walks(energy="hill"), ValueError, "energy='hill'"),
    ("unknown sampler", walks(sampler="guess"), ValueError, "sampler='guess'"),
    ("unavailable start", walks(start="last"), ValueError, "start='last'"),
    ("no steps", walks(steps=0), ValueError, "steps=0"),
    ("too many walks", walks(walks=9), ValueError, "walks=9"),
    ("half a point", walks(x=1.0), ValueError, "x=1"),
    ("negative step size", walks(step_size=-1.0), ValueError, "step_size"),
    ("no temperature", walks(sampler="MALA", temperature=0.0), ValueError, "temperature"),
    ("infinite point", walks(x=math.inf, y=0.0), ValueError, "start"),
    ("unknown theme", lambda: figure(walks()(), "blue"), ValueError, "theme='blue'"),
    ("no run", lambda: run_scene(TEXT_MODEL.parent), ValueError, "folder="),
    ("model of tokens", lambda: run_scene(TEXT_MODEL), ValueError, "folder="),
]
