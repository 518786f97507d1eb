"""Scripted experts: what demonstrations are recorded from."""

import importlib
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from ebwm.checks import one_of, refusal
from ebwm.policy.interface import Observation
from ebwm.policy.reach import OBSTACLE, SPEED
from ebwm.usage import UsageError

__all__ = ["EXPERTS", "STYLES", "Clumsy", "Expert", "ReachExpert", "make_expert"]

STYLES = ("clean", "clumsy")
EXPERTS = {
    "reach": ("experts", "ReachExpert"),
    **{f"metaworld:{task}": ("metaworld", "MetaWorldExpert", task) for task in
       ("pick-place", "push-wall", "peg-insert-side", "hammer")},
    "metaworld:reach-wall": ("metaworld", "WallExpert"),
    **{f"robosuite:{task}": ("arms", f"{task}Expert") for task in ("Lift", "Can", "Square")},
}  # module, class and first arguments of each expert, by simulator


class Expert(ABC):
    """A script that solves a task from its state alone."""

    moving: ClassVar[int]  # entries of an action that move the robot; those after them keep their values in a pause

    def __init__(
        self,
        seed: int = 0,  # of the choices among ways that all succeed
    ):
        self.seed = seed

    def reset(self) -> None:  # noqa: B027
        """Forget the episode; the next one has the choices of the same seed."""

    @abstractmethod
    def act(self, observation: Observation) -> np.ndarray:
        """The action, [action_dim] in [-1, 1], after an observation."""


class Clumsy(Expert):
    """An expert with noise on its translations, pauses of 2 to 5 steps, and detours of 3 to 6 in a random direction."""

    def __init__(
        self,
        expert: Expert,
        seed: int = 0,  # of noise, pauses and detours
        noise: float = 0.15,  # standard deviation on each axis of a translation
        pause: float = 0.03,  # probability that a pause starts at a step
        detour: float = 0.03,  # probability that a detour starts at a step
        strength: float = 0.6,  # length of a detour's action
    ):
        super().__init__(seed)
        self.expert, self.moving = expert, expert.moving
        self.axes = min(3, self.moving)  # of translation
        self.noise, self.pause, self.detour, self.strength = noise, pause, detour, strength
        self.reset()

    def reset(self) -> None:
        self.expert.reset()
        self.random = np.random.default_rng([self.seed, 2])
        self.left, self.motion = 0, np.zeros(self.axes)

    def act(self, observation: Observation) -> np.ndarray:
        action = np.array(self.expert.act(observation), np.float64)
        if self.left == 0:
            self._choose()
        if self.left:
            self.left -= 1
            action[:self.moving] = 0
            action[:self.axes] = self.motion
        else:
            action[:self.axes] += self.noise * self.random.standard_normal(self.axes)
        return action.clip(-1, 1)

    def _choose(self) -> None:
        draw = self.random.random()
        if draw < self.pause:
            self.left, self.motion = int(self.random.integers(2, 6)), np.zeros(self.axes)
        elif draw < self.pause + self.detour:
            direction = self.random.standard_normal(self.axes)
            self.motion = self.strength * direction / np.linalg.norm(direction)
            self.left = int(self.random.integers(3, 7))


class ReachExpert(Expert):
    """Goes to the goal along the obstacle, on a side that the seed alone decides: left and right are equally likely."""

    moving = 2
    margin = 0.12  # distance from the obstacle that it keeps

    def __init__(self, seed: int = 0):
        super().__init__(seed)
        self.side = ("left", "right")[np.random.default_rng([seed, 3]).integers(2)]

    def act(self, observation: Observation) -> np.ndarray:
        x, y, goal_x, goal_y = map(float, observation["state"])
        toward = np.array((goal_x - x, goal_y - y))
        direction = toward if self._is_free(x, y, *toward) else self._around(x, y)
        length = np.linalg.norm(direction)
        return direction * min(1 / SPEED, 1 / max(np.abs(direction).max(), 1e-9), 1 / max(length, 1e-9))

    def _is_free(self, x: float, y: float, dx: float, dy: float) -> bool:
        """Whether the straight way stays off the obstacle."""
        share = min(1, max(0, -(x * dx + y * dy) / max(dx * dx + dy * dy, 1e-12)))
        return math.hypot(x + share * dx, y + share * dy) > OBSTACLE + 0.8 * self.margin

    def _around(self, x: float, y: float) -> np.ndarray:
        """The direction of the tangent of a circle around the obstacle, on the chosen side."""
        distance, radius = math.hypot(x, y), OBSTACLE + self.margin
        turn = math.pi / 2 if distance <= radius else math.asin(radius / distance)
        inward = math.atan2(-y, -x)
        outward = 2 * max(0.0, radius - distance)
        angle = inward + (turn if self.side == "left" else -turn)
        return np.array((math.cos(angle) + outward * x, math.sin(angle) + outward * y))


def make_expert(
    simulator: str,  # name, as for `make_simulator`
    seed: int = 0,  # of its choices, and of its mistakes if it is clumsy
    style: str = "clean",  # "clean" | "clumsy": noise, pauses and detours
) -> Expert:
    """The expert of a simulator."""
    one_of("style", style, STYLES, UsageError)
    if simulator not in EXPERTS:
        raise refusal("simulator", simulator, f"has no expert; {', '.join(EXPERTS)} have", "", UsageError)
    module, kind, *first = EXPERTS[simulator]
    expert = getattr(importlib.import_module(f"ebwm.policy.{module}"), kind)(*first, seed)
    return Clumsy(expert, seed) if style == "clumsy" else expert
