"""Analytic energies: minima, moments and normalisation."""

import pytest
import torch

from ebwm.energy import Banana, DoubleWell, GaussianMixture, Quadratic, Transformed, Wrapper, as_landscape

QUADRATIC = Quadratic(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 3.0, 0.2]))
WELL = DoubleWell(barrier=3.0, dim=3)
MIXTURE = GaussianMixture(torch.tensor([[-2.0], [1.0]]), torch.tensor([0.25, 0.75]), std=0.5)


@pytest.mark.parametrize(
    ("energy", "minimum"), [(QUADRATIC, QUADRATIC.minimum), *((WELL, m) for m in WELL.minima)]
)
def test_minima_are_stationary_and_lower_than_their_surroundings(energy, minimum):
    y = minimum.clone().requires_grad_()
    (grad,) = torch.autograd.grad(energy(y), y)
    assert torch.equal(grad, torch.zeros_like(grad))
    steps = 0.1 * torch.cat([torch.eye(3), -torch.eye(3)])
    assert (energy(minimum + steps) > energy(minimum)).all()
    assert energy(torch.zeros(4, 5, 3)).shape == (4, 5)


def test_the_barrier_has_its_height():
    assert WELL(torch.zeros(3)) == pytest.approx(3.0)


def test_the_mixture_is_normalised_and_has_its_moments():
    y = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    mass = (-MIXTURE(y)).exp() * float(y[1] - y[0])
    mean = mass @ y
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    assert float(mean) == pytest.approx(float(MIXTURE.mean), abs=1e-6)
    assert float(mass @ (y - mean).square()) == pytest.approx(float(MIXTURE.variance), abs=1e-5)


def test_the_banana_has_its_minimum_its_moments_and_the_normaliser_of_a_gaussian():
    """By quadrature; bending preserves volume, so the density integrates to 2 pi std as before."""
    bent = Banana(std=0.8, bend=0.7)
    y = bent.minimum.clone().requires_grad_()
    (grad,) = torch.autograd.grad(bent(y), y)
    assert float(bent(bent.minimum)) < 1e-12 and grad.abs().max() < 1e-6
    axes = torch.linspace(-7, 7, 701).double(), torch.linspace(-9, 23, 1601).double()
    grid = torch.cartesian_prod(*axes)
    mass = (-bent(grid)).exp() * 0.02**2
    assert float(mass.sum()) == pytest.approx(2 * torch.pi * 0.8, rel=1e-6)
    share = mass / mass.sum()
    torch.testing.assert_close(share @ grid, torch.zeros(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(share @ grid.square(), bent.variance.double(), rtol=1e-5, atol=0)


def test_wrappers_are_rebuilt_only_around_another_landscape():
    landscape = as_landscape(QUADRATIC)
    assert as_landscape(landscape) is landscape
    wrapper = Transformed(Wrapper(landscape), torch.tanh)
    assert wrapper.rebind(wrapper.inner) is wrapper and wrapper.at_step(3) is wrapper
    other = wrapper.rebind(as_landscape(WELL))
    assert type(other) is Transformed and other.transform is torch.tanh and wrapper.inner.inner is landscape
