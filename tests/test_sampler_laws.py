"""Laws of the samplers: moments, detailed balance, the order of the leapfrog, counts and finite values."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.diagnostics import Trace, acceptance_rate, effective_sample_size
from ebwm.energy import Banana, DoubleWell, GaussianMixture, PlainLandscape, Quadratic
from ebwm.evaluation.cost import Counted
from ebwm.modifiers import clamped, guarded, noisy
from ebwm.sampler import State, evaluate, gradient_descent, hmc, langevin, leapfrog, mala, nesterov, run
from ebwm.settings import generator
from ebwm.stopping import run_until

BOWL = Quadratic(torch.tensor([1.0, -0.5]).double(), torch.tensor([1.0, 4.0]).double())
MODES = GaussianMixture(torch.tensor([[-1.2], [1.2]]).double(), torch.tensor([0.3, 0.7]).double(), std=0.8)
LINE = Quadratic(torch.zeros(1).double(), torch.ones(1).double())
EXACT = {"mala": mala(0.3), "hmc": hmc(0.4, steps=4)}
KERNELS = {
    "gradient_descent": gradient_descent(0.1), "nesterov": nesterov(0.1), "langevin": langevin(0.1),
    "mala": mala(0.1), "hmc": hmc(0.3, steps=3), "noisy": noisy(gradient_descent(0.1), 0.2),
    "clamped": clamped(gradient_descent(0.1), norm=1.0), "guarded": guarded(gradient_descent(0.1)),
    "guarded nesterov": guarded(nesterov(0.1)),
}  # fmt: skip


def traced(kernel, energy, start, steps, seed=0, burn_in=0):
    """Candidates after each step beyond the burn-in, and the result."""
    trace = Trace(burn_in=burn_in)
    result = run(energy, start, kernel, steps, generator(seed), callback=trace)
    return trace.places, result


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed, "starts"))


def assert_mean(samples, expected, errors=4.5):
    """The mean of [draws chains features] is as expected, within standard errors (effective sample size)."""
    error = samples.flatten(0, 1).std(0) / effective_sample_size(samples).sqrt()
    off = (samples.flatten(0, 1).mean(0) - expected).abs() / error
    assert (off < errors).all(), f"{off.tolist()} standard errors"


# Moments


@pytest.mark.parametrize("name", EXACT)
def test_exact_samplers_have_the_moments_of_a_gaussian(name):
    places, _ = traced(EXACT[name], BOWL, normal(150, 2), 200, burn_in=30)
    assert_mean(places, BOWL.minimum)
    assert_mean((places - BOWL.minimum).square(), 1 / BOWL.stiffness)


@pytest.mark.parametrize("name", EXACT)
def test_exact_samplers_have_the_moments_and_weights_of_a_mixture(name):
    places, _ = traced(EXACT[name], MODES, 2 * normal(150, 1), 300, burn_in=100)
    below = [0.5 * math.erfc(mean / (0.8 * 2**0.5)) for mean in (-1.2, 1.2)]
    assert_mean(places, MODES.mean)
    assert_mean((places - MODES.mean).square(), MODES.variance)
    assert_mean((places < 0).double(), 0.3 * below[0] + 0.7 * below[1])


@pytest.mark.parametrize("name", EXACT)
def test_exact_samplers_have_the_moments_of_a_banana(name):
    bent = Banana(std=1.0, bend=0.5)
    places, _ = traced(EXACT[name], bent, normal(200, 2), 350, burn_in=100)
    assert_mean(places, torch.zeros(2))
    assert_mean(places.square(), bent.variance)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_langevin_has_the_variance_of_its_chain_and_not_of_the_density(alpha):
    places, _ = traced(langevin(alpha), BOWL, normal(150, 2), 400, burn_in=150)
    squares = (places - BOWL.minimum).square()
    assert_mean(squares, 1 / (BOWL.stiffness * (1 - alpha * BOWL.stiffness / 2)))
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean(squares, 1 / BOWL.stiffness)


@pytest.mark.parametrize("temperature", [0.25, 4.0])
@pytest.mark.parametrize("make", [mala, hmc], ids=["mala", "hmc"])
def test_temperature_scales_the_variance(make, temperature):
    step_size = 0.3 * temperature if make is mala else 0.3
    kernel = make(min(step_size, 0.45), temperature=temperature)
    places, _ = traced(kernel, BOWL, normal(150, 2), 200, burn_in=50)
    assert_mean((places - BOWL.minimum).square(), temperature / BOWL.stiffness)


def test_temperature_scales_the_variance_of_langevin():
    for temperature in (0.25, 4.0):
        places, _ = traced(langevin(0.2, temperature), BOWL, normal(150, 2), 250, burn_in=50)
        law = temperature / (BOWL.stiffness * (1 - 0.1 * BOWL.stiffness))
        assert_mean((places - BOWL.minimum).square(), law)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_langevin_has_the_law_of_its_discretised_chain(alpha):
    """Independent chains, so that the standard errors need no effective sample size."""
    chains, steps, start = 20_000, 40, 2.0
    end = run(BOWL, torch.full((chains, 2), start).double(), langevin(alpha), steps, generator(1)).state.y
    shrink = (1 - alpha * BOWL.stiffness) ** steps
    mean = BOWL.minimum + (start - BOWL.minimum) * shrink
    variance = 2 * alpha * (1 - shrink**2) / (1 - (1 - alpha * BOWL.stiffness) ** 2)
    assert ((end.mean(0) - mean).abs() < 4 * (variance / chains).sqrt()).all()
    assert ((end.var(0) - variance).abs() < 4 * variance * (2 / (chains - 1)) ** 0.5).all()


def test_langevin_at_temperature_zero_is_descent():
    cold = run(BOWL, normal(3, 2), langevin(0.1, temperature=0.0), 5, generator(0)).state.y
    assert torch.equal(cold, run(BOWL, normal(3, 2), gradient_descent(0.1), 5).state.y)


def test_langevin_samples_both_modes_in_their_proportions():
    mixture = GaussianMixture(torch.tensor([[-1.5], [1.5]]), torch.tensor([0.3, 0.7]), std=0.8)
    chains = 4_000
    end = run(mixture, torch.zeros(chains, 1), langevin(0.05), 400, generator(2)).state.y
    error = (0.3 * 0.7 / chains) ** 0.5
    assert abs((end > 0).float().mean() - 0.7) < 0.03 + 4 * error  # 0.03: overlap of the modes, and bias


# Detailed balance


WELLS = DoubleWell(barrier=1.0, dim=1)


def drawn(energy, count):
    """Independent draws from a density on a line, by inversion of its cumulative sum on a fine grid."""
    grid = torch.linspace(-6, 6, 60_001, dtype=torch.float64)
    summed = torch.softmax(-energy(grid[:, None]), 0).cumsum(0)
    uniform = torch.rand(count, dtype=torch.float64, generator=generator(0, "draws"))
    return grid[torch.searchsorted(summed, uniform).clamp_max(len(grid) - 1)][:, None]


def imbalance(kernel, energy, chains=60_000):
    """Largest difference of the counts of moves between two bins and back, in standard errors."""
    edges = torch.tensor([-1.2, -0.6, 0.0, 0.6, 1.2])
    start = drawn(energy, chains)
    end = run(energy, start, kernel, 1, generator(1)).state.y
    pairs = torch.bucketize(start[:, 0], edges) * 6 + torch.bucketize(end[:, 0], edges)
    flow = torch.bincount(pairs, minlength=36).reshape(6, 6).double()
    return float(((flow - flow.T).abs() / (flow + flow.T).sqrt().clamp_min(1)).max())


@pytest.mark.parametrize("energy", [LINE, WELLS], ids=["bowl", "wells"])
@pytest.mark.parametrize("kernel", [mala(0.1), mala(0.5), hmc(0.5, steps=3)], ids=["small", "large", "hmc"])
def test_exact_samplers_are_in_detailed_balance(kernel, energy):
    assert imbalance(kernel, energy) < 4.5


@pytest.mark.parametrize("energy", [LINE, WELLS], ids=["bowl", "wells"])
def test_langevin_with_a_large_step_is_not_in_detailed_balance(energy):
    assert imbalance(langevin(0.5), energy) > 10


# The leapfrog


def integrated(energy, start, velocity, step_size, steps):
    return leapfrog(energy, evaluate(energy, start), velocity, step_size, steps)


def test_the_energy_error_of_the_leapfrog_is_of_second_order():
    """For a fixed time, on energies that are not quadratic; the slope of the logarithms is 2."""
    start, velocity = normal(200, 2), normal(200, 2, seed=1)
    for energy in (DoubleWell(barrier=1.0), Banana(std=1.5, bend=0.3)):
        errors, counts = [], (16, 32, 64, 128)
        for count in counts:
            end, last = integrated(energy, start, velocity, 1.0 / count, count)
            total = end.energy + last.square().sum(-1) / 2 - energy(start) - velocity.square().sum(-1) / 2
            errors.append(float(total.square().mean().sqrt()))
        slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert slopes[-1] == pytest.approx(2, abs=0.05) and slopes[-2] == pytest.approx(2, abs=0.1)


def test_the_leapfrog_is_reversible():
    start, velocity = normal(50, 2), normal(50, 2, seed=1)
    end, last = integrated(DoubleWell(), start, velocity, 0.1, 12)
    back, turned = leapfrog(DoubleWell(), end, -last, 0.1, 12)
    assert (end.y - start).abs().min() > 1e-4
    torch.testing.assert_close(back.y, start, rtol=0, atol=1e-9)
    torch.testing.assert_close(turned, -velocity, rtol=0, atol=1e-9)


def test_the_leapfrog_preserves_volume():
    def whole(place):
        start = evaluate(wells, place[None, :2], create_graph=True)
        end, last = leapfrog(wells, start, place[None, 2:], 0.05, 5, create_graph=True)
        return torch.cat([end.y[0], last[0]])

    wells = DoubleWell()
    for place in normal(5, 4):
        jacobian = torch.autograd.functional.jacobian(whole, place)
        assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-10)
        assert (jacobian - torch.eye(4)).abs().max() > 0.1


# Acceptance


@pytest.mark.parametrize("make", [mala, hmc], ids=["mala", "hmc"])
def test_the_acceptance_rate_tends_to_one_for_small_steps(make):
    start = drawn(WELLS, 4_000)
    rates = [float(acceptance_rate(run(WELLS, start, make(step), 4, generator(0))).mean())
             for step in (1.5, 0.5, 0.05, 0.001)]
    assert rates == sorted(rates) and rates[0] < 0.9 and rates[-1] > 0.998


def test_rejected_items_do_not_move():
    start = normal(400, 2)
    state, info = mala(1.0)(BOWL, State(start), generator=generator(0), create_graph=False)
    stayed = (state.y == start).all(-1)
    assert torch.equal(stayed, ~info.accepted) and 0 < int(stayed.sum()) < 400
    torch.testing.assert_close(state.energy, BOWL(state.y))
    torch.testing.assert_close(state.grad, evaluate(BOWL, state.y).grad)


# Descent, bounds, momentum and noise


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


@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_a_norm_bounds_the_length_of_a_step(norm):
    places, _ = traced(clamped(gradient_descent(0.3), norm=norm), DoubleWell(), 2 * normal(100, 2), 10)
    lengths = torch.cat([2 * normal(100, 2)[None], places]).diff(dim=0).norm(dim=-1)
    assert lengths.max() <= 0.3 * norm * (1 + 1e-12) and lengths.max() > 0.3 * norm * (1 - 1e-9)


def test_a_value_bounds_every_entry():
    places, _ = traced(clamped(gradient_descent(0.5), value=0.2), BOWL, 9 * normal(100, 2), 3)
    assert torch.cat([9 * normal(100, 2)[None], places]).diff(dim=0).abs().max() <= 0.1 * (1 + 1e-12)


@pytest.mark.parametrize("make", [
    lambda: guarded(clamped(gradient_descent(0.5), norm=1.0)),
    lambda: clamped(guarded(gradient_descent(0.5)), norm=1.0),
    lambda: clamped(clamped(gradient_descent(0.5), norm=1.0), value=5.0),
])  # fmt: skip
def test_bounds_apply_to_gradients_that_are_already_known(make):
    places, _ = traced(make(), LINE, torch.full((1, 1), 100.0).double(), 3)
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

    start, item, bowl = normal(4, 3, seed=seed), place // 3, lambda y: y.square().sum(-1) / 2
    sound, faulty = (clamped(gradient_descent(0.3), **bounds)(energy, State(start))
                     for energy in (bowl, Faulty(bowl)))
    assert faulty[0].y.flatten()[place].isnan()
    others = torch.arange(4) != item
    assert faulty[1].finite.tolist() == others.tolist() and sound[1].finite.all()
    assert torch.equal(faulty[0].y[others], sound[0].y[others])


def test_bounds_are_differentiable():
    y = normal(6, 2).requires_grad_()
    grad = clamped(gradient_descent(0.3), value=0.4)(BOWL, State(y), create_graph=True)[0].y.sum()
    (bar,) = torch.autograd.grad(grad, y)
    inside = ((y - BOWL.minimum) * BOWL.stiffness).abs() < 0.4
    torch.testing.assert_close(bar, 1 - 0.3 * BOWL.stiffness * inside)
    assert inside.any() and not inside.all()
    stationary = BOWL.minimum.expand(3, 2).clone().requires_grad_()  # a norm of 0 has a derivative too
    end = clamped(gradient_descent(0.3), norm=0.4)(BOWL, State(stationary), create_graph=True)[0].y.sum()
    (bar,) = torch.autograd.grad(end, stationary)
    torch.testing.assert_close(bar, (1 - 0.3 * BOWL.stiffness).expand(3, 2))


def test_nesterov_without_momentum_is_descent():
    start = normal(20, 2)
    first = [run(DoubleWell(), start, kernel(0.03), 1).state.y for kernel in (nesterov, gradient_descent)]
    assert torch.equal(*first)
    long = [run(DoubleWell(), start, kernel, 12).state.y
            for kernel in (nesterov(0.03, momentum=0.0), gradient_descent(0.03))]
    assert torch.equal(*long)
    assert not torch.equal(run(DoubleWell(), start, nesterov(0.03), 12).state.y, long[1])


def test_nesterov_is_the_recursion_of_the_paper():
    places, _ = traced(nesterov(0.1, momentum=0.8), BOWL, normal(5, 2), 8)
    y, velocity = normal(5, 2), torch.zeros(5, 2).double()
    for place in places:
        velocity = 0.8 * velocity - 0.1 * BOWL.stiffness * (y + 0.8 * velocity - BOWL.minimum)
        y = y + velocity
        torch.testing.assert_close(place, y, rtol=0, atol=1e-14)


def test_noise_has_its_standard_deviation():
    start = torch.zeros(40_000, 1).double()
    end = run(LINE, start, noisy(gradient_descent(0.0), 0.7), 1, generator(0)).state.y
    assert float(end.std()) == pytest.approx(0.7, abs=4 * 0.7 / 80_000**0.5)
    assert float(end.mean()) == pytest.approx(0, abs=4 * 0.7 / 200)
    twice = run(LINE, start, noisy(gradient_descent(0.5), 0.7), 2, generator(0)).state.y
    assert float(twice.var()) == pytest.approx(0.49 * (1 / 4 + 1 / 16), rel=4 * (2 / 40_000) ** 0.5)


# Items and counts


@pytest.mark.parametrize("make", [langevin, mala, hmc])
def test_chains_with_a_step_size_each_keep_their_law(make):
    sizes = torch.tensor([0.1, 0.4], dtype=torch.float64)[:, None].expand(2, 100)
    places, result = traced(make(sizes), LINE, normal(2, 100, 1), 250, burn_in=60)
    for row, size in enumerate((0.1, 0.4)):
        assert_mean(places[:, row].square(), 1 / (1 - size / 2) if make is langevin else 1)
        assert (result.info.step_size[:, row] == size).all()


COUNTS = {
    "gradient_descent": [1, 1, 1], "nesterov": [1, 1, 1], "langevin": [1, 1, 1], "noisy": [1, 1, 1],
    "clamped": [1, 1, 1], "mala": [2, 1, 1], "hmc": [4, 3, 3], "guarded": [2, 1, 1],
    "guarded nesterov": [3, 2, 2],
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_reported_evaluations_are_the_candidates_evaluated(name):
    counted, seen = Counted(BOWL), []
    result = run(counted, normal(5, 2), KERNELS[name], 3, generator(0), final_energy=False,
                 callback=lambda *step: seen.append(counted.evaluations))
    assert result.info.evaluations.sum(1).cumsum(0).tolist() == seen
    assert result.info.evaluations.tolist() == [[count] * 5 for count in COUNTS[name]]


@pytest.mark.parametrize("name", KERNELS)
def test_stopped_items_are_not_evaluated(name):
    counted = Counted(BOWL)
    stop = lambda taken, info, before: torch.arange(5) < taken
    result = run_until(counted, normal(5, 2), KERNELS[name], 9, stop, generator(0))
    assert int(result.info.evaluations.sum()) + 5 == counted.evaluations  # 5: the final energies


@pytest.mark.parametrize("name", KERNELS)
def test_items_that_are_not_finite_are_reported_and_not_replaced(name):
    start = torch.tensor([[0.5, 0.1], [1e200, 0.0], [-0.5, 0.3]], dtype=torch.float64)
    tame = start * torch.tensor([[1.0], [0.0], [1.0]])
    wild, calm = (run(DoubleWell(), y, KERNELS[name], 3, generator(0)) for y in (start, tame))
    assert wild.info.finite.tolist() == [[True, False, True]] * 3 and calm.info.finite.all()
    assert torch.equal(wild.state.y[[0, 2]], calm.state.y[[0, 2]])
    end = wild.state.y[1]
    assert not end.isfinite().all() or torch.equal(end, start[1])
