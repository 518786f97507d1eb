"""Recipes: each ingredient equals the loop written out with autograd alone, gradients included."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ebwm.energy import Landscape
from ebwm.joint import JointEBT
from ebwm.objective import S1, S2, Contrastive, ScoreMatching, StreamedLoss, cross_entropy, smooth_l1, with_gradients
from ebwm.replay import Replay
from ebwm.sampler import STARTS, gradient_descent, init_candidates, langevin, run
from ebwm.settings import generator
from ebwm.walk import Walk
from tests.helpers import assert_same, close, draw, draw_tokens, ebt, learned, softmax

PLAIN = dict(noise=0.0, most=3, spread=1.0, replay=0.0)


def batch(*shape):
    return draw(*shape), draw(*shape, stream="targets")


def assert_equal(model, loss, expected):
    assert_same(learned(model, loss), learned(model, expected), 1e-12)


def joint(state_dim=5):
    return JointEBT(8, 2, 2, rows=3, candidate_dim=4, state_dim=state_dim, generator=generator(0)).double()


def made(make):
    """A model, its context and targets."""
    model = make()
    data = batch(2, 4, 8) if make is ebt else (draw(2, 6, 5) if model.state_dim else None, draw(2, 3, 4))
    return model, *data


by_model = pytest.mark.parametrize("make", [ebt, joint, partial(joint, None)], ids=["causal", "joint", "no context"])


def loop(model, recipe, states, targets, start, noise):
    """Recipe S2 written out."""
    y, losses, alpha, walk = start, [], model.step_size, recipe.walk
    if recipe.spread > 1:
        low, high = 1 / recipe.spread, recipe.spread
        share = torch.rand(start.shape[:2], generator=noise, dtype=torch.float64)
        alpha = (alpha * (low + (high - low) * share)).unsqueeze(-1)
    torch.randint(3, 4, (), generator=noise)  # the number of steps
    landscape = model.landscape(states)
    for step in range(walk.steps):
        if recipe.detach or (recipe.unroll is not None and step == walk.steps - recipe.unroll):
            y = y.detach()
        y = y + walk.noise * init_candidates("noise", y, noise) if walk.noise else y
        y = y if y.requires_grad else y.requires_grad_()
        p = y if model.tokens is None else softmax(y)
        y = y if walk.update == "paper" else p
        (grad,) = torch.autograd.grad(landscape(p).sum(), y, create_graph=True)
        y = y - alpha * (grad.clamp(-walk.clamp, walk.clamp) if walk.clamp else grad)
        losses.append(smooth_l1(model.decode(y), targets) if model.tokens is None else cross_entropy(y, targets))
    return torch.stack(losses).mean() if recipe.every else losses[-1]


# Losses


@pytest.mark.parametrize("ignore_index", [None, 0])
def test_cross_entropy_is_the_mean_over_tokens_that_are_not_ignored(ignore_index):
    logits, tokens = draw(2, 3, 5), torch.tensor([[0, 1, 4], [2, 0, 3]])
    expected = [-logits[b, s].log_softmax(-1)[tokens[b, s]] for b in (0, 1) for s in (0, 1, 2)
                if tokens[b, s] != ignore_index]
    close(cross_entropy(logits, tokens, ignore_index), torch.stack(expected).mean(), atol=1e-14)
    assert smooth_l1(torch.tensor([0.5, 3.0]), torch.zeros(2)).item() == (0.5 * 0.25 + (3 - 0.5)) / 2


def test_known_gradients_are_used_once():
    value = with_gradients(torch.tensor(5.0), {torch.zeros(2, requires_grad=True): torch.ones(2)})
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        value.backward()


def test_gradients_that_share_memory_are_accumulated_separately():
    """The gradient of a sum is one tensor for both of its terms."""
    class Sum(Landscape):
        def energy(self, y):
            return y.sum(-1)

    parts, streamed = [torch.zeros(3, requires_grad=True) for _ in range(2)], StreamedLoss(Sum())
    for _ in range(3):
        streamed.add((parts[0] + parts[1]).sum())
    streamed.finish(torch.zeros(())).backward()
    assert all(part.grad.tolist() == [3.0, 3.0, 3.0] for part in parts)


# Recipes S1 and S2


@pytest.mark.parametrize("change", [
    {}, {"unroll": 1}, {"unroll": 2}, {"unroll": 9}, {"every": True}, {"detach": True}, {"clamp": 0.05},
    {"start": "last"}, {"start": "zeros"}, {"noise": 0.3}, {"spread": 2.0}, {"update": "paper"},
    {"detach": True, "every": True}, {"detach": True, "every": True, "update": "paper"},
], ids=str)
@pytest.mark.parametrize("settings", [
    {}, {"gradient": "eager"}, {"candidates": "latent", "state_dim": 12}, {"vocabulary": 9}], ids=str)
def test_each_ingredient_of_the_recipes_is_the_loop_written_out(change, settings):
    """With all steps detached and a mean loss, S2 is S1."""
    recipe, model = S2(3, **{**PLAIN, **change}), ebt(**settings)
    states, targets = draw_tokens(9, 2, 2, 4) if "vocabulary" in settings else batch(2, 4, model.state_dim)
    for same in [recipe, S1(recipe.walk)][: 1 + (recipe.detach and recipe.every)]:
        loss, noise = same(model, states, targets, generator=generator(0)), generator(0)
        start = init_candidates(recipe.walk.start, model.encode(states), noise).detach()
        assert_equal(model, loss, loop(model, recipe, states, targets, start, noise))


@pytest.mark.parametrize("recipe", [S1(3), S1(3, stream=False), S2(2, **{**PLAIN, "most": 2}, detach=True, every=True)])
def test_a_guard_that_accepts_every_step_changes_no_gradient(recipe):
    """The gradient that a guard knows after a step was detached: the next step needs one with a graph."""
    found, (states, targets) = [], batch(2, 4, 8)
    for guard in (False, True):
        model = ebt(step_size=0.01)
        one = replace(recipe, walk=replace(recipe.walk, guard=guard))
        found.append(learned(model, one(model, states, targets, generator=generator(0))))
    assert_same(*found, 1e-12)


@pytest.mark.parametrize("stream", [True, False])
def test_gradients_reach_the_targets(stream):
    model, states = ebt(), draw(2, 5, 8).requires_grad_()
    S1(2, stream=stream)(model, states[:, :-1], states[:, 1:], generator=generator(0)).backward()
    whole = states.grad.clone()
    parts = [states.detach()[:, place].clone().requires_grad_() for place in (slice(-1), slice(1, None))]
    S1(2, stream=False)(model, *parts, generator=generator(0)).backward()
    close(whole, F.pad(parts[0].grad, (0, 0, 0, 1)) + F.pad(parts[1].grad, (0, 0, 1, 0)))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
@pytest.mark.parametrize("recipe", [S1(2), S1(2, stream=False), S2(2, **{**PLAIN, "most": 2})])
def test_targets_may_be_integers_of_any_type(recipe, dtype):
    losses = [recipe(ebt(vocabulary=9), tokens := draw_tokens(9, 2, 2, 4)[0], tokens.to(kind), generator=generator(0))
              for kind in (torch.int64, dtype)]
    assert torch.equal(*losses)


def test_langevin_at_temperature_0_is_gradient_descent_also_in_its_gradients():
    found, (states, targets) = [], batch(2, 4, 8)
    for kernel in (gradient_descent, partial(langevin, temperature=0.0)):
        model = ebt()
        found.append(learned(model, S1(2, kernel=kernel)(model, states, targets, generator=generator(0))))
    assert_same(*found)


def test_the_number_of_steps_is_drawn_for_each_batch():
    model, (states, targets), noise = ebt(), batch(1, 3, 8), generator(0)
    start = draw(1, 3, 8, stream="start")
    loss = lambda least, most: round(S2(least, **{**PLAIN, "most": most})(
        model, states, targets, generator=noise, start=start).item(), 12)
    assert {loss(1, 3) for _ in range(30)} == {loss(n, n) for n in (1, 2, 3)}


def test_replayed_candidates_continue_where_they_ended():
    recipe, model, replay, noise = S2(3, **{**PLAIN, "replay": 0.5}), ebt(), Replay(6), generator(0)
    first = batch(4, 3, 8)
    recipe(model, *first, generator=noise, replay=replay)
    start = init_candidates("noise", first[0], generator(0))
    close(replay.parts[2], run(model.landscape(first[0]), start, gradient_descent(model.step_size), 3).state.y)
    again = Replay(6)
    again.load_state_dict(replay.state_dict())
    state = noise.get_state()
    second = draw(4, 3, 8, stream="more"), draw(4, 3, 8, stream="more targets")
    loss = recipe(model, *second, generator=noise, replay=replay)
    assert len(replay) == 6 and torch.equal(replay.parts[0][2:], second[0])  # replayed items are not added
    noise.set_state(state)
    start = init_candidates("noise", second[0], noise)
    joined = [torch.cat(pair) for pair in zip((*second, start), again.draw(2, noise), strict=True)]
    assert_equal(model, loss, loop(model, recipe, *joined, noise))


def test_the_walk_of_s2_has_noise_in_training_and_the_most_steps_in_prediction():
    assert S2(2, most=5, clamp=0.1).walk == Walk(2, noise=0.1, clamp=0.1) and S2(Walk(2)).walk == Walk(2)
    assert S2(2, most=5, clamp=0.1, step_size=0.3).inference == Walk(5, step_size=0.3)


# Contrastive references


@pytest.mark.parametrize("start", ["truth", *STARTS])
@by_model
def test_contrastive_divergence_written_out(make, start):
    (model, states, targets), noise = made(make), generator(0)
    loss = Contrastive(3, 0.05, 0.5, start, regularise=0.1)(model, states, targets, generator=generator(0))
    recent = model.encode(targets if states is None else states)
    begin, landscape = targets if start == "truth" else init_candidates(start, recent, noise), model.landscape(states)
    end = run(landscape, begin, langevin(0.05, 0.5), 3, noise).state.y
    true, false = landscape(targets), landscape(end)
    assert_equal(model, loss, (true - false).mean() + 0.1 * (true.square() + false.square()).mean())


@by_model
def test_persistent_chains_continue_where_they_ended(make):
    """All chains are stored at their ends, those that continue too."""
    (model, states, targets), replay, noise = made(make), Replay(32), generator(0)
    recipe = Contrastive(2, 0.05, persistent=1.0, regularise=0.0)
    recipe(model, states, targets, generator=noise, replay=replay)
    (state, before) = noise.get_state(), replay.parts[-1]
    loss = recipe(model, states, targets, generator=noise, replay=replay)
    noise.set_state(state)
    order = torch.randperm(2, generator=noise)
    landscape = model.landscape(None if states is None else torch.cat([states, states[order]]))
    true = torch.cat([targets, targets[order]])
    end = run(landscape, torch.cat([targets, before[order]]), langevin(0.05), 2, noise).state.y
    close(loss, (landscape(true) - landscape(end)).mean())
    close(replay.parts[-1], torch.cat([before, end]))


@by_model
def test_score_matching_written_out(make):
    model, states, targets = made(make)
    recipe, noise = ScoreMatching(0.3), init_candidates("noise", targets, generator(0))
    y = (targets + 0.3 * noise).requires_grad_()
    (grad,) = torch.autograd.grad(model.landscape(states)(y).sum(), y, create_graph=True)
    assert_equal(model, recipe(model, states, targets, generator=generator(0)), (0.3 * grad - noise).square().mean())


@pytest.mark.parametrize(
    "recipe", [S1(), S1(stream=False), S2(), Contrastive(), Contrastive(persistent=0.5), ScoreMatching()], ids=str)
def test_validation_has_no_graph_and_leaves_the_replay_buffer_alone(recipe):
    """A frozen model has no graph either; the loss is that of training."""
    model, frozen, replay, (states, targets) = ebt(), ebt().requires_grad_(False), Replay(8), batch(2, 4, 8)
    loss = lambda model, replay=replay: recipe(model, states, targets, generator=generator(0), replay=replay)
    with torch.no_grad():
        validated = loss(model)
    assert len(replay) == 0 and not validated.requires_grad
    assert not loss(frozen, Replay(8)).requires_grad and torch.equal(loss(frozen, Replay(8)), validated)
    trained = loss(model)
    assert torch.equal(trained.detach(), validated)
    assert any(value.any() for value in learned(model, trained).values())


def test_any_loss_can_replace_the_default():
    """For tokens another loss takes the general route, and the default one written out gives the same."""
    model, tokens = ebt(vocabulary=9), draw_tokens(9, 2, 2, 4)
    plain = lambda y, t, **options: F.cross_entropy(y.flatten(0, 1), t.flatten(), **options)
    loss = lambda **options: S1(2)(model, *tokens, generator=generator(0), **options)
    assert_equal(model, loss(), loss(loss=plain))
    assert loss(loss=lambda y, t: plain(y, t, label_smoothing=0.1)) != loss()
