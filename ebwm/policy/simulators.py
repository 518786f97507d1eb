"""Simulators of robots behind one interface: reset by a seed, step, observe, success, picture."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

__all__ = ["Disturbance", "Observation", "Simulator", "Step", "make_simulator"]

Observation = dict[str, np.ndarray]  # "state": [state_dim] float32; with a camera also "image": [size size 3] uint8


class Step(NamedTuple):
    """What an action led to."""

    observation: Observation
    success: bool  # whether the task is done


@dataclass(frozen=True)
class Disturbance:
    """A seeded change of a simulator during an episode, the same for every policy."""

    noise: float = 0.0  # standard deviation of noise on the state, in units of its standard deviation over demonstrations
    dynamics: float = 1.0  # factor of the effect of actions, or of friction and mass, as the simulator says
    push: float = 0.0  # strength of one push of the object or the robot in mid-episode, 0: none
    fault: str | None = None  # "drop": the object leaves the gripper | "block": actions have no effect for a while
    at: float = 0.5  # time of push or fault, as a share of the expert's usual number of steps


class Simulator(ABC):
    """A task of one robot; actions are in [-1, 1]."""

    name: str  # as for `make_simulator`
    layout: ClassVar[dict[str, int]]  # parts of the state in their order, by name, and their sizes
    action_dim: int
    limit: int  # steps after which an episode has failed

    @property
    def state_dim(self) -> int:
        """Features of a state."""
        return sum(self.layout.values())

    @abstractmethod
    def reset(self, seed: int, disturbance: Disturbance | None = None) -> Observation:
        """Start an episode; the seed fixes everything random in it."""

    @abstractmethod
    def step(self, action: Float[np.ndarray, " action_dim"]) -> Step:
        """Act once."""

    @abstractmethod
    def picture(self, size: int = 256) -> UInt8[np.ndarray, "size size 3"]:
        """The scene as an RGB image."""

    def close(self) -> None:
        """Release the simulator's resources."""


def make_simulator(
    name: str,  # "reach" | "metaworld:TASK" | "robosuite:TASK"
    **options: Any,  # of the simulator, such as image=84: the camera's pixels along each side of observations
) -> Simulator:
    """Build a simulator by name."""
    raise NotImplementedError
