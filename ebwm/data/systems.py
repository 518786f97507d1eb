"""Recordings of dynamical systems, for examples and figures."""

import torch
from jaxtyping import Float
from torch import Tensor

from ebwm import settings

__all__ = ["lorenz"]

STEP, STEPS, TRANSIENT = 0.01, 10, 200  # time of an integration step; steps between states, and before the first state


def lorenz(
    items: int,  # recordings
    states: int,  # states of a recording, 0.1 units of time apart
    seed: int = 0,  # fixes the initial states
) -> Float[Tensor, "items states 3"]:
    """Trajectories on Lorenz's attractor (1963), by the Runge-Kutta method of fourth order."""
    draw = torch.randn(items, 3, generator=settings.generator(seed, "lorenz"))
    state, found = 10 * draw + torch.tensor([0.0, 0.0, 25.0]), []
    for number in range(TRANSIENT + STEPS * states):
        state = _next(state)
        if number >= TRANSIENT and (number - TRANSIENT) % STEPS == 0:
            found.append(state)
    return torch.stack(found, 1)


def _next(state: Tensor) -> Tensor:
    a = _velocity(state)
    b = _velocity(state + STEP / 2 * a)
    c = _velocity(state + STEP / 2 * b)
    return state + STEP / 6 * (a + 2 * b + 2 * c + _velocity(state + STEP * c))


def _velocity(state: Tensor) -> Tensor:
    x, y, z = state.unbind(-1)
    return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)
