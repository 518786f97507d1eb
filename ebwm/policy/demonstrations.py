"""Demonstrations: episodes of experts, with a digest."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Demonstrations", "Episode", "collect"]


class Episode(NamedTuple):
    """One episode: the observation before each action, and the action."""

    observations: dict[str, np.ndarray]  # "state": [steps state_dim] float32; "image": [steps size size 3] uint8
    actions: Float[np.ndarray, "steps action_dim"]  # float32, in [-1, 1]
    success: bool
    seed: int  # of the simulator


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of one simulator."""

    simulator: str  # name, as for `make_simulator`
    episodes: list[Episode]

    @property
    def digest(self) -> str:
        """SHA-256 of all arrays, the same for the same bytes."""
        raise NotImplementedError


def collect(
    simulator: str,  # name, as for `make_simulator`
    episodes: int,  # number of successful episodes
    seed: int = 0,  # fixes initial states and the expert's variations
    style: str = "clean",  # "clean" | "clumsy": noise, pauses and detours
    workers: int = 1,  # processes
) -> Demonstrations:
    """Record a scripted expert; failed episodes are counted and left out."""
    raise NotImplementedError
