"""Directions of a state that a narrow map does not see: projections, losses with noise outside, and what noise remains."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize, stats
from torch import Tensor

from ebwm.objective import smooth_l1

__all__ = ["loss_with_start", "onto", "remaining", "with_noise"]


def _gaussian_loss(std: float) -> float:
    """Mean SmoothL1 of Gaussian errors."""
    within, beyond = stats.norm.cdf(1 / std) - 0.5, stats.norm.sf(1 / std)
    near = std**2 * (within - stats.norm.pdf(1 / std) / std)
    return near + 2 * std * stats.norm.pdf(1 / std) - beyond


def with_noise(
    loss: float,  # mean SmoothL1 of Gaussian errors
    variance: float,  # of the noise
) -> float:
    """The mean SmoothL1 if independent Gaussian noise is added to the errors."""
    std = optimize.brentq(lambda std: _gaussian_loss(std) - loss, 1e-3, 1e3)
    return _gaussian_loss(np.hypot(std, variance**0.5))


def onto(
    matrix: Float[Tensor, "c d"],  # whose columns span a space
    y: Float[Tensor, "... c"],  # vectors
) -> Float[Tensor, "... c"]:
    """The part of `y` in the space that the columns span."""
    basis = torch.linalg.qr(matrix.detach())[0]
    return y @ basis @ basis.T


def loss_with_start(
    matrix: Float[Tensor, "c d"],  # whose columns span the space that a walk can reach
    inside: Float[Tensor, "b s c"],  # states whose part inside the space is the prediction's
    start: Float[Tensor, "b s c"],  # of the walk
    truth: Float[Tensor, "b s c"],  # true states
) -> float:
    """SmoothL1 of predictions that are the start outside a space."""
    return float(smooth_l1(onto(matrix, inside) + start - onto(matrix, start), truth))


def remaining(
    starts: Sequence[Tensor],  # of two walks in the same contexts
    ends: Sequence[Tensor],  # of the walks
    matrix: Float[Tensor, "c d"] | None,  # whose columns span a space; None: all
) -> dict[str, float]:
    """The distance of two ends over that of the starts, inside and outside a space, and the share of the way outside."""
    within = (lambda y: y) if matrix is None else lambda y: onto(matrix, y)
    before, after, way = starts[1] - starts[0], ends[1] - ends[0], ends[0] - starts[0]
    ratio = lambda part, whole: float(part.norm() / whole.norm()) if whole.norm() > 1e-3 * before.norm() else np.nan
    return dict(inside=ratio(within(after), within(before)), way_outside=ratio(way - within(way), way),
                outside=ratio(after - within(after), before - within(before)))
