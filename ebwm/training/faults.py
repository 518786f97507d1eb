"""Detection of faults in training: spikes of the loss, non-finite updates, walks that diverge."""

import math
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from ebwm.diagnostics import alarms, health
from ebwm.walk import Walk

__all__ = ["MAX_DISTANCE", "FaultState", "ProbeResult", "Spikes", "probe"]


class Spikes:
    """Detector of losses far above the recent ones, by median and median absolute deviation."""

    def __init__(
        self,
        window: int = 100,  # number of recent losses
        deviations: float = 10.0,  # distance of the threshold from their median
        least: int = 20,  # number of losses needed for a decision
        seen: Iterable[float] = (),  # recent losses, oldest first
    ):
        self.deviations, self.least, self.losses = deviations, least, deque(seen, window)

    def __call__(
        self,
        loss: float,  # of an update
    ) -> bool:  # whether it is a spike; a non-finite loss is none and is not stored
        if not math.isfinite(loss):
            return False
        spike = len(self.losses) >= self.least and loss > self.threshold()
        self.losses.append(loss)
        return spike

    def threshold(self) -> float:  # for normally distributed losses, `deviations` are standard deviations
        """Threshold above which a loss is a spike."""
        middle = median(self.losses)
        spread = 1.4826 * median(abs(loss - middle) for loss in self.losses)
        return middle + self.deviations * max(spread, 1e-3 * abs(middle))


class FaultState(NamedTuple):
    """Counts of the faults of a run."""

    skipped: int = 0  # skipped updates in total
    consecutive_skips: int = 0  # skipped updates since the last good one
    spikes: int = 0  # losses above the threshold
    rollbacks: int = 0  # returns to a checkpoint

    def after(
        self,
        finite: bool,  # whether loss and gradient of an update were finite
        spike: bool,  # whether its loss was a spike
    ) -> "FaultState":
        """Counts after one more update."""
        bad = int(not finite)
        return self._replace(skipped=self.skipped + bad, consecutive_skips=bad * (self.consecutive_skips + 1),
                             spikes=self.spikes + spike)


MAX_DISTANCE = 10.0  # largest distance of a healthy walk, in norms of a state
MIN_DISTANCE = 0.1  # smallest distance of a healthy walk from noise


class ProbeResult(NamedTuple):
    """Statistics of the walks of a few items."""

    energy_gap: float  # median decrease of the energy from start to end
    inner_gradient: float  # median norm of the first gradient
    rising: float  # share of items whose energy increased
    distance: float  # median distance from start to end, relative to the norm of the start or of a state, else of the end
    alarms: list[str]  # one line for each fault; empty for healthy walks


@torch.no_grad()
def probe(
    model: nn.Module,  # an EBT or a joint EBT
    context: Any,  # a few contexts, as `model.landscape` takes them
    walk: Walk,  # settings of the sampling
    generator: torch.Generator,  # of the start
) -> ProbeResult:
    """Sample from a few contexts and check the walks."""
    recent = model.encode(context)
    first = walk.initial(recent, generator)
    result = walk.run(model, model.landscape(context), first, generator)
    found, norm = health(result), torch.maximum(first.norm(dim=-1), recent.norm(dim=-1))
    norm = norm.where(norm != 0, result.state.y.norm(dim=-1)).clamp_min(torch.finfo(norm.dtype).tiny)
    distance = float(((result.state.y - first).norm(dim=-1) / norm).median())
    moved = f"walks end {distance:.3g} norms of a state away with the step size {float(result.info.step_size.max()):.3g}"
    near = walk.start == "noise" and distance < MIN_DISTANCE
    lines = [f"{moved}: {'raise' if near else 'lower'} it"] if near or distance > MAX_DISTANCE else []
    gradient = float(result.info.grad_norm[0].median())
    return ProbeResult(found.gap, gradient, found.rising, distance, alarms(found) + lines)
