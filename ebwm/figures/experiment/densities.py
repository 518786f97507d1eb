"""Samplers on two-dimensional energies whose minima and densities are known: errors of moments, and Langevin's law."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebwm import settings
from ebwm.diagnostics import Trace, acceptance_rate, effective_sample_size, r_hat
from ebwm.energy import Banana, DoubleWell, GaussianMixture, Landscape, Quadratic
from ebwm.sampler import Kernel, Result, gradient_descent, run

__all__ = ["MOMENTS", "Chain", "Known", "descend", "descent_table", "deviations", "finite_or_none",
           "known_landscapes", "langevin_variance", "logarithms", "path_table", "sample", "sampler_tables",
           "squared_errors", "starts"]

MOMENTS = {"mean": [0, 1], "variance": [2, 3], "share": [4], "all": [0, 1, 2, 3, 4]}


class Known(NamedTuple):
    """An energy with the statistics of its density."""

    energy: Landscape
    lowest: float  # minimum of the energy
    mean: Tensor  # of each feature
    variance: Tensor  # of each feature
    left: float  # share of the density where the first feature is negative
    curvature: float  # scale of the step sizes


def known_landscapes() -> dict[str, Known]:
    """A bowl, two wells, a mixture of two Gaussians and a curved valley."""
    return {"bowl": _bowl(), "two wells": _wells(), "mixture": _mixture(), "curved valley": _valley()}


def _below(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def _bowl() -> Known:
    bowl = Quadratic(torch.tensor([1.0, -0.5]), torch.tensor([1.0, 25.0]))
    return Known(bowl, 0.0, bowl.minimum, 1 / bowl.stiffness, _below(-1.0), 25.0)


def _wells(barrier: float = 2.0) -> Known:
    first = torch.linspace(-4, 4, 20_001, dtype=torch.float64)
    share = torch.softmax(-barrier * (first.square() - 1).square(), 0)
    variance = torch.tensor([float(share @ first.square()), 1.0])
    return Known(DoubleWell(barrier), 0.0, torch.zeros(2), variance, 0.5, 8 * barrier)


def _mixture(std: float = 0.6) -> Known:
    means, weights = torch.tensor([[-1.5, 0.0], [1.5, 1.0]]), torch.tensor([0.3, 0.7])
    mixture = GaussianMixture(means, weights, std)
    lowest = run(mixture, means[1:].double(), gradient_descent(std**2), 200).state.energy
    left = sum(float(w) * _below(-float(m) / std) for w, m in zip(weights, means[:, 0], strict=True))
    return Known(mixture, float(lowest), mixture.mean, mixture.variance, left, std**-2)


def _valley(std: float = 1.5, bend: float = 0.4) -> Known:
    valley = Banana(std, bend)
    return Known(valley, 0.0, torch.zeros(2), valley.variance, 0.5, 1 + (2 * bend * std) ** 2)


def _on_device(energy: Landscape, device: torch.device) -> Landscape:
    """The same energy on a device."""
    moved = {name: value.to(device) if torch.is_tensor(value) else value for name, value in vars(energy).items()}
    return type(energy)(**moved)


def starts(
    count: int,  # number of starts
    seed: int,  # of the noise
    dtype: torch.dtype = torch.float32,  # of the starts
) -> Float[Tensor, "count 2"]:
    """Standard Gaussian starts."""
    noise = torch.randn(count, 2, generator=settings.generator(seed, "starts"), dtype=torch.float64)
    return noise.to(settings.device(), dtype)


class Chain(NamedTuple):
    """Candidates along a walk."""

    places: Tensor  # [steps *items 2]
    result: Result
    spent: Tensor  # energy evaluations of an item until each step


def sample(
    known: Known,  # energy
    kernel: Kernel,  # sampler with its step size
    start: Tensor,  # [*items 2]
    steps: int,  # number of steps
    generator: torch.Generator,  # source of randomness
) -> Chain:
    """Run a sampler and store all candidates."""
    stored, energy = Trace(), _on_device(known.energy, start.device)
    result = run(energy, start, kernel, steps, generator, final_energy=False, callback=stored)
    return Chain(stored.places, result, result.info.evaluations.flatten(1)[:, 0].cumsum(0))


def descend(
    known: Known,  # energy
    kernel: Kernel,  # descent with its step size
    start: Tensor,  # [*items 2]
    steps: int,  # number of steps
    generator: torch.Generator,  # source of randomness
) -> tuple[Tensor, Tensor, list[int]]:  # candidates [steps + 1, *items 2], energies above the minimum, evaluations
    """Descend, and evaluate the energy at every candidate, beside the evaluations that are counted."""
    chain = sample(known, kernel, start, steps, generator)
    places = torch.cat([start[None], chain.places])
    energy = _on_device(known.energy, start.device)
    return places, energy(places) - known.lowest, [0, *chain.spent.tolist()]


def deviations(
    places: Tensor,  # [... 2]
    known: Known,  # statistics of the density
) -> Tensor:  # [... 5]; their expectation under the density is 0
    """Features and squares about the means in units of the density, and the share on the left, less what they should be."""
    mean, variance = known.mean.to(places), known.variance.to(places)
    scaled = (places - mean) / variance.sqrt()
    left = (places[..., :1] < 0).to(places) - known.left
    left = left.where(places.isfinite().all(-1, keepdim=True), math.nan)
    return torch.cat([scaled, scaled.square() - 1, left], -1)


def squared_errors(
    chain: Chain,  # a sampler's candidates
    known: Known,  # statistics of the density
    marks: Sequence[int],  # numbers of evaluations
) -> Tensor:  # [marks *items 5]
    """Squared errors of averages along the second half of each chain, after some evaluations."""
    sums = torch.nn.functional.pad(deviations(chain.places.double(), known).cumsum(0).movedim(0, -1), (1, 0))
    taken = [int((chain.spent <= mark).sum()) for mark in marks]
    means = [(sums[..., t] - sums[..., t // 2]) / (t - t // 2) for t in taken]
    return torch.stack(means).square()


def logarithms(
    gaps: Tensor,  # energies above the minimum
) -> Tensor:
    """Base-10 logarithms between -12 and 12; a candidate that diverged has 12."""
    return gaps.nan_to_num(nan=math.inf).clamp(1e-12, 1e12).log10()


def sampler_tables(
    chain: Chain,  # a sampler's candidates
    known: Known,  # statistics of the density
    marks: Sequence[int],  # numbers of evaluations
    diagnosed: int,  # chains of the effective sample size
    **settings: float,  # of the sampler
) -> dict[str, Any]:  # errors, by_start and diagnostics
    """Errors of moments by evaluations, squared errors of each start after all of them, and diagnostics."""
    squares = squared_errors(chain, known, marks)
    errors = [dict(evaluations=mark, moment=moment, error=value) for moment, of in MOMENTS.items()
              for mark, value in zip(marks, squares[..., of].mean((1, 2)).sqrt().tolist(), strict=True)]
    by_start = dict(start=range(squares.shape[1]), squared_error=squares[-1].mean(-1).tolist())
    return {"errors": errors, "by_start": by_start, "diagnostics": settings | _diagnosis(chain, diagnosed)}


def _diagnosis(chain: Chain, count: int) -> dict[str, float]:
    """Acceptance, R hat and effective sample size for 1000 evaluations, of the second half."""
    half = chain.places[len(chain.places) // 2:, :count]
    row = dict(acceptance=float(acceptance_rate(chain.result).mean()),
               finite=float(chain.places.isfinite().all(-1).all(0).float().mean()),
               evaluations=int(chain.spent[-1]), r_hat=math.nan, ess_per_1000=math.nan)
    if half.isfinite().all():
        cost = int(chain.spent[-1] - chain.spent[len(chain.places) // 2 - 1]) * half.shape[1] / 1000
        row |= dict(r_hat=float(r_hat(half).max()), ess_per_1000=float(effective_sample_size(half).min()) / cost)
    return row


def descent_table(
    gaps: Tensor,  # energies above the minimum [steps + 1, starts]
    spent: Sequence[int],  # energy evaluations until each step
) -> dict[str, Any]:
    """The lower quartile of the starts, and the share that reached a thousandth above the minimum."""
    quarter = gaps.nan_to_num(nan=math.inf).quantile(0.25, -1).tolist()
    return dict(step=range(len(spent)), evaluations=spent, quartile_gap=quarter,
                reached=(gaps < 1e-3).double().mean(-1).tolist())


def path_table(
    places: Tensor,  # candidates of one walk [steps + 1, 1, 2]
) -> dict[str, Any]:
    """The way of a candidate."""
    first, second = places.flatten(0, -2).T.tolist()
    return dict(step=range(len(first)), first=first, second=second)


def langevin_variance(
    bound: Any,  # step size times stiffness, below 2
) -> Any:  # relative to that of the density
    """Variance of the Langevin chain on a bowl."""
    return 1 / (1 - bound / 2)


def finite_or_none(
    value: float | None,  # a number
) -> float | None:
    """A number for JSON."""
    return None if value is None or not math.isfinite(value) else float(value)
