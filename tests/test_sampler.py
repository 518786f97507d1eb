"""The sampling loop: differentiable steps, changes of variables, stacked facts, and initial candidates."""

import pytest
import torch

from ebwm.energy import DoubleWell, Landscape, Quadratic, Transformed, as_landscape
from ebwm.sampler import (
    STARTS,
    evaluate,
    gradient_descent,
    init_candidates,
    langevin,
    run,
    softmax_descent,
)
from ebwm.settings import generator
from tests.helpers import draw

BOWL = Quadratic(torch.tensor([1.0, -0.5]).double(), torch.tensor([1.0, 4.0]).double())
softmax = lambda y: y.softmax(-1)


def test_descent_converges_to_the_known_minima():
    result = run(BOWL, draw(50, 2), gradient_descent(0.3), steps=200).state
    torch.testing.assert_close(result.y, BOWL.minimum.expand(50, 2), rtol=0, atol=1e-12)
    assert (result.energy < 1e-20).all()
    wells = DoubleWell()
    end = run(wells, torch.tensor([[-0.2, 1.0], [0.2, 1.0]]), gradient_descent(0.05), steps=400).state
    torch.testing.assert_close(end.y, wells.minima, rtol=0, atol=1e-4)


def test_facts_are_stacked_over_steps():
    seen, start = [], torch.ones(5, 2).double()
    result = run(BOWL, start, gradient_descent(0.1), 4, callback=lambda *a: seen.append((a[0], a[1].y)))
    assert [index for index, _ in seen] == [0, 1, 2, 3] and torch.equal(seen[-1][1], result.state.y)
    assert result.info.energy.shape == result.info.finite.shape == (4, 5)
    assert torch.equal(result.info.energy[0], BOWL(start))
    assert torch.equal(result.state.energy, BOWL(result.state.y))
    assert (result.evaluations == 4 + 1).all()
    without = run(BOWL, start, gradient_descent(0.1), 4, final_energy=False)
    assert without.state.energy is None and torch.equal(without.state.y, result.state.y)
    assert (without.evaluations == 4).all()


def test_equal_generators_give_equal_results_and_the_global_state_is_not_used():
    before = torch.get_rng_state()
    ends = [run(BOWL, torch.zeros(3, 2).double(), langevin(0.1), 5, generator(3)).state.y for _ in range(2)]
    assert torch.equal(*ends)
    assert torch.equal(before, torch.get_rng_state())


def test_evaluate_is_differentiable_only_with_create_graph():
    y = torch.ones(2, 2).double()
    assert not evaluate(BOWL, y).grad.requires_grad
    scale = torch.tensor(2.0, requires_grad=True)
    state = evaluate(lambda y: scale * BOWL(y), y, create_graph=True)
    (slope,) = torch.autograd.grad(state.grad.sum(), scale)
    assert float(slope) == pytest.approx(float((BOWL.stiffness * (y - BOWL.minimum)).sum()))


@pytest.mark.parametrize(
    ("settings", "slope"), [({}, -(0.9**2)), ({"detach": False}, -3 * 0.9**2),
                            ({"detach": False, "unroll": 2}, -2 * 0.9**2)])
def test_results_are_differentiable_through_the_last_step_or_through_several(settings, slope):
    """On a bowl dy_n/dalpha is known."""
    bowl, start = Quadratic(torch.zeros(1).double(), torch.ones(1).double()), torch.ones(1, 1).double()
    alpha = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    end = run(bowl, start, gradient_descent(alpha), 3, create_graph=True, final_energy=False, **settings)
    (found,) = torch.autograd.grad(end.state.y.sum(), alpha)
    assert float(found) == pytest.approx(slope, abs=1e-12)


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
        start = draw(3, 4).requires_grad_()
        if written_out:
            y, energy = loop(start, scale, alpha, 3, detach, make is gradient_descent)
        else:
            landscape = Transformed(Ranked(scale, manual), softmax)
            y, energy, *_ = run(landscape, start, make(alpha), 3, create_graph=True, detach=detach).state
        y.square().sum().backward()
        assert (start.grad is None) == detach
        found.append([y.detach(), energy.detach(), scale.grad, alpha.grad, start if detach else start.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("make", [gradient_descent, softmax_descent])
def test_results_without_create_graph_have_no_graph(make):
    alpha = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    for landscape in (as_landscape(BOWL), *(Transformed(Ranked(1.5, manual), softmax) for manual in (0, 1))):
        result = run(landscape, torch.eye(2).double(), make(alpha), 2)
        assert not result.state.y.requires_grad and not result.info.energy.requires_grad
        assert torch.equal(result.info.energy[0], landscape(torch.eye(2).double()))


@pytest.mark.parametrize("start", STARTS)
def test_initial_candidates(start):
    recent, out = torch.full((2, 3, 4), 5.0), torch.full((2, 3, 4), torch.nan)
    y = init_candidates(start, recent, generator(0))
    assert y.shape == recent.shape
    expected = {"noise": 0 < abs(float(y.mean())) < 1, "last": torch.equal(y, recent), "zeros": not y.any()}
    assert expected[start]
    assert init_candidates(start, recent, generator(0), out=out) is out and torch.equal(out, y)
    y += 1
    assert (recent == 5).all()
