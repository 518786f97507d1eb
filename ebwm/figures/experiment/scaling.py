"""Exponents of losses by size, with intervals over seeds and items, and the best weights of a training so far."""

import contextlib
import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor, nn

from ebwm.data.text import perplexity
from ebwm.evaluation.statistics import PowerLaw, percent_faster, power_law, student_crossed
from ebwm.figures.experiment.tables import Values, grid, resampled, select
from ebwm.training.learner import Learner, position_losses

__all__ = ["Best", "axis_of", "faster", "faster_by_bootstrap", "faster_by_student", "log_shares", "meeting",
           "refitted", "scored_windows", "slope_shares"]

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


    def note(
        self,
        looks: Collection[int],  # updates after which weights are compared
        scored: Collection[int],  # updates after which the best weights are scored
        score: Callable[[dict[str, Any]], Any],  # receives the row of the log
    ) -> Callable[[dict[str, Any]], None]:  # for `Experiment.train`
        """Compare and score during training."""
        def watch(row: dict[str, Any]) -> None:
            if row["update"] in looks:
                self.look(row["update"])
            if row["update"] in scored:
                with self.loaded():
                    score(row)

        return watch


def scored_windows(
    learner: Learner,  # to score
    windows: Tensor,  # [n length+1]
    size: Tensor,  # bytes of each target
    seed: int,  # of the noise of walks
) -> tuple[dict[str, float], pd.DataFrame]:
    """Loss, perplexity and bits per byte of a model, and sums of nats, tokens and bytes of each window."""
    losses = position_losses(learner, windows, seed).double().cpu()
    found, counted = perplexity(losses, size), ~losses.isnan()
    total = dict(loss=math.log(found.value), perplexity=found.value, perplexity_error=found.error,
                 bits_per_byte=found.bits_per_byte, bits_error=found.bits_error, targets=found.tokens)
    sums = dict(window=range(len(losses)), nats=losses.nansum(1), tokens=counted.sum(1), bytes=(size * counted).sum(1))
    return total, pd.DataFrame({name: np.asarray(values) for name, values in sums.items()})


def log_shares(
    losses: Float[np.ndarray, "sizes seeds items"],  # of each item
) -> Float[np.ndarray, "sizes seeds items"]:
    """Contributions of items to the logarithm of a mean over items, to first order."""
    means = losses.mean(-1, keepdims=True)
    return np.log(means) + losses / means - 1


def slope_shares(
    x: Values,  # sizes
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
    ratio = lambda rows, items: ours[rows].mean(0)[items].mean() / theirs[rows].mean(0)[items].mean()
    found = resampled(ratio, *ours.shape, draws)
    return _percent(ours, theirs, found["low"], found["high"])


def _percent(ours: np.ndarray, theirs: np.ndarray, low: float, high: float) -> dict[str, float]:
    return dict(value=100 * (ours.mean() / theirs.mean() - 1), low=100 * (low - 1), high=100 * (high - 1))


def faster(
    laws: tuple[PowerLaw, PowerLaw],  # ours and theirs
    shares: tuple[Float[np.ndarray, "seeds items"], Float[np.ndarray, "seeds items"]],  # contributions to the exponents
) -> dict[str, dict[str, float | None] | None]:
    """Percent faster with three intervals: over seeds and windows, by bootstrap, and of the fit."""
    fit, several = percent_faster(*laws)._asdict(), len(shares[0]) > 1
    return {"seeds_and_windows": faster_by_student(*shares) if several else dict(value=fit["value"], low=None, high=None),
            "bootstrap": faster_by_bootstrap(*shares) if several else None, "fit": fit}


def refitted(
    points: pd.DataFrame,  # digitised points of the EBT paper, with the columns figure, model, x, y and printed_percent
    figures: Mapping[str, str],  # number of the paper's figure, by our name of the axis
) -> tuple[dict[str, dict[str, PowerLaw]], dict[str, dict[str, float]]]:  # laws by axis and model, percentages by axis
    """The paper's power laws and percentages, fitted again."""
    part = lambda axis, kind: select(points, figure=figures[axis], model=kind)
    laws = grid(lambda axis, kind: power_law(part(axis, kind).x, part(axis, kind).y), figures, ("transformer", "s1"))
    percent = {axis: percent_faster(pair["s1"], pair["transformer"])._asdict() | {
        "printed": float(part(axis, "s1").printed_percent.iloc[0])} for axis, pair in laws.items()}
    return laws, percent


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
