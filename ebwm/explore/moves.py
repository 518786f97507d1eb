"""The parts of each step of a walk before acceptance: gradient, noise, momentum and proposal."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..energy import Wrapper
from ..sampler import Info, State

__all__ = ["LEAPFROGS", "MOMENTUM", "Moves", "Recorder", "moves_of"]

MOMENTUM = 0.9  # mu of Nesterov's method
LEAPFROGS = 8  # integration steps of a proposal of HMC


class Moves(NamedTuple):
    """Parts of each step before acceptance: a proposal is the candidate plus gradient, noise and momentum.

    The noise of HMC is the straight flight with the sampled momentum; its gradient is what bends this flight.
    """

    gradient: Float[Tensor, "steps walks dim"]  # what the gradient adds
    noise: Float[Tensor, "steps walks dim"]  # what the random numbers add
    momentum: Float[Tensor, "steps walks dim"]  # what the velocity of earlier steps adds
    proposals: Float[Tensor, "steps walks dim"]  # candidates before acceptance


class Recorder(Wrapper):
    """A landscape that stores where each step of a walk evaluates the gradient, and the states after the steps."""

    def __init__(
        self,
        inner: Callable,  # a landscape that is the same at all steps, or a plain callable
    ):
        super().__init__(inner)
        self.states: list[State] = []  # one for each step
        self.infos: list[Info] = []  # one for each step
        self.points: list[list[Tensor]] = [[]]  # for each step, and for the next one

    def value_and_grad(
        self,
        y: Float[Tensor, "walks dim"],  # candidates
        create_graph: bool = False,  # as for a landscape
    ) -> tuple[Float[Tensor, " walks"], Float[Tensor, "walks dim"]]:
        """Energies and gradient by the rule of the inner landscape."""
        self.points[-1].append(y.detach())
        return self.inner.value_and_grad(y, create_graph)

    def gradient(
        self,
        y: Float[Tensor, "walks dim"],  # candidates
        create_graph: bool = False,  # as for a landscape
    ) -> Float[Tensor, "walks dim"]:
        """The gradient by the rule of the inner landscape."""
        self.points[-1].append(y.detach())
        return self.inner.gradient(y, create_graph)

    def after_step(
        self,
        index: int,  # of the step, from 0
        state: State,  # after the step
        info: Info,  # facts about the step
    ) -> None:
        """Callback of `run`."""
        self.states.append(state)
        self.infos.append(info)
        self.points.append([])

    @property
    def evaluations(self) -> int:
        """Evaluations for each walk: in the steps, and one of the last energy if the sampler does not know it."""
        return sum(int(info.evaluations[0]) for info in self.infos) + (self.states[-1].energy is None)

    @property
    def accepted(self) -> Bool[Tensor, "steps walks"]:
        """Whether each step was accepted."""
        return torch.stack([info.accepted for info in self.infos])

    @property
    def ends(self) -> Float[Tensor, "steps walks dim"]:
        """Candidates after each step."""
        return torch.stack([state.y for state in self.states])


def moves_of(
    sampler: str,  # its name in `ebwm.explore.walks.SAMPLERS`
    step_size: float,  # alpha
    recorder: Recorder,  # of the walk
    places: Float[Tensor, "steps walks dim"],  # candidates before each step
    grads: Float[Tensor, "steps walks dim"],  # gradients there
) -> Moves:
    """Take the steps of a walk apart by the rule of its sampler."""
    decides = sampler in ("guarded descent", "MALA", "HMC")  # evaluates the proposal last
    points = recorder.points[: len(places)]
    proposals = torch.stack([step[-1] for step in points]) if decides else recorder.ends
    momentum = torch.zeros_like(places)
    if sampler == "Nesterov" and len(places) > 1:
        momentum[1:] = MOMENTUM * torch.stack([state.velocity for state in recorder.states[:-1]])
    if sampler in ("Langevin", "MALA"):
        gradient = -step_size * grads
        return Moves(gradient, proposals - places - gradient, momentum, proposals)
    if sampler == "HMC":  # the first point of the integration is y + step_size * (momentum - step_size / 2 * grad)
        first = torch.stack([step[-LEAPFROGS] for step in points])
        noise = LEAPFROGS * (first - places + step_size**2 / 2 * grads)
    else:
        noise = _noise_before(sampler, points, places + momentum)
    return Moves(proposals - places - noise - momentum, noise, momentum, proposals)


def _noise_before(sampler: str, points: list[list[Tensor]], expected: Tensor) -> Tensor:
    """Noise of the descent methods: where a step evaluated the gradient, compared with where it would without noise."""
    last = -2 if sampler == "guarded descent" else -1  # a guard also evaluates the proposal
    found = [step[last] if len(step) >= -last else there for step, there in zip(points, expected, strict=True)]
    return torch.stack(found) - expected
