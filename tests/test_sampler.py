"""Sampling: facts about steps, items that stop, schedules, walks, the replay buffer, and diagnostics."""

from functools import partial

import pytest
import torch

from ebwm.diagnostics import Trace, acceptance_rate, alarms, energy_trace, health
from ebwm.energy import DoubleWell, PlainLandscape, Transformed
from ebwm.evaluation.cost import Counted
from ebwm.modifiers import clamped, guarded, noisy
from ebwm.replay import Replay
from ebwm.sampler import (
    STARTS,
    State,
    gradient_descent,
    hmc,
    init_candidates,
    mala,
    nesterov,
    run,
    softmax_descent,
    where_state,
)
from ebwm.schedules import cosine, geometric, linear, random_step_sizes, random_steps, scheduled
from ebwm.settings import generator
from ebwm.stopping import budget, either, energy_change, gradient_norm, run_until
from ebwm.walk import Walk, walk_of
from tests.helpers import BOWL, KERNELS, close, draw, ebt, softmax

by_kernel = pytest.mark.parametrize(("make", "counts"), KERNELS.values(), ids=list(KERNELS))
SIZES = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], dtype=torch.float64)
TOKENS = torch.tensor([[1, 2, 3], [3, 2, 1]])


def test_lengths_of_gradients_do_not_overflow_in_half_precision():
    start = torch.zeros(2, 4, dtype=torch.float16)
    ended = run(lambda y: 1000 * y.sum(-1), start, clamped(gradient_descent(1.0), norm=1.0), 1)
    close(ended.state.y, torch.full_like(start, -0.5), atol=1e-3)


def test_facts_are_stacked_over_steps():
    start, trace, seen = draw(5, 2), Trace(), []
    result = run(BOWL, start, mala(0.5), 8, generator(1), callback=lambda *step: (trace(*step), seen.append(step[0])))
    places = torch.cat([start[None], trace.places])
    moved = (places.diff(dim=0) != 0).any(-1)
    assert seen == [*range(8)] and torch.equal(moved, result.info.accepted) and not moved.all()
    assert torch.equal(places[-1], result.state.y)
    close([acceptance_rate(result), energy_trace(result)], [moved.float().mean(0), BOWL(places)], check_dtype=False)
    for final in (False, True):
        result = run(BOWL, start, gradient_descent(0.1), 4, final_energy=final)
        assert (result.state.energy is not None) == final and (result.evaluations == 4 + final).all()


def test_an_item_that_does_not_move_has_no_velocity():
    filled = lambda value: State(*(torch.full(shape, value) for shape in ((2, 3), (2,), (2, 3), (2, 3))))
    mixed = where_state(torch.tensor([True, False]), filled(1.0), filled(2.0))
    assert mixed.y[:, 0].tolist() == mixed.energy.tolist() == mixed.grad[:, 0].tolist() == [1, 2]
    assert mixed.velocity[:, 0].tolist() == [1, 0]


@pytest.mark.parametrize("start", STARTS)
def test_initial_candidates(start):
    recent, out = torch.full((2, 3, 4), 5.0), torch.full((2, 3, 4), torch.nan)
    y = init_candidates(start, recent, generator(0))
    expected = {"noise": 0 < abs(float(y.mean())) < 1, "last": torch.equal(y, recent), "zeros": not y.any()}
    assert y.shape == recent.shape and expected[start]
    assert Walk(start=start).initial(recent, generator(0), out) is out and torch.equal(out, y)
    y += 1
    assert (recent == 5).all() and Walk(start=y).initial(recent) is y


# Evaluations, finite values, and items that stop


@by_kernel
def test_reported_evaluations_are_the_candidates_evaluated(make, counts):
    """Also when items stop one after another."""
    counted, seen = Counted(BOWL), []
    result = run(counted, draw(5, 2), make(0.1), 3, generator(0), final_energy=False,
                 callback=lambda *step: seen.append(counted.evaluations))
    assert result.info.evaluations.sum(1).cumsum(0).tolist() == seen
    assert result.info.evaluations.tolist() == [[count] * 5 for count in counts]
    again, stop = Counted(BOWL), lambda taken, info, before: torch.arange(5) < taken
    result = run_until(again, draw(5, 2), make(0.1), 9, stop, generator(0))
    assert int(result.evaluations.sum()) == again.evaluations and (result.info.evaluations > 0).sum() == 15


class Closed(PlainLandscape):
    """A bowl that computes a gradient without the energies, and records what is asked of it."""

    def __init__(self):
        super().__init__(BOWL)
        self.asked = []

    def value_and_grad(self, y, create_graph=False):
        self.asked.append("both")
        return super().value_and_grad(y, create_graph)

    def gradient(self, y, create_graph=False):
        self.asked.append("gradient")
        return BOWL.stiffness * (y - BOWL.minimum)


def test_a_trajectory_evaluates_the_energy_at_its_end_only():
    closed, start = Closed(), draw(5, 2)
    result = run(closed, start, hmc(0.1, 4), 3, generator(0))
    assert closed.asked == ["both", *["gradient", "gradient", "gradient", "both"] * 3]
    assert result.info.evaluations.tolist() == [[5] * 5, [4] * 5, [4] * 5]
    close(result.state.y, run(BOWL, start, hmc(0.1, 4), 3, generator(0)).state.y)


@by_kernel
def test_items_that_are_not_finite_are_reported_and_not_replaced(make, counts):
    start = torch.tensor([[0.5, 0.1], [1e200, 0.0], [-0.5, 0.3]], dtype=torch.float64)
    tame = start * torch.tensor([[1.0], [0.0], [1.0]])
    wild, calm = (run(DoubleWell(), y, make(0.1), 3, generator(0)) for y in (start, tame))
    assert wild.info.finite.tolist() == [[True, False, True]] * 3 and calm.info.finite.all()
    assert torch.equal(wild.state.y[[0, 2]], calm.state.y[[0, 2]])
    end = wild.state.y[1]
    assert not end.isfinite().all() or torch.equal(end, start[1])


class Renewed(PlainLandscape):
    """A landscape that is another object at each step."""

    def at_step(self, step):
        return Renewed(self.function)


@by_kernel
def test_items_keep_their_step_sizes_and_their_noise_when_others_stop(make, counts):
    """Each ends as in a batch of equal items, also if the landscape is another one at each step."""
    sizes, limits, start = torch.tensor([0.05, 0.1, 0.2]).double(), torch.tensor([9, 1, 5]), draw(3, 2)
    result = run_until(BOWL, start, make(sizes), 9, budget(limits), generator(0))
    for row, (size, limit) in enumerate(zip(sizes.tolist(), limits.tolist(), strict=True)):
        equal = run(Renewed(BOWL), start, make(size), limit, generator(0))
        close(result.state.y[row], equal.state.y[row], atol=1e-14)
        close(result.state.energy[row], equal.state.energy[row], atol=1e-14)
        assert (result.info.step_size[:limit, row] == size).all()
        assert torch.equal(result.info.accepted[:limit, row], equal.info.accepted[:, row])


def test_known_energies_are_evaluated_again_only_if_the_landscape_changes():
    """A guarded step needs one evaluation more than descent, and one for each new landscape."""
    model = ebt(step_conditioning="candidate_token", conditioned_steps=3)
    counted = Counted(model.landscape(draw(2, 4, 8)))
    result = run(counted, draw(2, 4, 8), guarded(gradient_descent(0.1)), 8)
    assert counted.evaluations == int(result.info.evaluations.sum()) == 8 * (8 + 3)
    until = run_until(counted, draw(2, 4, 8), guarded(gradient_descent(0.1)), 8, budget(8))
    assert torch.equal(until.state.y, result.state.y)
    assert torch.equal(until.info.evaluations, result.info.evaluations)


def test_rules():
    start = torch.tensor([[1.0, -0.5], [1.001, -0.5], [9.0, 1.0]]).double()
    stopped = lambda rule: run_until(BOWL, start, gradient_descent(0.2), 50, rule).info
    norms, changes = stopped(gradient_norm(0.01)), stopped(energy_change(1e-4))
    *first, last = norms.evaluations.sum(0).tolist()
    assert first == [1, 1] and last > 10 and (norms.grad_norm[-1] < 0.01).all()
    *first, last = changes.evaluations.sum(0).tolist()
    energies = run(BOWL, start, gradient_descent(0.2), last).info.energy[:, 2]
    assert first == [2, 2] and abs(energies[-1] - energies[-2]) < 1e-4 <= abs(energies[-2] - energies[-3])
    assert stopped(either(gradient_norm(0.01), budget(3))).evaluations.sum(0).tolist() == [1, 1, 3]


def test_a_rejected_proposal_is_no_convergence_unless_it_would_be_rejected_again():
    start, tiny = torch.full((200, 2), 3.0).double(), 1e-6
    run_with = lambda kernel, rule: run_until(BOWL, start, kernel, 60, rule, generator(0, "noise"))
    chain = run_with(mala(0.5), energy_change(tiny))
    assert not chain.info.accepted[:10].all(0).all() and (chain.info.evaluations.sum(0) > 40).all()
    steep = guarded(gradient_descent(10.0))  # every step is rejected
    assert run_with(steep, energy_change(tiny)).info.evaluations.shape[0] == 60
    assert run_with(steep, energy_change(tiny, rejected=True)).info.evaluations.shape[0] == 2


def test_facts_about_stopped_items():
    seen, start = [], draw(2, 2)
    info = run_until(BOWL, start, gradient_descent(0.1), 99, budget(torch.tensor([1, 4])),
                     callback=lambda index, state, info: seen.append((index, state.y.shape))).info
    assert seen == [(index, (2, 2)) for index in range(4)] and torch.equal(start, draw(2, 2))
    assert info.accepted.tolist() == [[True, True], *[[False, True]] * 3] and info.finite.all()
    assert not info.step_size[1:, 0].any() and (info.grad_norm[:, 0] == info.grad_norm[0, 0]).all()
    assert (info.energy[:, 0] == info.energy[0, 0]).all() and (info.energy[:, 1].diff() < 0).all()


# Settings


def test_schedules():
    found = torch.stack([linear(1, 3, 3), geometric(1, 4, 3), cosine(4, 0, 3)])
    torch.testing.assert_close(found, torch.tensor([[1.0, 2, 3], [1, 2, 4], [4, 2, 0]]))
    sizes, y = [0.3, 0.2, 0.1], draw(1, 2)
    result = run(BOWL, y, scheduled(gradient_descent, step_size=sizes), 3)
    assert result.info.step_size[:, 0].tolist() == sizes
    for size in sizes:
        y = run(BOWL, y, gradient_descent(size), 1).state.y
    assert torch.equal(result.state.y, y)


def test_random_step_sizes_are_differentiable_and_uniform():
    alpha = torch.tensor(3.0, requires_grad=True)
    sizes = random_step_sizes(alpha, 2.0, (20_000,), generator(0))
    assert sizes.min() >= 1.5 and sizes.max() <= 6.0
    assert abs(sizes.mean() - 3.75) < 4 * (4.5**2 / 12 / 20_000) ** 0.5
    sizes.mean().backward()
    torch.testing.assert_close(alpha.grad, (sizes.mean() / 3).detach())


def test_random_numbers_of_steps_are_uniform():
    noise = generator(0)
    counts = torch.tensor([random_steps(2, 4, noise) for _ in range(3_000)]).bincount()
    assert not counts[:2].any() and ((counts[2:] - 1_000).abs() < 4 * (3_000 * 2 / 9) ** 0.5).all()


@pytest.mark.parametrize(("walk", "make", "vocabulary"), [
    (Walk(), gradient_descent, None),
    (Walk(step_size=SIZES), lambda _: gradient_descent(SIZES), None),
    (Walk(noise=0.2, clamp=0.01), lambda alpha: noisy(clamped(gradient_descent(alpha), 0.01), 0.2), None),
    (Walk(guard=True, clamp=0.01), lambda alpha: guarded(clamped(gradient_descent(alpha), 0.01)), None),
    (Walk(kernel=partial(nesterov, momentum=0.5)), lambda alpha: nesterov(alpha, 0.5), None),
    (Walk(), softmax_descent, 5),
    (Walk(update="paper"), gradient_descent, 5),
    (Walk(kernel=nesterov, noise=0.2), lambda alpha: noisy(nesterov(alpha), 0.2), 5),
])
def test_a_walk_is_the_kernel_of_its_settings(walk, make, vocabulary):
    model, seen = ebt(vocabulary=vocabulary), []
    landscape = model.landscape(TOKENS if vocabulary else draw(2, 3, 8))
    start = draw(2, 3, model.state_dim, stream="start")
    inner = Transformed(landscape, softmax) if vocabulary else landscape
    expected = run(inner, start, make(model.step_size), 4, generator(0))
    found = walk_of(walk, {"steps": 4}).run(
        model, landscape, start, generator(0), callback=lambda *step: seen.append(step[0]))
    assert seen == [0, 1, 2, 3] and not found.state.y.requires_grad
    assert torch.equal(found.state.y, expected.state.y) and torch.equal(found.state.energy, expected.state.energy)
    assert all(map(torch.equal, found.info, expected.info))


def test_settings_are_a_walk_a_number_of_steps_or_single_fields():
    assert walk_of(None, {}) == Walk() and walk_of(7, {}) == Walk(steps=7)
    assert walk_of(Walk(7, noise=1.0), {"steps": 3}) == Walk(3, noise=1.0)


def test_a_buffer_stores_the_newest_items_and_restores_them():
    buffer, other, smaller, y = Replay(5), Replay(5), Replay(2), torch.ones(3, requires_grad=True)
    for first in range(0, 12, 3):
        part = torch.arange(first, first + 3) * y
        buffer.add(torch.arange(first, first + 3), part)
        part.detach().add_(1)  # the buffer stores no views
    assert buffer.parts[0].tolist() == [7, 8, 9, 10, 11] == buffer.parts[1].tolist() and len(buffer) == 5
    assert all(kept.untyped_storage().nbytes() == kept.nbytes for kept in buffer.parts)
    assert not buffer.parts[1].requires_grad and len(buffer.draw(9, generator(0))[0]) == 5
    other.load_state_dict(buffer.state_dict())
    one, two = buffer.draw(3, generator(0)), other.draw(3, generator(0))
    assert len(set(one[0].tolist())) == 3 and torch.equal(one[0].float(), one[1]) and all(map(torch.equal, one, two))
    smaller.load_state_dict(buffer.state_dict())
    assert smaller.parts[0].tolist() == [10, 11]
    Replay(5).load_state_dict(Replay(5).state_dict())


# Diagnostics


def test_a_trace_stores_every_nth_candidate_after_the_burn_in():
    trace = Trace(every=3, burn_in=2)
    run(lambda y: -y.sum(-1), torch.zeros(1, 1), gradient_descent(1.0), 10, callback=trace)
    assert trace.places.flatten().tolist() == [3, 6, 9]


def walks(energies, norms):
    """A result of two steps with given energies [3 items] and lengths of the gradients [2 items]."""
    result = run(DoubleWell(), torch.zeros(len(energies[0]), 2), gradient_descent(0.0), 2)
    info = result.info._replace(energy=torch.tensor(energies[:2]), grad_norm=torch.tensor(norms))
    return result._replace(info=info, state=result.state._replace(energy=torch.tensor(energies[2])))


def test_health_counts_rising_exploding_and_non_finite_items():
    energies = [[1.0, 2.0, 3.0, 5.0], [0.0, 0.0, 0.0, 0.0], [0.5, 4.0, 1.0, torch.nan]]
    found = health(walks(energies, [[1.0] * 4, [11.0, 1.0, 9.0, 1.0]]))
    assert found[:4] == (0.25, 0.25, 0.25, 0.5) and found.scale == pytest.approx(1.0)
    assert len(alarms(found)) == 2 and len(alarms(found, exploding=0.3)) == 1
    assert alarms(health(walks([[1.0, 2.0]] * 3, [[1.0, 1.0]] * 2))) == [
        "the energy falls by 0, starts differ by 0.707: the landscape is flat"]


@pytest.mark.parametrize("make", [mala, hmc])
def test_a_rejected_proposal_is_finite_unless_its_energy_is_nan(make):
    """An infinite energy is outside the support of the density: a proper rejection."""
    start = torch.tensor([[0.5], [0.5], [-0.5]])
    wrong = torch.tensor([torch.inf, torch.nan, torch.inf])
    wall = lambda y: torch.where((y[:, 0] == start[:, 0]) | (y[:, 0] < 0), y[:, 0].square(), wrong)
    result = run(wall, start, make(0.01), 1, generator(0))
    assert result.info.finite.tolist() == [[True, False, True]]
    assert torch.equal(result.state.y[:2], start[:2]) and result.info.accepted[0, 2]
