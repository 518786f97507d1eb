"""Walks: who is at rest leaves and costs nothing, schedules are followed, and a buffer keeps the newest."""

import pytest
import torch

from ebwm.ebt import EBT, JointEBT
from ebwm.energy import Quadratic
from ebwm.evaluation.cost import Counted as CountedCalls
from ebwm.sampler import Through, gradient_descent, guarded, langevin, mala, nesterov, run
from ebwm.settings import generator
from ebwm.walk import (
    Replay,
    budget,
    cosine,
    either,
    energy_change,
    geometric,
    gradient_norm,
    linear,
    random_step_sizes,
    random_steps,
    run_until,
    scheduled,
)

BOWL = Quadratic(torch.tensor([1.0, -0.5]).double(), torch.tensor([1.0, 4.0]).double())


class Counted:
    """A bowl that counts the candidates that it is asked about."""

    def __init__(self):
        self.asked = 0

    def __call__(self, y):
        self.asked += y[..., 0].numel()
        return BOWL(y)


def draw(*shape, stream="start"):
    return torch.randn(shape, dtype=torch.float64, generator=generator(0, stream))


def ebt(step="none", **settings):
    return EBT(8, 2, 2, step=step, steps=3, step_size=0.5, generator=generator(0), **settings).double()


def test_an_item_at_rest_costs_nothing_more():
    energy, limits = Counted(), torch.tensor([1, 4, 2, 7])
    result = run_until(energy, draw(4, 2), gradient_descent(0.1), 7, budget(limits))
    assert torch.equal(result.info.evaluations.sum(0), limits)
    assert energy.asked == limits.sum() + 4  # and the last energies, which are compared


@pytest.mark.parametrize("kernel", [gradient_descent(0.1), nesterov(0.05), guarded(gradient_descent(0.1))])
def test_each_item_ends_where_it_would_end_alone(kernel):
    start, limits = draw(4, 2), [1, 4, 2, 7]
    together = run_until(BOWL, start, kernel, 7, budget(torch.tensor(limits)))
    for row, steps in enumerate(limits):
        alone = run(BOWL, start[row : row + 1], kernel, steps)
        torch.testing.assert_close(together.state.y[row], alone.state.y[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(together.state.energy[row], alone.state.energy[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("kernel", [langevin(0.1), mala(0.2)], ids=["langevin", "mala"])
def test_noise_does_not_depend_on_who_has_left(kernel):
    start, ends = draw(5, 2), []
    for others in ([9, 9, 9, 9], [1, 2, 3, 4]):
        limits = torch.tensor([*others[:2], 9, *others[2:]])
        ends.append(run_until(BOWL, start, kernel, 9, budget(limits), generator(0)).state.y[2])
    assert torch.equal(*ends)
    assert torch.equal(ends[0], run(BOWL, start, kernel, 9, generator(0)).state.y[2])


@pytest.mark.parametrize("settings", [{}, {"gradient": "eager"}, {"candidates": "latent", "state_dim": 12},
                                      {"step": "context_token"}, {"step": "adaln"}], ids=str)
def test_positions_leave_a_transformers_landscape(settings):
    model = ebt(**settings)
    with torch.no_grad():
        landscape = model.landscape(draw(2, 5, model.state_dim))
    start, limits = draw(2, 5, 8), torch.randint(1, 6, (2, 5), generator=generator(0))
    kernel = gradient_descent(0.5)
    result = run_until(landscape, start, kernel, 5, budget(limits))
    assert torch.equal(result.info.evaluations.sum(0), limits)
    for steps in range(1, 6):
        alone, here = run(landscape, start, kernel, steps).state.y, limits == steps
        torch.testing.assert_close(result.state.y[here], alone[here], rtol=0, atol=1e-12)


def test_logits_leave_too():
    model = ebt(vocabulary=7)
    with torch.no_grad():
        landscape = model.landscape(torch.randint(7, (2, 4), generator=generator(0)))
    through, start = Through(landscape, lambda y: y.softmax(-1)), draw(2, 4, 7)
    limits = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    for overwrite in (True, False):
        kernel = gradient_descent(0.5, overwrite)
        result = run_until(through, start, kernel, 4, budget(limits))
        for steps in range(1, 5):
            alone, here = run(through, start, kernel, steps).state.y, limits == steps
            torch.testing.assert_close(result.state.y[here], alone[here], rtol=0, atol=1e-12)


def test_joint_candidates_leave():
    model = JointEBT(8, 2, 2, rows=3, candidate_dim=4, state_dim=5, generator=generator(0)).double()
    with torch.no_grad():
        landscape = model.landscape(draw(3, 6, 5))
    start, kernel = draw(3, 3, 4), gradient_descent(0.5)
    result = run_until(landscape, start, kernel, 4, budget(torch.tensor([1, 4, 2])))
    alone = run(landscape, start, kernel, 2).state.y
    torch.testing.assert_close(result.state.y[2], alone[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", ["last", "repeat", "cache", "last of two each"])
def test_candidates_leave_a_part_of_a_landscape(part):
    model, states = ebt(), draw(2, 5, 8)
    with torch.no_grad():
        landscape = model.landscape(states)
        cache = model.cache(2, 6)
        cache.append(states[:, :4])
        landscape = {"last": landscape.last, "repeat": lambda: landscape.repeat(2),
                     "cache": lambda: cache.append(states[:, 4:]),
                     "last of two each": lambda: landscape.last().repeat(2)}[part]()
    count = len(landscape.positions)
    start, limits = draw(2, count, 8), torch.randint(1, 4, (2, count), generator=generator(1))
    limits[0, 0], limits[1, -1] = 1, 3
    result = run_until(landscape, start, gradient_descent(0.5), 3, budget(limits))
    for steps in (1, 2, 3):
        alone, here = run(landscape, start, gradient_descent(0.5), steps).state.y, limits == steps
        torch.testing.assert_close(result.state.y[here], alone[here], rtol=0, atol=1e-12)


def test_a_step_size_for_each_item_stays_with_it():
    sizes, limits = torch.tensor([0.05, 0.1, 0.2]).double(), torch.tensor([3, 1, 2])
    start = draw(3, 2)
    for kernel in (gradient_descent, nesterov):
        result = run_until(BOWL, start, kernel(sizes), 3, budget(limits))
        for row in range(3):
            alone = run(BOWL, start[row : row + 1], kernel(float(sizes[row])), int(limits[row]))
            torch.testing.assert_close(result.state.y[row], alone.state.y[0], rtol=0, atol=1e-12)


def test_what_is_known_of_a_landscape_is_kept_beyond_the_models_steps():
    """A guarded step asks once more than the walk has steps: at each change of the landscape it asks anew."""
    model = ebt(step="candidate_token")
    with torch.no_grad():
        counted = CountedCalls(model.landscape(draw(2, 4, 8)))
    result = run(counted, draw(2, 4, 8), guarded(gradient_descent(0.1)), 8)
    assert counted.evaluations == int(result.info.evaluations.sum()) == 8 * (8 + 3)


def test_items_that_have_left_before_can_leave_again():
    model = ebt()
    with torch.no_grad():
        items = model.landscape(draw(2, 5, 8)).at(torch.tensor([0, 1, 1]), torch.tensor([4, 0, 2]))
    start, kernel = draw(3, 8), gradient_descent(0.5)
    result = run_until(items, start, kernel, 4, budget(torch.tensor([1, 4, 2])))
    torch.testing.assert_close(result.state.y[2], run(items, start, kernel, 2).state.y[2], rtol=0, atol=1e-12)


def test_rules_say_who_is_at_rest():
    start = torch.tensor([[1.0, -0.5], [1.001, -0.5], [9.0, 1.0]]).double()
    norms = run_until(BOWL, start, gradient_descent(0.2), 50, gradient_norm(0.01))
    assert norms.info.evaluations.sum(0).tolist()[:2] == [1, 1] and norms.info.evaluations.sum(0)[2] > 10
    assert (norms.info.grad_norm[-1] < 0.01).all()
    changes = run_until(BOWL, start, gradient_descent(0.2), 50, energy_change(1e-4))
    assert changes.info.evaluations.sum(0).tolist()[:2] == [2, 2]
    last = changes.info.evaluations.sum(0)[2]
    energies = run(BOWL, start, gradient_descent(0.2), int(last)).info.energy[:, 2]
    assert abs(energies[-1] - energies[-2]) < 1e-4 <= abs(energies[-2] - energies[-3])
    both = run_until(BOWL, start, gradient_descent(0.2), 50, either(gradient_norm(0.01), budget(3)))
    assert both.info.evaluations.sum(0).tolist() == [1, 1, 3]


def test_a_walk_ends_when_all_are_at_rest():
    result = run_until(BOWL, draw(3, 2), gradient_descent(0.1), 1_000, budget(2))
    assert len(result.info.energy) == 2


def test_information_on_the_resting_says_that_nothing_happened():
    info = run_until(BOWL, draw(2, 2), gradient_descent(0.1), 4, budget(torch.tensor([1, 4]))).info
    assert not info.accepted[1:, 0].any() and not info.step_size[1:, 0].any() and info.accepted[:, 1].all()
    assert (info.energy[:, 0] == info.energy[0, 0]).all() and (info.energy[:, 1].diff() < 0).all()


def test_flops_and_seconds_are_counted():
    model = ebt()
    with torch.no_grad():
        landscape = model.landscape(draw(2, 5, 8))
    start = draw(2, 5, 8)
    whole = run(landscape, start, gradient_descent(0.1), 3, measure=True).info
    assert whole.flops.shape == whole.seconds.shape == (3, 2, 5)
    assert (whole.flops == whole.flops[0, 0, 0]).all() and (whole.seconds > 0).all() and whole.flops.min() > 0
    rule = budget(torch.tensor([[1] * 5, [3] * 5]))
    few = run_until(landscape, start, gradient_descent(0.1), 3, rule, measure=True)
    assert few.info.flops.sum() == 20 * whole.flops[0, 0, 0]
    assert run(landscape, start, gradient_descent(0.1), 3).info.flops is None


def test_schedules():
    torch.testing.assert_close(linear(1, 3, 3), torch.tensor([1.0, 2, 3]))
    torch.testing.assert_close(geometric(1, 4, 3), torch.tensor([1.0, 2, 4]))
    torch.testing.assert_close(cosine(4, 0, 3), torch.tensor([4.0, 2, 0]))
    sizes = [0.3, 0.2, 0.1]
    result = run(BOWL, draw(1, 2), scheduled(gradient_descent, step_size=sizes), 3)
    torch.testing.assert_close(result.info.step_size[:, 0], torch.tensor(sizes).double())
    by_hand = draw(1, 2)
    for size in sizes:
        by_hand = run(BOWL, by_hand, gradient_descent(size), 1).state.y
    torch.testing.assert_close(result.state.y, by_hand, rtol=0, atol=1e-7)


def test_random_step_sizes_are_differentiable_and_uniform():
    alpha = torch.tensor(3.0, requires_grad=True)
    sizes = random_step_sizes(alpha, 2.0, (20_000,), generator(0))
    assert sizes.min() >= 1.5 and sizes.max() <= 6.0
    assert abs(sizes.mean() - 3.75) < 4 * (4.5**2 / 12 / 20_000) ** 0.5
    sizes.mean().backward()
    torch.testing.assert_close(alpha.grad, (sizes.mean() / 3).detach())
    assert (random_step_sizes(3.0, 1.0, (4,), generator(0)) == 3).all()


def test_random_steps_take_every_number():
    noise = generator(0)
    counts = torch.tensor([random_steps(2, 4, noise) for _ in range(3_000)]).bincount()
    assert not counts[:2].any() and ((counts[2:] - 1_000).abs() < 4 * (3_000 * 2 / 9) ** 0.5).all()


def test_a_buffer_keeps_the_newest():
    buffer = Replay(5)
    for begin in range(0, 12, 3):
        buffer.add(torch.arange(begin, begin + 3), torch.arange(begin, begin + 3).double()[:, None])
    assert buffer.parts[0].tolist() == [7, 8, 9, 10, 11] == buffer.parts[1][:, 0].tolist()
    assert len(buffer) == 5
    states, ends = buffer.draw(3, generator(0))
    assert len(set(states.tolist())) == 3 and torch.equal(states.double(), ends[:, 0])
    assert len(buffer.draw(9, generator(0))[0]) == 5


def test_a_buffer_survives_a_checkpoint():
    buffer, other = Replay(5), Replay(5)
    buffer.add(torch.arange(4), draw(4, 2))
    other.load_state_dict(buffer.state_dict())
    for a, b in zip(buffer.draw(3, generator(0)), other.draw(3, generator(0)), strict=True):
        assert torch.equal(a, b)
    Replay(5).load_state_dict(Replay(5).state_dict())


def test_a_buffer_keeps_no_graph_and_no_views():
    buffer, y = Replay(5), torch.ones(3, requires_grad=True)
    part = y * 2
    buffer.add(part)
    with torch.no_grad():
        part += 1
    assert not buffer.parts[0].requires_grad and buffer.parts[0].tolist() == [2, 2, 2]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: run_until(BOWL, draw(2, 2) / 0, gradient_descent(0.1), 3, budget(1)), "start holds 4 values"),
    (lambda: run_until(BOWL, draw(2, 2), gradient_descent(0.1), 0, budget(1)), "steps is 0"),
    (lambda: budget(0), "steps is 0; each item takes at least 1"),
    (lambda: energy_change(0.0), "tolerance is 0.0; it must be above 0"),
    (lambda: gradient_norm(-1.0), "tolerance is -1.0; it must be above 0"),
    (lambda: linear(0, 1, 0), "steps is 0; a schedule needs at least 1"),
    (lambda: geometric(0, 1, 3), "first is 0 and last 1; equal ratios need both above 0"),
    (lambda: scheduled(langevin, step_size=[1.0], temperature=[1.0, 0.5]), "schedules have lengths"),
    (lambda: run(BOWL, draw(2, 2), [gradient_descent(0.1)], 2), "kernel holds 1 kernels for 2 steps"),
    (lambda: random_step_sizes(1.0, 0.5, (2,), generator(0)), "spread is 0.5; it must be 1 or more"),
    (lambda: random_steps(3, 2, generator(0)), "least is 3 and most 2"),
    (lambda: Replay(0), "capacity is 0; it must be 1 or more"),
    (lambda: Replay(2).add(torch.ones(1), torch.ones(2)), r"parts have \[1, 2\] items"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


