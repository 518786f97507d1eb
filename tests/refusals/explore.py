"""Refusals of ebwm.explore."""

import json
import math
from dataclasses import replace
from pathlib import Path

from ebwm.explore.plots import figure
from ebwm.explore.scenes import Settings, analytic_scenes, run_scene
from ebwm.explore.state import settings_from, state_text
from ebwm.explore.walks import compute
from ebwm.usage import UsageError
from tests.helpers import refused, rows

SCENES = analytic_scenes()
TEXT_MODEL = Path(__file__).parents[2] / "ebwm" / "models" / "text"
STATE = json.loads(state_text(Settings()))
WRONG = [  # states, and what is wrong with them
    ("not JSON", "state='not JSON': must be JSON"), ("[1]", "state=[1]: must be an object"),
    (json.dumps(STATE | {"speed": 1}), "speed"), (json.dumps({"energy": "banana"}), "angle"),
    *((json.dumps(STATE | {name: value}), f"{name}=") for name, value in
      (("steps", 1.5), ("steps", True), ("x", "left"), ("noise", math.nan), ("energy", None))),
]

CASES = [
    *refused(lambda **bad: compute(SCENES, replace(Settings(), **bad)), energy="hill", sampler="guess", start="last",
             steps=0, walks=9, x=1.0, step_size=-1.0),
    *refused(lambda **bad: compute(SCENES, replace(Settings(), sampler="MALA", **bad)), temperature=0.0),
    *refused(lambda **bad: compute(SCENES, replace(Settings(), **bad)), sampler_2="guess", step=41, angle=91.0),
    *rows(
        *((lambda text=text: settings_from(Settings, text), part) for text, part in WRONG),
        error=UsageError,
    ),
    *rows(
        (lambda: compute(SCENES, replace(Settings(), x=math.inf, y=0.0)), "start"),
        (lambda: figure(compute(SCENES, Settings()), "blue"), "theme='blue'"),
        (lambda: run_scene(TEXT_MODEL.parent), "folder="),  # no run
        (lambda: run_scene(TEXT_MODEL), "folder="),  # of tokens
    ),
]
