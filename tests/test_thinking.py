"""Prediction: the cache says what everything anew would say; the best of more walks is never worse."""

import pytest
import torch

from ebwm.ebt import EBT, JointEBT
from ebwm.evaluation.cost import flops
from ebwm.settings import generator
from ebwm.thinking import generate, predict

STEPS = ["none", "context_token", "candidate_token", "adaln"]


def model_of(step="none", gradient="auto", **settings):
    model = EBT(12, 2, 2, step=step, gradient=gradient, step_size=2.0, generator=generator(0), **settings)
    return model.double()


def states_for(model, length=4):
    return torch.randn(3, length, model.state_dim, dtype=torch.float64, generator=generator(0))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
@pytest.mark.parametrize("settings", [{}, {"candidates": "latent", "state_dim": 7}], ids=str)
def test_generation_with_a_cache_says_what_everything_anew_says(step, gradient, settings):
    model = model_of(step, gradient, **settings)
    states = anew = states_for(model)
    grown = generate(model, states, count=4, steps=3, start="last")
    energies = []
    for _ in range(4):
        found = predict(model, anew, steps=3, start="last")
        anew, energies = torch.cat([anew, found.value[:, -1:]], 1), [*energies, found.energy[:, -1:]]
    torch.testing.assert_close(grown.value, anew[:, 4:], rtol=0, atol=1e-10)
    torch.testing.assert_close(grown.energy, torch.cat(energies, 1), rtol=0, atol=1e-10)
    assert grown.evaluations == 4


def test_a_batch_says_what_each_row_says():
    model = model_of()
    states = states_for(model)
    whole = generate(model, states, count=3, start="zeros").value
    rows = [generate(model, row[None], count=3, start="zeros").value for row in states]
    torch.testing.assert_close(whole, torch.cat(rows), rtol=0, atol=1e-10)


def test_the_best_of_more_walks_is_never_worse():
    model = model_of()
    one, eight = (generate(model, states_for(model), 1, samples=n, generator=generator(0)) for n in (1, 8))
    assert (eight.energy <= one.energy).all() and (eight.energy < one.energy).any()


def test_a_state_costs_the_same_wherever_it_stands():
    """But for attention, whose products grow with the context."""
    model = model_of()
    cost = lambda length, count: flops(
        lambda: generate(model, states_for(model, length), count, generator=generator(0))).linear
    prompt = lambda length: cost(length, 1)
    assert cost(4, 5) - prompt(4) == cost(40, 5) - prompt(40) > 0


def test_joint_candidates_are_predicted():
    model = JointEBT(12, 2, 2, rows=3, candidate_dim=4, state_dim=5, generator=generator(0)).double()
    states = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator(0))
    one, four = (predict(model, states, samples=n, generator=generator(0)) for n in (1, 4))
    assert one.value.shape == (2, 3, 4) and (four.energy <= one.energy).all()


@pytest.mark.parametrize("call", [
    lambda m, s: generate(m, s, 0),
    lambda m, s: generate(m, s, 1, samples=0),
    lambda m, s: predict(m, s, samples=0),
])
def test_bad_counts_are_named(call):
    model = model_of()
    with pytest.raises(ValueError, match=r"(count|samples) is 0; at least 1 is needed"):
        call(model, states_for(model))


def test_tokens_have_a_function_of_their_own():
    with pytest.raises(ValueError, match=r"model predicts tokens; use ebwm\.generation\.generate_tokens"):
        generate(model_of(vocabulary=11), torch.zeros(1, 2, dtype=torch.long), 1)


def test_what_thinking_costs_is_reported_where_it_is_measured():
    model, noise = model_of(), lambda: generator(0, "starts")
    think = lambda steps, samples, **how: predict(
        model, states_for(model), steps, samples, generator=noise(), **how)
    plain, told, one = think(3, 2), think(3, 2, measure=True), think(1, 1, measure=True)
    assert plain.flops is None and plain.seconds is None
    assert told.flops.shape == told.seconds.shape == told.energy.shape and (told.seconds > 0).all()
    assert torch.equal(told.flops, 6 * one.flops) and torch.equal(told.value, plain.value)
