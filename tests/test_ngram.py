"""The n-gram model against plain dictionaries, and as a distribution."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ebwm.data.ngram import FALLBACK, NGram, discounts


def array(tokens) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


class Naive:
    """Kneser-Ney with modified discounts in dictionaries, n-grams as tuples, by recursion."""

    def __init__(self, tokens: list[int], order: int, vocabulary: int):
        self.order, self.vocabulary = order, vocabulary
        self.counts, self.discounts, self.followers = {}, {}, defaultdict(list)
        grams = lambda row, n: [tuple(row[i:i + n]) for i in range(len(row) - n + 1)]
        for n in range(1, order + 1):
            before = [gram[1:] for gram in {*grams(["start", *tokens], n + 1)}]
            counts = self.counts[n] = Counter(grams(tokens, n) if n == order else before)
            self.discounts[n] = self.estimate([0, *(sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))])
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
        rest = count - self.discounts[n][min(count, 3) - 1] if count else 0
        return (rest + taken * shorter) / sum(followers)


def skewed(seed: int, size: int, vocabulary: int) -> list[int]:
    """Tokens with frequent and repeated ones, so that all kinds of counts occur."""
    draws = np.random.default_rng(seed)
    tokens = (draws.geometric(0.3, size) - 1) % vocabulary
    copied = draws.random(size) < 0.5
    for i in range(3, size):
        tokens[i] = (tokens[i - 3] + tokens[i - 1]) % vocabulary if copied[i] else tokens[i]
    return tokens.tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 12), st.integers(10, 300))
@example(0, 4, 12, 300)
def test_it_equals_plain_dictionaries(seed, order, vocabulary, size):
    train, test = skewed(seed, size, vocabulary), skewed(seed + 1, 30, vocabulary)
    naive, model = Naive(train, order, vocabulary), NGram.fit(array(train), order, vocabulary)
    expected = [math.log(naive.probability(token, tuple(test[:i]))) for i, token in enumerate(test)]
    assert np.allclose(model.log_probabilities(array(test)), expected, rtol=1e-10)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=6, max_size=80), st.lists(st.integers(0, 6), max_size=7),
       st.integers(1, 5))
def test_the_distribution_after_any_context_sums_to_one(tokens, context, order):
    model = NGram.fit(array(tokens), order, vocabulary=7)
    spread = model.distribution(context)
    assert spread.min() > 0 and math.isclose(spread.sum(), 1, rel_tol=1e-12)
    each = [model.log_probabilities(array([*context, token]))[-1] for token in range(7)]
    assert np.allclose(np.exp(each), spread)


def test_discounts_are_chen_and_goodmans():
    counts = array([1] * 40 + [2] * 15 + [3] * 8 + [4] * 5 + [9] * 7)
    y = 40 / (40 + 2 * 15)
    assert discounts(counts) == pytest.approx((1 - 2 * y * 15 / 40, 2 - 3 * y * 8 / 15, 3 - 4 * y * 5 / 8))
    assert discounts(counts[counts != 4]) == FALLBACK
    assert discounts(array([1] * 40 + [2] * 2 + [3] * 30 + [4])) == FALLBACK, "the second would be negative"
    used = {order.discounts for order in NGram.fit(array(skewed(0, 300, 12)), 4, 12).orders}
    assert FALLBACK in used and len(used) > 1, "the example above must use both"


def test_rows_are_independent():
    model = NGram.fit(array(skewed(0, 400, 6)), order=4, vocabulary=6)
    rows = array(skewed(1, 60, 6)).reshape(2, 3, 10)
    apart = [[model.log_probabilities(row) for row in block] for block in rows]
    assert np.array_equal(model.log_probabilities(rows), apart)
    assert model.log_probabilities(rows[..., :0]).shape == (2, 3, 0)


def test_large_vocabularies_do_not_overflow_and_any_integer_type_gives_the_same():
    train = np.random.default_rng(0).integers(0, 2**31, 500)
    model = NGram.fit(np.concatenate([train, train]), order=5, vocabulary=2**31)
    assert model.log_probabilities(train)[4:].min() > math.log(0.1)
    tokens = array(skewed(3, 200, 200))
    expected = NGram.fit(tokens, 3, 256).log_probabilities(tokens)
    for narrow in map(tokens.astype, (np.uint8, np.int16, np.uint64)):
        assert np.array_equal(NGram.fit(narrow, 3, 256).log_probabilities(narrow), expected)
