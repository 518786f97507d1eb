"""Recipes: each ingredient equals the loop written out with autograd alone, gradients included."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ebwm.energy import Landscape
from ebwm.joint import JointEBT
from ebwm.objective import (
    S1,
    S2,
    Contrastive,
    ScoreMatching,
    StreamedLoss,
    cross_entropy,
    smooth_l1,
    with_gradients,
)
from ebwm.replay import Replay
from ebwm.sampler import gradient_descent, init_candidates, langevin, run
from ebwm.settings import generator
from ebwm.walk import Walk
from tests.helpers import assert_same, draw, ebt, learned

PLAIN = dict(most=3, spread=1.0, replay=0.0)
PLAIN_S2 = S2(3, noise=0.0, **PLAIN)


def batch(*shape):
    return draw(*shape), draw(*shape, stream="targets")


def assert_equal(model, loss, expected):
    assert_same(learned(model, loss), learned(model, expected), 1e-12)


def joint(state_dim=5):
    return JointEBT(8, 2, 2, rows=3, candidate_dim=4, state_dim=state_dim, generator=generator(0)).double()


def loop(model, recipe, states, targets, start, alpha=None, noise=None):
    """Recipe S2 written out."""
    y, losses, alpha, walk = start, [], model.step_size if alpha is None else alpha, recipe.walk
    landscape = model.landscape(states)
    for step in range(walk.steps):
        if recipe.detach or (recipe.unroll is not None and step == walk.steps - recipe.unroll):
            y = y.detach()
        y = y + walk.noise * init_candidates("noise", y, noise) if walk.noise else y
        y = y if y.requires_grad else y.requires_grad_()
        (grad,) = torch.autograd.grad(landscape(y).sum(), y, create_graph=True)
        y = y - alpha * (grad.clamp(-walk.clamp, walk.clamp) if walk.clamp else grad)
        losses.append(smooth_l1(model.decode(y), targets))
    return torch.stack(losses).mean() if recipe.every else losses[-1]


# Losses


def test_smooth_l1_has_beta_one():
    loss = smooth_l1(torch.tensor([0.5, 3.0]), torch.zeros(2))
    assert float(loss) == pytest.approx((0.5 * 0.25 + (3 - 0.5)) / 2)


@pytest.mark.parametrize("ignore_index", [None, 0])
def test_cross_entropy_is_the_mean_over_tokens_that_are_not_ignored(ignore_index):
    logits, tokens = draw(2, 3, 5), torch.tensor([[0, 1, 4], [2, 0, 3]])
    expected = [-logits[b, s].log_softmax(-1)[tokens[b, s]] for b in (0, 1) for s in (0, 1, 2)
                if ignore_index is None or tokens[b, s] != ignore_index]
    loss = cross_entropy(logits, tokens, ignore_index)
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=0, atol=1e-14)


def test_known_gradients_are_used_once():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    inner = 2 * x
    value = 3 * with_gradients(torch.tensor(5.0), {inner: torch.tensor([1.0, 10.0]), x: torch.ones(2)})
    value.backward(retain_graph=True)
    assert value.item() == 15 and x.grad.tolist() == [9.0, 63.0]
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


@pytest.mark.parametrize("start", ["noise", "last", "zeros"])
def test_s1_is_the_mean_loss_of_detached_steps(start):
    model, (states, targets) = ebt(step_size=3.0), batch(2, 4, 8)
    loss = S1(2, start=start)(model, states, targets, generator=generator(0))
    recipe = replace(PLAIN_S2, walk=Walk(2), detach=True, every=True)
    start = init_candidates(start, states, generator(0))
    assert_equal(model, loss, loop(model, recipe, states, targets, start))


@pytest.mark.parametrize("change", [
    {}, {"unroll": 1}, {"unroll": 2}, {"unroll": 9}, {"every": True}, {"detach": True}, {"clamp": 0.05},
    {"start": "last"}, {"start": "zeros"},
], ids=str)
@pytest.mark.parametrize(
    "settings", [{}, {"gradient": "eager"}, {"candidates": "latent", "state_dim": 12}], ids=str)
def test_each_ingredient_of_s2_is_the_loop_written_out(change, settings):
    recipe, model = S2(3, **{"noise": 0.0, **PLAIN, **change}), ebt(**settings)
    states, targets = batch(2, 4, model.state_dim)
    loss = recipe(model, states, targets, generator=generator(0))
    start = init_candidates(recipe.walk.start, model.encode(states), generator(0)).detach()
    assert_equal(model, loss, loop(model, recipe, states, targets, start))


def test_noise_is_added_before_each_step():
    recipe, model, (states, targets) = S2(3, noise=0.3, **PLAIN), ebt(), batch(2, 4, 8)
    loss, noise = recipe(model, states, targets, generator=generator(0)), generator(0)
    start = init_candidates("noise", states, noise)
    torch.randint(3, 4, (), generator=noise)
    assert_equal(model, loss, loop(model, recipe, states, targets, start, noise=noise))


def test_step_sizes_are_drawn_for_each_candidate():
    recipe, model, (states, targets) = replace(PLAIN_S2, spread=2.0), ebt(), batch(2, 4, 8)
    loss, noise = recipe(model, states, targets, generator=generator(0)), generator(0)
    start = init_candidates("noise", states, noise)
    share = torch.rand(2, 4, generator=noise, dtype=torch.float64)
    alpha = (model.step_size * (0.5 + 1.5 * share)).unsqueeze(-1)
    assert_equal(model, loss, loop(model, recipe, states, targets, start, alpha=alpha))


def test_the_number_of_steps_is_drawn_for_each_batch():
    model, (states, targets), noise = ebt(), batch(1, 3, 8), generator(0)
    start = draw(1, 3, 8, stream="start")
    loss = lambda least, most: round(S2(least, noise=0.0, most=most, spread=1.0, replay=0.0)(
        model, states, targets, generator=noise, start=start).item(), 12)
    assert {loss(1, 3) for _ in range(30)} == {loss(n, n) for n in (1, 2, 3)}


def test_replayed_candidates_continue_where_they_ended():
    recipe, model, replay, noise = replace(PLAIN_S2, replay=0.5), ebt(), Replay(6), generator(0)
    first = batch(4, 3, 8)
    recipe(model, *first, generator=noise, replay=replay)
    start = init_candidates("noise", first[0], generator(0))
    ends = run(model.landscape(first[0]), start, gradient_descent(model.step_size), 3).state.y
    torch.testing.assert_close(replay.parts[2], ends, rtol=0, atol=1e-12)
    again = Replay(6)
    again.load_state_dict(replay.state_dict())
    state = noise.get_state()
    second = draw(4, 3, 8, stream="more"), draw(4, 3, 8, stream="more targets")
    loss = recipe(model, *second, generator=noise, replay=replay)
    assert len(replay) == 6 and torch.equal(replay.parts[0][2:], second[0])  # replayed items are not added
    noise.set_state(state)
    start = init_candidates("noise", second[0], noise)
    joined = [torch.cat(pair) for pair in zip((*second, start), again.draw(2, noise), strict=True)]
    assert_equal(model, loss, loop(model, recipe, *joined))


def test_replayed_candidates_need_no_context():
    recipe, model, replay = replace(PLAIN_S2, replay=1.0), joint(None), Replay(4)
    target, start, more = draw(3, 2, 3, 4)
    recipe(model, None, target, replay=replay, generator=generator(0), start=start)
    assert len(replay.parts) == 2 and torch.equal(replay.parts[0], target)
    drawn = replay.draw(2, generator(1))
    loss = recipe(model, None, more, replay=replay, generator=generator(1), start=start)
    joined = [torch.cat(pair) for pair in zip((more, start), drawn, strict=True)]
    assert_equal(model, loss, loop(model, recipe, None, *joined))


@pytest.mark.parametrize("settings", [
    {"step_conditioning": "context_token"}, {"step_conditioning": "candidate_token"},
    {"step_conditioning": "adaln"}, {"vocabulary": 9}, {"action_dim": 3}, "joint", "joint without observations",
    {"vocabulary": 9, "step_conditioning": "context_token"},
], ids=str)
def test_s2_trains_every_kind_of_model(settings):
    model, replay = joint(5 if settings == "joint" else None) if "joint" in settings else ebt(**settings), Replay(8)
    context, target = batch(2, 4, 8)
    if "joint" in settings:
        context, target = draw(2, 6, 5) if settings == "joint" else None, draw(2, 3, 4)
    elif "vocabulary" in settings:
        context, target = torch.randint(9, (2, 2, 4), generator=generator(0))
    elif "action_dim" in settings:
        context = context, draw(2, 4, 3, stream="actions")
    for _ in range(2):
        loss = S2(2, most=4)(model, context, target, generator=generator(0), replay=replay)
        found = learned(model, loss)
    assert all(value.isfinite().all() and value.any() for value in found.values()) and len(replay) == 4


def test_s2_of_tokens_is_the_loop_written_out():
    model, tokens = ebt(vocabulary=9), torch.randint(9, (2, 2, 4), generator=generator(0))
    loss = PLAIN_S2(model, *tokens, generator=generator(0), start=draw(2, 4, 9, stream="start"))
    y, landscape = draw(2, 4, 9, stream="start"), model.landscape(tokens[0])
    for _ in range(3):
        p = y.softmax(-1) if y.requires_grad else y.softmax(-1).requires_grad_()
        (grad,) = torch.autograd.grad(landscape(p).sum(), p, create_graph=True)
        y = p - model.step_size * grad
    assert_equal(model, loss, cross_entropy(y, tokens[1]))


# Contrastive references


def test_contrastive_divergence_written_out():
    model, recipe, (states, targets) = ebt(), Contrastive(3, 0.05, regularise=0.1), batch(2, 4, 8)
    loss, landscape = recipe(model, states, targets, generator=generator(0)), model.landscape(states)
    end = run(landscape, targets, langevin(0.05), 3, generator(0)).state.y
    true, false = landscape(targets), landscape(end)
    assert_equal(model, loss, (true - false).mean() + 0.1 * (true.square() + false.square()).mean())


def test_score_matching_written_out():
    model, (states, targets) = ebt(), batch(2, 4, 8)
    loss = ScoreMatching(0.3)(model, states, targets, generator=generator(0))
    noise = init_candidates("noise", targets, generator(0))
    y = (targets + 0.3 * noise).requires_grad_()
    (grad,) = torch.autograd.grad(model.landscape(states)(y).sum(), y, create_graph=True)
    assert_equal(model, loss, (0.3 * grad - noise).square().mean())


def test_score_matching_of_a_constant_energy_is_one():
    model = ebt()
    torch.nn.init.zeros_(model.head.weight)
    loss = ScoreMatching(0.3)(model, draw(8, 16, 8), draw(8, 16, 8), generator=generator(0))
    assert abs(loss.item() - 1) < 4 * (2 / 1024) ** 0.5


@pytest.mark.parametrize("recipe", [
    Contrastive(), Contrastive(start="noise"), Contrastive(start="zeros", persistent=0.5), ScoreMatching(),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("state_dim", [5, None])
def test_joint_candidates_can_be_trained_contrastively(recipe, state_dim):
    context, losses = draw(2, 6, 5) if state_dim else None, []
    for scale in (1, 2):
        model, replay = joint(state_dim), Replay(8)
        for _ in range(2):
            loss = recipe(model, context, scale * draw(2, 3, 4), generator=generator(0), replay=replay)
        losses.append(loss.item())
        assert all(value.isfinite().all() for value in learned(model, loss).values())
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    "recipe", [S1(), S2(), Contrastive(), Contrastive(persistent=0.5), ScoreMatching()], ids=str)
def test_validation_has_no_graph_and_leaves_the_replay_buffer_alone(recipe):
    model, replay, (states, targets) = ebt(), Replay(8), batch(2, 4, 8)
    loss = recipe(model, states, targets, generator=generator(0), replay=replay)
    assert any(value.any() for value in learned(model, loss).values())
    before = len(replay)
    with torch.no_grad():
        assert not recipe(model, states, targets, generator=generator(0), replay=replay).requires_grad
    assert len(replay) == before


def test_any_loss_can_replace_the_default():
    """For tokens another loss takes the general route, and the default one written out gives the same."""
    model, tokens = ebt(vocabulary=9), torch.randint(9, (2, 2, 4), generator=generator(0))
    plain = lambda y, t, **options: F.cross_entropy(y.flatten(0, 1), t.flatten(), **options)
    loss = lambda **options: S1(2)(model, *tokens, generator=generator(0), **options)
    assert_equal(model, loss(), loss(loss=plain))
    assert loss(loss=lambda y, t: plain(y, t, label_smoothing=0.1)) != loss()
