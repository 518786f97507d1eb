"""The interface of simulators: reset by a seed, step, observe, success, picture; and how they are disturbed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ebwm.checks import between, finite, instance, one_of, positive, refusal, whole
from ebwm.usage import UsageError

__all__ = ["BLOCKED", "FAULTS", "Disturbance", "Observation", "Scene", "Simulator", "Step"]

Observation = dict[str, np.ndarray]  # "state": [state_dim] float32; with a camera also "image": [size size 3] uint8
FAULTS = ("drop", "block")
BLOCKED = 0.2  # duration of the fault "block", as a share of the expert's usual number of steps


class Step(NamedTuple):
    """What an action led to."""

    observation: Observation
    success: bool  # whether the task is done


@dataclass(frozen=True)
class Disturbance:
    """A seeded change of a simulator during an episode, the same for every policy."""

    noise: float = 0.0  # of the state, in units of its standard deviation over demonstrations, which counts as at least 0.02
    dynamics: float = 1.0  # factor of the effect of actions, or of friction and mass, as the simulator says
    push: float = 0.0  # strength of one push of the object or the robot in mid-episode, 0: none
    fault: str | None = None  # "drop": the object leaves the gripper | "block": actions have no effect for a while
    at: float = 0.5  # time of push or fault, as a share of the expert's usual steps; a drop waits for a lift, success for it

    def __post_init__(self):
        finite("noise", self.noise, UsageError)
        positive("dynamics", self.dynamics, UsageError)
        finite("push", self.push, UsageError)
        between("at", self.at, 0, 1, UsageError)
        if self.fault is not None:
            one_of("fault", self.fault, FAULTS, UsageError)


class Simulator(ABC):
    """A task of one robot; actions are in [-1, 1]."""

    name: str  # as for `make_simulator`
    layout: dict[str, int]  # parts of the state in their order, by name, and their sizes
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

    def close(self) -> None:  # noqa: B027
        """Release the simulator's resources."""


class Scene(Simulator):
    """A simulator that checks actions and times the disturbances; a task says how it starts, moves and is disturbed."""

    faults: tuple[str, ...] = FAULTS  # those that have a meaning here
    usual: int  # steps of an episode of the expert
    still: ClassVar[tuple[int, ...]] = ()  # entries of the action that keep their value while actions have no effect

    def __init__(
        self,
        image: int | None = None,  # pixels along each side of the image in observations; None: no image
    ):
        if image is not None:
            whole("image", image, least=8)
        self.image = image
        self.disturbance = Disturbance()
        self.random = np.random.default_rng(0)  # of the disturbance alone
        self.time, self.dropped = 0, False
        self.last: np.ndarray | None = None

    def reset(self, seed: int, disturbance: Disturbance | None = None) -> Observation:
        """Start an episode; the seed fixes everything random in it, also the direction of a push."""
        whole("seed", seed, least=0, most=2**31 - 1)
        self.disturbance = disturbance or Disturbance()
        if self.disturbance.fault and self.disturbance.fault not in self.faults:
            rule = f"has no meaning in {self.name!r}"
            raise refusal("fault", self.disturbance.fault, rule, f"use {self.faults[0]!r}", UsageError)
        self.random = np.random.default_rng([seed, 1])
        self.time, self.last, self.dropped = 0, None, False
        self._start(seed)
        return self._observation()

    def step(self, action: Float[np.ndarray, " action_dim"]) -> Step:
        """Act once; entries of the action beyond [-1, 1] are clipped."""
        self._disturb()
        self._advance(self._checked(action))
        self.time += 1
        return Step(self._observation(), self._success() and not self._waits_for_drop)

    def _observation(self) -> Observation:
        state = {"state": self._state().astype(np.float32, copy=False)}
        return state | ({"image": self.picture(self.image)} if self.image else {})

    def _disturb(self) -> None:
        if self.disturbance.push and self.time == self._event:
            self._push(self.disturbance.push)
        if self._waits_for_drop and self._is_lifted() and self.time >= self._event:
            self._drop()
            self.dropped = True

    @property
    def _waits_for_drop(self) -> bool:
        """Whether the object is still to be dropped; the task is not solved before that."""
        return self.disturbance.fault == "drop" and not self.dropped

    @property
    def _event(self) -> int:
        return round(self.disturbance.at * self.usual)

    def _checked(self, action: np.ndarray) -> np.ndarray:
        """The action as it acts: clipped, or none while actions are blocked."""
        instance("action", action, np.ndarray, "must be an array")
        if action.shape != (self.action_dim,):
            raise refusal("action", list(action.shape), f"must have shape [{self.action_dim}]")
        if not np.isfinite(action).all():
            raise refusal("action", action.tolist(), "must be finite")
        clipped = action.clip(-1, 1).astype(np.float64)
        if self.disturbance.fault == "block" and 0 <= self.time - self._event < BLOCKED * self.usual:
            return self._none(clipped)
        self.last = clipped
        return clipped

    def _none(self, action: np.ndarray) -> np.ndarray:
        """No motion, the gripper as before."""
        none = np.zeros_like(action)
        for entry in self.still:
            none[entry] = action[entry] if self.last is None else self.last[entry]
        return none

    def _start(self, seed: int) -> None:
        raise NotImplementedError

    def _advance(self, action: np.ndarray) -> None:
        raise NotImplementedError

    def _state(self) -> np.ndarray:
        raise NotImplementedError

    def _success(self) -> bool:
        raise NotImplementedError

    def _push(self, strength: float) -> None:
        raise NotImplementedError

    def _is_lifted(self) -> bool:
        raise NotImplementedError

    def _drop(self) -> None:
        raise NotImplementedError
