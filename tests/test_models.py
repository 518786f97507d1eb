"""All models: sizes, initial weights, causality, options; hidden states of a GRU; losses and steps of diffusion."""

import contextlib
import math
import sys

import pytest
import torch
import torch.nn.functional as F

from ebwm.baselines import GRU, Transformer
from ebwm.blocks import SIZES, _rotated, non_embedding_parameters, rotary, rotate
from ebwm.diffusion import LEVELS, DiffusionTransformer, _level_features, denoising_error, diffuse, diffusion_loss
from ebwm.ebt import EBT, EBTOptions
from ebwm.energy import curvature
from ebwm.joint import JointEBT
from ebwm.sampler import gradient_descent, run
from ebwm.settings import generator
from tests.helpers import close, draw, draw_tokens, ebt, gradients

HIGHEST = LEVELS - 1


def make(kind, seed=0, dim=16, **settings):
    """A small model in float64; without its library the test is skipped."""
    if kind is DiffusionTransformer:
        pytest.importorskip("diffusers")
    return kind(dim, 2, *[2] * (kind is not GRU), generator=generator(seed, "weights"), **settings).double()


def make_diffusion(**settings):
    return make(DiffusionTransformer, **settings)


by_baseline = pytest.mark.parametrize("kind", [Transformer, GRU, DiffusionTransformer])
STATES, ACTIONS = draw(1, 6, 5), draw(1, 6, 3, stream="actions")


def at(level, *shape):
    return torch.full(shape, level)


def moved(a, b):
    """Whether each position of two predictions [1 s d] or energies [1 s] differs."""
    return ((a - b).abs()[0].reshape(a.shape[1], -1).amax(1) > 1e-12).tolist()


@pytest.mark.parametrize("name", SIZES)
def test_models_of_one_size_have_equally_many_weights(name):
    """Those of the papers."""
    with torch.device("meta"):
        energy, transformer, gru = (non_embedding_parameters(kind.from_size(name)) for kind in (EBT, Transformer, GRU))
        pytest.importorskip("diffusers")
        diffusion = non_embedding_parameters(DiffusionTransformer.from_size(name))
    assert gru == pytest.approx(transformer, rel=0.01) and diffusion == transformer
    assert energy == pytest.approx(7 * SIZES[name].dim ** 2 * SIZES[name].depth, rel=0.01)
    millions = {"xxs": 6.18, "xs": 12.4, "small": 48.8}
    assert name not in millions or energy / 1e6 == pytest.approx(millions[name], rel=0.02)


@pytest.mark.parametrize("kind", [EBT, JointEBT, Transformer, GRU, DiffusionTransformer])
def test_weights_are_drawn_from_the_generator_only(kind):
    before, settings = torch.get_rng_state(), {"state_dim": 5} | ({} if kind is JointEBT else {"action_dim": 3})
    one, same, other = (make(kind, seed, **settings).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) and one[name].isfinite().all() for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one if one[name].ndim > 1)
    if "decode.weight" in one:
        xavier = (2 / sum(one["decode.weight"].shape)) ** 0.5
        assert one["decode.weight"].std() == pytest.approx(0.3 * xavier, rel=0.3)


@pytest.mark.parametrize("kind", [EBT, Transformer, GRU])
def test_token_embeddings_have_their_standard_deviation(kind):
    model = make(kind, vocabulary=99, embedding_std=0.03)
    tokens = model.tokens if kind is EBT else model.embed
    assert tokens.weight.detach().std().item() == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("kind", [EBT, Transformer, GRU, DiffusionTransformer])
def test_predictions_depend_only_on_earlier_states_and_actions(kind):
    model, candidates = make(kind, state_dim=5, action_dim=3), draw(1, 6, 5, stream="candidates")
    predict = (lambda context: model.landscape(context)(candidates)) if kind is EBT else model
    prediction = predict((STATES, ACTIONS))
    for first in range(6):
        later, other = STATES.clone(), ACTIONS.clone()
        later[:, first], other[:, first] = 7, 7
        expected = [position >= first for position in range(6)]
        assert moved(prediction, predict((later, ACTIONS))) == moved(prediction, predict((STATES, other))) == expected


@by_baseline
def test_every_weight_gets_a_gradient(kind):
    model, states = make(kind, state_dim=5, action_dim=3), (draw(2, 4, 5), draw(2, 4, 3, stream="actions"))
    targets = draw(2, 4, 5, stream="targets")
    diffusion = kind is DiffusionTransformer
    loss = diffusion_loss(model, states, targets, generator(0)) if diffusion else F.mse_loss(model(states), targets)
    assert all(grad.isfinite().all() and grad.any() for grad in gradients(model, loss).values())


# Energy-based models


@pytest.mark.parametrize("kind", ["causal", "joint"])
def test_the_context_is_encoded_once_for_all_steps_selections_and_samples(kind, monkeypatch):
    calls, joint = [], JointEBT(8, 2, 2, rows=4, state_dim=8, generator=generator(0)).double()
    model = ebt() if kind == "causal" else joint
    encode, y = model.encode_context, draw(2, 4, 8, stream="start")
    monkeypatch.setattr(model, "encode_context", lambda *given: calls.append(1) or encode(*given))
    landscape = model.landscape(draw(2, 4, 8))
    run(landscape, y, gradient_descent(0.1), 5)
    landscape.select(torch.tensor([1])).value_and_grad(y[1:] if kind == "joint" else y[:1, 1])
    landscape.expand(3).select(torch.tensor([4]))(y[:1] if kind == "joint" else y[:1, 0])
    assert len(calls) == 1


def test_directions_outside_the_width_have_no_energy(recwarn):
    """A warning says so; latent candidates have no such directions."""
    EBT(16, 1, 2, state_dim=32, candidates="latent")
    assert not recwarn.list
    with pytest.warns(UserWarning, match="16 directions"):
        model = ebt(16, state_dim=32)
    null = torch.linalg.svd(model.embed.weight)[2][16:]
    landscape, y = model.landscape(draw(1, 3, 32)), draw(1, 3, 32, stream="candidates")
    close(landscape(y + 5 * null[0]), landscape(y), atol=1e-10)


@pytest.mark.parametrize("make", [
    lambda: EBT(24, 2, 2, state_dim=3, generator=generator(0)),
    lambda: EBT(24, 2, 2, action_dim=2, candidates="latent", step_conditioning="adaln", generator=generator(0)),
    lambda: EBT(24, 2, 2, vocabulary=40, embedding_std=0.03, generator=generator(0)),
    lambda: JointEBT(24, 2, 2, rows=5, candidate_dim=2, state_dim=3, generator=generator(0)),
    lambda: JointEBT(24, 2, 2, rows=5, generator=generator(0))])
def test_the_default_step_size_is_that_of_the_curvature_or_of_the_gradient_at_tokens(make):
    state = torch.get_rng_state()
    model = make()
    context, y = model.random_example(torch.Generator().manual_seed(1))
    landscape = model.landscape(context)
    if model.tokens is not None:
        expected = math.log(40) / landscape.value_and_grad(y)[1].square().mean().sqrt()
    else:
        start = torch.randn(y.shape, generator=generator(1))
        expected = 1 / curvature(landscape, start, 40, generator(1)).median()
    assert 0.4 < model.step_size.item() / expected.item() < 2.5
    if model.tokens is None and context is not None:
        large = context if isinstance(context, tuple) else 10 * context
        assert model.standard_step_size(large) == model.standard_step_size(large, model.encode(large))
    else:
        with pytest.raises(ValueError, match="y=None") if model.tokens is not None else contextlib.nullcontext():
            model.standard_step_size(context)
    assert torch.equal(torch.get_rng_state(), state)


def test_power_iteration_finds_the_largest_eigenvalue_of_each_hessian():
    landscape, y = ebt(8, state_dim=3).landscape(draw(1, 2, 3)), draw(1, 2, 3, stream="candidates")
    hessian = torch.autograd.functional.hessian(lambda flat: landscape(flat.reshape(y.shape)).sum(), y.flatten())
    largest = [torch.linalg.eigvalsh(hessian[part, part]).abs().max() for part in (slice(3), slice(3, 6))]
    close(curvature(landscape, y, 400, generator(0)).flatten(), torch.stack(largest), rtol=1e-4)
    numbers = torch.tensor([1.0, 2.0])  # items that are single numbers
    close(curvature(lambda y: 1.5 * y.square(), numbers, generator=generator(0)), torch.tensor([3.0, 3.0]))
    assert curvature(lambda y: y.sum(-1), torch.ones(2, 3), generator=generator(0)).tolist() == [0, 0]
    with pytest.raises(ValueError, match="iterations=0: must be at least 1"):
        curvature(landscape, y, 0)


def test_the_step_size_of_a_model_without_storage_is_a_constant():
    with torch.device("meta"):
        assert EBT(8, 1, 2).standard_step_size() == 1.0
    flat = ebt()
    flat.head.weight.data.zero_()
    assert flat.standard_step_size() == 1.0


def test_single_options_replace_those_of_a_group():
    options = EBTOptions(candidates="latent", step_conditioning="adaln", conditioned_steps=5)
    model = EBT(16, 1, 2, state_dim=6, options=options, conditioned_steps=3)
    assert model.latent and model.conditioned_steps == 3 and not model.manual_gradient
    assert EBT(16, 1, 2, conditioned_steps=3).conditioned_steps == 1


# GRU


@pytest.mark.parametrize("tokens", [False, True])
def test_a_gru_continues_from_its_hidden_state(tokens):
    model = make(GRU, vocabulary=11) if tokens else make(GRU, state_dim=5, action_dim=3)
    states = draw_tokens(11, 2, 6) if tokens else (draw(2, 6, 5), draw(2, 6, 3))
    part = lambda index: states[:, index] if tokens else tuple(s[:, index] for s in states)
    whole, (first, hidden) = model(states), model.forward_from(part(slice(3)))
    singles = []
    for position in range(3, 6):
        prediction, hidden = model.step(part(position), hidden)
        singles.append(prediction)
    close(torch.cat([first, torch.stack(singles, 1)], 1), whole)


def test_hidden_gates_of_a_gru_are_initially_orthogonal():
    gru = make(GRU).blocks[0].gru
    for gate in gru.weight_hh_l0.chunk(3):
        close(gate @ gate.mT * 3, torch.eye(len(gate)).double(), atol=1e-5)
    assert not gru.bias_ih_l0.any() and not gru.bias_hh_l0.any()


# Diffusion


def test_a_candidate_is_denoised_like_the_last_state_of_a_causal_sequence():
    """And does not influence others."""
    model, states, noisy = make_diffusion(), draw(1, 6, 16), draw(1, 6, 16, stream="noisy")
    encoded, other = model.encode_context(states), noisy.clone()
    other[:, 2] += 1
    at_highest = model.denoise(noisy, encoded, at(HIGHEST, 1, 6))
    context, rotation = model.embed_states(states), rotary(torch.arange(5), model.head_dim, torch.float64)
    level = model.embed_level(_level_features(at(HIGHEST, 1, 1), torch.float64))
    x = torch.cat([context[:, :4], context[:, 3:4] + level], 1)
    for block in model.blocks:
        x = block(x, rotation)
    close(model.read_out(x[:, -1]), at_highest[:, 3])
    both = model.denoise(torch.cat([noisy, other], 1), encoded, at(500, 1, 12))
    close(both[:, :6], model.denoise(noisy, encoded, at(500, 1, 6)))
    assert moved(both[:, :6], both[:, 6:]) == [i == 2 for i in range(6)]


def test_levels_are_exact_under_autocast():
    """Two high levels of 1000 are equal in bfloat16; losses change by its rounding only."""
    model, noisy, context = make_diffusion().float(), draw(1, 4, 16).float(), draw(1, 4, 16, stream="x").float()
    model.embed_level.apply(lambda part: part.weight.data.mul_(3) if hasattr(part, "weight") else None)
    levels = torch.tensor([[300, 700, 997, 998]])
    expected = model.denoise(noisy, model.encode_context(context), levels)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.denoise(noisy, model.encode_context(context), levels)
        assert model.embed_states(context).dtype == found.dtype == torch.float32
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert not torch.equal(*_level_features(levels[0, 2:], torch.bfloat16))


def test_samples_share_one_context_and_one_step_is_the_prediction_in_one_pass(monkeypatch):
    model, states = make_diffusion(), draw(2, 5, 16)
    drawn = lambda steps: [diffuse(model, states, steps, generator(seed)).value for seed in (0, 1)]
    assert torch.equal(*drawn(1)) and not torch.equal(*drawn(2))
    torch.testing.assert_close(drawn(1)[0], model(states))
    calls, encode = [], model.encode_context
    monkeypatch.setattr(model, "encode_context", lambda states: calls.append(1) or encode(states))
    found = diffuse(model, states, 8, generator(0), samples=3)
    assert len(calls) == 1 and found.samples.shape == (3, 2, 5, 16) and found.evaluations == 24
    close(found.value, found.samples.mean(0))


@pytest.mark.parametrize("predicts", ["state", "velocity"])
def test_the_output_is_a_state_or_a_velocity(predicts):
    """With an output of zero, the clean state is 0; with a velocity of 0 at level 0, it is the candidate."""
    model, states, sign = make_diffusion(predicts=predicts), draw(1, 3, 16), -1 if predicts == "velocity" else 1
    close(model(states), sign * make_diffusion()(states))
    model.decode.weight.data.zero_()
    lowest, highest = (model.denoise(states, model.encode_context(states), at(level, 1, 3)) for level in (0, HIGHEST))
    close(lowest, states if predicts == "velocity" else 0 * states, atol=1e-3)
    assert not highest.any()


def test_noise_preserves_the_variance_and_the_highest_level_is_noise_alone():
    model, clean = make_diffusion(), draw(64, 8, 16)
    for level in (0, 400, HIGHEST):
        noisy = model.add_noise(clean, at(level, 64, 8), generator(1))
        assert noisy.var() == pytest.approx(1, abs=5 * (2 / noisy.numel()) ** 0.5)
    assert torch.equal(noisy, model.add_noise(0 * clean, at(HIGHEST, 64, 8), generator(1)))


def test_steps_follow_the_formula_of_ddim():
    """The noise of a step (eta) is drawn from the generator too."""
    model, states = make_diffusion(), draw(1, 3, 16)
    context, plain = model.encode_context(states), diffuse(model, states, 4, generator(0)).value
    y = torch.randn(1, 3, 16, dtype=torch.float64, generator=generator(0))
    for level in (999, 749, 499, 249):
        now, after = model.signal[level], model.signal[level - 250] if level > 250 else torch.tensor(1.0)
        clean = model.denoise(y, context, at(level, 1, 3))
        noise = (y - now.sqrt() * clean) / (1 - now).sqrt()
        y = after.sqrt() * clean + (1 - after).sqrt() * noise
    close(plain, y, atol=1e-5, rtol=1e-5)
    before, noisy = torch.get_rng_state(), [diffuse(model, states, 4, generator(0), eta=1.0).value for _ in range(2)]
    assert torch.equal(*noisy) and not torch.equal(plain, noisy[0]) and torch.equal(before, torch.get_rng_state())


def test_the_denoising_error_is_a_mean_over_draws_and_levels():
    model, states, targets = make_diffusion(), draw(1, 3, 16), draw(1, 3, 16, stream="targets")
    noise, context, errors = generator(0), model.encode_context(states), []
    for level in (100, 900, 100, 900):
        noisy = model.add_noise(targets, at(level, 1, 3), noise)
        errors.append((model.denoise(noisy, context, at(level, 1, 3)) - targets).square().mean(-1))
    found = denoising_error(model, states, targets, generator(0), draws=2, levels=(100, 900))
    close(found, torch.stack(errors).mean(0))


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
        DiffusionTransformer(16, 2, 2)


def test_the_gradient_of_a_rotation_is_that_of_autograd_to_the_bit():
    x, bar = draw(2, 3, 5, 8).requires_grad_(), draw(2, 3, 5, 8, stream="bar").requires_grad_()
    rotation, found = rotary(torch.arange(5), 8, torch.float64), []
    for turn in (lambda x: rotate(x, rotation), lambda x: _rotated(x, *rotation)):
        (first,) = torch.autograd.grad(turn(x).sin(), x, bar, create_graph=True)
        found.append([turn(x), first, *torch.autograd.grad(first.cos().sum(), (x, bar))])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
    loss = lambda x: rotate(x, rotation).sin().sum()
    (gradient,) = torch.autograd.grad(loss(x), x)
    slope = torch.func.jvp(loss, (x.detach(),), (bar.detach(),))[1]
    close(slope, (gradient * bar).sum())
    close(torch.func.vmap(torch.func.grad(loss))(x.detach()[None]), gradient[None])
