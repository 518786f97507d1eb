"""The settings of sampling as one value: they build the landscape and the kernel that they name."""

from functools import partial

import pytest
import torch

from ebwm.energy import Transformed
from ebwm.modifiers import clamped, guarded, noisy
from ebwm.sampler import STARTS, gradient_descent, init_candidates, nesterov, run, softmax_descent
from ebwm.settings import generator
from ebwm.stopping import budget, run_until
from ebwm.walk import Walk, walk_of
from tests.helpers import draw, ebt, softmax

SIZES = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], dtype=torch.float64)
TOKENS = torch.tensor([[1, 2, 3], [3, 2, 1]])


@pytest.mark.parametrize(("walk", "make", "vocabulary"), [
    (Walk(), gradient_descent, None),
    (Walk(step_size=0.3), lambda _: gradient_descent(0.3), None),
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
    walk = walk_of(walk, {"steps": 4})
    found = walk.run(model, landscape, start, generator(0), callback=lambda *step: seen.append(step[0]))
    assert seen == [0, 1, 2, 3] and not found.state.y.requires_grad
    assert torch.equal(found.state.y, expected.state.y)
    assert torch.equal(found.state.energy, expected.state.energy)
    assert all(map(torch.equal, found.info, expected.info))


def test_a_walk_with_a_stopping_rule_stops():
    model, limits = ebt(), torch.tensor([[1, 2, 3], [3, 2, 1]])
    landscape, start = model.landscape(draw(2, 3, 8)), draw(2, 3, 8, stream="start")
    found = Walk(9, stop=budget(limits)).run(model, landscape, start)
    expected = run_until(landscape, start, gradient_descent(model.step_size), 9, budget(limits))
    assert torch.equal(found.state.y, expected.state.y) and torch.equal(found.evaluations, limits + 1)


def test_initial_candidates_are_named_or_given():
    recent, given, out = draw(2, 3, 8), torch.ones(2, 3, 8), torch.zeros(2, 3, 8)
    for start in STARTS:
        expected = init_candidates(start, recent, generator(0))
        assert torch.equal(Walk(start=start).initial(recent, generator(0)), expected)
    assert Walk(start=given).initial(recent) is given
    assert Walk(start=given).initial(recent, out=out) is out and torch.equal(out, given)


def test_settings_are_a_walk_a_number_of_steps_or_single_fields():
    assert walk_of(None, {}) == Walk() and walk_of(7, {}) == Walk(steps=7)
    assert walk_of(Walk(7, noise=1.0), {"steps": 3}) == Walk(3, noise=1.0)
