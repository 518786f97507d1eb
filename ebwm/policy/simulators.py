"""Simulators of robots by name."""

import importlib
from typing import Any

from ebwm.checks import one_of
from ebwm.policy.interface import Disturbance, Observation, Scene, Simulator, Step
from ebwm.usage import UsageError

__all__ = ["SIMULATORS", "Disturbance", "Observation", "Scene", "Simulator", "Step", "make_simulator"]

SIMULATORS = {
    "reach": ("reach", "Reach"),
    **{f"metaworld:{task}": ("metaworld", "MetaWorld") for task in
       ("pick-place", "push-wall", "peg-insert-side", "hammer", "reach-wall")},
    **{f"robosuite:{task}": ("robosuite", "RoboSuite") for task in ("Lift", "Can", "Square", "ToolHang")},
}  # module and class of each simulator
OPTIONS = ("image",)


def make_simulator(
    name: str,  # "reach" | "metaworld:TASK" | "robosuite:TASK"
    **options: Any,  # of the simulator, such as image=84: the camera's pixels along each side of observations
) -> Simulator:
    """Build a simulator by name; all but "reach" need the packages of `ebwm[policy]`."""
    one_of("simulator", name, SIMULATORS, UsageError)
    module, kind = SIMULATORS[name]
    task = name.partition(":")[2]
    build = getattr(importlib.import_module(f"ebwm.policy.{module}"), kind)
    for option in options:
        one_of("option", option, OPTIONS, UsageError)
    return build(*[task] if task else [], **options)
