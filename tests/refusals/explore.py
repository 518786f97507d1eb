"""Refusals of ebwm.explore."""

import math
from dataclasses import replace
from pathlib import Path

from ebwm.explore.plots import figure
from ebwm.explore.scenes import Settings, analytic_scenes, run_scene
from ebwm.explore.walks import compute

SCENES = analytic_scenes()
TEXT_MODEL = Path(__file__).parents[2] / "ebwm" / "models" / "text"


def walks(**changes):
    """Compute walks with some settings changed."""
    return lambda: compute(SCENES, replace(Settings(), **changes))


CASES = [
    *((f"{named} {changes}", walks(**changes), ValueError, named) for named, changes in [
        ("energy='hill'", {"energy": "hill"}), ("sampler='guess'", {"sampler": "guess"}),
        ("start='last'", {"start": "last"}), ("steps=0", {"steps": 0}), ("walks=9", {"walks": 9}), ("x=1", {"x": 1.0}),
        ("step_size", {"step_size": -1.0}), ("temperature", {"sampler": "MALA", "temperature": 0.0}),
        ("start", {"x": math.inf, "y": 0.0})]),
    ("unknown theme", lambda: figure(walks()(), "blue"), ValueError, "theme='blue'"),
    ("no run", lambda: run_scene(TEXT_MODEL.parent), ValueError, "folder="),
    ("model of tokens", lambda: run_scene(TEXT_MODEL), ValueError, "folder="),
]
