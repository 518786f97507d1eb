"""Samplers: exact where their law is known, within stated standard errors where they are random."""

import pytest
import torch

from ebwm.energy import DoubleWell, GaussianMixture, Quadratic
from ebwm.sampler import STARTS, Through, evaluate, gradient_descent, initial, langevin, run
from ebwm.settings import generator

BOWL = Quadratic(torch.tensor([1.0, -0.5]).double(), torch.tensor([1.0, 4.0]).double())


def test_descent_lands_on_the_known_minimum():
    start = torch.randn(50, 2, dtype=torch.float64, generator=generator(0))
    end = run(BOWL, start, gradient_descent(0.3), steps=200).state
    torch.testing.assert_close(end.y, BOWL.minimum.expand(50, 2), rtol=0, atol=1e-12)
    assert (end.energy < 1e-20).all()


def test_descent_finds_both_wells():
    wells = DoubleWell()
    end = run(wells, torch.tensor([[-0.2, 1.0], [0.2, 1.0]]), gradient_descent(0.05), steps=400).state
    torch.testing.assert_close(end.y, wells.minima, rtol=0, atol=1e-4)


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
    start = torch.ones(3, 2).double()
    cold = run(BOWL, start, langevin(0.1, temperature=0.0), 5, generator(0)).state.y
    torch.testing.assert_close(cold, run(BOWL, start, gradient_descent(0.1), 5).state.y, rtol=0, atol=0)


def test_langevin_fills_both_modes_in_their_proportions():
    mixture = GaussianMixture(torch.tensor([[-1.5], [1.5]]), torch.tensor([0.3, 0.7]), std=0.8)
    chains = 4_000
    end = run(mixture, torch.zeros(chains, 1), langevin(0.05), 400, generator(2)).state.y
    share = (end > 0).float().mean()
    error = (0.3 * 0.7 / chains) ** 0.5
    assert abs(share - 0.7) < 0.03 + 4 * error  # 0.03: what lies across the middle, and the step's own bias


def test_a_batch_is_its_items():
    start = torch.randn(4, 2, dtype=torch.float64, generator=generator(0))
    together = run(DoubleWell(), start, gradient_descent(0.05), 20)
    for row in range(4):
        alone = run(DoubleWell(), start[row : row + 1], gradient_descent(0.05), 20)
        assert torch.equal(alone.state.y[0], together.state.y[row])


def test_a_finished_walk_keeps_no_graph():
    alpha = torch.tensor(0.1, requires_grad=True)
    assert not run(BOWL, torch.ones(1, 2), gradient_descent(alpha), 2).state.y.requires_grad


def test_step_size_per_item():
    start, sizes = torch.ones(3, 2).double(), torch.tensor([0.0, 0.1, 0.2]).double()
    together = run(BOWL, start, gradient_descent(sizes), 3)
    assert torch.equal(together.state.y[0], start[0])
    for row in range(3):
        alone = run(BOWL, start[row : row + 1], gradient_descent(float(sizes[row])), 3)
        torch.testing.assert_close(alone.state.y[0], together.state.y[row], rtol=0, atol=1e-15)
    assert torch.equal(together.info.step_size, sizes.expand(3, 3))


def test_information_is_stacked_over_steps():
    seen = []
    result = run(
        BOWL, torch.ones(5, 2).double(), gradient_descent(0.1), 4, callback=lambda *a: seen.append(a[0])
    )
    assert seen == [0, 1, 2, 3]
    assert result.info.energy.shape == result.info.finite.shape == (4, 5)
    assert result.info.evaluations.tolist() == [[1] * 5] * 4
    assert torch.equal(result.info.energy[0], BOWL(torch.ones(5, 2).double()))
    assert torch.equal(result.state.energy, BOWL(result.state.y))


def test_a_diverged_item_is_reported_and_not_replaced():
    result = run(DoubleWell(), torch.tensor([[0.5, 0.0], [1e3, 0.0]]), gradient_descent(0.1), 6)
    assert result.info.finite[:, 0].all()
    assert not result.info.finite[-1, 1]
    assert not result.state.y[1].isfinite().all()


def test_same_generator_same_walk_and_global_state_untouched():
    before = torch.get_rng_state()
    ends = [run(BOWL, torch.zeros(3, 2).double(), langevin(0.1), 5, generator(3)).state.y for _ in range(2)]
    assert torch.equal(*ends)
    assert torch.equal(before, torch.get_rng_state())


def test_evaluate_is_differentiable_only_when_asked():
    y = torch.ones(2, 2).double()
    assert not evaluate(BOWL, y).grad.requires_grad
    scale = torch.tensor(2.0, requires_grad=True)
    state = evaluate(lambda y: scale * BOWL(y), y, create_graph=True)
    (slope,) = torch.autograd.grad(state.grad.sum(), scale)
    assert float(slope) == pytest.approx(float((BOWL.stiffness * (y - BOWL.minimum)).sum()))


def test_walk_is_differentiable_through_all_steps_or_the_last():
    """On a bowl dy_n/dalpha is known: of the last step alone where steps are detached, of all where not."""
    bowl, start = Quadratic(torch.zeros(1).double(), torch.ones(1).double()), torch.ones(1, 1).double()
    for detach, expected in ((True, -(0.9**2)), (False, -3 * 0.9**2)):
        alpha = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        end = run(
            bowl, start, gradient_descent(alpha), 3, create_graph=True, detach=detach, final_energy=False
        )
        (slope,) = torch.autograd.grad(end.state.y.sum(), alpha)
        assert float(slope) == pytest.approx(expected, abs=1e-12)


def test_a_landscape_that_takes_the_step_is_told_it():
    class Told:
        steps = []

        def __call__(self, y):
            return y.square().sum(-1)

        def at_step(self, step):
            self.steps.append(step)
            return self

    run(Told(), torch.ones(1, 2), gradient_descent(0.1), 3)
    assert Told.steps == [0, 1, 2, 2]


def test_an_energy_may_bring_its_own_gradient():
    class Bowl:
        asked = []

        def gradient(self, y, create_graph=False):
            self.asked.append(create_graph)
            return y.square().sum(-1) / 2, y

        def __call__(self, y):
            return y.square().sum(-1) / 2

    walk = run(Bowl(), torch.ones(1, 2), gradient_descent(0.5), 2)
    assert walk.state.y.equal(torch.full((1, 2), 0.25)) and Bowl.asked == [False, False]
    left = evaluate(lambda y: y.square().sum(-1) / 2, torch.ones(1, 2))
    assert evaluate(Bowl(), torch.ones(1, 2)).grad.equal(left.grad)


def softmax(y):
    return y.softmax(-1)


class Ranked:
    """A bowl over distributions, whose gradient may be its own, and whose steps may differ."""

    def __init__(self, scale, by_hand, step=0):
        self.scale, self.by_hand, self.step = scale, by_hand, step

    def __call__(self, p):
        return (1 + self.step) * self.scale * (p - 0.25).square().sum(-1)

    def gradient(self, p, create_graph=False):
        if not self.by_hand:
            return None
        with torch.set_grad_enabled(create_graph):
            return self(p), 2 * (1 + self.step) * self.scale * (p - 0.25)

    def at_step(self, step):
        return Ranked(self.scale, self.by_hand, step)


def by_loop(start, scale, alpha, steps, detach, overwrite):
    """Both walks behind a softmax, written out."""
    y = start
    for step in range(steps):
        y = y.detach().requires_grad_() if detach else y
        p = softmax(y)
        at = p if overwrite else y
        (grad,) = torch.autograd.grad(Ranked(scale, False, step)(p).sum(), at, create_graph=True)
        y = at - alpha * grad
    return y, Ranked(scale, False, steps - 1)(softmax(y))


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("detach", [True, False])
def test_a_walk_behind_a_transform(by_hand, overwrite, detach):
    """The paper's step and the code's, S1 and S2: the end, its energy, and what a loss on it teaches."""
    found = []
    for loop in (False, True):
        scale, alpha = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.5, 0.4))
        start = torch.randn(3, 4, dtype=torch.float64, generator=generator(0)).requires_grad_()
        if loop:
            y, energy = by_loop(start, scale, alpha, 3, detach, overwrite)
        else:
            kernel, landscape = gradient_descent(alpha, overwrite), Through(Ranked(scale, by_hand), softmax)
            y, energy, *_ = run(landscape, start, kernel, 3, create_graph=True, detach=detach).state
        y.square().sum().backward()
        found.append([y.detach(), energy.detach(), scale.grad, alpha.grad])
        assert (start.grad is None) == detach
        found[-1].append(torch.zeros(1) if detach else start.grad)
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_finished_walk_behind_a_transform_keeps_no_graph(by_hand, overwrite):
    alpha = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    through = Through(Ranked(1.5, by_hand), softmax)
    with torch.no_grad():
        end = run(through, torch.eye(4).double(), gradient_descent(alpha, overwrite), 2)
    assert not end.state.y.requires_grad and not end.info.energy.requires_grad
    assert torch.equal(end.info.energy[0], Ranked(1.5, by_hand)(softmax(torch.eye(4).double())))


@pytest.mark.parametrize("start", STARTS)
def test_initial_candidates_may_go_to_a_tensor(start):
    recent, out = torch.full((2, 3), 5.0), torch.full((2, 3), torch.nan)
    assert initial(start, recent, generator(0), out=out) is out
    assert torch.equal(out, initial(start, recent, generator(0)))


@pytest.mark.parametrize("start", STARTS)
def test_initial_conditions(start):
    recent = torch.full((2, 3, 4), 5.0)
    y = initial(start, recent, generator(0))
    assert y.shape == recent.shape
    assert {"noise": abs(float(y.mean())) < 1, "last": torch.equal(y, recent), "zeros": not y.any()}[start]
    y += 1
    assert (recent == 5).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run(BOWL, torch.ones(1, 2), gradient_descent(0.1), 0), "steps is 0"),
        (lambda: run(BOWL, torch.tensor([[torch.nan, 1]]), gradient_descent(0.1), 1), "start holds 1 values"),
        (lambda: langevin(0.1, temperature=-1.0), "temperature is -1.0"),
        (lambda: run(BOWL, torch.ones(1, 2), langevin(0.1), 1), "generator is None; chance needs"),
        (lambda: initial("noise", torch.ones(1, 2)), "generator is None; chance needs"),
        (
            lambda: run(BOWL, torch.ones(3, 2), gradient_descent(torch.ones(2)), 1),
            r"step_size has shape \[2\]; it must be one number, or one for each of the items \[3\]",
        ),
        (
            lambda: initial("middle", torch.ones(1, 2)),
            "start is 'middle'; it must be one of noise, last, zeros",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
