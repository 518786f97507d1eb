"""What the samplers promise: moments, detailed balance, the leapfrog's order, and honest information."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.diagnostics import Trace, acceptance_rate, effective_sample_size
from ebwm.energy import Banana, DoubleWell, GaussianMixture, Quadratic
from ebwm.sampler import (
    State,
    clamped,
    draw_like,
    evaluate,
    gradient_descent,
    guarded,
    hmc,
    langevin,
    leapfrog,
    mala,
    nesterov,
    noisy,
    run,
)
from ebwm.settings import generator
from ebwm.walk import run_until

BOWL = Quadratic(torch.tensor([1.0, -0.5]).double(), torch.tensor([1.0, 4.0]).double())
MODES = GaussianMixture(torch.tensor([[-1.2], [1.2]]).double(), torch.tensor([0.3, 0.7]).double(), std=0.8)
LINE = Quadratic(torch.zeros(1).double(), torch.ones(1).double())
EXACT = {"mala": mala(0.3), "hmc": hmc(0.4, steps=4)}
KERNELS = {
    "gradient_descent": gradient_descent(0.1),
    "nesterov": nesterov(0.1),
    "langevin": langevin(0.1),
    "mala": mala(0.1),
    "hmc": hmc(0.3, steps=3),
    "noisy": noisy(gradient_descent(0.1), 0.2),
    "clamped": clamped(gradient_descent(0.1), norm=1.0),
    "guarded": guarded(gradient_descent(0.1)),
    "guarded nesterov": guarded(nesterov(0.1)),
}


def walked(kernel, energy, start, steps, seed=0, burn_in=0):
    """The places of a walk after its first steps, and its result."""
    trace = Trace(burn_in=burn_in)
    result = run(energy, start, kernel, steps, generator(seed), callback=trace)
    return trace.places, result


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed, "starts"))


def assert_mean(samples, expected, errors=4.5):
    """The mean of [draws chains features] is as expected, within errors by the effective sample size."""
    error = samples.flatten(0, 1).std(0) / effective_sample_size(samples).sqrt()
    off = (samples.flatten(0, 1).mean(0) - expected).abs() / error
    assert (off < errors).all(), f"{off.tolist()} standard errors"


# Moments


@pytest.mark.parametrize("name", EXACT)
def test_exact_samplers_have_a_gaussians_moments(name):
    places, _ = walked(EXACT[name], BOWL, normal(150, 2), 200, burn_in=30)
    assert_mean(places, BOWL.minimum)
    assert_mean((places - BOWL.minimum).square(), 1 / BOWL.stiffness)


@pytest.mark.parametrize("name", EXACT)
def test_exact_samplers_have_a_mixtures_moments_and_its_modes_weights(name):
    places, _ = walked(EXACT[name], MODES, 2 * normal(150, 1), 300, burn_in=100)
    below = [0.5 * math.erfc(mean / (0.8 * 2**0.5)) for mean in (-1.2, 1.2)]
    assert_mean(places, MODES.mean)
    assert_mean((places - MODES.mean).square(), MODES.variance)
    assert_mean((places < 0).double(), 0.3 * below[0] + 0.7 * below[1])


@pytest.mark.parametrize("name", EXACT)
def test_exact_samplers_have_the_moments_of_a_bent_gaussian(name):
    bent = Banana(std=1.0, bend=0.5)
    places, _ = walked(EXACT[name], bent, normal(200, 2), 350, burn_in=100)
    assert_mean(places, torch.zeros(2))
    assert_mean(places.square(), bent.variance)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_langevin_has_the_variance_of_its_chain_and_not_the_densitys(alpha):
    places, _ = walked(langevin(alpha), BOWL, normal(150, 2), 400, burn_in=150)
    squares = (places - BOWL.minimum).square()
    assert_mean(squares, 1 / (BOWL.stiffness * (1 - alpha * BOWL.stiffness / 2)))
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean(squares, 1 / BOWL.stiffness)


@pytest.mark.parametrize("temperature", [0.25, 4.0])
@pytest.mark.parametrize("make", [mala, hmc], ids=["mala", "hmc"])
def test_temperature_scales_the_variance(make, temperature):
    step_size = 0.3 * temperature if make is mala else 0.3
    kernel = make(min(step_size, 0.45), temperature=temperature)
    places, _ = walked(kernel, BOWL, normal(150, 2), 200, burn_in=50)
    assert_mean((places - BOWL.minimum).square(), temperature / BOWL.stiffness)


def test_temperature_scales_langevins_variance():
    for temperature in (0.25, 4.0):
        places, _ = walked(langevin(0.2, temperature), BOWL, normal(150, 2), 250, burn_in=50)
        law = temperature / (BOWL.stiffness * (1 - 0.1 * BOWL.stiffness))
        assert_mean((places - BOWL.minimum).square(), law)


# Detailed balance


WELLS = DoubleWell(barrier=1.0, dim=1)


def drawn(energy, count):
    """Independent draws from a density over a line, by the inverse of its sum on a fine grid."""
    grid = torch.linspace(-6, 6, 60_001, dtype=torch.float64)
    summed = torch.softmax(-energy(grid[:, None]), 0).cumsum(0)
    chance = torch.rand(count, dtype=torch.float64, generator=generator(0, "draws"))
    return grid[torch.searchsorted(summed, chance).clamp_max(len(grid) - 1)][:, None]


def imbalance(kernel, energy, chains=60_000):
    """Items that step from a bin to another, less those that step back, in standard errors."""
    edges = torch.tensor([-1.2, -0.6, 0.0, 0.6, 1.2])
    start = drawn(energy, chains)
    end = run(energy, start, kernel, 1, generator(1)).state.y
    pairs = torch.bucketize(start[:, 0], edges) * 6 + torch.bucketize(end[:, 0], edges)
    flow = torch.bincount(pairs, minlength=36).reshape(6, 6).double()
    return float(((flow - flow.T).abs() / (flow + flow.T).sqrt().clamp_min(1)).max())


@pytest.mark.parametrize("energy", [LINE, WELLS], ids=["bowl", "wells"])
@pytest.mark.parametrize("kernel", [mala(0.1), mala(0.5), hmc(0.5, steps=3)], ids=["small", "large", "hmc"])
def test_as_many_step_from_a_bin_to_another_as_back(kernel, energy):
    assert imbalance(kernel, energy) < 4.5


@pytest.mark.parametrize("energy", [LINE, WELLS], ids=["bowl", "wells"])
def test_langevin_with_a_large_step_is_not_balanced(energy):
    assert imbalance(langevin(0.5), energy) > 10


# The leapfrog


def rolled(energy, start, velocity, step_size, steps):
    return leapfrog(energy, evaluate(energy, start), velocity, step_size, steps)


def test_the_leapfrogs_energy_error_falls_with_the_square_of_its_step():
    """Over the same time, on landscapes that aren't bowls; the slope of the logarithms is 2."""
    start, velocity = normal(200, 2), normal(200, 2, seed=1)
    for energy in (DoubleWell(barrier=1.0), Banana(std=1.5, bend=0.3)):
        errors, counts = [], (16, 32, 64, 128)
        for count in counts:
            end, last = rolled(energy, start, velocity, 1.0 / count, count)
            total = end.energy + last.square().sum(-1) / 2 - energy(start) - velocity.square().sum(-1) / 2
            errors.append(float(total.square().mean().sqrt()))
        slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert slopes[-1] == pytest.approx(2, abs=0.05) and slopes[-2] == pytest.approx(2, abs=0.1)


def test_the_leapfrog_is_reversible():
    start, velocity = normal(50, 2), normal(50, 2, seed=1)
    end, last = rolled(DoubleWell(), start, velocity, 0.1, 12)
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
def test_all_is_accepted_as_the_step_goes_to_zero(make):
    start = drawn(WELLS, 4_000)
    rates = [float(acceptance_rate(run(WELLS, start, make(step), 4, generator(0))).mean())
             for step in (1.5, 0.5, 0.05, 0.001)]
    assert rates == sorted(rates) and rates[0] < 0.9 and rates[-1] > 0.998


def test_what_is_refused_stays_where_it_is():
    start = normal(400, 2)
    state, info = mala(1.0)(BOWL, State(start), generator=generator(0), create_graph=False)
    stayed = (state.y == start).all(-1)
    assert torch.equal(stayed, ~info.accepted) and 0 < int(stayed.sum()) < 400
    torch.testing.assert_close(state.energy, BOWL(state.y))
    torch.testing.assert_close(state.grad, evaluate(BOWL, state.y).grad)


# Descent and what is built on it


@given(st.integers(0, 2**20), st.floats(1e-3, 1e3), st.floats(0, 0.99), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_guard_lets_no_energy_rise(seed, step, momentum, which, walker):
    """Random landscapes, steps that diverge without it, noise: of no item and at no step."""
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
def test_a_bound_limits_the_length_of_a_step(norm):
    places, _ = walked(clamped(gradient_descent(0.3), norm=norm), DoubleWell(), 2 * normal(100, 2), 10)
    lengths = torch.cat([2 * normal(100, 2)[None], places]).diff(dim=0).norm(dim=-1)
    assert lengths.max() <= 0.3 * norm * (1 + 1e-12) and lengths.max() > 0.3 * norm * (1 - 1e-9)


def test_a_bound_by_value_limits_every_entry():
    places, _ = walked(clamped(gradient_descent(0.5), value=0.2), BOWL, 9 * normal(100, 2), 3)
    assert torch.cat([9 * normal(100, 2)[None], places]).diff(dim=0).abs().max() <= 0.1 * (1 + 1e-12)


@pytest.mark.parametrize("make", [
    lambda: guarded(clamped(gradient_descent(0.5), norm=1.0)),
    lambda: clamped(guarded(gradient_descent(0.5)), norm=1.0),
    lambda: clamped(clamped(gradient_descent(0.5), norm=1.0), value=5.0),
])  # fmt: skip
def test_a_bound_holds_for_a_gradient_that_is_known_beforehand(make):
    places, _ = walked(make(), LINE, torch.full((1, 1), 100.0).double(), 3)
    assert places.flatten().tolist() == [99.5, 99.0, 98.5]


@given(st.integers(0, 2**20), st.sampled_from([math.inf, -math.inf, math.nan]), st.integers(0, 11),
       st.sampled_from([dict(value=0.2), dict(norm=0.5), dict(value=0.2, norm=0.5)]))
@settings(max_examples=60, deadline=None)
def test_a_bound_passes_nothing_off_as_finite(seed, wrong, place, bounds):
    """One entry of a gradient isn't finite: nor is where its item ends; all others go as without it."""

    class Faulty(Quadratic):
        def gradient(self, y, create_graph=False):
            grad = y.flatten().clone()
            grad[place] = wrong
            return y.square().sum(-1) / 2, grad.view_as(y)

    start, item, bowl = normal(4, 3, seed=seed), place // 3, (torch.zeros(3).double(), torch.ones(3).double())
    sound, faulty = (clamped(gradient_descent(0.3), **bounds)(energy(*bowl), State(start))
                     for energy in (Quadratic, Faulty))
    assert faulty[0].y.flatten()[place].isnan()
    others = torch.arange(4) != item
    assert faulty[1].finite.tolist() == others.tolist() and sound[1].finite.all()
    assert torch.equal(faulty[0].y[others], sound[0].y[others])


def test_a_bound_is_differentiated_as_before():
    y = normal(6, 2).requires_grad_()
    grad = clamped(gradient_descent(0.3), value=0.4)(BOWL, State(y), create_graph=True)[0].y.sum()
    (bar,) = torch.autograd.grad(grad, y)
    inside = ((y - BOWL.minimum) * BOWL.stiffness).abs() < 0.4
    torch.testing.assert_close(bar, 1 - 0.3 * BOWL.stiffness * inside)
    assert inside.any() and not inside.all()


def test_nesterov_begins_as_descent_and_is_descent_without_momentum():
    start = normal(20, 2)
    first = [run(DoubleWell(), start, kernel(0.03), 1).state.y for kernel in (nesterov, gradient_descent)]
    assert torch.equal(*first)
    long = [run(DoubleWell(), start, kernel, 12).state.y
            for kernel in (nesterov(0.03, momentum=0.0), gradient_descent(0.03))]
    assert torch.equal(*long)
    assert not torch.equal(run(DoubleWell(), start, nesterov(0.03), 12).state.y, long[1])


def test_nesterov_is_the_recursion_of_its_paper():
    places, _ = walked(nesterov(0.1, momentum=0.8), BOWL, normal(5, 2), 8)
    y, velocity = normal(5, 2), torch.zeros(5, 2).double()
    for place in places:
        velocity = 0.8 * velocity - 0.1 * BOWL.stiffness * (y + 0.8 * velocity - BOWL.minimum)
        y = y + velocity
        torch.testing.assert_close(place, y, rtol=0, atol=1e-14)


def test_noise_has_the_deviation_that_is_asked_for():
    start = torch.zeros(40_000, 1).double()
    end = run(LINE, start, noisy(gradient_descent(0.0), 0.7), 1, generator(0)).state.y
    assert float(end.std()) == pytest.approx(0.7, abs=4 * 0.7 / 80_000**0.5)
    assert float(end.mean()) == pytest.approx(0, abs=4 * 0.7 / 200)
    twice = run(LINE, start, noisy(gradient_descent(0.5), 0.7), 2, generator(0)).state.y
    assert float(twice.var()) == pytest.approx(0.49 * (1 / 4 + 1 / 16), rel=4 * (2 / 40_000) ** 0.5)


# Items


@pytest.mark.parametrize("make", [
    gradient_descent,
    nesterov,
    lambda size: guarded(nesterov(size)),
    lambda size: clamped(nesterov(size), norm=1.0),
], ids=["descent", "nesterov", "guarded", "clamped"])  # fmt: skip
def test_a_batch_is_its_items_each_with_its_step_size(make):
    start, sizes = normal(6, 2), torch.linspace(0.002, 0.02, 6).double()
    together = run(DoubleWell(), start, make(sizes), 9)
    for row in range(6):
        alone = run(DoubleWell(), start[row : row + 1], make(float(sizes[row])), 9)
        torch.testing.assert_close(alone.state.y[0], together.state.y[row], rtol=0, atol=1e-13)
        assert torch.equal(alone.info.accepted[:, 0], together.info.accepted[:, row])


@pytest.mark.parametrize("make", [langevin, mala, hmc])
def test_chains_with_step_sizes_of_their_own_keep_their_law(make):
    sizes = torch.tensor([0.1, 0.4], dtype=torch.float64)[:, None].expand(2, 100)
    places, result = walked(make(sizes), LINE, normal(2, 100, 1), 250, burn_in=60)
    for row, size in enumerate((0.1, 0.4)):
        assert_mean(places[:, row].square(), 1 / (1 - size / 2) if make is langevin else 1)
        assert (result.info.step_size[:, row] == size).all()


class Counting:
    """An energy that counts for how many candidates it was asked."""

    def __init__(self, energy):
        self.energy, self.asked = energy, 0

    def __call__(self, y):
        self.asked += len(y)
        return self.energy(y)


COUNTS = {
    "gradient_descent": [1, 1, 1], "nesterov": [1, 1, 1], "langevin": [1, 1, 1], "noisy": [1, 1, 1],
    "clamped": [1, 1, 1], "mala": [2, 1, 1], "hmc": [4, 3, 3], "guarded": [2, 1, 1],
    "guarded nesterov": [3, 2, 2],
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_evaluations_are_those_that_the_energy_saw(name):
    counting, seen = Counting(BOWL), []
    result = run(counting, normal(5, 2), KERNELS[name], 3, generator(0), final_energy=False,
                 callback=lambda *step: seen.append(counting.asked))
    told = result.info.evaluations
    assert told.sum(1).cumsum(0).tolist() == seen
    assert told.tolist() == [[count] * 5 for count in COUNTS[name]]


@pytest.mark.parametrize("name", KERNELS)
def test_evaluations_are_counted_when_items_leave(name):
    counting = Counting(BOWL)
    stop = lambda taken, info, before: torch.arange(5) < taken
    result = run_until(counting, normal(5, 2), KERNELS[name], 9, stop, generator(0))
    assert int(result.info.evaluations.sum()) + 5 == counting.asked  # 5: the energies of the end


@pytest.mark.parametrize("name", KERNELS)
def test_an_item_that_is_not_finite_is_reported_and_not_replaced(name):
    start = torch.tensor([[0.5, 0.1], [1e200, 0.0], [-0.5, 0.3]], dtype=torch.float64)
    tame = start * torch.tensor([[1.0], [0.0], [1.0]])
    wild, calm = (run(DoubleWell(), y, KERNELS[name], 3, generator(0)) for y in (start, tame))
    assert wild.info.finite.tolist() == [[True, False, True]] * 3 and calm.info.finite.all()
    assert torch.equal(wild.state.y[[0, 2]], calm.state.y[[0, 2]])
    end = wild.state.y[1]
    assert not end.isfinite().all() or torch.equal(end, start[1])


def test_a_landscape_may_be_made_anew_for_each_step():
    """Analytic energies are equal if their tensors are, which no walk needs to know."""

    class Stiffer:
        def __call__(self, y):
            raise AssertionError("every step has a landscape of its own")

        def at_step(self, step):
            return Quadratic(torch.zeros(2).double(), torch.tensor([1.0, 1.0 + step]).double())

    end = run(Stiffer(), torch.ones(3, 2).double(), gradient_descent(0.1), 3).state
    expected = torch.tensor([0.9**3, 0.9 * 0.8 * 0.7], dtype=torch.float64)
    torch.testing.assert_close(end.y, expected.expand(3, 2))


# Bad input

START = torch.ones(3, 2).double()


@pytest.mark.parametrize("make", [gradient_descent, nesterov, langevin, mala, hmc])
@pytest.mark.parametrize("step_size", [-0.1, math.nan, torch.tensor([0.1, -0.1, 0.1])])
def test_step_sizes_that_no_walk_can_use(make, step_size):
    with pytest.raises(ValueError, match=r"step_size is (-0.1|nan); it must be (0 or more|above 0)"):
        make(step_size)


@pytest.mark.parametrize("make", [mala, hmc])
def test_a_choice_needs_a_step_and_a_temperature(make):
    with pytest.raises(ValueError, match="step_size is 0; it must be above 0"):
        make(0.0)
    for temperature, message in ((0.0, "0.0; it must be above 0"), (-1.0, "-1.0; it must be above 0")):
        with pytest.raises(ValueError, match=f"temperature is {message}"):
            make(0.1, temperature=temperature)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("start", "energy", "message"), [
    (torch.full((3, 2), math.nan), BOWL, "start holds 6 values that are not finite"),
    (START, lambda y: torch.ones(7) * y.sum(), r"energy has shape \[7\] for candidates \[3, 2\]; give one"),
    (START, lambda y: y.square().mT, r"energy has shape \[2, 3\] for candidates \[3, 2\]; give one"),
])  # fmt: skip
def test_starts_and_energies_that_do_not_fit(name, start, energy, message):
    with pytest.raises(ValueError, match=message):
        run(energy, start, KERNELS[name], 2, generator(0))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_walk_without_steps(steps):
    for walk in (run, lambda *a: run_until(*a, stop=lambda *b: None)):
        with pytest.raises(ValueError, match=f"steps is {steps}; a walk needs at least 1 step"):
            walk(BOWL, START, gradient_descent(0.1), steps)
    with pytest.raises(ValueError, match=f"steps is {steps}; a proposal needs at least 1"):
        hmc(0.1, steps=steps)


@pytest.mark.parametrize("name", ["langevin", "mala", "hmc", "noisy"])
def test_noise_needs_a_generator(name):
    with pytest.raises(ValueError, match="generator is None; chance needs one"):
        run(BOWL, START, KERNELS[name], 1)


def test_noise_needs_a_generator_of_its_candidates_device():
    elsewhere = torch.ones(3, 2, device="meta")
    with pytest.raises(ValueError, match=r"generator is on cpu, candidates are on meta; use .*device='meta'"):
        draw_like(torch.randn, elsewhere, generator(0))
    known = State(elsewhere, elsewhere[:, 0], elsewhere)
    for make in (langevin, mala, hmc):
        with pytest.raises(ValueError, match="generator is on cpu, candidates are on meta"):
            make(0.1)(BOWL, known, generator=generator(0), create_graph=False)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: nesterov(0.1, momentum=1.0), "momentum is 1.0; it must be from 0 to below 1"),
    (lambda: nesterov(0.1, momentum=math.nan), "momentum is nan"),
    (lambda: langevin(0.1, temperature=math.nan), "temperature is nan; it must be 0 or more"),
    (lambda: noisy(gradient_descent(0.1), -1.0), "std is -1.0; it must be 0 or more"),
    (lambda: clamped(gradient_descent(0.1)), "value is None and norm None; give one or both, above 0"),
    (lambda: clamped(gradient_descent(0.1), norm=0.0), "value is None and norm 0.0"),
    (lambda: run(BOWL, START, [gradient_descent(0.1)], 2), "kernel holds 1 kernels for 2 steps"),
    (lambda: run(BOWL, START, mala(torch.ones(2)), 1, generator(0)), r"step_size has shape \[2\]"),
])  # fmt: skip
def test_settings_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
