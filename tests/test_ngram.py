"""The n-gram model against plain dictionaries, by hand, and as what it must be: a distribution."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.data.ngram import FALLBACK, NGram, discounts


def refusal(act, *arguments, **named) -> str:
    """The message of a refusal, which must be one line."""
    with pytest.raises(ValueError) as caught:
        act(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def array(tokens) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


class Naive:
    """Kneser-Ney with modified discounts in dictionaries, n-grams as tuples, by recursion."""

    def __init__(self, tokens: list[int], order: int, vocabulary: int):
        self.order, self.vocabulary = order, vocabulary
        padded = ["beginning", *tokens]
        self.counts, self.discounts, self.followers = {}, {}, defaultdict(list)
        for n in range(1, order + 1):
            if n == order:
                counts = Counter(tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1))
            else:
                longer = {tuple(padded[i:i + n + 1]) for i in range(len(padded) - n)}
                counts = Counter(gram[1:] for gram in longer)
            self.counts[n] = counts
            kinds = [0, *(sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))]
            self.discounts[n] = self.estimate(kinds)
            for gram, count in counts.items():
                self.followers[gram[:-1], n].append(count)

    @staticmethod
    def estimate(kinds: list[int]) -> list[float]:
        if all(kinds[1:]):
            y = kinds[1] / (kinds[1] + 2 * kinds[2])
            found = [k - (k + 1) * y * kinds[k + 1] / kinds[k] for k in (1, 2, 3)]
            if min(found) > 0:
                return found
        return [0.5, 1, 1.5]

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        if len(context) >= self.order:
            context = context[len(context) - self.order + 1:]
        n = len(context) + 1
        shorter = self.probability(token, context[1:]) if n > 1 else 1 / self.vocabulary
        followers = self.followers.get((context, n), [])
        if not followers:
            return shorter
        taken = sum(self.discounts[n][min(count, 3) - 1] for count in followers)
        count = self.counts[n].get((*context, token), 0)
        own = count - self.discounts[n][min(count, 3) - 1] if count else 0
        return (own + taken * shorter) / sum(followers)


def skewed(seed: int, size: int, vocabulary: int) -> list[int]:
    """Tokens of which some are frequent and follow one another, so that all kinds of counts occur."""
    draws = np.random.default_rng(seed)
    tokens = (draws.geometric(0.3, size) - 1) % vocabulary
    copied = draws.random(size) < 0.5
    for i in range(3, size):
        tokens[i] = (tokens[i - 3] + tokens[i - 1]) % vocabulary if copied[i] else tokens[i]
    return tokens.tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 12), st.integers(10, 300))
def test_it_equals_plain_dictionaries(seed, order, vocabulary, size):
    train, test = skewed(seed, size, vocabulary), skewed(seed + 1, 30, vocabulary)
    naive = Naive(train, order, vocabulary)
    found = NGram.fit(array(train), order, vocabulary).log_probabilities(array(test))
    expected = [math.log(naive.probability(token, tuple(test[:i]))) for i, token in enumerate(test)]
    assert np.allclose(found, expected, rtol=1e-10)


def test_both_the_estimated_discounts_and_the_others_are_met_in_that_test():
    models = [NGram.fit(array(skewed(seed, 300, 12)), 4, 12) for seed in range(5)]
    used = [order.discounts for model in models for order in model.orders]
    assert FALLBACK in used and len({*used}) > 5


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=6, max_size=80), st.lists(st.integers(0, 6), max_size=7),
       st.integers(1, 5))
def test_the_distribution_after_any_context_sums_to_one(tokens, context, order):
    model = NGram.fit(array(tokens), order, vocabulary=7)
    spread = model.distribution(context)
    assert spread.min() > 0 and math.isclose(spread.sum(), 1, rel_tol=1e-12)
    each = [model.log_probabilities(array([*context, token]))[-1] for token in range(7)]
    assert np.allclose(np.exp(each), spread)


def test_a_bigram_model_by_hand():
    """Of 0 1 0 1 0 2: the pairs are 01 01 10 10 02; before 0 stood the beginning and 1; before 1 and 2, 0."""
    model = NGram.fit(array([0, 1, 0, 1, 0, 2]), order=2, vocabulary=4)
    assert [order.discounts for order in model.orders] == [FALLBACK, FALLBACK]
    assert [order.keys.tolist() for order in model.orders] == [[0, 1, 2], [1, 2, 4]]
    left = (1 + 0.5 + 0.5) / 4  # taken from the counts 2, 1, 1 of single tokens
    single = [(2 - 1) / 4 + left / 4, (1 - 0.5) / 4 + left / 4, (1 - 0.5) / 4 + left / 4, left / 4]
    assert np.allclose(model.distribution([]), single)
    after_0 = (1 + 0.5) / 3
    expected = [after_0 * single[0], (2 - 1) / 3 + after_0 * single[1], 0.5 / 3 + after_0 * single[2],
                after_0 * single[3]]
    assert np.allclose(model.distribution([0]), expected)
    assert np.allclose(model.distribution([2]), single) and np.allclose(model.distribution([3]), single)
    assert np.allclose(np.exp(model.log_probabilities(array([1, 0, 2]))),
                       [single[1], (2 - 1) / 2 + (1 / 2) * single[0], expected[2]])


def test_discounts_are_chen_and_goodmans():
    counts = array([1] * 40 + [2] * 15 + [3] * 8 + [4] * 5 + [9] * 7)
    y = 40 / (40 + 2 * 15)
    expected = (1 - 2 * y * 15 / 40, 2 - 3 * y * 8 / 15, 3 - 4 * y * 5 / 8)
    assert discounts(counts) == pytest.approx(expected)
    assert discounts(counts[counts != 4]) == FALLBACK
    assert discounts(array([1] * 40 + [2] * 2 + [3] * 30 + [4])) == FALLBACK, "the second would be negative"


def test_order_one_is_the_smoothed_frequency():
    model = NGram.fit(array([0] * 6 + [1] * 3 + [2]), order=1, vocabulary=5)
    left = (1.5 + 1.5 + 0.5) / 10
    expected = [4.5 / 10 + left / 5, 1.5 / 10 + left / 5, 0.5 / 10 + left / 5, left / 5, left / 5]
    assert np.allclose(model.distribution([0, 1]), expected)


def test_rows_know_nothing_of_one_another():
    model = NGram.fit(array(skewed(0, 400, 6)), order=4, vocabulary=6)
    rows = array(skewed(1, 60, 6)).reshape(2, 3, 10)
    apart = [[model.log_probabilities(row) for row in block] for block in rows]
    assert np.array_equal(model.log_probabilities(rows), apart)
    assert model.log_probabilities(rows[..., :1]).shape == (2, 3, 1)
    assert model.log_probabilities(rows[..., :0]).shape == (2, 3, 0)


def test_large_vocabularies_do_not_overflow():
    train = np.random.default_rng(0).integers(0, 2**31, 500)
    model = NGram.fit(np.concatenate([train, train]), order=5, vocabulary=2**31)
    assert model.log_probabilities(train)[4:].min() > math.log(0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
def test_tokens_of_any_width_give_the_same(dtype):
    tokens = array(skewed(3, 200, 200))
    expected = NGram.fit(tokens, 3, 256).log_probabilities(tokens)
    narrow = tokens.astype(dtype)
    assert np.array_equal(NGram.fit(narrow, 3, 256).log_probabilities(narrow), expected)


def test_on_pythons_documentation_it_is_far_better_than_single_bytes():
    from pydoc_data.topics import topics

    names = sorted(topics)
    train, test = (array([*"\n".join(topics[name] for name in part).encode()])
                   for part in (names[:40], names[60:]))
    single, pairs, five = (-NGram.fit(train, order, 256).log_probabilities(test).mean() / math.log(2)
                           for order in (1, 2, 5))
    assert five < 0.65 * single < single < 5.5 and five < 0.8 * pairs


@pytest.mark.parametrize(("settings", "part"), [
    (dict(order=0), "order=0: it must be 1 or more"),
    (dict(order=10), "tokens: 10 of them are too few; order=10 needs 11"),
    (dict(vocabulary=9), "tokens go from 0 to 9: they must be from 0 to 8 with vocabulary=9"),
])
def test_what_cannot_be_counted_is_refused(settings, part):
    assert part in refusal(NGram.fit, np.arange(10), **dict(order=2, vocabulary=10) | settings)


def test_tokens_outside_the_vocabulary_are_refused():
    model = NGram.fit(np.arange(10), 2, 10)
    assert "tokens go from -1 to 3" in refusal(model.log_probabilities, array([3, -1]))
    assert "tokens go from 10 to 10" in refusal(model.distribution, [10])
