"""Baselines: sizes, initial weights, causality, actions, hidden states, diffusion losses and steps."""

import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from ebwm.baselines import GRU, Transformer, recurrent_width
from ebwm.blocks import SIZES, non_embedding_parameters, rotary
from ebwm.diffusion import LEVELS, DiffusionTransformer, _level_features, denoising_error, diffuse, diffusion_loss
from ebwm.settings import generator
from tests.helpers import close, draw, draw_tokens, gradients

needs_diffusers = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
HIGHEST = LEVELS - 1


def make(kind, *shape, **settings):
    return kind(16, *shape, generator=generator(0, "weights"), **settings).double()


def make_diffusion(**settings):
    return make(DiffusionTransformer, 2, 2, **settings)


every_model = pytest.mark.parametrize(("kind", "shape"), [
    (Transformer, (2, 2)), (GRU, (2,)), pytest.param(DiffusionTransformer, (2, 2), marks=needs_diffusers)])


def at(level, *shape):
    return torch.full(shape, level)


def moved(a, b):
    """Whether each position of two predictions [1 s d] differs."""
    return ((a - b).abs().amax((0, 2)) > 1e-12).tolist()


# All models


@pytest.mark.parametrize("name", SIZES)
def test_models_of_one_size_have_equally_many_weights(name):
    kinds = [Transformer, GRU] + [DiffusionTransformer] * bool(find_spec("diffusers"))
    with torch.device("meta"):
        transformer, gru, *diffusion = (non_embedding_parameters(kind.from_size(name)) for kind in kinds)
    assert gru == pytest.approx(transformer, rel=0.01) and diffusion in ([], [transformer])


@every_model
def test_weights_are_drawn_from_the_generator_only(kind, shape):
    before = torch.get_rng_state()
    one, same = (make(kind, *shape, state_dim=5, action_dim=3).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) and one[name].isfinite().all() for name in one)
    xavier = (2 / sum(one["decode.weight"].shape)) ** 0.5
    assert one["decode.weight"].std() == pytest.approx(0.3 * xavier, rel=0.3)


@pytest.mark.parametrize(("kind", "shape"), [(Transformer, (2, 2)), (GRU, (2,))])
def test_token_embeddings_have_their_standard_deviation(kind, shape):
    model = make(kind, *shape, vocabulary=99, embedding_std=0.03)
    assert model.embed.weight.detach().std().item() == pytest.approx(0.03, rel=0.1)


@every_model
def test_predictions_depend_only_on_earlier_states_and_actions(kind, shape):
    model = make(kind, *shape, state_dim=5, action_dim=3)
    states, actions = draw(1, 6, 5), draw(1, 6, 3, stream="actions")
    later, other = states.clone(), actions.clone()
    later[:, 3:] += 1
    other[:, 2:] += 1
    prediction = model((states, actions))
    assert prediction.shape == states.shape
    assert moved(prediction, model((later, actions))) == [False] * 3 + [True] * 3
    assert moved(prediction, model((states, other))) == [False] * 2 + [True] * 4


@every_model
def test_every_weight_gets_a_gradient(kind, shape):
    model, states = make(kind, *shape, state_dim=5, action_dim=3), (draw(2, 4, 5), draw(2, 4, 3, stream="actions"))
    targets = draw(2, 4, 5, stream="targets")
    diffusion = kind is DiffusionTransformer
    loss = diffusion_loss(model, states, targets, generator(0)) if diffusion else F.mse_loss(model(states), targets)
    assert all(grad.isfinite().all() and grad.any() for grad in gradients(model, loss).values())


# GRU


@pytest.mark.parametrize("dim", [16, 128, 1000])
def test_the_width_of_a_gru_is_the_best(dim):
    width, weights = recurrent_width(dim), 7 * dim**2 + 2 * dim
    apart = [abs(6 * w**2 + 7 * w - weights) for w in (width - 1, width, width + 1)]
    assert min(apart) == apart[1]


@pytest.mark.parametrize("tokens", [False, True])
def test_a_gru_continues_from_its_hidden_state(tokens):
    model = make(GRU, 2, vocabulary=11) if tokens else make(GRU, 2, state_dim=5, action_dim=3)
    states = draw_tokens(11, 2, 6) if tokens else (draw(2, 6, 5), draw(2, 6, 3))
    part = lambda index: states[:, index] if tokens else tuple(s[:, index] for s in states)
    whole, (first, hidden) = model(states), model.forward_from(part(slice(3)))
    singles = []
    for position in range(3, 6):
        prediction, hidden = model.step(part(position), hidden)
        singles.append(prediction)
    close(torch.cat([first, torch.stack(singles, 1)], 1), whole)


def test_hidden_gates_of_a_gru_are_initially_orthogonal():
    gru = make(GRU, 2).blocks[0].gru
    for gate in gru.weight_hh_l0.chunk(3):
        close(gate @ gate.mT * 3, torch.eye(len(gate)).double(), atol=1e-5)
    assert not gru.bias_ih_l0.any() and not gru.bias_hh_l0.any()


# Diffusion


@needs_diffusers
def test_diffusion_noise_is_drawn_from_the_generator_only():
    model, states, targets = make_diffusion(), draw(2, 4, 16), draw(2, 4, 16, stream="targets")
    uses = (
        lambda g: diffuse(model, states, 4, g, samples=2, eta=1.0).samples,
        lambda g: diffusion_loss(model, states, targets, g),
        lambda g: denoising_error(model, states, targets, g, draws=1),
    )
    losses = [diffusion_loss(model, states, targets, generator(seed), highest=1.0) for seed in (0, 1)]
    assert torch.equal(*losses), "at the highest level the noise has no effect"
    before = torch.get_rng_state()
    for use in uses:
        assert torch.equal(use(generator(0)), use(generator(0)))
        assert not torch.equal(use(generator(0)), use(generator(1)))
    assert torch.equal(before, torch.get_rng_state())


@needs_diffusers
def test_candidates_do_not_influence_each_other():
    model, levels = make_diffusion(), at(500, 1, 6)
    states, noisy = draw(1, 6, 16), draw(1, 6, 16, stream="noisy")
    context, other = model.encode_context(states), noisy.clone()
    other[:, 2] += 1
    clean = model.denoise(noisy, context, levels)
    assert moved(clean, model.denoise(other, context, levels)) == [i == 2 for i in range(6)]
    both = model.denoise(torch.cat([noisy, other], 1), context, at(500, 1, 12))
    close(both[:, :6], clean)


@needs_diffusers
def test_a_candidate_is_denoised_like_the_last_state_of_a_causal_sequence():
    model, states, noisy = make_diffusion(), draw(1, 6, 16), draw(1, 6, 16, stream="noisy")
    at_highest = model.denoise(noisy, model.encode_context(states), at(HIGHEST, 1, 6))
    context, rotation = model.embed_states(states), rotary(torch.arange(5), model.head_dim, torch.float64)
    level = model.embed_level(_level_features(at(HIGHEST, 1, 1), torch.float64))
    x = torch.cat([context[:, :4], context[:, 3:4] + level], 1)
    for block in model.blocks:
        x = block(x, rotation)
    close(model.read_out(x[:, -1]), at_highest[:, 3])


@needs_diffusers
def test_the_context_is_encoded_once_for_all_samples(monkeypatch):
    model, states = make_diffusion(), draw(2, 5, 16)
    calls, encode = [], model.encode_context
    monkeypatch.setattr(model, "encode_context", lambda states: calls.append(1) or encode(states))
    found = diffuse(model, states, 8, generator(0), samples=3)
    assert len(calls) == 1 and found.samples.shape == (3, 2, 5, 16) and found.evaluations == 24
    close(found.value, found.samples.mean(0))


@needs_diffusers
def test_one_step_is_the_prediction_in_one_pass():
    model, states = make_diffusion(), draw(2, 5, 16)
    drawn = lambda steps: [diffuse(model, states, steps, generator(seed)).value for seed in (0, 1)]
    assert torch.equal(*drawn(1)) and not torch.equal(*drawn(2))
    torch.testing.assert_close(drawn(1)[0], model(states))


@needs_diffusers
@pytest.mark.parametrize("predicts", ["state", "velocity"])
def test_the_output_is_a_state_or_a_velocity(predicts):
    """With an output of zero, the clean state is 0; with a velocity of 0 at level 0, it is the candidate."""
    model = make_diffusion(predicts=predicts)
    model.decode.weight.data.zero_()
    noisy, context = draw(1, 3, 16), model.encode_context(draw(1, 3, 16))
    lowest, highest = (model.denoise(noisy, context, at(level, 1, 3)) for level in (0, HIGHEST))
    close(lowest, noisy if predicts == "velocity" else 0 * noisy, atol=1e-3)
    assert not highest.any()
    states, sign = draw(1, 3, 16), -1 if predicts == "velocity" else 1
    close(make_diffusion(predicts=predicts)(states), sign * make_diffusion()(states))


@needs_diffusers
def test_noise_preserves_the_variance_and_the_highest_level_is_noise_alone():
    model, clean = make_diffusion(), draw(64, 8, 16)
    for level in (0, 400, HIGHEST):
        noisy = model.add_noise(clean, at(level, 64, 8), generator(1))
        assert noisy.var() == pytest.approx(1, abs=5 * (2 / noisy.numel()) ** 0.5)
    assert torch.equal(noisy, model.add_noise(0 * clean, at(HIGHEST, 64, 8), generator(1)))


@needs_diffusers
def test_steps_follow_the_formula_of_ddim():
    """With the noise of a step (eta) as in that paper."""
    model, states = make_diffusion(), draw(1, 3, 16)
    context, plain = model.encode_context(states), diffuse(model, states, 4, generator(0)).value
    y = torch.randn(1, 3, 16, dtype=torch.float64, generator=generator(0))
    for level in (999, 749, 499, 249):
        now, after = model.signal[level], model.signal[level - 250] if level > 250 else torch.tensor(1.0)
        clean = model.denoise(y, context, at(level, 1, 3))
        noise = (y - now.sqrt() * clean) / (1 - now).sqrt()
        y = after.sqrt() * clean + (1 - after).sqrt() * noise
    close(plain, y, atol=1e-5, rtol=1e-5)
    assert not torch.equal(plain, diffuse(model, states, 4, generator(0), eta=1.0).value)


@needs_diffusers
def test_the_denoising_error_is_a_mean_over_draws_and_levels():
    model, states, targets = make_diffusion(), draw(1, 3, 16), draw(1, 3, 16, stream="targets")
    noise, context, errors = generator(0), model.encode_context(states), []
    for level in (100, 900, 100, 900):
        noisy = model.add_noise(targets, at(level, 1, 3), noise)
        errors.append((model.denoise(noisy, context, at(level, 1, 3)) - targets).square().mean(-1))
    found = denoising_error(model, states, targets, generator(0), draws=2, levels=(100, 900))
    close(found, torch.stack(errors).mean(0))


@needs_diffusers
@pytest.mark.parametrize("highest", [0.0, 0.5])
def test_the_loss_is_the_squared_error_of_denoised_targets_at_random_levels(highest):
    model, states, targets, noise = make_diffusion(), draw(8, 3, 16), draw(8, 3, 16, stream="targets"), generator(0)
    found = diffusion_loss(model, states, targets, generator(0), highest)
    above = torch.rand(8, 3, generator=noise, dtype=torch.float64) < highest
    levels = torch.where(above, HIGHEST, torch.randint(LEVELS, (8, 3), generator=noise))
    noisy = model.add_noise(targets, levels, noise)
    close(found, (model.denoise(noisy, model.encode_context(states), levels) - targets).square().mean())
    assert above.any() == (highest > 0) and not above.all()


def test_a_missing_diffusers_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.schedulers.scheduling_ddim", None)
    with pytest.raises(ImportError, match=r"pip install 'ebwm\[diffusion\]'"):
        make_diffusion()
