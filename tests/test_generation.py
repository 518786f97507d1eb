"""Generation: each text of a batch is continued as alone, processed again for each token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ebwm.baselines import Transformer
from ebwm.evaluation.cost import flops
from ebwm.generation import Stream, draw_tokens, gathered, generate_tokens, nucleus, texts_of
from ebwm.sampler import evaluate
from ebwm.settings import generator
from ebwm.stopping import energy_change
from ebwm.walk import Walk
from tests import helpers
from tests.helpers import by_conditioning, by_gradient, close, draw, ebt

V = 13
PROMPTS = [[3], [1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9], [2, 7, 1, 8], [0, 12]]
RANDOM = {"temperature": 0.9, "top_p": 0.95, "seed": 3}
ADAPTIVE = {"samples": 2, "steps": 5, "stop": energy_change(0.2), **RANDOM}


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
    """Assert that each text of a batch equals the reference; return the batch and the texts' lengths."""
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
    return whole, lengths


@pytest.mark.parametrize(("model", "settings", "window"), [
    (lambda: ebt_of(), {"start": "zeros"}, None),
    (lambda: ebt_of(step_conditioning="context_token"), RANDOM, 4),
    (lambda: ebt_of(step_conditioning="adaln"), {"samples": 4, "steps": 3, **RANDOM}, None),
    (lambda: ebt_of(step_conditioning="candidate_token"), ADAPTIVE, 4),
    (lambda: ebt_of(step_conditioning="context_token", gradient="eager"), ADAPTIVE, 4),
    (lambda: ebt_of(step_conditioning="adaln"), ADAPTIVE, 4),
    (lambda: ebt_of(), {"update": "paper", "step_size": 0.1, "start": "last", "steps": 3}, 3),
    (transformer_of, {}, 2), (transformer_of, RANDOM, None), (transformer_of, RANDOM | {"seed": [5, 6, 7, 8]}, 7),
])  # fmt: skip
def test_texts_of_a_batch_are_continued_as_alone(model, settings, window):
    whole, _ = check(model(), count=6, window=window, **settings)
    assert "stop" not in settings or whole.steps.min() < whole.steps.max()
    assert (whole.energy is None) == (model is transformer_of) == (not whole.steps.any())


@pytest.mark.parametrize("make", [ebt_of, transformer_of])
def test_texts_end_at_their_end_tokens(make):
    _, lengths = check(make(), count=12, window=6, end=[0, 4, 7, 11], **RANDOM | {"seed": [5, 6, 7, 8]})
    assert len(lengths) > 1
    found = list(generate_tokens(make(), PROMPTS, 5, end=range(V)))
    assert len(found) == 1 and not found[0].active.any()


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


# Cost


def products(model, prompts, count, kind="linear", **settings):
    """Products of generating some tokens; attention is counted apart, whose products grow with the context."""
    return getattr(flops(lambda: list(generate_tokens(model, prompts, count, **settings))), kind)


@pytest.mark.parametrize("make", [ebt_of, transformer_of])
def test_the_cost_of_a_token_does_not_depend_on_its_position(make):
    later = lambda length: products(make(), [[1] * length], 5) - products(make(), [[1] * length], 1)
    assert later(4) == later(40) > 0
    for kind in ("linear", "attention"):  # with a window, that of attention does not either
        first, second, third = (products(make(), [[1, 2]], count, kind, window=4) for count in (10, 16, 22))
        assert second - first == third - second > 0


def test_texts_that_have_ended_cost_nothing():
    model, prompts = ebt_of(), [[1, 2], [3], [5, 6, 7]]
    first = gathered(generate_tokens(model, prompts, 1, start="zeros")).tokens[:, 0].tolist()
    active = [prompt for prompt, token in zip(prompts, first, strict=True) if token != first[0]]
    costs = [products(model, some, count, start="zeros", end=first[:1])
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


def changed(cache, states):
    """After each append to a cache: what it returned, the states of each context, and the numbers of new ones."""
    texts = [[] for _ in cache.lengths]
    for name, change in CHANGES:
        if name == "append":
            new = [[(7 * len(text) + 3 * row + i) % len(states) for i in range(4)] for row, text in enumerate(texts)]
            texts = [text + some[:n] for text, some, n in zip(texts, new, change, strict=True)]
            yield cache.append(states[torch.tensor(new)[:, : max(change)]], change), [states[t] for t in texts], change
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
                places = (len(text) - new + torch.arange(max(added))).clamp(max=len(text) - 1)
                found = evaluate(model.landscape(text[None]).at_step(step).select(places), y[row])
                close([whole.energy[row], whole.grad[row]], [found.energy, found.grad], atol=1e-10)


@pytest.mark.parametrize("tokens", [True, False])
def test_the_cache_of_a_transformer(tokens):
    """With NaN for contexts that do not grow."""
    model = transformer_of() if tokens else Transformer(12, 2, 2, generator=generator(0)).double()
    states = helpers.draw_tokens(V, 11) if tokens else draw(11, 12)
    for predictions, texts, added in changed(model.cache(3, 9), states):
        for prediction, text, new in zip(predictions, texts, added, strict=True):
            expected = model(text[None])[0, -1] if new else torch.full_like(prediction, torch.nan)
            close(prediction, expected, atol=1e-10, equal_nan=True)


def test_the_cache_of_a_transformer_with_actions():
    model = Transformer(12, 2, 2, action_dim=3, generator=generator(0)).double()
    states, actions, cache = draw(2, 4, 12), draw(2, 4, 3, stream="actions"), model.cache(2, 4)
    cache.append((states[:, :3], actions[:, :3]), lengths=[3, 2])
    found, short = cache.append((states[:, 3:], actions[:, 3:])), [0, 1, 3]
    close(found[0], model((states, actions))[0, -1])
    close(found[1], model((states[1:, short], actions[1:, short]))[0, -1])


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
