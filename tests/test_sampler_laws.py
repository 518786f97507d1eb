"""Laws of analytic energies and of samplers: moments, the order of the leapfrog, descent and bounds."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.diagnostics import Trace, effective_sample_size
from ebwm.energy import Banana, DoubleWell, GaussianMixture, PlainLandscape, Quadratic
from ebwm.modifiers import clamped, guarded, noisy
from ebwm.sampler import State, evaluate, gradient_descent, hmc, langevin, leapfrog, mala, nesterov, run
from ebwm.settings import generator
from tests.helpers import BOWL, close

MODES = GaussianMixture(torch.tensor([[-1.2], [1.2]]).double(), torch.tensor([0.3, 0.7]).double(), std=0.8)
LINE = Quadratic(torch.zeros(1).double(), torch.ones(1).double())
BENT = Banana(std=0.8, bend=0.7)
WELL = DoubleWell(barrier=3.0, dim=3)
SLOPES = Quadratic(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 3.0, 0.2]))
PLANE = GaussianMixture(torch.tensor([[-2.0, 0.0], [1.0, 1.0]]), torch.tensor([0.25, 0.75]), std=0.5)


def traced(kernel, energy, start, steps, burn_in=0):
    """Candidates after each step beyond the burn-in."""
    trace = Trace(burn_in=burn_in)
    run(energy, start, kernel, steps, generator(0), callback=trace)
    return trace.places


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed, "starts"))


# Energies


@pytest.mark.parametrize(("energy", "minimum"), [
    (SLOPES, SLOPES.minimum), (BENT, BENT.minimum), *((WELL, minimum) for minimum in WELL.minima)])
def test_minima_are_stationary_and_lower_than_their_surroundings(energy, minimum):
    y, dim = minimum.clone().requires_grad_(), len(minimum)
    (grad,) = torch.autograd.grad(energy(y), y)
    assert grad.abs().max() <= (1e-6 if energy is BENT else 0) and 0 <= energy(minimum) < 1e-12
    steps = 0.1 * torch.cat([torch.eye(dim), -torch.eye(dim)])
    assert (energy(minimum + steps) > energy(minimum)).all()
    assert energy(torch.zeros(4, 5, dim)).shape == (4, 5) and WELL(torch.zeros(3)) == pytest.approx(3.0)  # the barrier


@pytest.mark.parametrize(("energy", "ends", "integral", "mean"), [
    (PLANE, [(-8, 8), (-8, 8)], 1.0, PLANE.mean),
    (BENT, [(-7, 7), (-9, 23)], 2 * math.pi * 0.8, torch.zeros(2)),  # bending preserves volume
], ids=["mixture", "banana"])
def test_densities_have_their_integral_and_their_moments(energy, ends, integral, mean):
    """By quadrature."""
    axes = [torch.linspace(low, high, 50 * (high - low) + 1).double() for low, high in ends]
    grid = torch.cartesian_prod(*axes)
    mass = (-energy(grid)).exp() * 0.02**2
    share = mass / mass.sum()
    assert float(mass.sum()) == pytest.approx(integral, rel=1e-6)
    torch.testing.assert_close(share @ grid, mean.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(share @ (grid - mean).square(), energy.variance.double(), rtol=5e-6, atol=0)


# Moments


def assert_mean(samples, expected, errors=4.5):
    """The mean of [draws chains features] is as expected, within standard errors (effective sample size)."""
    error = samples.flatten(0, 1).std(0) / effective_sample_size(samples).sqrt()
    off = (samples.flatten(0, 1).mean(0) - expected).abs() / error
    assert (off < errors).all(), f"{off.tolist()} standard errors"


@pytest.mark.parametrize(("kernel", "energy", "temperature"), [
    (mala(0.3), BOWL, 1), (mala(0.075, 0.25), BOWL, 0.25), (mala(0.45, 4.0), BOWL, 4),
    (hmc(0.4, 4), BOWL, 1), (hmc(0.3, 8, 0.25), BOWL, 0.25), (hmc(0.3, 8, 4.0), BOWL, 4),
    (mala(0.3), MODES, 1), (hmc(0.4, 4), MODES, 1), (mala(0.3), BENT, 1), (hmc(0.4, 4), BENT, 1),
])
def test_exact_samplers_have_the_moments_of_the_density(kernel, energy, temperature):
    """Of a Gaussian at several temperatures, a mixture with its weights, and a banana."""
    mean, variance = {
        BOWL: (BOWL.minimum, temperature / BOWL.stiffness), MODES: (MODES.mean, MODES.variance),
        BENT: (torch.zeros(2), BENT.variance),
    }[energy]  # fmt: skip
    start = (2 if energy is MODES else 1) * normal(200, len(mean))
    places = traced(kernel, energy, start, 350, burn_in=100)
    assert_mean(places, mean)
    assert_mean((places - mean).square(), variance)
    if energy is MODES:
        below = [0.5 * math.erfc(mode / (0.8 * 2**0.5)) for mode in (-1.2, 1.2)]
        assert_mean((places < 0).double(), 0.3 * below[0] + 0.7 * below[1])


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_langevin_has_the_law_of_its_discretised_chain(alpha, temperature):
    """Which is not that of the density; independent chains, whose standard errors are known."""
    chains, steps, start = 20_000, 40, torch.full((20_000, 2), 2.0).double()
    end = run(BOWL, start, langevin(alpha, temperature), steps, generator(1)).state.y
    shrink = (1 - alpha * BOWL.stiffness) ** steps
    mean = BOWL.minimum + (2.0 - BOWL.minimum) * shrink
    variance = temperature * 2 * alpha * (1 - shrink**2) / (1 - (1 - alpha * BOWL.stiffness) ** 2)
    assert ((end.mean(0) - mean).abs() < 4 * (variance / chains).sqrt()).all()
    assert ((end.var(0) - variance).abs() < 4 * variance * (2 / (chains - 1)) ** 0.5).all()


# Rejection, and the leapfrog


@pytest.mark.parametrize("make", [mala, hmc], ids=["mala", "hmc"])
def test_rejected_items_do_not_move(make):
    start = normal(400, 2)
    state, info = make(1.0)(BOWL, State(start), generator=generator(0))
    stayed = (state.y == start).all(-1)
    assert torch.equal(stayed, ~info.accepted) and 0 < int(stayed.sum()) < 400
    close(state.energy, BOWL(state.y))
    close(state.grad, evaluate(BOWL, state.y).grad)


@pytest.mark.parametrize("energy", [DoubleWell(barrier=1.0), Banana(std=1.5, bend=0.3)], ids=["wells", "banana"])
def test_the_leapfrog_is_of_second_order_and_reversible(energy):
    """Its energy error after a fixed time falls by 4 when the step size is halved."""
    start, velocity, errors = normal(200, 2), normal(200, 2, seed=1), []
    for count in (16, 32, 64, 128):
        end, last = leapfrog(energy, evaluate(energy, start), velocity, 1.0 / count, count)
        total = end.energy + last.square().sum(-1) / 2 - energy(start) - velocity.square().sum(-1) / 2
        errors.append(float(total.square().mean().sqrt()))
        back, turned = leapfrog(energy, end, -last, 1.0 / count, count)
        close([back.y, turned], [start, -velocity], atol=1e-9)
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes[-1] == pytest.approx(2, abs=0.05) and slopes[-2] == pytest.approx(2, abs=0.1)


# Descent, momentum and bounds


def test_nesterov_is_the_recursion_of_the_paper():
    y, velocity = normal(5, 2), torch.zeros(5, 2).double()
    for place in traced(nesterov(0.1, momentum=0.8), BOWL, y, 8):
        velocity = 0.8 * velocity - 0.1 * BOWL.stiffness * (y + 0.8 * velocity - BOWL.minimum)
        y = y + velocity
        close(place, y, atol=1e-14)


@given(st.integers(0, 2**20), st.floats(1e-3, 1e3), st.floats(0, 0.99), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_guarded_steps_never_raise_the_energy(seed, step, momentum, which, walker):
    """Of no item and at no step, on random landscapes, with divergent steps and noise."""
    means, weights = normal(3, 2, seed=seed), torch.softmax(normal(3, seed=seed), 0)
    energy = [GaussianMixture(2 * means, weights, 0.5), DoubleWell(3.0), Banana(),
              Quadratic(means[0], means[1].exp())][which]
    descent = gradient_descent(step)
    kernel = [nesterov(step, momentum), descent, langevin(step), noisy(descent, step)][walker]
    result = run(energy, 2 * normal(8, 2, seed=seed), guarded(kernel), 6, generator(seed))
    energies = torch.cat([result.info.energy, result.state.energy[None]])
    assert (energies.diff(dim=0) <= 0).all()
    assert torch.equal(energies.diff(dim=0) < 0, result.info.accepted)


@pytest.mark.parametrize(("bounds", "limit", "order"), [
    ({"norm": 0.5}, 0.15, 2), ({"norm": 3.0}, 0.9, 2), ({"value": 0.2}, 0.06, math.inf)])
def test_bounds_limit_the_length_or_the_entries_of_a_step(bounds, limit, order):
    start = 2 * normal(100, 2)
    places = torch.cat([start[None], traced(clamped(gradient_descent(0.3), **bounds), DoubleWell(), start, 10)])
    lengths = places.diff(dim=0).norm(order, dim=-1)
    assert limit * (1 - 1e-9) < lengths.max() <= limit * (1 + 1e-12)


def test_bounds_apply_to_gradients_that_are_already_known():
    bounded = clamped(gradient_descent(0.5), norm=1.0)
    for kernel in (guarded(bounded), clamped(guarded(gradient_descent(0.5)), norm=1.0), clamped(bounded, value=5.0)):
        places = traced(kernel, LINE, torch.full((1, 1), 100.0).double(), 3)
        assert places.flatten().tolist() == [99.5, 99.0, 98.5]


@given(st.integers(0, 2**20), st.sampled_from([math.inf, -math.inf, math.nan]), st.integers(0, 11),
       st.sampled_from([dict(value=0.2), dict(norm=0.5), dict(value=0.2, norm=0.5)]))
@settings(max_examples=60, deadline=None)
def test_bounds_do_not_hide_entries_that_are_not_finite(seed, wrong, place, bounds):
    """The item with the entry is not finite after the step; the other items are not affected."""

    class Faulty(PlainLandscape):
        def value_and_grad(self, y, create_graph=False):
            grad = y.flatten().clone()
            grad[place] = wrong
            return self.energy(y), grad.view_as(y)

    start, bowl, others = normal(4, 3, seed=seed), lambda y: y.square().sum(-1) / 2, torch.arange(4) != place // 3
    sound, faulty = (clamped(gradient_descent(0.3), **bounds)(energy, State(start))
                     for energy in (bowl, Faulty(bowl)))
    assert faulty[0].y.flatten()[place].isnan()
    assert faulty[1].finite.tolist() == others.tolist() and sound[1].finite.all()
    assert torch.equal(faulty[0].y[others], sound[0].y[others])


def test_a_bound_of_the_norm_of_a_gradient_of_zero_is_differentiable():
    y = BOWL.minimum.clone().requires_grad_()
    end = clamped(gradient_descent(0.3), norm=0.4)(BOWL, State(y), create_graph=True)[0].y
    close(torch.autograd.grad(end.sum(), y)[0], 1 - 0.3 * BOWL.stiffness)
