"""Walks of the figures: losses and energies by step, best of N samples, adaptive stopping, and its random control."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ebwm.diagnostics import energy_trace
from ebwm.energy import Landscape
from ebwm.objective import smooth_l1
from ebwm.sampler import Result, init_candidates
from ebwm.stopping import energy_change
from ebwm.thinking import predict
from ebwm.walk import Walk

__all__ = ["CHOICES", "TOLERANCES", "Traced", "Walks", "initial", "library_agreement", "state_losses", "trace", "traces"]

Measure = Callable[[Tensor], Tensor]  # candidates -> what is recorded of them
TOLERANCES = np.geomspace(1e-3, 1, 7)  # of a stopping rule, relative to the median change of the first step
CHOICES = ("min", "max", "drop", "random", "oracle")  # ways to choose among samples


class Traced(NamedTuple):
    """One walk: what was measured at the start and after each step."""

    values: Tensor  # [steps + 1, ...]
    energies: Tensor  # [steps + 1, *items]
    result: Result


def initial(
    model: nn.Module,  # an EBT
    context: Tensor,  # states or tokens [b s ...]
    generator: torch.Generator,  # draws the noise
    start: str = "noise",  # "noise" | "last" | "zeros"
) -> Tensor:
    """Initial candidates for a context."""
    return init_candidates(start, model.encode(context), generator)


def trace(
    model: nn.Module,  # an EBT
    landscape: Landscape,  # of the model
    start: Tensor,  # initial candidates
    walk: Walk | int,  # settings, or the number of steps
    measure: Measure,  # for instance from `state_losses`
    generator: torch.Generator | None = None,  # of the walk's own noise
) -> Traced:
    """Walk once, and measure the candidates at the start and after each step."""
    walk = Walk(walk) if isinstance(walk, int) else walk
    found = [measure(start)]
    note = lambda index, state, info: found.append(measure(state.y.detach()))
    result = walk.run(model, landscape, start, generator, note)
    return Traced(torch.stack(found), energy_trace(result), result)


def state_losses(
    target: Float[Tensor, "b s c"],  # true states
) -> Measure:
    """Measure of the SmoothL1 of each candidate, mean over features."""
    return lambda y: smooth_l1(y, target.expand_as(y), reduction="none").mean(-1)


@torch.no_grad()
def traces(
    model: nn.Module,  # an EBT
    context: Tensor,  # [b s ...]
    steps: Sequence[int],  # of each sample
    measure: Measure,  # of the candidates of one sample
    generator: torch.Generator,  # draws the starts, one sample after another
) -> "Walks":  # samples with fewer steps than the longest are filled with NaN
    """Walk several times from noise in the same contexts."""
    landscape, longest, found = model.landscape(context), max(steps), []
    for count in steps:
        made = trace(model, landscape, initial(model, context, generator), count, measure, generator)
        parts = (np.asarray(part.cpu(), dtype=float) for part in made[:2])
        found.append([np.pad(part, [(0, longest - count), *[(0, 0)] * (part.ndim - 1)], constant_values=np.nan)
                      for part in parts])
    losses, energies = (np.stack(part) for part in zip(*found, strict=True))
    return Walks(losses, energies)


class Walks(NamedTuple):
    """Losses and energies of several samples at every step, for the same items."""

    losses: Float[np.ndarray, "samples steps *items"]  # steps: the start and each step
    energies: Float[np.ndarray, "samples steps *items"]

    @property
    def most(self) -> int:
        """Number of steps."""
        return self.losses.shape[1] - 1

    def first(self, count: int) -> "Walks":
        """The first samples."""
        return Walks(self.losses[:count], self.energies[:count])

    def take(self, items: np.ndarray) -> "Walks":
        """The items where a mask is true."""
        return Walks(self.losses[:, :, items], self.energies[:, :, items])

    def chosen(self, by: str, count: int, steps: int) -> Float[np.ndarray, "*items"]:
        """Losses of the sample that is chosen among the first ones after some steps, for each item."""
        loss, energy = self.losses[:count, steps], self.energies[:count, steps]
        if by == "random":
            return loss.mean(0)
        drop = energy - self.energies[:count, 0]
        score = {"min": energy, "max": -energy, "drop": drop, "oracle": loss}[by]
        score = np.where(np.isfinite(score), score, np.inf)
        return np.take_along_axis(loss, score.argmin(0)[None], 0)[0]

    def tolerances(self) -> Float[np.ndarray, " n"]:
        """Tolerances of a stopping rule that are worth trying."""
        return TOLERANCES * np.median(np.abs(self.energies[:, 1] - self.energies[:, 0]))

    def stopping_steps(self, tolerance: float) -> Int[np.ndarray, " samples *items"]:
        """Steps until the energy changed by less than a tolerance between the last two evaluations."""
        change = np.abs(np.diff(self.energies[:, :-1], axis=1))
        stops = np.concatenate([change < tolerance, np.ones_like(change[:, :1], dtype=bool)], 1)
        return np.minimum(stops.argmax(1) + 2, self.most)

    def stopped(self, steps: Int[np.ndarray, " samples *items"]) -> Float[np.ndarray, "*items"]:
        """Losses with so many steps for each sample and item, mean over samples."""
        return np.take_along_axis(self.losses, steps[:, None], 1)[:, 0].mean(0)

    def stopped_at_random(self, steps: Int[np.ndarray, " samples *items"], times: int = 8) -> np.ndarray:
        """The control of `stopped`: the same numbers of steps in random orders, mean over the orders."""
        order = np.random.default_rng(0)
        drawn = (order.permutation(steps.ravel()).reshape(steps.shape) for _ in range(times))
        return np.mean([self.stopped(some) for some in drawn], 0)

    def methods(
        self,
        trained: int,  # steps in training
        best: int,  # steps of the longer walks
        tolerance: float,  # of adaptive stopping
        oracle: int,  # steps of the walks among which an oracle chooses
        stopping: int | None = None,  # number of samples that stop, the first ones; default: all
    ) -> dict[str, Float[np.ndarray, "*items"]]:
        """Losses by the way to think, and the steps that adaptive stopping takes."""
        count, some = len(self.losses), self.first(stopping or len(self.losses))
        steps, one = some.stopping_steps(tolerance), lambda by, k: self.chosen(by, count, k)
        return {"one walk": one("random", trained), "longer": one("random", best), "best of N": one("min", trained),
                "both": one("min", best), "oracle": one("oracle", oracle), "adaptive": some.stopped(steps),
                "random stopping": some.stopped_at_random(steps), "steps taken": steps.mean(0)}

    def decide(self) -> tuple[int, float]:
        """The number of steps with the lowest loss, and the tolerance whose mean number of steps is nearest to it."""
        others = (0, *range(2, self.losses.ndim))
        steps, tolerances = int(self.losses.mean(others)[1:].argmin()) + 1, self.tolerances()
        means = np.array([self.stopping_steps(tolerance).mean() for tolerance in tolerances])
        return steps, float(tolerances[np.abs(means - steps).argmin()])

    def by_step(self) -> list[dict[str, float]]:
        """Mean loss and energy at each step."""
        return [dict(step=k, loss=self.losses[:, k].mean(), energy=self.energies[:, k].mean())
                for k in range(self.most + 1)]

    def adaptive(self) -> list[dict[str, float]]:
        """Mean steps and losses of adaptive stopping, of its control, and of one number of steps for all."""
        others = (0, *range(2, self.losses.ndim))
        fixed, rows = self.losses.mean(others), []
        for share, tolerance in zip(TOLERANCES, self.tolerances(), strict=True):
            steps = self.stopping_steps(tolerance)
            same = np.interp(steps.mean(), np.arange(self.most + 1), fixed)
            rows.append(dict(share=share, steps=steps.mean(), loss=self.stopped(steps).mean(),
                             random=self.stopped_at_random(steps).mean(), fixed=same))
        return rows


def library_agreement(
    model: nn.Module,  # an EBT
    context: Tensor,  # [b s ...]
    walks: Walks,  # of this context, whose first sample has the same noise
    tolerance: float,  # of the stopping rule
    generator: torch.Generator,  # as at the start of `traces`
) -> float:  # from 0 to 1
    """Share of the positions at which `ebwm.stopping` takes as many steps as `Walks.stopping_steps` says."""
    found = predict(model, context, walks.most, stop=energy_change(tolerance), generator=generator)
    steps = found.evaluations.cpu().numpy() - 1
    return float(np.mean(steps == walks.stopping_steps(tolerance)[0].reshape(steps.shape)))
