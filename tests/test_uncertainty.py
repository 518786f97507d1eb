"""Scores of uncertainty against known answers, other libraries and plain loops; intervals by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.evaluation.statistics import wilson
from ebwm.evaluation.uncertainty import auroc, calibration, mode_coverage, rank_correlation, risk_coverage

FEW = st.integers(0, 4).map(float)  # many ties


def rows(least: int, most: int = 12):
    return st.lists(st.tuples(FEW, FEW), min_size=least, max_size=most).map(np.array)


# Rank correlation


def test_what_rises_has_rank_correlation_one():
    x = np.array([3.0, 1.0, 2.0, 10.0])
    assert rank_correlation(x, x**3).value == pytest.approx(1)
    assert rank_correlation(x, -np.exp(x)).value == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]).value == pytest.approx(0.8)


@settings(max_examples=60, deadline=None)
@given(rows(3))
def test_rank_correlation_is_scipys(pairs):
    from scipy import stats

    x, y = pairs.T
    if np.ptp(x) and np.ptp(y):
        found = rank_correlation(x, y, resamples=20)
        assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert -1 <= found.low <= found.high <= 1


def test_the_interval_of_a_rank_correlation_covers_it_nearly_as_often_as_it_says():
    """Of normal pairs with correlation r Spearman's is 6 / pi arcsin(r / 2)."""
    rng, rounds, truth = np.random.default_rng(0), 400, 6 / np.pi * np.arcsin(0.3)
    covered = 0
    for i in range(rounds):
        x, noise = rng.normal(0, 1, (2, 60))
        found = rank_correlation(x, 0.6 * x + 0.8 * noise, seed=i, resamples=199)
        covered += found.low <= truth <= found.high
    assert 0.90 < covered / rounds < 0.98


def test_the_interval_is_of_its_seed_alone():
    x, y = np.random.default_rng(0).normal(0, 1, (2, 30))
    once, again, other = (rank_correlation(x, y, seed=seed, resamples=99) for seed in (1, 1, 2))
    assert once == again != other


# Separation


@settings(max_examples=60, deadline=None)
@given(rows(2), rows(2))
def test_auroc_is_the_share_of_pairs_in_order(positive, negative):
    ours, other = positive[:, 0], negative[:, 0]
    scores, labels = np.concatenate([ours, other]), np.repeat([True, False], [len(ours), len(other)])
    if np.ptp(scores) == 0:
        return
    by_pair = np.mean([(a > b) + (a == b) / 2 for a in ours for b in other])
    found = auroc(scores, labels)
    assert found.value == pytest.approx(by_pair)
    assert 0 <= found.low <= found.value <= found.high <= 1
    turned = auroc(-scores, labels)
    assert turned == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low), abs=1e-9)
    assert auroc(scores, ~labels) == pytest.approx(turned, abs=1e-9)


def test_auroc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 1, 200).round(1), rng.random(200) < 0.3
    assert auroc(scores, labels).value == pytest.approx(roc_auc_score(labels, scores))


def test_delongs_spread_is_that_of_plain_loops():
    rng = np.random.default_rng(1)
    ours, other = rng.normal(1, 1, 7).round(1), rng.normal(0, 1, 9).round(1)
    wins = (ours[:, None] > other).astype(float) + (ours[:, None] == other) / 2
    spread = (wins.mean(1).var(ddof=1) / 7 + wins.mean(0).var(ddof=1) / 9) ** 0.5
    found = auroc(np.concatenate([ours, other]), [True] * 7 + [False] * 9)
    logits = [np.log(p / (1 - p)) for p in found]
    reach = 1.959964 * spread / (found.value * (1 - found.value))
    assert logits[2] - logits[0] == pytest.approx(reach, rel=1e-5)
    assert logits[0] - logits[1] == pytest.approx(reach, rel=1e-5)


@pytest.mark.parametrize(("shift", "sizes"), [(0, (30, 30)), (1, (30, 30)), (2, (20, 60)), (3, (30, 30))])
def test_the_interval_of_auroc_covers_it_nearly_as_often_as_it_says(shift, sizes):
    from scipy import stats

    rng, rounds, truth = np.random.default_rng(0), 500, stats.norm.cdf(shift / 2**0.5)
    labels, covered = np.repeat([True, False], sizes), 0
    for _ in range(rounds):
        found = auroc(rng.normal(labels * shift, 1), labels)
        covered += found.low <= truth <= found.high
    assert 0.92 < covered / rounds < 0.99


def test_what_never_overlaps_is_not_certain():
    found = auroc([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0, 0, 0, 1, 1, 1])
    assert found == (1, wilson(3, 3).low, 1)
    assert auroc([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [0, 0, 0, 1, 1, 1]) == (0, 0, wilson(0, 3).high)


# Selective risk


def test_risk_and_areas_have_their_known_values():
    found = risk_coverage([4.0, 0.0, 2.0], [0.1, 0.3, 0.2])
    assert found.coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert found.risk.tolist() == pytest.approx([4, 3, 2])
    assert found.area == pytest.approx(3) and found.oracle == pytest.approx((0 + 1 + 2) / 3)


def test_one_item_has_one_risk():
    found = risk_coverage([2.0], [0.0])
    assert (found.coverage.tolist(), found.risk.tolist(), found.area, found.oracle) == ([1], [2], 2, 2)


@settings(max_examples=80, deadline=None)
@given(rows(1))
def test_no_order_beats_the_oracle_and_the_end_is_the_mean(pairs):
    errors, scores = pairs.T
    found = risk_coverage(errors, scores)
    assert found.risk[-1] == pytest.approx(errors.mean())
    assert found.oracle <= found.area + 1e-12
    assert risk_coverage(errors, errors).area == pytest.approx(found.oracle)
    assert risk_coverage(errors, np.zeros(len(errors))).area == pytest.approx(errors.mean())
    assert risk_coverage(errors, 3 * scores - 7).area == pytest.approx(found.area)


def test_ties_are_worth_the_mean_over_their_orders():
    rng = np.random.default_rng(0)
    errors, scores = rng.gamma(1, 1, 12), rng.integers(0, 3, 12).astype(float)
    found = risk_coverage(errors, scores)
    drawn = [risk_coverage(errors, scores + rng.uniform(0, 0.5, 12)) for _ in range(4000)]
    np.testing.assert_allclose(found.risk, np.mean([one.risk for one in drawn], axis=0), atol=0.05)
    spread = np.std([one.area for one in drawn])
    assert abs(found.area - np.mean([one.area for one in drawn])) < 4 * spread / 4000**0.5


def test_the_order_of_items_does_not_matter():
    rng = np.random.default_rng(0)
    errors, scores = rng.gamma(1, 1, 30), rng.integers(0, 5, 30).astype(float)
    order = rng.permutation(30)
    mixed = risk_coverage(errors[order], scores[order])
    np.testing.assert_allclose(risk_coverage(errors, scores).risk, mixed.risk)


# Calibration


def test_calibration_has_its_known_values():
    found = calibration([0.1, 0.1, 0.1, 0.1, 0.8, 0.9, 1.0], [0, 0, 0, 1, 1, 1, 0], bins=2)
    assert found.counts.tolist() == [4, 3]
    assert found.predicted.tolist() == pytest.approx([0.1, 0.9])
    assert found.observed == (wilson(1, 4), wilson(2, 3))
    assert found.error == pytest.approx((4 * 0.15 + 3 * (0.9 - 2 / 3)) / 7)


def test_bins_are_closed_below_and_the_last_one_above():
    found = calibration([0.0, 0.25, 0.5, 0.75, 1.0], [0, 0, 0, 1, 1], bins=4)
    assert found.counts.tolist() == [1, 1, 1, 2]
    assert calibration([0.0, 1.0], [0, 1], bins=10).counts.tolist() == [1, 1]


def test_the_certain_and_right_have_no_error():
    found = calibration([0.0, 0.0, 1.0], [False, False, True])
    assert found.error == found.by_chance == 0


@pytest.mark.parametrize("bins", [5, 10])
def test_the_calibrated_have_the_error_of_chance(bins):
    rng = np.random.default_rng(0)
    probabilities = rng.random((100, 300))
    found = [calibration(p, rng.random(300) < p, bins, draws=50, seed=i) for i, p in enumerate(probabilities)]
    excess = np.array([one.error - one.by_chance for one in found])
    assert abs(excess.mean()) < 4 * excess.std() / 10
    assert min(one.by_chance for one in found) > 0.01


def test_the_frequencies_hold_the_prediction_as_often_as_they_say():
    rng, inside = np.random.default_rng(1), []
    for _ in range(100):
        probabilities = rng.random(400)
        found = calibration(probabilities, rng.random(400) < probabilities, draws=1)
        inside += [one.low < p < one.high for p, one in zip(found.predicted, found.observed, strict=True)]
    assert 0.93 < np.mean(inside) < 0.99


def test_chance_is_of_its_seed_alone():
    args = [0.3, 0.6, 0.2, 0.9], [0, 1, 1, 1]
    once, again, other = (calibration(*args, seed=seed, draws=9).by_chance for seed in (1, 1, 2))
    assert once == again != other


# Mode coverage


def test_samples_are_counted_by_mode_and_the_rest_is_shown():
    modes = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = np.array([[0.0, 1.0], [1.0, 0.0], [10.0, -0.5], [5.0, 0.0], [1.0, 1.0]])
    found = mode_coverage(samples, modes, radius=1.0)
    assert found.modes == (wilson(2, 5), wilson(1, 5), wilson(0, 5)) and found.rest == wilson(2, 5)


def test_a_blurred_mean_covers_nothing():
    modes = np.array([[-1.0] * 4, [1.0] * 4])
    found = mode_coverage(np.zeros((50, 4)), modes, radius=1.9)
    assert [one.value for one in (*found.modes, found.rest)] == [0, 0, 1]


def test_what_is_not_finite_is_in_the_rest():
    samples = np.array([[0.0], [np.nan], [np.inf], [-np.inf]])
    found = mode_coverage(samples, np.array([[0.0], [3.0]]), radius=1.0)
    assert [one.value for one in (*found.modes, found.rest)] == [0.25, 0, 0.75]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 30), st.floats(0.05, 2))
def test_the_shares_add_up_to_one(seed, dim, count, part):
    rng = np.random.default_rng(seed)
    samples, modes = rng.normal(0, 2, (count, dim)), rng.normal(0, 2, (3, dim))
    apart = min(np.linalg.norm(modes[i] - modes[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    radius = apart * min(part, 0.99) / 2
    found = mode_coverage(samples, modes, radius)
    assert sum(one.value for one in (*found.modes, found.rest)) == pytest.approx(1)
    by_hand = [(np.linalg.norm(samples - mode, axis=1) <= radius).mean() for mode in modes]
    assert [one.value for one in found.modes] == pytest.approx(by_hand)


def test_one_mode_has_any_radius():
    assert mode_coverage(np.ones((3, 1)), np.zeros((1, 1)), radius=50).modes == (wilson(3, 3),)


ONE = np.zeros((1, 2))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: rank_correlation([1, 2], [1, 2]), r"x has shape \[2\]; it must be a row of 3 numbers or more"),
    (lambda: rank_correlation([1, 2, 3], [1, 2, 3, 4]), "x has 3 values and y 4; items need one of both"),
    (lambda: rank_correlation([1, 2, float("nan")], [1, 2, 3]), "x holds 1 values that are not finite"),
    (lambda: rank_correlation([1, 2, 3], [5, 5, 5]), "y is 5.0 for all 3 items"),
    (lambda: auroc([1, 2, 3], [0, 1, 1]), r"scores has shape \[3\]; it must be a row of 4 numbers or more"),
    (lambda: auroc([1, 1, 1, 1], [0, 0, 1, 1]), "scores is 1.0 for all 4 items"),
    (lambda: auroc([1, 2, 3, 4], [0, 1, 1]), r"positive has shape \[3\]; it must be 4 values"),
    (lambda: auroc([1, 2, 3, 4], [0, 1, 1, 2]), "positive .* each true or false"),
    (lambda: auroc([1, 2, 3, 4], [0, 1, 1, 1]), "positive has 3 of 4 items; it needs 2 of both at least"),
    (lambda: risk_coverage([], []), r"errors has shape \[0\]"),
    (lambda: risk_coverage([1.0], [1.0, 2.0]), "errors has 1 values and uncertainty 2"),
    (lambda: risk_coverage([1.0], [float("inf")]), "uncertainty holds 1 values that are not finite"),
    (lambda: calibration([0.5, 1.2], [0, 1]), "probabilities go from 0.5 to 1.2; they must lie from 0 to 1"),
    (lambda: calibration([0.5, -0.1], [0, 1]), "probabilities go from -0.1 to 0.5"),
    (lambda: calibration([0.5, 0.2], np.array([0, 0.5])), "outcomes .* each true or false"),
    (lambda: calibration([0.5, 0.2], [0]), r"outcomes has shape \[1\]; it must be 2 values"),
    (lambda: calibration([0.5], [1], bins=0), "bins is 0; it must be 1 or more"),
    (lambda: mode_coverage(ONE, np.zeros((1, 3)), 1.0), r"samples have shape \[1, 2\] and modes \[1, 3\]"),
    (lambda: mode_coverage(np.zeros((0, 2)), ONE, 1.0), "0 samples, 1 modes: give one of each"),
    (lambda: mode_coverage(ONE, ONE * np.nan, 1.0), "1 samples, 1 modes: .* all modes finite"),
    (lambda: mode_coverage(ONE, np.array([[0.0, 0.0], [3.0, 4.0]]), 2.5),
     "radius is 2.5; it must be above 0 and less than half of 5, the least distance between modes"),
    (lambda: mode_coverage(ONE, ONE, 0.0), "radius is 0.0; it must be above 0"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
