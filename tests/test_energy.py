"""Analytic energies: minima, normalisation and moments; and wrappers."""

import math

import pytest
import torch

from ebwm.energy import Banana, DoubleWell, GaussianMixture, Quadratic, Transformed, Wrapper, as_landscape

QUADRATIC = Quadratic(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 3.0, 0.2]))
WELL = DoubleWell(barrier=3.0, dim=3)
BENT = Banana(std=0.8, bend=0.7)
LINE = GaussianMixture(torch.tensor([[-2.0], [1.0]]), torch.tensor([0.25, 0.75]), std=0.5)
PLANE = GaussianMixture(torch.tensor([[-2.0, 0.0], [1.0, 1.0]]), torch.tensor([0.25, 0.75]), std=0.5)


@pytest.mark.parametrize(("energy", "minimum"), [
    (QUADRATIC, QUADRATIC.minimum), (BENT, BENT.minimum), *((WELL, minimum) for minimum in WELL.minima)])
def test_minima_are_stationary_and_lower_than_their_surroundings(energy, minimum):
    y, dim = minimum.clone().requires_grad_(), len(minimum)
    (grad,) = torch.autograd.grad(energy(y), y)
    assert grad.abs().max() <= (1e-6 if energy is BENT else 0) and 0 <= energy(minimum) < 1e-12
    steps = 0.1 * torch.cat([torch.eye(dim), -torch.eye(dim)])
    assert (energy(minimum + steps) > energy(minimum)).all()
    assert energy(torch.zeros(4, 5, dim)).shape == (4, 5)


def test_the_barrier_has_its_height():
    assert WELL(torch.zeros(3)) == pytest.approx(3.0)


@pytest.mark.parametrize(("energy", "ends", "integral", "mean"), [
    (LINE, [(-8, 8)], 1.0, LINE.mean),
    (PLANE, [(-8, 8), (-8, 8)], 1.0, PLANE.mean),
    (BENT, [(-7, 7), (-9, 23)], 2 * math.pi * 0.8, torch.zeros(2)),  # bending preserves volume
], ids=["line", "plane", "banana"])
def test_densities_have_their_integral_and_their_moments(energy, ends, integral, mean):
    """By quadrature."""
    axes = [torch.linspace(low, high, 50 * (high - low) + 1).double() for low, high in ends]
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    mass = (-energy(grid)).exp() * 0.02 ** len(axes)
    share = mass / mass.sum()
    assert float(mass.sum()) == pytest.approx(integral, rel=1e-6)
    torch.testing.assert_close(share @ grid, mean.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(share @ (grid - mean).square(), energy.variance.double(), rtol=5e-6, atol=0)


def test_wrappers_are_rebuilt_only_around_another_landscape():
    landscape = as_landscape(QUADRATIC)
    wrapper = Transformed(Wrapper(landscape), torch.tanh)
    assert as_landscape(landscape) is landscape
    assert wrapper.rebind(wrapper.inner) is wrapper and wrapper.at_step(3) is wrapper
    other = wrapper.rebind(as_landscape(WELL))
    assert type(other) is Transformed and other.transform is torch.tanh and wrapper.inner.inner is landscape
