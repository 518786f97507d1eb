"""Recipes: each ingredient of S2 by itself is the loop written out; contrastive losses are what they say."""

import dataclasses

import pytest
import torch

from ebwm.ebt import EBT, JointEBT
from ebwm.objective import (
    S1,
    S2,
    Contrastive,
    ScoreMatching,
    contrast,
    cross_entropy,
    loss_of,
    match_scores,
    reconstruct,
    smooth_l1,
)
from ebwm.sampler import gradient_descent, initial, langevin, run
from ebwm.settings import generator
from ebwm.thinking import CHOICES, choose, predict, propose
from ebwm.walk import Replay, budget

PLAIN = S2(steps=3, most=3, noise=0.0, spread=1.0, replay=0.0)


def draw(*shape, stream="states"):
    return torch.randn(shape, dtype=torch.float64, generator=generator(0, stream))


def model_of(**settings):
    return EBT(8, 2, 2, step_size=0.7, generator=generator(0, "weights"), **settings).double()


def learned(model, loss):
    model.zero_grad()
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {name: torch.zeros(()) if grad is None else grad.clone() for name, grad in grads.items()}


def assert_same(model, ours, expected):
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    ours, expected = learned(model, ours), learned(model, expected)
    for name in ours:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-9, atol=1e-12)


def by_loop(model, recipe, states, targets, start, alpha=None, noise=None):
    """S2 written out, by autograd alone."""
    y, losses, alpha = start, [], model.step_size if alpha is None else alpha
    landscape = model.landscape(states)
    for step in range(recipe.steps):
        if recipe.detach or (recipe.unroll is not None and step == recipe.steps - recipe.unroll):
            y = y.detach()
        y = y + recipe.noise * initial("noise", y, noise) if recipe.noise else y
        y = y if y.requires_grad else y.requires_grad_()
        (grad,) = torch.autograd.grad(landscape(y).sum(), y, create_graph=True)
        grad = grad.clamp(-recipe.clamp, recipe.clamp) if recipe.clamp else grad
        y = y - alpha * grad
        losses.append(smooth_l1(model.decode(y), targets))
    return torch.stack(losses).mean() if recipe.every else losses[-1]


@pytest.mark.parametrize("change", [
    {}, {"unroll": 1}, {"unroll": 2}, {"unroll": 9}, {"every": True}, {"detach": True},
    {"detach": True, "every": True}, {"clamp": 0.05}, {"start": "last"}, {"start": "zeros"},
], ids=str)
@pytest.mark.parametrize(
    "settings", [{}, {"gradient": "eager"}, {"candidates": "latent", "state_dim": 12}], ids=str)
def test_each_ingredient_is_the_loop_written_out(change, settings):
    recipe, model = dataclasses.replace(PLAIN, **change), model_of(**settings)
    states, targets = draw(2, 4, model.state_dim), draw(2, 4, model.state_dim, stream="targets")
    loss = reconstruct(model, states, targets, recipe, generator=generator(0))
    start = initial(recipe.start, model.encode(states), generator(0)).detach()
    assert_same(model, loss, by_loop(model, recipe, states, targets, start))


def test_noise_is_added_before_each_step():
    recipe, model = dataclasses.replace(PLAIN, noise=0.3), model_of()
    states, targets = draw(2, 4, 8), draw(2, 4, 8, stream="targets")
    loss, noise = reconstruct(model, states, targets, recipe, generator=generator(0)), generator(0)
    start = initial("noise", states, noise)
    torch.randint(3, 4, (), generator=noise)
    assert_same(model, loss, by_loop(model, recipe, states, targets, start, noise=noise))


def test_step_sizes_are_drawn_for_each_candidate():
    recipe, model = dataclasses.replace(PLAIN, spread=2.0), model_of()
    states, targets = draw(2, 4, 8), draw(2, 4, 8, stream="targets")
    loss, noise = reconstruct(model, states, targets, recipe, generator=generator(0)), generator(0)
    start = initial("noise", states, noise)
    share = torch.rand(2, 4, generator=noise, dtype=torch.float64)
    alpha = (model.step_size * (0.5 + 1.5 * share)).unsqueeze(-1)
    assert_same(model, loss, by_loop(model, recipe, states, targets, start, alpha=alpha))


def test_the_number_of_steps_is_drawn_for_each_batch():
    recipe, model = dataclasses.replace(PLAIN, steps=1, most=3), model_of()
    states, targets, noise = draw(1, 3, 8), draw(1, 3, 8, stream="targets"), generator(0)
    start = draw(1, 3, 8, stream="start")
    loss = lambda recipe: reconstruct(model, states, targets, recipe, generator=noise, start=start)
    fixed = {round(loss(dataclasses.replace(PLAIN, steps=n, most=n)).item(), 12) for n in (1, 2, 3)}
    assert {round(loss(recipe).item(), 12) for _ in range(30)} == fixed


def test_replayed_walks_go_on_where_they_ended():
    recipe, model = dataclasses.replace(PLAIN, replay=0.5), model_of()
    replay, noise = Replay(6), generator(0)
    first = draw(4, 3, 8), draw(4, 3, 8, stream="targets")
    reconstruct(model, *first, recipe, generator=noise, replay=replay)
    start = initial("noise", first[0], generator(0))
    ends = run(model.landscape(first[0]), start, gradient_descent(model.step_size), 3).state.y
    torch.testing.assert_close(replay.parts[2], ends, rtol=0, atol=1e-12)
    again = Replay(6)
    again.load_state_dict(replay.state_dict())
    state = noise.get_state()
    second = draw(4, 3, 8, stream="more"), draw(4, 3, 8, stream="more targets")
    loss = reconstruct(model, *second, recipe, generator=noise, replay=replay)
    assert len(replay) == 6 and torch.equal(replay.parts[0][2:], second[0])  # and none of the replayed
    noise.set_state(state)
    start = initial("noise", second[0], noise)
    drawn = again.draw(2, noise)
    joined = [torch.cat(pair) for pair in zip((*second, start), drawn, strict=True)]
    assert_same(model, loss, by_loop(model, recipe, *joined))


@pytest.mark.parametrize("settings", [
    {"step": "context_token"}, {"step": "candidate_token"}, {"step": "adaln"}, {"vocabulary": 9},
    {"vocabulary": 9, "step": "context_token"},
], ids=str)
def test_s2_teaches_every_kind_of_model(settings):
    model, replay = model_of(**settings), Replay(8)
    tokens = model.tokens is not None
    batch = torch.randint(9, (2, 2, 4), generator=generator(0)) if tokens else draw(2, 2, 4, 8)
    for _ in range(2):
        loss = reconstruct(model, *batch, S2(steps=2, most=4), generator=generator(0), replay=replay)
        found = learned(model, loss)
    assert loss.isfinite() and all(value.isfinite().all() for value in found.values()) and len(replay) == 4
    assert found["step_size"] != 0


def test_s2_of_tokens_is_the_loop_written_out():
    model, tokens = model_of(vocabulary=9), torch.randint(9, (2, 2, 4), generator=generator(0))
    loss = reconstruct(model, *tokens, PLAIN, generator=generator(0))
    y = torch.randn(2, 4, 9, dtype=torch.float64, generator=generator(0))
    landscape = model.landscape(tokens[0])
    for _ in range(3):
        p = y.softmax(-1) if y.requires_grad else y.softmax(-1).requires_grad_()
        (grad,) = torch.autograd.grad(landscape(p).sum(), p, create_graph=True)
        y = p - model.step_size * grad
    assert_same(model, loss, cross_entropy(y, tokens[1]))


def test_s2_of_joint_candidates():
    model = JointEBT(8, 2, 2, rows=3, candidate_dim=4, state_dim=5, generator=generator(0)).double()
    replay = Replay(8)
    for _ in range(2):
        loss = reconstruct(model, draw(2, 6, 5), draw(2, 3, 4), S2(), generator=generator(0), replay=replay)
    assert loss.isfinite() and len(replay) == 4 and learned(model, loss)["observe.weight"].any()


def test_one_detached_step_is_the_same_by_both_recipes():
    model, batch = model_of(), (draw(2, 4, 8), draw(2, 4, 8, stream="targets"))
    one = dataclasses.replace(PLAIN, steps=1, most=1)
    assert_same(model, reconstruct(model, *batch, one, generator=generator(0)),
                reconstruct(model, *batch, S1(steps=1), generator=generator(0)))
    many = dataclasses.replace(PLAIN, detach=True, every=True)
    assert_same(model, reconstruct(model, *batch, many, generator=generator(0)),
                reconstruct(model, *batch, S1(steps=3), generator=generator(0)))


def test_contrastive_divergence_written_out():
    model, recipe = model_of(), Contrastive(steps=3, step_size=0.05, regularise=0.1)
    states, targets = draw(2, 4, model.state_dim), draw(2, 4, model.state_dim, stream="targets")
    loss, landscape = contrast(model, states, targets, recipe, generator(0)), model.landscape(states)
    with torch.no_grad():
        start = model.encode(targets)
    end = run(landscape, start, langevin(0.05), 3, generator(0)).state.y
    true, false = landscape(model.encode(targets)), landscape(end)
    assert_same(model, loss, (true - false).mean() + 0.1 * (true.square() + false.square()).mean())


def test_joint_candidates_are_their_own_truth():
    model = JointEBT(8, 2, 2, rows=3, candidate_dim=4, state_dim=5, generator=generator(0)).double()
    batch = draw(2, 6, 5), draw(2, 3, 4, stream="targets")
    for lose, recipe in ((contrast, Contrastive()), (match_scores, ScoreMatching())):
        near, far = (lose(model, batch[0], scale * batch[1], recipe, generator(0)) for scale in (1, 2))
        assert near != far


def test_what_is_only_scored_is_not_replayed():
    model, replay, batch = model_of(), Replay(8), (draw(2, 4, 8), draw(2, 4, 8, stream="targets"))
    with torch.no_grad():
        for recipe in (S2(), Contrastive(persistent=0.5)):
            loss_of(model, *batch, recipe, generator(0), replay)
    assert len(replay) == 0


def test_a_buffer_of_another_shape_is_refused():
    model, replay = model_of(), Replay(8)
    reconstruct(model, draw(2, 4, 8), draw(2, 4, 8), S2(), generator=generator(0), replay=replay)
    with pytest.raises(ValueError, match=r"a batch of shape \[3, 8\] meets a buffer of \[4, 8\]; begin"):
        reconstruct(model, draw(2, 3, 8), draw(2, 3, 8), S2(), generator=generator(0), replay=replay)


def test_proposals_may_start_from_given_candidates():
    model, states, start = model_of(), draw(2, 4, 8), draw(2, 4, 8, stream="start")
    found = propose(model, states, steps=3, start=start)
    end = run(model.landscape(states), start, gradient_descent(model.step_size), 3).state
    torch.testing.assert_close(found.value[0], end.y.detach(), rtol=0, atol=1e-12)


def test_persistent_chains_go_on():
    model, replay, noise = model_of(), Replay(32), generator(0)
    recipe = Contrastive(steps=2, step_size=0.05, persistent=1.0, start="noise")
    batch = draw(3, 4, 8), draw(3, 4, 8, stream="targets")
    contrast(model, *batch, recipe, noise, replay)
    assert len(replay) == 3
    contrast(model, *batch, recipe, noise, replay)
    assert len(replay) == 9  # three new chains, and three that went on


def test_scores_of_a_flat_energy_miss_by_one():
    model = model_of()
    torch.nn.init.zeros_(model.head.weight)
    loss = match_scores(model, draw(8, 16, 8), draw(8, 16, 8), ScoreMatching(0.3), generator(0))
    assert abs(loss.item() - 1) < 4 * (2 / 1024) ** 0.5


def test_score_matching_written_out():
    model, batch = model_of(), (draw(2, 4, 8), draw(2, 4, 8, stream="targets"))
    loss = match_scores(model, *batch, ScoreMatching(0.3), generator(0))
    noise = initial("noise", batch[1], generator(0))
    y = (batch[1] + 0.3 * noise).requires_grad_()
    (grad,) = torch.autograd.grad(model.landscape(batch[0])(y).sum(), y, create_graph=True)
    assert_same(model, loss, (0.3 * grad - noise).square().mean())


@pytest.mark.parametrize(
    "recipe", [S1(), S2(), Contrastive(), Contrastive(persistent=0.5), ScoreMatching()], ids=str)
def test_any_recipe_gives_a_loss(recipe):
    model, batch = model_of(), (draw(2, 4, 8), draw(2, 4, 8, stream="targets"))
    loss = loss_of(model, *batch, recipe, generator(0), Replay(8))
    assert loss.isfinite() and any(value.any() for value in learned(model, loss).values())
    with torch.no_grad():
        assert not loss_of(model, *batch, recipe, generator(0), Replay(8)).requires_grad


@pytest.mark.parametrize("by", CHOICES)
def test_choices(by):
    model, states = model_of(), draw(2, 4, 8)
    found = propose(model, states, steps=3, samples=5, generator=generator(0))
    best = choose(found, by)
    score = {"min": found.energy, "max": -found.energy, "drop": -found.drop}[by]
    for b in range(2):
        for s in range(4):
            index = int(score[:, b, s].argmin())
            assert torch.equal(best.value[b, s], found.value[index, b, s])
            assert best.energy[b, s] == found.energy[index, b, s]
    assert (best.evaluations == 5 * 4).all()


def test_no_choice_is_better_than_the_oracles():
    model, states, targets = model_of(), draw(2, 4, 8), draw(2, 4, 8, stream="targets")
    found = propose(model, states, steps=3, samples=5, generator=generator(0))
    error = lambda value: (value - targets).square().mean(-1)
    oracle = error(choose(found, error(found.value)).value)
    assert all((oracle <= error(choose(found, by).value)).all() for by in CHOICES)
    assert torch.equal(oracle, error(found.value).min(0).values)


def test_a_proposal_that_is_not_finite_is_not_chosen():
    model, states = model_of(), draw(1, 3, 8)
    found = propose(model, states, samples=3, generator=generator(0))
    found.energy[0, 0, 1], found.energy[2, 0, 0] = torch.nan, -torch.inf
    for by in (*CHOICES, torch.zeros(3, 1, 3)):
        assert choose(found, by).energy.isfinite().all()


def test_adaptive_predictions_count_what_each_position_took():
    model, states = model_of(), draw(2, 4, 8)
    limits = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    found = predict(model, states, steps=6, samples=2, stop=budget(limits), start="last")
    assert torch.equal(found.evaluations, 2 * (limits + 1))
    assert (predict(model, states, steps=6, samples=2, start="last").evaluations == 14).all()


def test_joint_candidates_are_chosen_whole():
    model = JointEBT(8, 2, 2, rows=3, candidate_dim=4, state_dim=5, generator=generator(0)).double()
    found = propose(model, draw(2, 6, 5), samples=4, generator=generator(0))
    best = choose(found)
    assert best.value.shape == (2, 3, 4) and torch.equal(best.energy, found.energy.min(0).values)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: S2(steps=0), "steps is 0; it must be 1 or more"),
    (lambda: S2(steps=3, most=2), "most is 2; it must be 3 or more"),
    (lambda: S2(spread=0.5), "spread is 0.5; it must be 1 or more"),
    (lambda: S2(unroll=0), "unroll is 0; it must be 1 or more"),
    (lambda: S2(noise=-1.0), "noise is -1.0; it must be 0 or more"),
    (lambda: S2(start="truth"), "start is 'truth'; it must be one of noise, last, zeros"),
    (lambda: S2(update="other"), "update is 'other'"),
    (lambda: Contrastive(steps=0), "steps is 0; it must be 1 or more"),
    (lambda: Contrastive(start="data"), "start is 'data'; it must be one of truth, noise, last, zeros"),
    (lambda: ScoreMatching(0.0), "std is 0.0; it must be above 0"),
    (lambda: S2(clamp=0.0), "clamp is 0.0; it must be above 0, or None"),
    (lambda: loss_of(model_of(candidates="latent"), *draw(2, 1, 2, 8), Contrastive(), generator(0)),
     "candidates are latents, which only walking teaches"),
    (lambda: loss_of(model_of(vocabulary=5), *torch.ones(2, 1, 2).long(), ScoreMatching(), generator(0)),
     "candidates are tokens, which only walking teaches"),
    (lambda: reconstruct(model_of(), draw(1, 2, 8), draw(1, 2, 8), S2(), generator=generator(0)),
     "replay is None, but the recipe replays a share of 0.5; give a Replay"),
    (lambda: predict(model_of(), draw(1, 2, 8), by="best", start="last"), "by is 'best'; it must be one of"),
    (lambda: predict(model_of(), draw(1, 2, 8), by=torch.zeros(2), start="last"), "by has shape"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
