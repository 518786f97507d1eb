"""Energies of two coordinates with their gradients in closed form, which is faster than autograd."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..energy import DoubleWell, GaussianMixture, Landscape, Quadratic

__all__ = ["ClosedForm", "banana", "curved_valley", "gaussian_modes", "stiff_bowl", "two_wells"]


class ClosedForm(Landscape):
    """An energy with a formula for its gradient."""

    def __init__(
        self,
        energy: Callable,  # candidates [*items 2] -> energies [*items]
        gradient: Callable,  # candidates [*items 2] -> gradients [*items 2]
    ):
        self.function, self.formula = energy, gradient

    def energy(
        self,
        y: Float[Tensor, "*items 2"],  # candidates
    ) -> Float[Tensor, "*items"]:
        """Energy of each candidate."""
        return self.function(y)

    def value_and_grad(
        self,
        y: Float[Tensor, "*items 2"],  # candidates
        create_graph: bool = False,  # as for a landscape
    ) -> tuple[Float[Tensor, "*items"], Float[Tensor, "*items 2"]]:
        """Energies and gradients by the formulas."""
        with torch.set_grad_enabled(create_graph):
            return self.function(y), self.formula(y)

    def gradient(
        self,
        y: Float[Tensor, "*items 2"],  # candidates
        create_graph: bool = False,  # as for a landscape
    ) -> Float[Tensor, "*items 2"]:
        """Gradients by the formula."""
        with torch.set_grad_enabled(create_graph):
            return self.formula(y)


def stiff_bowl() -> tuple[ClosedForm, Tensor]:  # energy; its minimum [1 2]
    """A quadratic energy with the curvatures 1 and 12."""
    bowl = Quadratic(torch.tensor([0.5, -0.5]), torch.tensor([1.0, 12.0]))
    return ClosedForm(bowl, lambda y: bowl.stiffness * (y - bowl.minimum)), bowl.minimum[None]


def two_wells() -> tuple[ClosedForm, Tensor]:  # energy; its minima [2 2]
    """The double well with a barrier of height 4."""
    wells, quartic, linear = DoubleWell(), torch.tensor([16.0, 0.0]), torch.tensor([-16.0, 1.0])
    return ClosedForm(wells, lambda y: y * (quartic * y.square() + linear)), wells.minima


def gaussian_modes() -> tuple[ClosedForm, Tensor]:  # energy; its modes [3 2]
    """Three Gaussians with weights 0.2, 0.3 and 0.5, and the standard deviation 0.7."""
    means = torch.tensor([[-2.0, -1.0], [1.5, -1.5], [0.5, 2.0]])
    mixture = GaussianMixture(means, torch.tensor([0.2, 0.3, 0.5]), std=0.7)
    variance, precision, wide = mixture.std**2, 1 / mixture.std**2, means.double()
    logits = mixture.weights.log() - wide.square().sum(-1) / (2 * variance)  # the square of y is in all shares
    constants = _in_dtype(wide.T / variance, logits, wide / variance)

    def gradient(y: Tensor) -> Tensor:
        if y.dim() != 2:
            return gradient(y.reshape(-1, 2)).view(y.shape)
        factors, offsets, pulls = constants(y)
        shares = torch.addmm(offsets, y, factors).softmax(-1)  # a product of matrices that adds and scales as well
        return torch.addmm(y, shares, pulls, beta=precision, alpha=-1)

    return ClosedForm(mixture, gradient), means


def banana(
    y: Float[Tensor, "*items 2"],  # candidates
) -> Float[Tensor, "*items"]:  # energies, 0 at the minimum
    """A curved valley, (1 - y[0])^2 / 2 + 5 (y[1] - y[0]^2)^2, with its minimum at (1, 1)."""
    first, second = y.unbind(-1)
    return (1 - first).square() / 2 + 5 * (second - first.square()).square()


def curved_valley() -> tuple[ClosedForm, Tensor]:  # energy; its minimum [1 2]
    """The banana."""

    one, ten = torch.tensor([1.0, 10.0]).unbind()  # operations with tensors take less time than with numbers

    def gradient(y: Tensor) -> Tensor:
        first, second = y.unbind(-1)
        across = torch.addcmul(second, first, first, value=-1) * ten
        return torch.stack((torch.addcmul(first - one, first, across, value=-2), across), -1)

    return ClosedForm(banana, gradient), torch.ones(1, 2)


def _in_dtype(*constants: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function that gives constants in the dtype of its argument."""
    known = {dtype: tuple(part.to(dtype) for part in constants) for dtype in (torch.float32, torch.float64)}
    return lambda y: known.get(y.dtype) or tuple(part.to(y.dtype) for part in constants)
