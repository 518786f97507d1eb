"""What an EBT is compared with: as large, causal, of explicit generators, one mode or both."""

import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from ebwm import baselines
from ebwm.baselines import (
    GRU,
    LEVELS,
    DiffusionTransformer,
    Transformer,
    denoising_error,
    diffuse,
    diffusion_loss,
)
from ebwm.blocks import SIZES, non_embedding_parameters
from ebwm.settings import generator

needs_diffusers = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
HIGHEST = LEVELS - 1


def make_gru(**settings):
    return GRU(16, 2, generator=generator(0, "weights"), **settings).double()


def make_diffusion(**settings):
    return DiffusionTransformer(16, 2, 2, generator=generator(0, "weights"), **settings).double()


def at(level, *shape):
    return torch.full(shape, level)


# The GRU


@pytest.mark.parametrize("name", SIZES)
def test_a_gru_is_as_large_as_the_transformer(name):
    with torch.device("meta"):
        sizes = [non_embedding_parameters(kind.from_size(name)) for kind in (GRU, Transformer)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


@pytest.mark.parametrize("dim", [16, 128, 1000])
def test_no_other_width_is_nearer(dim):
    width, weights = baselines.recurrent_width(dim), 7 * dim**2 + 2 * dim
    apart = [abs(6 * w**2 + 7 * w - weights) for w in (width - 1, width, width + 1)]
    assert min(apart) == apart[1]


def test_a_gru_is_causal(draw):
    model = make_gru(state_dim=5)
    states, later = draw(2, 6, 5), draw(2, 6, 5)
    later[:, 3:] += 1
    moved = (model(states) - model(later)).abs().amax((0, 2)) > 1e-12
    assert model(states).shape == states.shape
    assert moved.tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("tokens", [False, True])
def test_a_gru_goes_on_from_its_hidden_state(draw, tokens):
    model = make_gru(vocabulary=11) if tokens else make_gru(state_dim=5)
    states = torch.randint(11, (2, 6), generator=generator(0)) if tokens else draw(2, 6, 5)
    whole, (first, hidden) = model(states), model.follow(states[:, :3])
    singles = []
    for state in states[:, 3:].unbind(1):
        prediction, hidden = model.step(state, hidden)
        singles.append(prediction)
    assert whole.shape == (2, 6, 11 if tokens else 5)
    torch.testing.assert_close(torch.cat([first, torch.stack(singles, 1)], 1), whole)


def test_a_gru_learns_tokens():
    model, tokens = GRU(16, 1, vocabulary=5, generator=generator(0)), torch.arange(21).expand(4, -1) % 5
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimiser.step()
    assert torch.equal(model(tokens[:, :-1]).argmax(-1), tokens[:, 1:])


def test_weights_of_a_gru_are_orthogonal_and_quiet():
    gru = make_gru().blocks[0].gru
    for gate in gru.weight_hh_l0.chunk(3):
        one = torch.eye(len(gate), dtype=gate.dtype)
        torch.testing.assert_close(gate @ gate.mT * 3, one, atol=1e-5, rtol=0)
    assert not gru.bias_ih_l0.any() and not gru.bias_hh_l0.any()
    assert all(p.isfinite().all() for p in make_gru().parameters())


# Randomness


@pytest.mark.parametrize("make", [make_gru, pytest.param(make_diffusion, marks=needs_diffusers)])
def test_weights_come_from_the_generator_alone(make):
    before = torch.get_rng_state()
    one, same = make().state_dict(), make().state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)


@needs_diffusers
def test_noise_comes_from_the_generator_alone(draw):
    model, states, targets = make_diffusion(), draw(2, 4, 16), draw(2, 4, 16, stream="targets")
    uses = (
        lambda g: diffuse(model, states, 4, g, samples=2, eta=1.0).samples,
        lambda g: diffusion_loss(model, states, targets, g),
        lambda g: denoising_error(model, states, targets, g, draws=1),
    )
    before = torch.get_rng_state()
    for use in uses:
        assert torch.equal(use(generator(0)), use(generator(0)))
        assert not torch.equal(use(generator(0)), use(generator(1)))
    assert torch.equal(before, torch.get_rng_state())


# The diffusion transformer


@needs_diffusers
@pytest.mark.parametrize("name", SIZES)
def test_a_diffusion_transformer_is_exactly_as_large(name):
    with torch.device("meta"):
        kinds = DiffusionTransformer, Transformer
        sizes = [non_embedding_parameters(kind.from_size(name)) for kind in kinds]
    assert sizes[0] == sizes[1]


@needs_diffusers
def test_a_later_state_and_another_candidate_change_nothing(draw):
    model, levels = make_diffusion(), at(500, 1, 6)
    states, noisy = draw(1, 6, 16), draw(1, 6, 16, stream="noisy")
    later, other = states.clone(), noisy.clone()
    later[:, 3:] += 1
    other[:, 2] += 1
    moved = lambda a, b: ((a - b).abs().amax(-1)[0] > 1e-12).tolist()
    clean = model.denoise(noisy, model.remember(states), levels)
    assert moved(clean, model.denoise(noisy, model.remember(later), levels)) == [False] * 3 + [True] * 3
    assert moved(clean, model.denoise(other, model.remember(states), levels)) == [i == 2 for i in range(6)]
    predictions = [diffuse(model, context, 4, generator(0)).value for context in (states, later)]
    assert moved(*predictions) == [False] * 3 + [True] * 3


@needs_diffusers
def test_the_context_is_computed_once_for_all_samples(draw, monkeypatch):
    model, states = make_diffusion(), draw(2, 5, 16)
    calls, remember = [], model.remember
    monkeypatch.setattr(model, "remember", lambda states: calls.append(1) or remember(states))
    found = diffuse(model, states, 8, generator(0), samples=3)
    assert len(calls) == 1
    assert found.samples.shape == (3, 2, 5, 16) and found.evaluations == 24
    torch.testing.assert_close(found.value, found.samples.mean(0))


@needs_diffusers
def test_samples_side_by_side_are_those_one_by_one(draw):
    model, context, noisy = make_diffusion(), make_diffusion().remember(draw(2, 5, 16)), draw(2, 10, 16)
    together = model.denoise(noisy, context, at(300, 2, 10))
    alone = [model.denoise(part, context, at(300, 2, 5)) for part in noisy.split(5, 1)]
    torch.testing.assert_close(together, torch.cat(alone, 1))


@needs_diffusers
def test_one_step_is_what_the_context_says(draw):
    """At the highest level the noise isn't read: one step is the same for every draw, as a regression's."""
    model, states = make_diffusion(), draw(2, 5, 16)
    drawn = lambda steps: [diffuse(model, states, steps, generator(seed)).value for seed in (0, 1)]
    assert torch.equal(*drawn(1)) and not torch.equal(*drawn(2))


@needs_diffusers
@pytest.mark.parametrize("predicts", ["state", "velocity"])
def test_what_the_last_map_gives_is_what_its_name_says(draw, predicts):
    """With a last map of zeros, a state is zero; no velocity leaves, at level 0, the candidate as it is."""
    model = make_diffusion(predicts=predicts)
    model.decode.weight.data.zero_()
    noisy, context = draw(1, 3, 16), model.remember(draw(1, 3, 16))
    lowest, highest = (model.denoise(noisy, context, at(level, 1, 3)) for level in (0, HIGHEST))
    torch.testing.assert_close(lowest, noisy if predicts == "velocity" else 0 * noisy, atol=1e-3, rtol=0)
    assert not highest.any()


@needs_diffusers
def test_noise_keeps_variance_one_and_ends_as_noise_alone(draw):
    model, clean = make_diffusion(), draw(64, 8, 16)
    for level in (0, 400, HIGHEST):
        noisy = model.add_noise(clean, at(level, 64, 8), generator(1))
        assert noisy.var() == pytest.approx(1, abs=5 * (2 / noisy.numel()) ** 0.5)
    again = model.add_noise(0 * clean, at(HIGHEST, 64, 8), generator(1))
    assert torch.equal(noisy, again)


@needs_diffusers
def test_steps_down_follow_ddim(draw):
    """Our walk, by the paper's formula: with the shares of signal of each level and the next."""
    model, states = make_diffusion(), draw(1, 3, 16)
    context, y = model.remember(states), torch.randn(1, 3, 16, dtype=torch.float64, generator=generator(0))
    for level in (999, 749, 499, 249):
        now, after = model.signal[level], model.signal[level - 250] if level > 250 else torch.tensor(1.0)
        clean = model.denoise(y, context, at(level, 1, 3))
        noise = (y - now.sqrt() * clean) / (1 - now).sqrt()
        y = after.sqrt() * clean + (1 - after).sqrt() * noise
    torch.testing.assert_close(diffuse(model, states, 4, generator(0)).value, y, atol=1e-5, rtol=1e-5)


# Learning


def coin(seed, batch=64, dim=16):
    """States that are each a pattern or its opposite."""
    sides = torch.randint(2, (batch, 5, 1), generator=generator(seed, "coin")) * 2.0 - 1
    tosses = sides * torch.tensor([1.0, -1.0]).repeat(dim // 2)
    return tosses[:, :-1], tosses[:, 1:]


def learn(model, loss, updates=150):
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for update in range(updates):
        optimiser.zero_grad()
        loss(*coin(update)).backward()
        optimiser.step()
    return model


@pytest.fixture(scope="module")
def tossed():
    model, noise = DiffusionTransformer(16, 1, 2, generator=generator(0)), generator(0, "noise")
    return learn(model, lambda states, targets: diffusion_loss(model, states, targets, noise))


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_one_pass_gives_the_mean_of_two_modes(kind):
    make = {"gru": lambda: GRU(16, 1, generator=generator(0)),
            "transformer": lambda: Transformer(16, 1, 2, generator=generator(0))}
    model = make[kind]()
    learn(model, lambda states, targets: F.mse_loss(model(states), targets))
    assert model(coin(10**6)[0]).abs().mean() < 0.25


@needs_diffusers
def test_diffusion_draws_both_modes_and_one_step_gives_their_mean(tossed):
    states, _ = coin(10**6)
    drawn = diffuse(tossed, states, 20, generator(0), samples=4).samples
    side = (drawn * states).mean(-1)
    away = (drawn - side.sign().unsqueeze(-1) * states).square().mean(-1).sqrt()
    assert (away < 0.25).float().mean() > 0.9
    assert 0.25 < (side > 0).float().mean() < 0.75
    assert diffuse(tossed, states, 1, generator(0)).value.abs().mean() < 0.25


@needs_diffusers
def test_what_may_come_is_found_again(tossed):
    states, targets = coin(10**6)
    score = lambda candidates: denoising_error(tossed, states, candidates, generator(0)).mean()
    assert denoising_error(tossed, states, targets, generator(0)).shape == (64, 4)
    assert max(score(targets), score(-targets)) < 0.5 * min(score(0 * targets), score(targets.abs()))


@needs_diffusers
def test_every_weight_of_a_diffusion_transformer_learns(draw):
    model = make_diffusion(state_dim=5)
    diffusion_loss(model, draw(2, 4, 5), draw(2, 4, 5, stream="targets"), generator(0)).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


# Bad input


@pytest.mark.parametrize("settings, message", [
    (dict(dim=0), "dim is 0; it must be 1 or more"),
    (dict(dim=16, depth=0), "depth is 0; it must be 1 or more"),
])
def test_a_gru_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GRU(**settings)


def test_states_of_another_shape_are_named(draw):
    for states, must in ((draw(2, 3, 4), r"\[batch, sequence, 5\]"), (draw(2, 0, 5), "1 state or more")):
        with pytest.raises(ValueError, match=f"states have shape .*; they must be .*{must}"):
            make_gru(state_dim=5)(states)
    with pytest.raises(ValueError, match=r"they must be \[batch, sequence\]"):
        make_gru(vocabulary=5)(draw(2, 3, 5))


@needs_diffusers
@pytest.mark.parametrize("settings, message", [
    (dict(steps=0), "steps is 0; it must divide the 1000 levels: 1, 2, 4, 5, 8, 10"),
    (dict(steps=7), "steps is 7; it must divide"),
    (dict(steps=2, samples=0), "samples is 0; it must be 1 or more"),
    (dict(steps=2, eta=1.5), "eta is 1.5; it must be from 0"),
])
def test_a_prediction_that_cannot_be_made_is_refused(draw, settings, message):
    with pytest.raises(ValueError, match=message):
        diffuse(make_diffusion(), draw(1, 3, 16), **settings, generator=generator(0))


@needs_diffusers
def test_wrong_candidates_levels_and_settings_are_named(draw):
    model = make_diffusion()
    context, noisy = model.remember(draw(2, 3, 16)), draw(2, 3, 16)
    with pytest.raises(ValueError, match=r"candidates have shape \[2, 4, 16\]; .*2, a multiple of 3, 16\]"):
        model.denoise(draw(2, 4, 16), context, at(0, 2, 4))
    with pytest.raises(ValueError, match=r"levels have shape \[2, 1\]; they must be \[2, 3\]"):
        model.denoise(noisy, context, at(0, 2, 1))
    with pytest.raises(ValueError, match="levels are 1000 to 1000; they must be 0 to 999"):
        model.denoise(noisy, context, at(LEVELS, 2, 3))
    with pytest.raises(ValueError, match="highest is 2; it must be a share"):
        diffusion_loss(model, noisy, noisy, generator(0), highest=2)
    with pytest.raises(ValueError, match="draws is 0; it must be 1 or more"):
        denoising_error(model, noisy, noisy, generator(0), draws=0)
    with pytest.raises(ValueError, match="predicts is 'noise'; it must be 'state' or 'velocity'"):
        make_diffusion(predicts="noise")
    with pytest.raises(ValueError, match=r"states have shape \[2, 3, 4\]"):
        model.remember(draw(2, 3, 4))


def test_without_diffusers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.schedulers.scheduling_ddim", None)
    with pytest.raises(ImportError, match=r"pip install 'ebwm\[diffusion\]'"):
        make_diffusion()
