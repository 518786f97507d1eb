"""Statistics and uncertainty: known values, other libraries, coverage by simulation, percentages of the EBT paper."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr, t

from ebwm.evaluation import statistics as stats
from ebwm.evaluation.statistics import (
    bootstrap,
    bootstrap_crossed,
    paired_difference,
    paired_rates,
    student_crossed,
    wilson,
)
from ebwm.evaluation.uncertainty import auroc, calibration, mode_coverage, rank_correlation, risk_coverage

with (Path(__file__).parents[1] / "data" / "ebt_scaling.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
PLACES, OTHER_PLACES = np.array([6.2, 12.4, 48.8, 176, 396]), np.array([5.0, 14.0, 40.0, 200.0, 300.0])
EXACT = None  # coverage with which 0.95 is compatible


def published(figure, model):
    chosen = [row for row in ROWS if (row["figure"], row["model"]) == (figure, model)]
    return stats.power_law(*([float(row[axis]) for row in chosen] for axis in "xy"))


def test_published_points_give_the_printed_percentages():
    printed = {"4a": 35.98, "4b": 28.46, "4c": 5.29, "5a": 2.91, "5b": 2.92, "5c": 0.02, "9a": 33.66, "9b": 34.28,
               "B.3b": 51.70}
    assert {row["figure"]: float(row["printed_percent"]) for row in ROWS} == printed
    for figure, percent in printed.items():
        found = stats.percent_faster(published(figure, "ebt"), published(figure, "transformer"))
        assert found.value == pytest.approx(percent, abs=1) and found.low < found.value < found.high, figure


def scatter(rng, correlation=0, spread=0.02, theirs=PLACES, exponents=(-0.17, -0.13)):
    """Two power laws whose points have correlated errors."""
    shared, single = rng.normal(0, spread, (2, 5))
    errors = shared, correlation * shared + (1 - correlation**2) ** 0.5 * single
    points = zip((PLACES, theirs), exponents, errors, strict=True)
    return [stats.power_law(x, 50 * x**b * np.exp(error)) for x, b, error in points]


def exponent(rng, i):
    x = np.logspace(0, 3, 6)
    return stats.power_law(x, x**-0.2 * np.exp(rng.normal(0, 0.1, 6))).exponent


def next_point(place, rng, i):
    """The prediction interval of a point, relative to the point."""
    interval = scatter(rng)[0].interval(place)
    return stats.Interval(*np.array(interval) / (50 * place**-0.17 * np.exp(rng.normal(0, 0.02))))


def faster(correlation, theirs, rng, i):
    """Fieller's interval is exact for equal x, or a constant factor, and close to exact for others."""
    return stats.percent_faster(*scatter(rng, correlation, theirs=theirs))


def crossed(seeds, world, rng, i):
    """An interval of values that vary by seed, by item and by both."""
    seed_std, item_std, noise = WORLDS[world]
    by_seed, by_item = rng.normal(1, seed_std, (seeds, 1)), rng.normal(0, item_std, (1, 100))
    return student_crossed(by_seed + by_item + rng.normal(0, noise, (seeds, 100)))


def ranks(rng, i):
    x, noise = rng.normal(0, 1, (2, 60))
    return rank_correlation(x, 0.6 * x + 0.8 * noise, seed=i, resamples=199)


def both_tried(rng, i):
    """Two success rates, 0.5 and 0.3, of the same 30 trials, of which about half are equally hard for both."""
    one, other, alike = rng.uniform(size=(3, 30))
    return paired_rates(one < 0.5, np.where(alike < 0.5, one, other) < 0.3)


WORLDS = {"items": (0.003, 0.1, 0.05), "both": (0.02, 0.1, 0.05), "seeds": (0.02, 0, 0.01)}
FASTER = 100 * (0.17 / 0.13 - 1)
COVERAGES = {  # name: an interval from a generator and the number of the round; truth, rounds, limits of the coverage
    "exponent": (exponent, -0.2, 400, EXACT),
    "point inside": (partial(next_point, 48.8), 1, 400, EXACT),
    "point outside": (partial(next_point, 40_000), 1, 400, EXACT),
    **{f"percent faster {i}": (partial(faster, *case), FASTER, 400, EXACT) for i, case in enumerate([
        (-0.5, PLACES), (0.95, PLACES), (0, 7 * PLACES), (0.95, 7 * PLACES), (0.8, OTHER_PLACES)])},
    # for 30 normal values the percentile interval is slightly short: |t| < 1.96 sqrt(29/30) has 0.936
    "bootstrap": (lambda rng, i: bootstrap(rng.normal(2, 1, 30), resamples=999, seed=i), 2, 800, (0.91, 0.962)),
    "three pairs": (lambda rng, i: paired_difference(rng.normal(1, 1, 3), rng.normal(0, 1, 3)), 1, 1_000, EXACT),
    "paired rates": (both_tried, 0.2, 1_000, (0.93, 0.985)),
    # for normal pairs with correlation r, Spearman's coefficient is 6 / pi arcsin(r / 2)
    "rank correlation": (ranks, 6 / np.pi * np.arcsin(0.3), 400, (0.90, 0.98)),
    **{f"crossed t {seeds} {world}": (partial(crossed, seeds, world), 1, 800, (0.915, 0.985))
       for seeds in (3, 8) for world in WORLDS},
}


@pytest.mark.parametrize("name", COVERAGES)
def test_intervals_have_their_coverage(name):
    draw, truth, rounds, limits = COVERAGES[name]
    rng = np.random.default_rng(0)
    hits = sum(bool(found.low < truth < found.high) for found in (draw(rng, i) for i in range(rounds)))
    if limits is EXACT:
        rate = wilson(hits, rounds, level=0.999)
        assert rate.low < 0.95 < rate.high
    else:
        assert limits[0] < hits / rounds < limits[1]


def test_exact_power_laws_are_recovered_and_their_ratio_is_exact():
    law = stats.power_law(PLACES, 5 * PLACES**-0.3)
    assert law.scale == pytest.approx(5) and law.exponent == pytest.approx((-0.3,) * 3)
    np.testing.assert_allclose(law(PLACES), 5 * PLACES**-0.3)
    ratio = stats.percent_faster(law, stats.power_law(PLACES, PLACES**-0.2))
    assert ratio == pytest.approx((50, 50, 50), abs=1e-5)


def test_the_ratio_to_a_slope_that_may_be_zero_is_unbounded():
    ours, theirs = scatter(np.random.default_rng(0), spread=0.5, exponents=(-0.17, -0.001))
    assert theirs.exponent.low < 0 < theirs.exponent.high
    found = stats.percent_faster(ours, theirs)
    assert (found.low, found.high) == (-np.inf, np.inf) and np.isfinite(found.value)


def test_resampling_depends_only_on_the_seed():
    values = np.random.default_rng(0).normal(0, 1, (3, 20))
    for measure in (partial(bootstrap, values[0], resamples=99), partial(bootstrap_crossed, values, resamples=99),
                    partial(rank_correlation, *values[:2], resamples=99),
                    lambda seed: calibration([0.3, 0.6, 0.2, 0.9], [0, 1, 1, 1], seed=seed, draws=9).by_chance):
        assert measure(seed=1) == measure(seed=1) != measure(seed=2)


def test_simple_intervals_have_their_known_values():
    assert wilson(8, 10) == (0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 10).low == 0
    ours, theirs = np.arange(10) < 6, np.arange(10) < 3
    assert paired_rates(ours, theirs) == pytest.approx((0.3, -0.0444, 0.5444), abs=1e-4)
    assert paired_rates(theirs, ours) == pytest.approx((-0.3, -0.5444, 0.0444), abs=1e-4)
    assert paired_rates(ours, ours).high == pytest.approx(1.96 / 12, abs=1e-4)
    assert bootstrap([1.0, 2.0, 4.0, 8.0], np.median).value == 3
    shared = np.array([0.1, 0.4, 0.3])  # cancels in the differences
    assert paired_difference(shared + 0.1, shared) == pytest.approx((0.1, 0.1, 0.1))
    found = student_crossed(np.repeat(shared[:, None], 50, axis=1))  # only seeds vary
    assert found == pytest.approx(paired_difference(shared, np.zeros(3)))
    noise = student_crossed(np.random.default_rng(0).normal(0, 1, (20, 50)))  # neither seeds nor items vary
    assert (noise.high - noise.low) / 2 == pytest.approx(1.96 / 1000**0.5, rel=0.3)
    same = np.full((2, 2), 0.5)
    assert student_crossed(same) == bootstrap_crossed(same, resamples=10) == (0.5, 0.5, 0.5)


def test_the_bootstrap_draws_a_few_resamples_at_once_without_a_change(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    expected = bootstrap(values)
    monkeypatch.setattr(stats, "_MOST_DRAWN", 1000)
    assert bootstrap(values) == expected


def test_the_variance_of_the_crossed_bootstrap_is_the_known_one():
    """For V = a_i + b_j the resampled mean varies by var(a) / seeds + var(b) / items."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (6, 1)), rng.normal(0, 1, (1, 12))
    found = bootstrap_crossed(a + b, resamples=4_000, level=0.68269)
    assert (found.high - found.low) / 2 == pytest.approx((a.var() / 6 + b.var() / 12) ** 0.5, rel=0.06)
    assert found.value == pytest.approx((a + b).mean())


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 200)), min_size=2, max_size=20))
def test_the_mean_share_is_the_ratio_and_scales_with_it(items):
    totals, counts = np.array(items).T
    value, error = stats.ratio_of_sums(totals, counts)
    assert value == pytest.approx(totals.sum() / counts.sum())
    assert stats.ratio_shares(totals, counts).mean() == pytest.approx(value, abs=1e-9)
    assert stats.ratio_of_sums(3 * totals, 2 * counts) == pytest.approx((1.5 * value, 1.5 * error), abs=1e-9)
    assert stats.ratio_shares(totals, np.full(len(items), 8)) == pytest.approx(totals / 8, abs=1e-9)


def test_the_error_of_a_ratio_is_its_standard_deviation_over_repeated_sets():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        counts = rng.integers(5, 200, size=100)
        found.append(stats.ratio_of_sums(3 * counts + rng.normal(0, np.sqrt(counts)), counts))
    values, errors = np.array(found).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


@pytest.mark.parametrize("totals, counts, expected", [
    ([6.0], [2], (3.0, np.nan)), ([1, 1], [0, 0], (np.nan, np.nan)), ([np.inf, 1.0], [2, 2], (np.inf, np.nan))])
def test_ratios_without_a_value_or_an_error_are_nan(totals, counts, expected):
    np.testing.assert_equal(stats.ratio_of_sums(np.array(totals), np.array(counts)), expected)


# Uncertainty

SCORES = st.lists(st.integers(0, 4).map(float), min_size=3, max_size=12)  # many ties


@settings(max_examples=60, deadline=None)
@given(SCORES, st.randoms())
def test_rank_correlation_equals_that_of_scipy(x, random):
    y = random.sample(x, len(x))
    assume(np.ptp(x))
    found = rank_correlation(x, y, resamples=20)
    assert found.value == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert -1 <= found.low <= found.high <= 1


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES)
def test_auroc_is_the_share_of_ordered_pairs_and_is_symmetric(ours, other):
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
    parts = wins.mean(1).var(ddof=1) / 7, wins.mean(0).var(ddof=1) / 9
    spread, freedom = sum(parts) ** 0.5, sum(parts) ** 2 / (parts[0] ** 2 / 6 + parts[1] ** 2 / 8)
    found = auroc(np.concatenate([ours, other]), [True] * 7 + [False] * 9)
    value, low, high = (np.log(p / (1 - p)) for p in found)
    reach = t.ppf(0.975, freedom) * spread / (found.value * (1 - found.value))
    assert (high - value, value - low) == pytest.approx((reach, reach), rel=1e-5)


def test_auroc_of_a_few_positive_items_covers_the_true_value():
    rng, true, covered = np.random.default_rng(0), norm.cdf(2**-0.5), 0
    for _ in range(400):
        found = auroc(np.concatenate([rng.normal(1, 1, 5), rng.normal(0, 1, 100)]), [True] * 5 + [False] * 100)
        covered += found.low <= true <= found.high
    assert covered / 400 > 0.91, "the normal quantile covers it in 0.87"


def test_the_interval_of_separated_groups_has_a_width():
    scores, labels = np.arange(6.0), [0, 0, 0, 1, 1, 1]
    assert auroc(scores, labels) == (1, wilson(3, 3).low, 1)
    assert auroc(-scores, labels) == (0, 0, wilson(0, 3).high)


def test_risk_has_its_known_values():
    found = risk_coverage([4.0, 0.0, 2.0], [0.1, 0.3, 0.2])
    assert found.coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert found.risk.tolist() == pytest.approx([4, 3, 2])
    assert (found.area, found.oracle) == pytest.approx((3, (0 + 1 + 2) / 3))
    assert risk_coverage([4.0, 0.0, 2.0], [4.0, 0.0, 2.0]).area == pytest.approx(found.oracle)


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
    samples = np.array([[0.0, 1.0], [0.6, 0.8], [10.0, -0.5], [np.nan, 0.0], [1.0, np.inf]])
    found = mode_coverage(samples, modes, radius=1.0)
    assert found.modes == (wilson(2, 5), wilson(1, 5), wilson(0, 5)) and found.rest == wilson(2, 5)
    assert mode_coverage(np.ones((3, 1)), np.zeros((1, 1)), radius=50).modes == (wilson(3, 3),)
