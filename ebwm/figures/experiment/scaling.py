"""Exponents of losses by size, with intervals over seeds and items, and the best weights of a training so far."""

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from ebwm.evaluation.statistics import PowerLaw, student_crossed
from ebwm.training.learner import Learner, position_losses

__all__ = ["Best", "axis_of", "faster_by_bootstrap", "faster_by_student", "meeting", "slope_shares"]

AWAY = 0.05 * np.sinh(np.linspace(-9, 9, 1801))  # ratios of exponents to try, relative to the estimate


class Best:
    """The weights of one training with the lowest loss on validation windows so far."""

    def __init__(
        self,
        learner: Learner,  # in training
        valid: Tensor,  # windows
        seed: int,  # of the noise
    ):
        self.learner, self.valid, self.seed = learner, valid, seed
        self.loss, self.update = math.inf, 0
        self.weights: dict[str, Tensor] | None = None

    def look(
        self,
        update: int,  # number of updates so far
    ) -> None:
        """Compare the current weights with the best ones."""
        loss = float(position_losses(self.learner, self.valid, self.seed).double().nanmean())
        loss = loss if math.isfinite(loss) else math.inf
        if self.weights is None or loss < self.loss:
            self.loss, self.update = loss, update
            self.weights = copy.deepcopy(self.learner.model.state_dict())

    @contextlib.contextmanager
    def loaded(self) -> Iterator[nn.Module]:
        """The model with the best weights, for the time of a block."""
        model = self.learner.model
        current = copy.deepcopy(model.state_dict())
        model.load_state_dict(self.weights)
        try:
            yield model
        finally:
            model.load_state_dict(current)


def slope_shares(
    x: Sequence[float],  # sizes
    losses: Float[np.ndarray, "sizes seeds items"],  # contributions whose means are the losses
) -> Float[np.ndarray, "seeds items"]:  # whose mean is the slope of the loss by the logarithm of the size
    """Contributions of seeds and items to a least-squares slope."""
    places = np.log(np.asarray(x, dtype=float))
    places -= places.mean()
    return np.einsum("p,psw->sw", places / (places @ places), losses)


def faster_by_student(
    ours: Float[np.ndarray, "seeds items"],  # contributions to an exponent
    theirs: Float[np.ndarray, "seeds items"],  # contributions to the exponent that it is compared with
) -> dict[str, float]:  # an end is infinite where the interval reaches the last ratio
    """Percent faster with Fieller's interval: the ratios r for which Student's interval of ours - r theirs contains 0."""
    ratios = ours.mean() / theirs.mean() + AWAY
    found = [student_crossed(ours - ratio * theirs) for ratio in ratios]
    inside = ratios[[interval.low <= 0 <= interval.high for interval in found]]
    low = -np.inf if inside.min() == ratios[0] else inside.min()
    high = np.inf if inside.max() == ratios[-1] else inside.max()
    return _percent(ours, theirs, low, high)


def faster_by_bootstrap(
    ours: Float[np.ndarray, "seeds items"],  # as for `faster_by_student`
    theirs: Float[np.ndarray, "seeds items"],  # as for `faster_by_student`
    draws: int = 4000,  # number of resamples
) -> dict[str, float]:
    """Percent faster with the interval of a bootstrap over seeds and items, too narrow for three seeds."""
    rng, (count, items) = np.random.default_rng(0), ours.shape
    drawn = []
    for _ in range(draws):
        picked, at = rng.integers(count, size=count), rng.integers(items, size=items)
        drawn.append(ours[picked].mean(0)[at].mean() / theirs[picked].mean(0)[at].mean())
    return _percent(ours, theirs, *np.quantile(drawn, [0.025, 0.975]))


def _percent(ours: np.ndarray, theirs: np.ndarray, low: float, high: float) -> dict[str, float]:
    return dict(value=100 * (ours.mean() / theirs.mean() - 1), low=100 * (low - 1), high=100 * (high - 1))


def meeting(
    ours: PowerLaw,  # the one that may fall faster
    theirs: PowerLaw,  # the lower one at the last point
) -> float | None:  # None where ours does not fall faster
    """The size beyond the last point at which two power laws meet."""
    faster = theirs.exponent.value - ours.exponent.value
    far = math.log(ours.scale / theirs.scale) / faster if faster > 0 else math.inf
    return math.exp(far) if math.log(max(theirs.x)) < far < 100 else None


def axis_of(
    axis: str,  # "data", "data_late", "batch", ...
) -> str:
    """Column of the sizes of an axis."""
    return {"data": "tokens", "data_late": "tokens", "batch": "batch_tokens"}.get(axis, axis)
