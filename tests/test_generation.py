"""Prediction: best of N by any score, adaptive steps; generation as alone, processed again for each token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ebwm.baselines import Transformer
from ebwm.evaluation.cost import flops
from ebwm.generation import Stream, draw_tokens, gathered, generate_tokens, nucleus, texts_of
from ebwm.sampler import evaluate, init_candidates, langevin
from ebwm.settings import generator
from ebwm.stopping import budget, energy_change
from ebwm.thinking import CHOICES, best_of, choose, generate, predict, propose
from ebwm.walk import Walk
from tests import helpers
from tests.helpers import by_conditioning, by_gradient, close, draw, ebt

V = 13
PROMPTS = [[3], [1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9], [2, 7, 1, 8], [0, 12]]
RANDOM = {"temperature": 0.9, "top_p": 0.95, "seed": 3}
SEEDED = RANDOM | {"seed": [5, 6, 7, 8]}
ADAPTIVE = {"samples": 2, "steps": 5, "stop": energy_change(0.2), **RANDOM}


# Prediction


@pytest.mark.parametrize("by", [*CHOICES, "oracle"])
def test_choices_select_the_lowest_score_of_each_position(by):
    """Where `drop` is the energy at the start of a walk minus that at its end."""
    model, states, targets, noise = ebt(), draw(2, 4, 8), draw(2, 4, 8, stream="targets"), generator(0)
    found = propose(model, states, steps=3, samples=5, generator=generator(0))
    starts = torch.stack([init_candidates("noise", states, noise) for _ in range(5)])
    drop, error = model.landscape(states).expand(5)(starts) - found.energy, (found.value - targets).square().mean(-1)
    close(found.drop, drop)
    score = {"min": found.energy, "max": -found.energy, "drop": -drop, "oracle": error}[by]
    best, index = choose(found, error if by == "oracle" else by), score.argmin(0)[None]
    assert torch.equal(best.energy, found.energy.gather(0, index)[0])
    assert torch.equal(best.value, found.value.gather(0, index[..., None].expand(1, 2, 4, 8))[0])
    assert (best.evaluations == 5 * (3 + 1)).all()


def test_non_finite_proposals_are_selected_only_if_all_are():
    found = propose(ebt(), draw(1, 3, 8), samples=3, generator=generator(0))
    found.energy[0, 0, 1], found.energy[2, 0, 0] = torch.nan, -torch.inf
    for by in (*CHOICES, torch.zeros(3, 1, 3), torch.zeros(3, 1, 3, dtype=torch.int64)):
        assert choose(found, by).energy.isfinite().all()
    found.energy.fill_(torch.nan)
    assert choose(found).energy.isnan().all()
    assert best_of(torch.tensor([torch.nan, 2.0, -torch.inf, 1.0]), torch.arange(4))[0] == 3


def test_adaptive_predictions_count_the_evaluations_of_each_position():
    limits, states = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]]), draw(2, 4, 8)
    walk = dict(steps=6, samples=2, stop=budget(limits), noise=0.1)
    found, given = (predict(ebt(), states, start=start, generator=generator(0), **walk) for start in ("last", states))
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


def test_generated_states_improve_with_samples():
    one, eight = (generate(ebt(), draw(3, 4, 8), 1, samples=n, generator=generator(0)).energy for n in (1, 8))
    assert (eight <= one).all() and (eight < one).any()


# Texts


def ebt_of(**settings):
    return ebt(12, step_size=1.0, vocabulary=V, **settings)


def transformer_of():
    model = Transformer(12, 2, 2, vocabulary=V, generator=generator(0)).double()
    model.decode.weight.data.mul_(5)
    return model


def predicted(model, text, starts, samples=1, **walk):
    """Logits, energy and steps of the selected walk, and evaluations, of a text alone."""
    tokens = torch.tensor([text])
    if isinstance(model, Transformer):
        return model(tokens)[0, -1], None, 0, 0
    walk, landscape = Walk(**walk), model.landscape(tokens).last().expand(samples)
    start = walk.initial(model.encode(tokens[:, -1:]).expand(samples, -1, -1)[:, 0], starts)
    end = walk.run(model, landscape, start[:, None, None])
    best = int(end.state.energy.argmin())
    energy, steps = end.state.energy[best].item(), int(end.info.accepted[:, best].sum())
    return end.state.y[best, 0, 0], energy, steps, int(end.evaluations.sum())


@torch.no_grad()
def naive(model, prompt, count, window=None, end=(), temperature=0.0, top_p=1.0, seed=0, **settings):
    """The reference: a text alone, processed again for each token."""
    starts, choices = (generator(seed, f"generation/{name}") for name in ("starts", "choices"))
    window, found = window or len(prompt) + count, []
    text = prompt[-window:]
    for _ in range(count):
        logits, energy, steps, evaluations = predicted(model, text, starts, **settings)
        share = torch.rand((), dtype=torch.float64, generator=choices)[None]
        token = int(draw_tokens(logits[None], temperature, top_p, share))
        found.append((token, float(logits.log_softmax(-1)[token]), energy, steps, evaluations))
        if token in end:
            break
        half = window // 2 - 1
        text = [*((text[-half:] if half else []) if len(text) == window else text), token]
    return found


def check(model, prompts=PROMPTS, **settings):
    """Assert that each text of a batch equals the reference; return the batch and the lengths of the texts."""
    whole, lengths = gathered(generate_tokens(model, prompts, **settings)), set()
    for row, prompt in enumerate(prompts):
        seeds = settings.get("seed", 0)
        expected = naive(model, prompt, **settings | {"seed": seeds[row] if isinstance(seeds, list) else seeds})
        count, last = len(expected), expected[-1][0]
        columns = list(zip(*expected, strict=True))
        for index in (0, 3, 4):
            assert whole[index][row, :count].tolist() == list(columns[index])
        assert whole.logp[row, :count].tolist() == pytest.approx(columns[1], abs=1e-9)
        if whole.energy is not None:
            assert whole.energy[row, :count].tolist() == pytest.approx(columns[2], abs=1e-10)
            assert whole.energy[row, count:].isnan().all()
        assert (whole.tokens[row, count:] == last).all()
        assert not whole.evaluations[row, count:].any() and not whole.logp[row, count:].any()
        ended = count - 1 if last in settings.get("end", ()) else whole.tokens.shape[1]
        assert whole.active[row].tolist() == [i < ended for i in range(whole.tokens.shape[1])]
        lengths.add(count)
    assert whole.tokens.shape[1] == max(lengths)
    return whole, lengths


@pytest.mark.parametrize(("model", "settings", "window"), [
    (ebt_of, {"start": "zeros"}, None),
    (lambda: ebt_of(step_conditioning="context_token"), RANDOM, 4),
    (lambda: ebt_of(step_conditioning="adaln"), {"samples": 4, "steps": 3, **RANDOM}, None),
    (lambda: ebt_of(step_conditioning="candidate_token"), ADAPTIVE, 4),
    (lambda: ebt_of(step_conditioning="context_token", gradient="eager"), ADAPTIVE, 4),
    (lambda: ebt_of(step_conditioning="adaln"), ADAPTIVE, 4),
    (ebt_of, {"update": "paper", "step_size": 0.1, "start": "last", "steps": 3}, 3),
    (transformer_of, {}, 2), (transformer_of, RANDOM, None), (transformer_of, SEEDED, 7),
    *((make, {"count": 12, "end": [0, 4, 7, 11], **SEEDED}, 6) for make in (ebt_of, transformer_of)),
    *((make, {"end": range(V)}, None) for make in (ebt_of, transformer_of)),
])  # fmt: skip
def test_texts_of_a_batch_are_continued_as_alone(model, settings, window):
    """Up to an end token, if there is one."""
    whole, lengths = check(model(), **{"count": 6, "window": window, **settings})
    assert (len(lengths) > 1) == ("count" in settings)
    assert "stop" not in settings or whole.steps.min() < whole.steps.max()
    assert (whole.energy is None) == (model is transformer_of) == (not whole.steps.any())


@hypothesis_settings(max_examples=5, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=9), min_size=1, max_size=5),
    window=st.none() | st.integers(2, 9),
    seed=st.integers(0, 99),
    end=st.sets(st.integers(0, V - 1), max_size=3),
)
def test_any_prompts(prompts, window, seed, end):
    settings = dict(count=5, window=window, end=end, temperature=1.0, seed=seed)
    for model in (ebt_of(), transformer_of()):
        check(model, prompts, **settings)


@pytest.mark.parametrize("walk", [{"noise": 0.5}, {"kernel": langevin}], ids=["noise", "langevin"])
def test_noise_of_steps_depends_on_the_seed_alone(walk):
    walks = {"start": "zeros", "stop": energy_change(1e-9), "steps": 3, **walk}
    before = torch.get_rng_state()
    one, again, other = (gathered(generate_tokens(ebt_of(), PROMPTS, 3, seed=seed, **walks)) for seed in (3, 3, 4))
    assert torch.equal(one.energy, again.energy) and not (one.energy == other.energy).any()
    assert torch.equal(before, torch.get_rng_state())


# Cost


def products(model, prompts, count, **settings):
    """Products of generating some tokens; attention is counted apart, whose products grow with the context."""
    return flops(lambda: list(generate_tokens(model, prompts, count, **settings)))


@pytest.mark.parametrize("make", [ebt_of, transformer_of])
def test_the_cost_of_a_token_or_state_does_not_depend_on_its_position(make):
    states = lambda length, count: flops(
        lambda: generate(ebt(), draw(3, length, 8), count, generator=generator(0))).linear
    for cost in (lambda length, count: products(make(), [[1] * length], count).linear, states):
        assert cost(4, 3) - cost(4, 1) == cost(40, 3) - cost(40, 1) > 0
    found = [products(make(), [[1, 2]], count, window=4) for count in (6, 12, 18)]
    for first, second, third in zip(*found, strict=True):  # with a window, that of attention does not either
        assert second - first == third - second > 0


def test_texts_that_have_ended_cost_nothing():
    model, prompts = ebt_of(), [[1, 2], [3], [5, 6, 7]]
    first = gathered(generate_tokens(model, prompts, 1, start="zeros")).tokens[:, 0].tolist()
    active = [prompt for prompt, token in zip(prompts, first, strict=True) if token != first[0]]
    costs = [products(model, some, count, start="zeros", end=first[:1]).linear
             for some in (prompts, active) for count in (4, 1)]
    assert 0 < len(active) < 3 and costs[0] - costs[1] == costs[2] - costs[3] > 0


# Drawing tokens

P = torch.tensor([0.4, 0.05, 0.3, 0.15, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_tokens_follow_the_distribution_with_temperature_and_top_p(temperature, top_p):
    """Chi-square; its mean is the number of degrees of freedom k, its standard deviation sqrt(2 k)."""
    count = 20_000
    uniform = torch.rand(count, dtype=torch.float64, generator=generator(0, "uniform"))
    drawn = draw_tokens(P.log().expand(count, -1), temperature, top_p, uniform).bincount(minlength=5)
    p = nucleus((P.log() / temperature).softmax(0)[None], top_p)[0]
    expected, possible = count * p / p.sum(), p > 0
    assert not drawn[~possible].any()
    square, degrees = ((drawn - expected)[possible] ** 2 / expected[possible]).sum(), int(possible.sum()) - 1
    assert square < degrees + 4 * math.sqrt(2 * degrees)


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    weights=st.lists(st.floats(1e-3, 1), min_size=1, max_size=12),
    mass=st.floats(0.01, 0.99),
)
def test_the_nucleus_is_the_smallest_set_with_the_mass(weights, mass):
    p = torch.tensor(weights, dtype=torch.float64)
    p = p / p.sum()
    found = nucleus(p[None], mass)[0]
    inside = found[found > 0]
    assert torch.equal(inside, p[found > 0]) and inside.sum() >= mass - 1e-12
    assert inside.sum() - inside.min() < mass + 1e-12
    assert (p[found == 0] <= inside.min()).all()
    assert nucleus(P[None], 0.41)[0].nonzero()[:, 0].tolist() == [0, 2]
    assert torch.equal(nucleus(P[None], 1.0)[0], P)


def test_extreme_random_numbers_and_temperatures():
    logits = torch.tensor([[0.0, -math.inf, 1.0, -math.inf]])
    first, last = torch.zeros(1).double(), torch.tensor([1 - 2**-53]).double()
    assert draw_tokens(logits, 1.0, 1.0, first).item() == 0
    assert draw_tokens(logits, 1.0, 1.0, last).item() == 2
    assert draw_tokens(logits, 0.0).item() == 2
    assert draw_tokens(logits, 1e-300, 1.0, first).item() == 2
    assert draw_tokens(1e30 * torch.tensor([[1.0, 2.0]]), 1e-20, 0.5, last).item() == 1


# Caches of unequal lengths

CHANGES = [
    ("append", [4, 1, 2]), ("append", [1, 0, 3]), ("append", [1, 1, 1]), ("rewind", [2, 2, 0]), ("append", [1, 2, 3]),
    ("select", [2, 0]), ("append", [0, 2]), ("rewind", [1, 1]), ("append", [2, 1]),
]  # fmt: skip


def changed(cache, *data):
    """After each append to a cache: what it returned, each context as a batch of one, and the numbers of new states."""
    texts = [[] for _ in cache.lengths]
    context_of = lambda index: data[0][index] if len(data) == 1 else tuple(part[index] for part in data)
    for name, change in CHANGES:
        if name == "append":
            new = [[(7 * len(text) + 3 * row + i) % 11 for i in range(4)] for row, text in enumerate(texts)]
            texts = [text + some[:n] for text, some, n in zip(texts, new, change, strict=True)]
            found = cache.append(context_of(torch.tensor(new)[:, : max(change)]), change)
            yield found, [context_of(torch.tensor([text])) for text in texts], change
        elif name == "rewind":
            cache.rewind(change)
            texts = [text[:n] for text, n in zip(texts, change, strict=True)]
        else:
            cache.select(change)
            texts = [texts[row] for row in change]
        assert cache.lengths.tolist() == [len(text) for text in texts]


@by_conditioning
@by_gradient
def test_candidates_of_a_growing_cache_have_the_energies_and_gradients_of_single_contexts(conditioning, gradient):
    model = ebt(12, step_conditioning=conditioning, gradient=gradient)
    for landscape, texts, added in changed(model.cache(3, 9), draw(11, 12)):
        y = draw(len(texts), max(added), 12, stream="y")
        for step in range(model.conditioned_steps):
            whole = evaluate(landscape.at_step(step), y)
            for last in (landscape.last().at_step(step), landscape.at_step(step).last()):
                close(last(y[:, -1:])[:, 0], whole.energy[:, -1], atol=1e-10)
            for row, (text, new) in enumerate(zip(texts, added, strict=True)):
                places = (text.shape[1] - new + torch.arange(max(added))).clamp(max=text.shape[1] - 1)
                found = evaluate(model.landscape(text).at_step(step).select(places), y[row])
                close([whole.energy[row], whole.grad[row]], [found.energy, found.grad], atol=1e-10)


@pytest.mark.parametrize("data, settings", [
    ([helpers.draw_tokens(V, 11)], {"vocabulary": V}), ([draw(11, 12)], {}),
    ([draw(11, 12), draw(11, 3, stream="actions")], {"action_dim": 3})], ids=["tokens", "states", "actions"])
def test_the_cache_of_a_transformer(data, settings):
    """With NaN for contexts that do not grow."""
    model = Transformer(12, 2, 2, generator=generator(0), **settings).double()
    for predictions, texts, added in changed(model.cache(3, 9), *data):
        for prediction, text, new in zip(predictions, texts, added, strict=True):
            expected = model(text)[0, -1] if new else torch.full_like(prediction, torch.nan)
            close(prediction, expected, atol=1e-10, equal_nan=True)


# Text


class Bytes:
    """Tokens below 256 are bytes, later ones parts of characters."""

    def decode(self, tokens):
        parts = (bytes([token]) if token < 256 else PIECES[token - 256] for token in tokens)
        return b"".join(parts).decode("utf-8", errors="replace")


PIECES = ["né".encode()[:2], "né".encode()[1:], "🙂".encode()[:3], "🙂🙂".encode()[2:], b""]


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255 + len(PIECES)), max_size=30))
def test_streamed_text_is_the_decoded_text(tokens):
    stream = Stream(Bytes())
    shown = [stream(token) for token in tokens]
    assert "".join(shown) + stream.close() == Bytes().decode(tokens)


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_characters_are_returned_as_soon_as_they_are_complete(text):
    stream = Stream(Bytes())
    for character in text:
        *first, last = character.encode()
        assert [stream(byte) for byte in first] == [""] * len(first) and stream(last) == character
    assert stream.close() == ""


def test_texts_of_a_batch_are_streamed():
    model = Transformer(8, 1, 2, vocabulary=256 + len(PIECES), generator=generator(0))
    settings = dict(count=40, temperature=3.0, end=[*range(40)], seed=[1, 2, 3])
    whole = gathered(generate_tokens(model, [[65], [66, 67], [68]], **settings))
    shown = [*texts_of(generate_tokens(model, [[65], [66, 67], [68]], **settings), Bytes())]
    assert len(shown) == whole.tokens.shape[1] + 1 and 0 < (~whole.active[:, -1]).sum()
    for row in range(3):
        text = Bytes().decode(whole.tokens[row][whole.active[row]].tolist())
        assert "".join(new[row] for new in shown) == text
