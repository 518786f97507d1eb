"""Stopping rules, schedules, random settings, and the replay buffer."""

import pytest
import torch

from ebwm.energy import Quadratic
from ebwm.evaluation.cost import Counted
from ebwm.modifiers import clamped, guarded
from ebwm.replay import Replay
from ebwm.sampler import gradient_descent, langevin, mala, nesterov, run
from ebwm.schedules import cosine, geometric, linear, random_step_sizes, random_steps, scheduled
from ebwm.settings import generator
from ebwm.stopping import budget, either, energy_change, gradient_norm, run_until
from tests.helpers import draw, ebt

BOWL = Quadratic(torch.tensor([1.0, -0.5]).double(), torch.tensor([1.0, 4.0]).double())
close = torch.testing.assert_close


@pytest.mark.parametrize("kernel", [langevin(0.1), mala(0.2)], ids=["langevin", "mala"])
def test_noise_does_not_depend_on_the_items_that_have_stopped(kernel):
    start = draw(5, 2)
    ends = [run_until(BOWL, start, kernel, 9, budget(torch.tensor(limits)), generator(0)).state.y[2]
            for limits in ([9, 9, 9, 9, 9], [1, 2, 9, 3, 4])]
    assert torch.equal(*ends)
    assert torch.equal(ends[0], run(BOWL, start, kernel, 9, generator(0)).state.y[2])


@pytest.mark.parametrize("make", [gradient_descent, nesterov, lambda size: guarded(nesterov(size)),
                                  lambda size: clamped(nesterov(size), norm=1.0)])
def test_items_keep_their_step_sizes(make):
    sizes, limits, start = torch.tensor([0.05, 0.1, 0.2]).double(), torch.tensor([9, 1, 5]), draw(3, 2)
    result = run_until(BOWL, start, make(sizes), 9, budget(limits))
    for row in range(3):
        alone = run(BOWL, start[row : row + 1], make(float(sizes[row])), int(limits[row])).state
        close(result.state.y[row], alone.y[0], rtol=0, atol=1e-14)
        close(result.state.energy[row], alone.energy[0], rtol=0, atol=1e-14)


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
    norms = run_until(BOWL, start, gradient_descent(0.2), 50, gradient_norm(0.01)).info
    assert norms.evaluations.sum(0).tolist()[:2] == [1, 1] and norms.evaluations.sum(0)[2] > 10
    assert (norms.grad_norm[-1] < 0.01).all()
    changes = run_until(BOWL, start, gradient_descent(0.2), 50, energy_change(1e-4)).info
    *first, last = changes.evaluations.sum(0).tolist()
    energies = run(BOWL, start, gradient_descent(0.2), last).info.energy[:, 2]
    assert first == [2, 2] and abs(energies[-1] - energies[-2]) < 1e-4 <= abs(energies[-2] - energies[-3])
    both = run_until(BOWL, start, gradient_descent(0.2), 50, either(gradient_norm(0.01), budget(3))).info
    assert both.evaluations.sum(0).tolist() == [1, 1, 3]


def test_facts_about_stopped_items():
    seen = []
    result = run_until(BOWL, draw(2, 2), gradient_descent(0.1), 99, budget(torch.tensor([1, 4])),
                       callback=lambda index, state, info: seen.append((index, state.y.shape)))
    info = result.info
    assert len(info.energy) == 4 and seen == [(index, (2, 2)) for index in range(4)]
    assert not info.accepted[1:, 0].any() and not info.step_size[1:, 0].any() and info.accepted[:, 1].all()
    assert (info.energy[:, 0] == info.energy[0, 0]).all() and (info.energy[:, 1].diff() < 0).all()


def test_schedules():
    close(linear(1, 3, 3), torch.tensor([1.0, 2, 3]))
    close(geometric(1, 4, 3), torch.tensor([1.0, 2, 4]))
    close(cosine(4, 0, 3), torch.tensor([4.0, 2, 0]))
    sizes, y = [0.3, 0.2, 0.1], draw(1, 2)
    result = run(BOWL, y, scheduled(gradient_descent, step_size=sizes), 3)
    close(result.info.step_size[:, 0], torch.tensor(sizes).double())
    for size in sizes:
        y = run(BOWL, y, gradient_descent(size), 1).state.y
    close(result.state.y, y, rtol=0, atol=1e-7)


def test_random_step_sizes_are_differentiable_and_uniform():
    alpha = torch.tensor(3.0, requires_grad=True)
    sizes = random_step_sizes(alpha, 2.0, (20_000,), generator(0))
    assert sizes.min() >= 1.5 and sizes.max() <= 6.0
    assert abs(sizes.mean() - 3.75) < 4 * (4.5**2 / 12 / 20_000) ** 0.5
    sizes.mean().backward()
    close(alpha.grad, (sizes.mean() / 3).detach())
    assert (random_step_sizes(3.0, 1.0, (4,), generator(0)) == 3).all()


def test_random_numbers_of_steps_are_uniform():
    noise = generator(0)
    counts = torch.tensor([random_steps(2, 4, noise) for _ in range(3_000)]).bincount()
    assert not counts[:2].any() and ((counts[2:] - 1_000).abs() < 4 * (3_000 * 2 / 9) ** 0.5).all()


def test_a_buffer_stores_the_newest_items_and_restores_them():
    buffer, other, y = Replay(5), Replay(5), torch.ones(3, requires_grad=True)
    for first in range(0, 12, 3):
        part = torch.arange(first, first + 3) * y
        buffer.add(torch.arange(first, first + 3), part)
        part.detach().add_(1)  # the buffer stores no views
    assert buffer.parts[0].tolist() == [7, 8, 9, 10, 11] == buffer.parts[1].tolist() and len(buffer) == 5
    assert not buffer.parts[1].requires_grad and len(buffer.draw(9, generator(0))[0]) == 5
    other.load_state_dict(buffer.state_dict())
    one, two = buffer.draw(3, generator(0)), other.draw(3, generator(0))
    assert len(set(one[0].tolist())) == 3 and torch.equal(one[0].float(), one[1])
    assert all(map(torch.equal, one, two))
    Replay(5).load_state_dict(Replay(5).state_dict())
