"""Prediction: best of N by any score, adaptive steps, and generation with a cache as without one."""

import pytest
import torch

from ebwm.evaluation.cost import flops
from ebwm.settings import generator
from ebwm.stopping import budget
from ebwm.thinking import CHOICES, best_of, choose, generate, predict, propose
from tests.helpers import by_conditioning, close, draw, ebt


@pytest.mark.parametrize("by", [*CHOICES, "oracle"])
def test_choices_select_the_lowest_score_of_each_position(by):
    model, targets = ebt(), draw(2, 4, 8, stream="targets")
    found = propose(model, draw(2, 4, 8), steps=3, samples=5, generator=generator(0))
    error = (found.value - targets).square().mean(-1)
    score = {"min": found.energy, "max": -found.energy, "drop": -found.drop, "oracle": error}[by]
    best, index = choose(found, error if by == "oracle" else by), score.argmin(0)[None]
    assert torch.equal(best.energy, found.energy.gather(0, index)[0])
    assert torch.equal(best.value, found.value.gather(0, index[..., None].expand(1, 2, 4, 8))[0])
    assert (best.evaluations == 5 * (3 + 1)).all()


def test_the_drop_of_a_walk_is_that_of_the_energy_from_its_start_to_its_end():
    model, states, start = ebt(), draw(2, 4, 8), draw(2, 4, 8, stream="start")
    found = propose(model, states, steps=3, start=start)
    close(found.drop[0], model.landscape(states)(start) - found.energy[0])
    assert (found.drop > 0).all()


def test_non_finite_proposals_are_selected_only_if_all_are():
    found = propose(ebt(), draw(1, 3, 8), samples=3, generator=generator(0))
    found.energy[0, 0, 1], found.energy[2, 0, 0] = torch.nan, -torch.inf
    for by in (*CHOICES, torch.zeros(3, 1, 3)):
        assert choose(found, by).energy.isfinite().all()
    found.energy.fill_(torch.nan)
    assert choose(found).energy.isnan().all()
    assert best_of(torch.tensor([torch.nan, 2.0, -torch.inf, 1.0]), torch.arange(4))[0] == 3


def test_adaptive_predictions_count_the_evaluations_of_each_position():
    limits, states = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]]), draw(2, 4, 8)
    found, given = (predict(ebt(), states, 6, samples=2, stop=budget(limits), start=start)
                    for start in ("last", states))
    assert torch.equal(found.evaluations, 2 * (limits + 1))
    assert torch.equal(found.value, given.value) and torch.equal(found.evaluations, given.evaluations)


@by_conditioning
@pytest.mark.parametrize("settings", [
    {}, {"gradient": "eager"}, {"candidates": "latent", "state_dim": 7},
], ids=str)
def test_generation_with_a_cache_is_repeated_prediction(conditioning, settings):
    model = ebt(step_conditioning=conditioning, **settings)
    anew = states = draw(3, 4, model.state_dim)
    grown, energies = generate(model, states, count=4, steps=3, start="last"), []
    for _ in range(4):
        found = predict(model, anew, steps=3, start="last")
        anew, energies = torch.cat([anew, found.value[:, -1:]], 1), [*energies, found.energy[:, -1:]]
    close([grown.value, grown.energy], [anew[:, 4:], torch.cat(energies, 1)], atol=1e-10)
    assert grown.evaluations == 4


def test_generated_sequences_do_not_depend_on_the_batch_and_improve_with_samples():
    model, states = ebt(step_size=2.0), draw(3, 4, 8)
    whole = generate(model, states, count=3, start="zeros").value
    close(whole, torch.cat([generate(model, row[None], count=3, start="zeros").value for row in states]), atol=1e-10)
    one, eight = (generate(model, states, 1, samples=n, generator=generator(0)).energy for n in (1, 8))
    assert (eight <= one).all() and (eight < one).any()


def test_the_cost_of_a_state_does_not_depend_on_its_position():
    """Attention is not counted, whose products grow with the context."""
    cost = lambda length, count: flops(
        lambda: generate(ebt(), draw(3, length, 8), count, generator=generator(0))).linear
    assert cost(4, 5) - cost(4, 1) == cost(40, 5) - cost(40, 1) > 0
