"""Refusals of ebwm.explore."""

import math
from dataclasses import replace
from pathlib import Path

from ebwm.explore.plots import figure
from ebwm.explore.scenes import Settings, analytic_scenes, run_scene
from ebwm.explore.walks import compute
from tests.helpers import refused, rows

SCENES = analytic_scenes()
TEXT_MODEL = Path(__file__).parents[2] / "ebwm" / "models" / "text"


CASES = [
    *refused(lambda **bad: compute(SCENES, replace(Settings(), **bad)), energy="hill", sampler="guess", start="last",
             steps=0, walks=9, x=1.0, step_size=-1.0),
    *refused(lambda **bad: compute(SCENES, replace(Settings(), sampler="MALA", **bad)), temperature=0.0),
    *rows(
        (lambda: compute(SCENES, replace(Settings(), x=math.inf, y=0.0)), "start"),
        (lambda: figure(compute(SCENES, Settings()), "blue"), "theme='blue'"),
        (lambda: run_scene(TEXT_MODEL.parent), "folder="),  # no run
        (lambda: run_scene(TEXT_MODEL), "folder="),  # of tokens
    ),
]
