"""Stopping rules, schedules, random settings, and the replay buffer."""

import pytest
import torch

from ebwm.energy import PlainLandscape
from ebwm.evaluation.cost import Counted
from ebwm.modifiers import clamped, guarded, noisy
from ebwm.replay import Replay
from ebwm.sampler import gradient_descent, hmc, langevin, mala, nesterov, run, softmax_descent
from ebwm.schedules import cosine, geometric, linear, random_step_sizes, random_steps, scheduled
from ebwm.settings import generator
from ebwm.stopping import budget, either, energy_change, gradient_norm, run_until
from tests.helpers import BOWL, close, draw, ebt

MAKERS = {
    "descent": gradient_descent, "softmax": softmax_descent, "nesterov": nesterov, "langevin": langevin,
    "mala": mala, "hmc": lambda size: hmc(size, steps=3), "guarded": lambda size: guarded(nesterov(size)),
    "clamped": lambda size: clamped(nesterov(size), norm=1.0), "noisy": lambda size: noisy(nesterov(size), 0.3),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_items_keep_their_step_sizes_and_their_noise_when_others_stop(name):
    """Each ends as in a batch in which all items have its step size and its number of steps."""
    sizes, limits, start = torch.tensor([0.05, 0.1, 0.2]).double(), torch.tensor([9, 1, 5]), draw(3, 2)
    result = run_until(BOWL, start, MAKERS[name](sizes), 9, budget(limits), generator(0))
    for row, (size, limit) in enumerate(zip(sizes.tolist(), limits.tolist(), strict=True)):
        equal = run(BOWL, start, MAKERS[name](size), limit, generator(0))
        close(result.state.y[row], equal.state.y[row], atol=1e-14)
        close(result.state.energy[row], equal.state.energy[row], atol=1e-14)
        assert (result.info.step_size[:limit, row] == size).all()
        assert torch.equal(result.info.accepted[:limit, row], equal.info.accepted[:, row])


class Renewed(PlainLandscape):
    """A landscape that is another object at each step."""

    def at_step(self, step):
        return Renewed(self.function)


@pytest.mark.parametrize("name", MAKERS)
def test_a_new_landscape_for_each_step_changes_no_result(name):
    one, other = (run(landscape, draw(3, 2), MAKERS[name](0.1), 5, generator(0)).state
                  for landscape in (BOWL, Renewed(BOWL)))
    assert torch.equal(one.y, other.y) and torch.equal(one.energy, other.energy)


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


def test_facts_about_stopped_items():
    seen, start, kernel = [], draw(2, 2), gradient_descent(0.1)
    info = run_until(BOWL, start, kernel, 99, budget(torch.tensor([1, 4])),
                     callback=lambda index, state, info: seen.append((index, state.y.shape))).info
    assert len(info.energy) == 4 and seen == [(index, (2, 2)) for index in range(4)]
    assert not info.accepted[1:, 0].any() and not info.step_size[1:, 0].any() and info.accepted[:, 1].all()
    assert (info.energy[:, 0] == info.energy[0, 0]).all() and (info.energy[:, 1].diff() < 0).all()
    assert info.finite.all() and (info.grad_norm[:, 0] == info.grad_norm[0, 0]).all()
    assert torch.equal(start, draw(2, 2))


def test_schedules():
    torch.testing.assert_close(linear(1, 3, 3), torch.tensor([1.0, 2, 3]))
    torch.testing.assert_close(geometric(1, 4, 3), torch.tensor([1.0, 2, 4]))
    torch.testing.assert_close(cosine(4, 0, 3), torch.tensor([4.0, 2, 0]))
    sizes, y = [0.3, 0.2, 0.1], draw(1, 2)
    result = run(BOWL, y, scheduled(gradient_descent, step_size=sizes), 3)
    torch.testing.assert_close(result.info.step_size[:, 0], torch.tensor(sizes).double())
    for size in sizes:
        y = run(BOWL, y, gradient_descent(size), 1).state.y
    close(result.state.y, y, atol=1e-7)


def test_random_step_sizes_are_differentiable_and_uniform():
    alpha = torch.tensor(3.0, requires_grad=True)
    sizes = random_step_sizes(alpha, 2.0, (20_000,), generator(0))
    assert sizes.min() >= 1.5 and sizes.max() <= 6.0
    assert abs(sizes.mean() - 3.75) < 4 * (4.5**2 / 12 / 20_000) ** 0.5
    sizes.mean().backward()
    torch.testing.assert_close(alpha.grad, (sizes.mean() / 3).detach())
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
    assert all(kept.untyped_storage().nbytes() == kept.nbytes for kept in buffer.parts)
    assert not buffer.parts[1].requires_grad and len(buffer.draw(9, generator(0))[0]) == 5
    other.load_state_dict(buffer.state_dict())
    one, two = buffer.draw(3, generator(0)), other.draw(3, generator(0))
    assert len(set(one[0].tolist())) == 3 and torch.equal(one[0].float(), one[1])
    assert all(map(torch.equal, one, two))
    smaller = Replay(2)
    smaller.load_state_dict(buffer.state_dict())
    assert smaller.parts[0].tolist() == [10, 11]
    Replay(5).load_state_dict(Replay(5).state_dict())
