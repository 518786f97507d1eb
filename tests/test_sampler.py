"""The sampling loop: facts about steps, both updates behind a softmax, and initial candidates."""

import pytest
import torch

from ebwm.energy import Landscape, Transformed
from ebwm.sampler import (
    STARTS,
    State,
    gradient_descent,
    hmc,
    init_candidates,
    langevin,
    mala,
    run,
    softmax_descent,
    where_state,
)
from ebwm.settings import generator
from tests.helpers import BOWL, draw, softmax


def test_facts_are_stacked_over_steps():
    seen, start = [], torch.ones(5, 2).double()
    result = run(BOWL, start, gradient_descent(0.1), 4, callback=lambda *a: seen.append((a[0], a[1].y)))
    assert [index for index, _ in seen] == [0, 1, 2, 3] and torch.equal(seen[-1][1], result.state.y)
    assert result.info.energy.shape == result.info.finite.shape == (4, 5)
    assert torch.equal(result.info.energy[0], BOWL(start))
    assert torch.equal(result.state.energy, BOWL(result.state.y)) and (result.evaluations == 4 + 1).all()
    without = run(BOWL, start, gradient_descent(0.1), 4, final_energy=False)
    assert without.state.energy is None and torch.equal(without.state.y, result.state.y)
    assert (without.evaluations == 4).all()


def test_equal_generators_give_equal_results_and_the_global_state_is_not_used():
    before = torch.get_rng_state()
    ends = [run(BOWL, torch.zeros(3, 2).double(), langevin(0.1), 5, generator(3)).state.y for _ in range(2)]
    assert torch.equal(*ends) and torch.equal(before, torch.get_rng_state())


def test_an_item_that_does_not_move_has_no_velocity():
    filled = lambda value: State(*(torch.full(shape, value) for shape in ((2, 3), (2,), (2, 3), (2, 3))))
    mixed = where_state(torch.tensor([True, False]), filled(1.0), filled(2.0))
    assert mixed.y[:, 0].tolist() == mixed.energy.tolist() == mixed.grad[:, 0].tolist() == [1, 2]
    assert mixed.velocity[:, 0].tolist() == [1, 0]


class Ranked(Landscape):
    """A bowl over distributions that depends on the step, with a gradient by a rule or by autograd."""

    def __init__(self, scale, manual, step=0):
        self.scale, self.manual, self.step = scale, manual, step

    def energy(self, p):
        return (1 + self.step) * self.scale * (p - 0.25).square().sum(-1)

    def value_and_grad(self, p, create_graph=False):
        if not self.manual:
            return super().value_and_grad(p, create_graph)
        with torch.set_grad_enabled(create_graph):
            return self.energy(p), 2 * (1 + self.step) * self.scale * (p - 0.25)

    def at_step(self, step):
        return self if step == self.step else Ranked(self.scale, self.manual, step)


def loop(start, scale, alpha, steps, detach, paper):
    """Both updates behind a softmax, written out."""
    y = start
    for step in range(steps):
        y = y.detach().requires_grad_() if detach else y
        p = softmax(y)
        at = y if paper else p
        (grad,) = torch.autograd.grad(Ranked(scale, False, step)(p).sum(), at, create_graph=True)
        y = at - alpha * grad
    return y, Ranked(scale, False, steps - 1)(softmax(y))


@pytest.mark.parametrize("manual", [True, False])
@pytest.mark.parametrize("make", [gradient_descent, softmax_descent])
@pytest.mark.parametrize("detach", [True, False])
def test_descent_behind_a_softmax_equals_the_loop(manual, make, detach):
    """The papers' update and the code's, S1 and S2: the end, its energy, and a loss's gradients."""
    found = []
    for written_out in (False, True):
        scale, alpha = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.5, 0.4))
        start, landscape = draw(3, 4).requires_grad_(), Transformed(Ranked(scale, manual), softmax)
        if written_out:
            y, energy = loop(start, scale, alpha, 3, detach, make is gradient_descent)
        else:
            y, energy, *_ = run(landscape, start, make(alpha), 3, create_graph=True, detach=detach).state
            plain = run(landscape, start, make(alpha), 3)
            assert not plain.state.y.requires_grad and not plain.info.energy.requires_grad
            assert torch.equal(plain.state.y, y) and torch.equal(plain.info.energy[0], landscape(start))
        y.square().sum().backward()
        assert (start.grad is None) == detach
        found.append([y.detach(), energy.detach(), scale.grad, alpha.grad, start if detach else start.grad])
    torch.testing.assert_close(*found, rtol=0, atol=1e-13)


@pytest.mark.parametrize("start", STARTS)
def test_initial_candidates(start):
    recent, out = torch.full((2, 3, 4), 5.0), torch.full((2, 3, 4), torch.nan)
    y = init_candidates(start, recent, generator(0))
    expected = {"noise": 0 < abs(float(y.mean())) < 1, "last": torch.equal(y, recent), "zeros": not y.any()}
    assert y.shape == recent.shape and expected[start]
    assert init_candidates(start, recent, generator(0), out=out) is out and torch.equal(out, y)
    y += 1
    assert (recent == 5).all()


@pytest.mark.parametrize("make", [mala, hmc])
def test_a_rejected_proposal_is_finite_unless_its_energy_is_nan(make):
    """An infinite energy is outside the support of the density: a proper rejection."""
    start = torch.tensor([[0.5], [0.5], [-0.5]])
    wrong = torch.tensor([torch.inf, torch.nan, torch.inf])
    wall = lambda y: torch.where((y[:, 0] == start[:, 0]) | (y[:, 0] < 0), y[:, 0].square(), wrong)
    result = run(wall, start, make(0.01), 1, generator(0))
    assert result.info.finite.tolist() == [[True, False, True]]
    assert torch.equal(result.state.y[:2], start[:2]) and result.info.accepted[0, 2]
