"""Measures of uncertainty: known values, other libraries, plain loops, and coverage by simulation."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from ebwm.evaluation.statistics import wilson
from ebwm.evaluation.uncertainty import auroc, calibration, mode_coverage, rank_correlation, risk_coverage

FEW = st.integers(0, 4).map(float)  # many ties


def rows(least):
    return st.lists(st.tuples(FEW, FEW), min_size=least, max_size=12).map(np.array)


def coverage(draw, truth, rounds):
    """Share of intervals that contain the truth."""
    rng = np.random.default_rng(0)
    return np.mean([found.low <= truth <= found.high for found in (draw(rng, i) for i in range(rounds))])


def test_random_parts_depend_only_on_the_seed():
    x, y = np.random.default_rng(0).normal(0, 1, (2, 30))
    predicted, outcomes = [0.3, 0.6, 0.2, 0.9], [0, 1, 1, 1]
    for measure in (lambda seed: rank_correlation(x, y, seed=seed, resamples=99),
                    lambda seed: calibration(predicted, outcomes, seed=seed, draws=9).by_chance):
        assert measure(1) == measure(1) != measure(2)


@settings(max_examples=60, deadline=None)
@given(rows(3))
def test_rank_correlation_equals_that_of_scipy(pairs):
    x, y = pairs.T
    assume(np.ptp(x) and np.ptp(y))
    found = rank_correlation(x, y, resamples=20)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert -1 <= found.low <= found.high <= 1


def test_the_interval_of_a_rank_correlation_has_nearly_its_coverage():
    """For normal pairs with correlation r, Spearman's coefficient is 6 / pi arcsin(r / 2)."""
    def draw(rng, i):
        x, noise = rng.normal(0, 1, (2, 60))
        return rank_correlation(x, 0.6 * x + 0.8 * noise, seed=i, resamples=199)

    assert 0.90 < coverage(draw, 6 / np.pi * np.arcsin(0.3), rounds=400) < 0.98


@settings(max_examples=60, deadline=None)
@given(rows(2), rows(2))
def test_auroc_is_the_share_of_ordered_pairs_and_is_symmetric(positive, negative):
    ours, other = positive[:, 0], negative[:, 0]
    scores, labels = np.concatenate([ours, other]), np.repeat([True, False], [len(ours), len(other)])
    assume(np.ptp(scores))
    found = auroc(scores, labels)
    assert found.value == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a in ours for b in other]))
    assert 0 <= found.low <= found.value <= found.high <= 1
    mirrored = pytest.approx((1 - found.value, 1 - found.high, 1 - found.low), abs=1e-9)
    assert auroc(-scores, labels) == mirrored and auroc(scores, ~labels) == mirrored


def test_delongs_variance_equals_that_of_plain_loops():
    rng = np.random.default_rng(1)
    ours, other = rng.normal(1, 1, 7).round(1), rng.normal(0, 1, 9).round(1)
    wins = (ours[:, None] > other).astype(float) + (ours[:, None] == other) / 2
    spread = (wins.mean(1).var(ddof=1) / 7 + wins.mean(0).var(ddof=1) / 9) ** 0.5
    found = auroc(np.concatenate([ours, other]), [True] * 7 + [False] * 9)
    value, low, high = (np.log(p / (1 - p)) for p in found)
    reach = 1.959964 * spread / (found.value * (1 - found.value))
    assert (high - value, value - low) == pytest.approx((reach, reach), rel=1e-5)


@pytest.mark.parametrize("shift, sizes", [(0, (30, 30)), (1, (30, 30)), (2, (20, 60)), (3, (30, 30))])
def test_the_interval_of_auroc_has_nearly_its_coverage(shift, sizes):
    labels = np.repeat([True, False], sizes)
    draw = lambda rng, i: auroc(rng.normal(labels * shift, 1), labels)
    assert 0.92 < coverage(draw, stats.norm.cdf(shift / 2**0.5), rounds=500) < 0.99


def test_the_interval_of_separated_groups_has_a_width():
    scores, labels = np.arange(6.0), [0, 0, 0, 1, 1, 1]
    assert auroc(scores, labels) == (1, wilson(3, 3).low, 1)
    assert auroc(-scores, labels) == (0, 0, wilson(0, 3).high)


def test_risk_has_its_known_values():
    found = risk_coverage([4.0, 0.0, 2.0], [0.1, 0.3, 0.2])
    assert found.coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert found.risk.tolist() == pytest.approx([4, 3, 2])
    assert (found.area, found.oracle) == pytest.approx((3, (0 + 1 + 2) / 3))


@settings(max_examples=80, deadline=None)
@given(rows(1), st.randoms())
def test_the_oracle_is_the_best_order_and_only_the_order_matters(pairs, random):
    errors, scores = pairs.T
    found = risk_coverage(errors, scores)
    assert found.risk[-1] == pytest.approx(errors.mean())
    assert risk_coverage(errors, errors).area == pytest.approx(found.oracle) and found.oracle <= found.area + 1e-12
    assert risk_coverage(errors, np.zeros(len(errors))).area == pytest.approx(errors.mean())
    order = random.sample(range(len(errors)), len(errors))
    np.testing.assert_allclose(risk_coverage(errors[order], 3 * scores[order] - 7).risk, found.risk)


def test_ties_have_the_mean_over_their_orders():
    rng = np.random.default_rng(0)
    errors, scores = rng.gamma(1, 1, 12), rng.integers(0, 3, 12).astype(float)
    found = risk_coverage(errors, scores)
    drawn = [risk_coverage(errors, scores + rng.uniform(0, 0.5, 12)) for _ in range(4000)]
    np.testing.assert_allclose(found.risk, np.mean([one.risk for one in drawn], axis=0), atol=0.05)
    areas = [one.area for one in drawn]
    assert abs(found.area - np.mean(areas)) < 4 * np.std(areas) / 4000**0.5


def test_calibration_has_its_known_values():
    found = calibration([0.1, 0.1, 0.1, 0.1, 0.8, 0.9, 1.0], [0, 0, 0, 1, 1, 1, 0], bins=2)
    assert found.counts.tolist() == [4, 3] and found.predicted.tolist() == pytest.approx([0.1, 0.9])
    assert found.observed == (wilson(1, 4), wilson(2, 3))
    assert found.error == pytest.approx((4 * 0.15 + 3 * (0.9 - 2 / 3)) / 7)
    exact = calibration([0.0, 0.0, 1.0], [False, False, True])
    assert exact.error == exact.by_chance == 0
    limits = calibration([0.0, 0.25, 0.5, 0.75, 1.0], [0, 0, 0, 1, 1], bins=4)
    assert limits.counts.tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize("bins", [5, 10])
def test_correct_probabilities_have_the_error_by_chance_and_intervals_nearly_their_coverage(bins):
    rng = np.random.default_rng(0)
    probabilities = rng.random((100, 300))
    found = [calibration(p, rng.random(300) < p, bins, draws=50, seed=i) for i, p in enumerate(probabilities)]
    excess = np.array([one.error - one.by_chance for one in found])
    assert abs(excess.mean()) < 4 * excess.std() / 10
    assert min(one.by_chance for one in found) > 0.01
    inside = [rate.low < p < rate.high for one in found for p, rate in zip(one.predicted, one.observed, strict=True)]
    assert 0.93 < np.mean(inside) < 0.99


def test_samples_are_counted_by_mode_and_the_others_as_rest():
    modes = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = np.array([[0.0, 1.0], [1.0, 0.0], [10.0, -0.5], [np.nan, 0.0], [1.0, np.inf]])
    found = mode_coverage(samples, modes, radius=1.0)
    assert found.modes == (wilson(2, 5), wilson(1, 5), wilson(0, 5)) and found.rest == wilson(2, 5)
    assert mode_coverage(np.ones((3, 1)), np.zeros((1, 1)), radius=50).modes == (wilson(3, 3),)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 30), st.floats(0.05, 0.99))
def test_shares_add_up_to_one_and_equal_those_of_plain_loops(seed, dim, count, part):
    rng = np.random.default_rng(seed)
    samples, modes = rng.normal(0, 2, (count, dim)), rng.normal(0, 2, (3, dim))
    radius = part / 2 * min(np.linalg.norm(modes[i] - modes[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    found = mode_coverage(samples, modes, radius)
    by_hand = [(np.linalg.norm(samples - mode, axis=1) <= radius).mean() for mode in modes]
    assert [one.value for one in (*found.modes, found.rest)] == pytest.approx([*by_hand, 1 - sum(by_hand)])
