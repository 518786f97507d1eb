"""Generation: in a batch, with a cache, each text goes on as it would alone, read anew for each token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ebwm.baselines import GRU, Transformer
from ebwm.ebt import EBT, JointEBT
from ebwm.evaluation.cost import flops
from ebwm.generation import Stream, draw_tokens, gathered, generate_tokens, nucleus, texts_of
from ebwm.gradient.vocabulary import walk_of
from ebwm.sampler import evaluate, run
from ebwm.settings import generator
from ebwm.walk import energy_change, run_until

STEPS = ["none", "context_token", "candidate_token", "adaln"]
V = 13
PROMPTS = [[3], [1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9], [2, 7, 1, 8], [0, 12]]
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-10}


def ebt_of(dtype=torch.float64, step="none", gradient="auto", **settings):
    """In float32 with short steps: the longer they are, the more a walk makes of rounding."""
    dim, step_size = (12, 1.0) if dtype == torch.float64 else (32, 0.05)
    shape = dict(step=step, gradient=gradient, step_size=step_size, vocabulary=V)
    return EBT(dim, 2, 2, **shape, generator=generator(0), **settings).to(dtype)


def transformer_of(dtype=torch.float64):
    model = Transformer(12, 2, 2, vocabulary=V, generator=generator(0)).to(dtype)
    model.decode.weight.data.mul_(5)
    return model


@torch.no_grad()
def read_anew(model, prompt, count, window=None, end=(), temperature=0.0, top_p=1.0, seed=0, **thinking):
    """The reference: everything is read again for each token, one text alone."""
    starts, choices = (generator(seed, f"generation/{name}") for name in ("starts", "choices"))
    window, found = window or len(prompt) + count, []
    seen = prompt[-window:]
    for _ in range(count):
        logits, energy, steps, asked = predicted(model, seen, starts, **thinking)
        share = torch.rand((), dtype=torch.float64, generator=choices)[None]
        token = int(draw_tokens(logits[None], temperature, top_p, share))
        found.append((token, float(logits.log_softmax(-1)[token]), energy, steps, asked))
        if token in end:
            break
        kept = window // 2 - 1
        seen = [*((seen[-kept:] if kept else []) if len(seen) == window else seen), token]
    return found


def predicted(model, seen, starts, steps=2, samples=1, stop=None, start="noise", step_size=None,
              update="code"):
    """Logits, energy, steps of the chosen walk, energies asked for."""
    tokens = torch.tensor([seen])
    if isinstance(model, Transformer):
        return model(tokens)[0, -1], None, 0, 0
    landscape = model.landscape(tokens).last().repeat(samples)
    like = model.encode(tokens[:, -1:]).expand(-1, samples, -1)
    begin = {"last": lambda: like, "zeros": lambda: torch.zeros_like(like),
             "noise": lambda: torch.randn(like.shape, dtype=like.dtype, generator=starts)}[start]()
    landscape, kernel = walk_of(model, landscape, update, step_size)
    walk = run_until(landscape, begin, kernel, steps, stop) if stop else run(landscape, begin, kernel, steps)
    best = int(walk.state.energy[0].argmin())
    taken = int(walk.info.accepted[:, 0, best].sum())
    asked = int(walk.info.evaluations.sum()) + samples
    return walk.state.y[0, best], float(walk.state.energy[0, best]), taken, asked


def of_row(whole, row, count):
    """What a batch says of one text, as the reference says it, up to its end."""
    columns = [None if part is None else part[row].tolist() for part in whole[:5]]
    columns[2] = columns[2] or [None] * len(columns[0])
    return list(zip(*columns, strict=True))[:count]


def same(found, expected, close):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one[0], one[3], one[4]) == (other[0], other[3], other[4])
        assert one[1] == pytest.approx(other[1], abs=10 * close)
        assert one[2] is other[2] or one[2] == pytest.approx(other[2], abs=close)


def agree(model, dtype, prompts=PROMPTS, **settings):
    """The batch, each text alone, and each text read anew, are the same."""
    whole = gathered(generate_tokens(model, prompts, **settings))
    lengths = set()
    for row, prompt in enumerate(prompts):
        anew = read_anew(model, prompt, **settings)
        same(of_row(whole, row, len(anew)), anew, CLOSE[dtype])
        alone = gathered(generate_tokens(model, [prompt], **settings))
        same(of_row(alone, 0, None), anew, CLOSE[dtype])
        rest = whole.tokens[row, len(anew) :]
        assert (rest == anew[-1][0]).all() and not whole.evaluations[row, len(anew) :].any()
        assert whole.going[row].tolist() == [i + 1 < len(anew) or anew[-1][0] not in settings.get("end", ())
                                             for i in range(whole.tokens.shape[1])]
        lengths.add(len(anew))
    return whole, lengths


DRAWN = {"temperature": 0.9, "top_p": 0.95, "seed": 3}
WAYS = {
    "greedy": {"start": "zeros"},
    "sampled": DRAWN,
    "best of 4": {"samples": 4, "steps": 3, **DRAWN},
    "adaptive": {"samples": 2, "steps": 5, "stop": energy_change(0.03), **DRAWN},
    "paper": {"update": "paper", "step_size": 0.1, "start": "last", "steps": 3},
}


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("window", [None, 3, 4])
def test_texts_of_any_length_go_on_together_as_they_would_alone(dtype, way, window):
    whole, _ = agree(ebt_of(dtype), dtype, count=6, window=window, **WAYS[way])
    if way == "adaptive":
        assert whole.steps.min() < whole.steps.max()
    if way == "best of 4":
        assert (whole.evaluations == 4 * 4).all()


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("way", [{}, DRAWN], ids=["greedy", "sampled"])
@pytest.mark.parametrize("window", [None, 2, 7])
def test_a_transformers_texts_too(dtype, way, window):
    whole, _ = agree(transformer_of(dtype), dtype, count=10, window=window, **way)
    assert whole.energy is None and not whole.steps.any()


@pytest.mark.parametrize("make", [ebt_of, transformer_of])
def test_texts_end_at_their_end_tokens_and_the_others_go_on(make):
    whole, lengths = agree(make(), torch.float64, count=12, window=6, end=[0, 4, 7, 11], **DRAWN)
    assert len(lengths) > 1
    ended = ~whole.going[:, :-1]
    assert (whole.logp[:, 1:][ended] == 0).all()
    if whole.energy is not None:
        assert whole.energy[:, 1:][ended].isnan().all() and whole.energy[:, 1:][~ended].isfinite().all()


def test_when_all_texts_have_ended_nothing_more_is_asked():
    found = list(generate_tokens(ebt_of(), PROMPTS, 5, end=range(V)))
    assert len(found) == 1 and not found[0].going.any()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_every_kind_of_step_and_gradient(step, gradient):
    settings = dict(count=5, window=4, steps=3, samples=2, stop=energy_change(0.05), **DRAWN)
    agree(ebt_of(step=step, gradient=gradient), torch.float64, **settings)


@hypothesis_settings(max_examples=6, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=9), min_size=1, max_size=5),
    window=st.none() | st.integers(2, 9),
    seed=st.integers(0, 99),
    end=st.sets(st.integers(0, V - 1), max_size=3),
)
def test_whatever_the_prompts_are(prompts, window, seed, end):
    settings = dict(count=5, window=window, end=end, temperature=1.0, seed=seed)
    for model in (ebt_of(), transformer_of()):
        agree(model, torch.float64, prompts, **settings)


def test_seeds_belong_to_texts():
    draw = lambda prompts, seed: gathered(
        generate_tokens(transformer_of(), prompts, 12, temperature=2.0, seed=seed)).tokens
    both = draw([[1], [1]], [5, 6])
    assert torch.equal(both[:1], draw([[1]], 5)) and torch.equal(both[1:], draw([[1]], 6))
    assert not torch.equal(both[0], both[1])
    assert torch.equal(*draw([[1], [1]], 5))


def test_a_token_costs_the_same_wherever_it_stands():
    """But for attention, whose products grow with the context, up to the window."""
    for model, settings in ((ebt_of(), {"steps": 3}), (transformer_of(), {})):
        cost = lambda length, count, m=model, s=settings: flops(
            lambda: list(generate_tokens(m, [[1] * length], count, **s))).linear
        assert cost(4, 5) - cost(4, 1) == cost(40, 5) - cost(40, 1) > 0


def test_a_window_bounds_what_is_kept_and_read():
    model = ebt_of()
    cost = lambda count: flops(lambda: list(generate_tokens(model, [[1, 2]], count, window=4)))
    costs = [cost(count) for count in (10, 16, 22)]
    for kind in ("linear", "attention"):
        first, second, third = (getattr(one, kind) for one in costs)
        assert second - first == third - second > 0


def test_ended_texts_cost_nothing_more():
    model, prompts = ebt_of(), [[1, 2], [3], [5, 6, 7]]
    plain = gathered(generate_tokens(model, prompts, 1, start="zeros")).tokens[:, 0].tolist()
    end = [plain[0]]
    alive = [prompt for prompt, token in zip(prompts, plain, strict=True) if token not in end]
    later = lambda some, end: (lambda cost: cost(4) - cost(1))(
        lambda count: flops(lambda: list(generate_tokens(model, some, count, start="zeros", end=end))).linear)
    assert 0 < len(alive) < 3 and later(prompts, end) == later(alive, end) > 0


# Drawing


P = torch.tensor([0.4, 0.05, 0.3, 0.15, 0.1], dtype=torch.float64)


def expected_at(temperature, top_p):
    p = (P.log() / temperature).softmax(0)
    p = nucleus(p[None], top_p)[0]
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_tokens_are_drawn_by_the_tempered_and_cut_distribution(temperature, top_p):
    """Chi-square; its mean is the number of degrees of freedom k, its standard deviation sqrt(2 k)."""
    count = 20_000
    uniform = torch.rand(count, dtype=torch.float64, generator=generator(0, "uniform"))
    drawn = draw_tokens(P.log().expand(count, -1), temperature, top_p, uniform).bincount(minlength=5)
    expected = count * expected_at(temperature, top_p)
    there = expected > 0
    assert not drawn[~there].any()
    square = ((drawn - expected)[there] ** 2 / expected[there]).sum()
    degrees = int(there.sum()) - 1
    assert square < degrees + 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize(("mass", "kept"), [
    (0.3, [0]), (0.41, [0, 2]), (0.69, [0, 2]), (0.71, [0, 2, 3]), (0.96, [0, 1, 2, 3, 4]),
    (1.0, [0, 1, 2, 3, 4]), (1e-9, [0]),
])
def test_the_nucleus_is_the_smallest_set_with_the_mass(mass, kept):
    found = nucleus(P[None], mass)[0]
    assert found.nonzero()[:, 0].tolist() == kept and torch.equal(found[kept], P[kept])


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    weights=st.lists(st.floats(1e-3, 1), min_size=1, max_size=12),
    mass=st.floats(0.01, 0.99),
)
def test_no_smaller_set_has_the_mass(weights, mass):
    p = torch.tensor(weights, dtype=torch.float64)
    p = p / p.sum()
    kept = nucleus(p[None], mass)[0]
    inside = kept[kept > 0]
    assert inside.sum() >= mass - 1e-12
    assert inside.sum() - inside.min() < mass + 1e-12
    assert p[kept == 0].max(0).values <= inside.min() if (kept == 0).any() else True


def test_the_ends_of_what_is_drawn():
    logits = torch.tensor([[0.0, -math.inf, 1.0, -math.inf]])
    first, last = torch.zeros(1).double(), torch.tensor([1 - 2**-53]).double()
    assert draw_tokens(logits, 1.0, 1.0, first).item() == 0
    assert draw_tokens(logits, 1.0, 1.0, last).item() == 2
    assert draw_tokens(logits, 0.0).item() == 2
    assert draw_tokens(logits, 1e-300, 1.0, first).item() == 2
    assert draw_tokens(1e30 * torch.tensor([[1.0, 2.0]]), 1e-20, 0.5, last).item() == 1


def test_an_ebt_is_drawn_from_the_softmax_of_where_its_walk_ended():
    model, count = ebt_of(), 4_000
    found = gathered(generate_tokens(model, [[1, 2, 3]] * count, 1, temperature=1.0, start="zeros", steps=3,
                                     seed=range(count)))
    with torch.no_grad():
        logits = predicted(model, [1, 2, 3], None, steps=3, start="zeros")[0]
    p = logits.softmax(0)
    drawn = found.tokens[:, 0].bincount(minlength=V) / count
    assert ((drawn - p).abs() < 4.5 * (p * (1 - p) / count).sqrt()).all()
    assert torch.allclose(found.logp[:, 0], p.log()[found.tokens[:, 0]])


def test_log_probabilities_are_those_of_the_untempered_distribution():
    model = transformer_of()
    found = gathered(generate_tokens(model, [[1, 2]], 6, temperature=0.3, top_p=0.5))
    text = torch.tensor([[1, 2, *found.tokens[0].tolist()]])
    with torch.no_grad():
        logp = model(text[:, :-1]).log_softmax(-1).gather(-1, text[:, 1:, None])[0, 1:, 0]
    torch.testing.assert_close(found.logp[0], logp)


# Caches of unequal lengths


def tokens_of(*shape):
    return torch.randint(V, shape, generator=generator(0, "tokens"))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
@pytest.mark.parametrize("tokens", [True, False])
def test_a_candidate_in_a_cache_of_unequal_lengths_sees_what_it_sees_alone(step, gradient, tokens):
    if tokens:
        model, states = ebt_of(step=step, gradient=gradient), tokens_of(3, 7)
    else:
        model = EBT(12, 2, 2, step=step, gradient=gradient, generator=generator(0)).double()
        states = torch.randn(3, 7, 12, dtype=torch.float64, generator=generator(0, "states"))
    cache, lengths = model.cache(3, 7), torch.zeros(3, dtype=torch.long)
    for added in ([4, 1, 2], [1, 0, 3], [1, 1, 1], [0, 2, 0]):
        added, most = torch.tensor(added), max(added)
        new = torch.stack([states[row, (lengths[row] + torch.arange(most)).clamp(max=6)] for row in range(3)])
        landscape = cache.append(new, added)
        lengths = lengths + added
        y = torch.randn(3, int(most), model.candidate_dim, dtype=torch.float64, generator=generator(0, "y"))
        for k in range(model.steps):
            whole, last = evaluate(landscape.at_step(k), y), landscape.last().at_step(k)(y[:, -1:])
            for row in range(3):
                alone = model.landscape(states[row : row + 1, : lengths[row]]).at_step(k)
                for place in range(int(most)):
                    seen = min(int(lengths[row] - added[row]) + place, int(lengths[row]) - 1)
                    one = alone.at(torch.tensor([0]), torch.tensor([seen]))
                    found = evaluate(one, y[row, place][None])
                    torch.testing.assert_close(whole.energy[row, place], found.energy[0], rtol=0, atol=1e-10)
                    torch.testing.assert_close(whole.grad[row, place], found.grad[0], rtol=0, atol=1e-10)
                torch.testing.assert_close(last[row, 0], whole.energy[row, -1], rtol=0, atol=1e-10)
    assert cache.lengths.tolist() == lengths.tolist() == [6, 4, 6]


def test_rows_are_rewound_and_kept_by_themselves():
    model, states = ebt_of(), tokens_of(3, 6)
    y = torch.randn(3, 1, V, dtype=torch.float64, generator=generator(0, "y"))
    alone = lambda text, row: model.landscape(text[None]).last()(y[row : row + 1]).item()
    cache = model.cache(3, 6)
    old = cache.append(states[:, :5], [5, 3, 4])
    cache.rewind([2, 3, 0])
    with pytest.raises(RuntimeError, match="use the one that append gave last"):
        old.last()(y)
    found = cache.append(states[:, 5:]).last()(y)[:, 0]
    texts = [states[0, [0, 1, 5]], states[1, [0, 1, 2, 5]], states[2, 5:]]
    assert found.tolist() == pytest.approx([alone(text, row) for row, text in enumerate(texts)], abs=1e-10)
    cache.keep([2, 0])
    found = cache.append(states[[2, 0], :1]).last()(y[[2, 0]])[:, 0]
    texts = [torch.cat([texts[row], states[row, :1]]) for row in (2, 0)]
    assert found.tolist() == pytest.approx([alone(texts[0], 2), alone(texts[1], 0)], abs=1e-10)
    cache.rewind(1)
    assert cache.lengths.tolist() == [1, 1] and cache.batch == 2 and cache.length == 1


def test_a_landscape_of_other_states_of_the_same_number_is_refused():
    model, y = ebt_of(), torch.zeros(1, 2, V, dtype=torch.float64)
    cache = model.cache(1, 4)
    early = cache.append(tokens_of(1, 2))
    cache.rewind(0)
    cache.append(tokens_of(1, 2) * 0)
    with pytest.raises(RuntimeError, match="use the one that append gave last"):
        early(y)


@pytest.mark.parametrize("tokens", [True, False])
def test_a_transformers_cache_says_what_everything_anew_says(tokens):
    if tokens:
        model, states = transformer_of(), tokens_of(3, 6)
    else:
        model = Transformer(12, 2, 2, generator=generator(0)).double()
        states = torch.randn(3, 6, 12, dtype=torch.float64, generator=generator(0, "states"))
    cache, whole = model.cache(3, 6), model(states)
    for begin, end in ((0, 3), (3, 4), (4, 6)):
        torch.testing.assert_close(cache.append(states[:, begin:end]), whole[:, end - 1], rtol=0, atol=1e-10)
    cache.rewind([0, 2, 6])
    found = cache.append(states[:, :4], [2, 1, 0])
    torch.testing.assert_close(found[0], whole[0, 1], rtol=0, atol=1e-10)
    texts = states[1, [0, 1, 0]][None]
    torch.testing.assert_close(found[1], model(texts)[0, -1], rtol=0, atol=1e-10)
    assert found[2].isnan().all() and cache.lengths.tolist() == [2, 3, 6]
    cache.keep(torch.tensor([1]))
    grown = cache.append(states[1:2, 3:4])
    torch.testing.assert_close(grown[0], model(torch.cat([texts, states[1:2, 3:4]], 1))[0, -1])


@pytest.mark.parametrize("make", [ebt_of, transformer_of])
@pytest.mark.parametrize(("call", "message"), [
    (lambda c: c.append(tokens_of(2, 3), [1, 4]), r"lengths are \[1, 4\]; they must be 2 numbers from 0"),
    (lambda c: c.append(tokens_of(2, 3), [0, 0]), r"lengths are \[0, 0\]; they must be .* not all 0"),
    (lambda c: c.append(tokens_of(2, 3), [1, 2, 3]), r"lengths are \[1, 2, 3\]"),
    (lambda c: c.append(tokens_of(2, 3), [0, 2]), "a context begins with at least 1 state"),
    (lambda c: c.append(tokens_of(3, 3)), "states are for 3 contexts; this cache holds 2"),
    (lambda c: [c.append(tokens_of(2, 4), [4, 2]) for _ in range(2)], "states add 4 to 4; this cache"),
    (lambda c: c.rewind([1, 0]), "length is 1; this cache holds 0 states"),
])
def test_what_a_cache_cannot_hold_is_named(make, call, message):
    with pytest.raises(ValueError, match=message):
        call(make().cache(2, 5))


# Errors


@pytest.mark.parametrize(("settings", "message"), [
    ({"count": 0}, "count is 0; it must be 1 or more"),
    ({"temperature": -0.1}, "temperature is -0.1; it must be 0 or more"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
    ({"top_p": 1.1}, "top_p is 1.1"),
    ({"window": 1}, "window is 1; it must be 2 or more, or None"),
    ({"end": [V]}, "end holds the token 13; the vocabulary has 0 to 12"),
    ({"prompts": [[1], []]}, r"prompts\[1\] is empty; a text begins with 1 token or more"),
    ({"prompts": []}, "prompts are none"),
    ({"prompts": [[1, 13]]}, r"prompts\[0\] holds the token 13; the vocabulary has 0 to 12"),
    ({"prompts": [[-1]]}, r"prompts\[0\] holds the token -1"),
    ({"prompts": [[1.5]]}, r"prompts\[0\] is torch.float32 of shape \[1\]; each prompt must be a list"),
    ({"prompts": [1, 2]}, r"prompts\[0\] is torch.int64 of shape \[\]"),
    ({"seed": [1, 2]}, "seed holds 2 seeds for 1 prompts"),
])
@pytest.mark.parametrize("make", [ebt_of, transformer_of])
def test_what_cannot_be_generated_is_named(make, settings, message):
    with pytest.raises(ValueError, match=message):
        generate_tokens(make(), **{"prompts": [[1]], "count": 2, **settings})


@pytest.mark.parametrize(("settings", "message"), [
    ({"steps": 0}, "steps is 0; it must be 1 or more"),
    ({"samples": 0}, "samples is 0; it must be 1 or more"),
    ({"start": "here"}, "start is 'here'; it must be one of noise"),
    ({"update": "both"}, "update is 'both'; it must be one of code"),
    ({"step_size": -1.0}, "step_size is -1; it must be a number above 0"),
])
def test_what_cannot_be_thought_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        generate_tokens(ebt_of(), [[1]], 2, **settings)


@pytest.mark.parametrize("name", ["samples", "steps", "stop", "step_size", "start", "update"])
def test_a_baseline_does_not_think(name):
    told = f"{name} is 2, but a Transformer predicts in one pass; leave {name} out"
    with pytest.raises(ValueError, match=told):
        generate_tokens(transformer_of(), [[1]], 2, **{name: 2})


@pytest.mark.parametrize("model", [
    GRU(8, 1, vocabulary=V, generator=generator(0)),
    EBT(8, 1, 2, generator=generator(0)),
    Transformer(8, 1, 2, generator=generator(0)),
    JointEBT(8, 1, 2, generator=generator(0)),
], ids=lambda model: type(model).__name__)
def test_models_without_tokens_or_a_cache_are_refused(model):
    told = f"model is a {type(model).__name__} without tokens or without a cache"
    with pytest.raises(ValueError, match=told):
        generate_tokens(model, [[1]], 1)


def test_a_walk_that_diverges_is_told():
    model = ebt_of()
    model.head.weight.data.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"step_size is 0\.5; walks don't end at finite numbers"):
        list(generate_tokens(model, [[1]], 2, step_size=0.5))


# Text


class Bytes:
    def decode(self, tokens):
        return b"".join(bytes([token]) if token < 256 else PIECES[token - 256] for token in tokens).decode(
            "utf-8", errors="replace")


PIECES = ["né".encode()[:2], "né".encode()[1:], "🙂".encode()[:3], "🙂🙂".encode()[2:], b""]


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255 + len(PIECES)), max_size=30))
def test_a_stream_is_the_whole_text_and_never_takes_anything_back(tokens):
    stream = Stream(Bytes())
    shown = [stream(token) for token in tokens]
    assert "".join(shown) + stream.close() == Bytes().decode(tokens)


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_a_character_is_shown_when_it_is_whole_and_not_later(text):
    stream, shown = Stream(Bytes()), ""
    for character in text:
        *first, last = character.encode()
        assert [stream(byte) for byte in first] == [""] * len(first)
        shown += stream(last)
        assert shown.endswith(character)
    assert shown == text and stream.close() == ""


def test_texts_of_a_batch_come_as_they_are_made():
    model = Transformer(8, 1, 2, vocabulary=256 + len(PIECES), generator=generator(0))
    settings = dict(count=40, temperature=3.0, end=[*range(40)], seed=[1, 2, 3])
    whole = gathered(generate_tokens(model, [[65], [66, 67], [68]], **settings))
    shown = [*texts_of(generate_tokens(model, [[65], [66, 67], [68]], **settings), Bytes())]
    assert len(shown) == whole.tokens.shape[1] + 1
    assert 0 < (~whole.going[:, -1]).sum()
    for row in range(3):
        text = Bytes().decode(whole.tokens[row][whole.going[row]].tolist())
        assert "".join(new[row] for new in shown) == text
