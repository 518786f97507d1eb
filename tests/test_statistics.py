"""Statistics: known values, coverage of the intervals by simulation, and the percentages of the EBT paper."""

import csv
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebwm.evaluation import statistics as stats
from ebwm.evaluation.statistics import bootstrap, bootstrap_crossed, paired_difference, student_crossed, wilson

with (Path(__file__).parents[1] / "data" / "ebt_scaling.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
PRINTED = {row["figure"]: float(row["printed_percent"]) for row in ROWS}
PLACES, OTHER_PLACES = np.array([6.2, 12.4, 48.8, 176, 396]), np.array([5.0, 14.0, 40.0, 200.0, 300.0])
EXACT = None  # coverage with which 0.95 is compatible


def published(figure, model):
    chosen = [row for row in ROWS if (row["figure"], row["model"]) == (figure, model)]
    return stats.power_law(*([float(row[axis]) for row in chosen] for axis in "xy"))


def test_published_points_are_complete_and_give_the_printed_percentages():
    counts = {"4a": 14, "4b": 5, "4c": 4, "5a": 5, "5b": 5, "5c": 4, "9a": 5, "9b": 5, "B.3b": 11}
    found = Counter((row["figure"], row["model"]) for row in ROWS)
    assert found == {(figure, model): n for figure, n in counts.items() for model in ("transformer", "ebt")}
    assert {row["read"] for row in ROWS} == {"vector", "picture", "eye"}
    printed = [35.98, 28.46, 5.29, 2.91, 2.92, 0.02, 33.66, 34.28, 51.70]
    assert list(PRINTED.items()) == list(zip(counts, printed, strict=True))
    for figure, percent in PRINTED.items():
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


def crossed(method, seeds, world, rng, i):
    """An interval of values that vary by seed, by item and by both."""
    seed_std, item_std, noise = WORLDS[world]
    by_seed, by_item = rng.normal(1, seed_std, (seeds, 1)), rng.normal(0, item_std, (1, 100))
    values = by_seed + by_item + rng.normal(0, noise, (seeds, 100))
    return method(values, seed=i, resamples=299) if method is bootstrap_crossed else method(values)


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
    **{f"crossed t {seeds} {world}": (partial(crossed, student_crossed, seeds, world), 1, 800, (0.915, 0.985))
       for seeds in (3, 8) for world in WORLDS},
    **{f"crossed bootstrap {seeds} {world}": (partial(crossed, bootstrap_crossed, seeds, world), 1, 300, limits)
       for seeds, world, limits in [(3, "items", (0.92, 0.98)), (3, "both", (0.86, 0.94)),
                                    (3, "seeds", (0.7, 0.82)), (20, "seeds", (0.9, 0.96))]},
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
    for method, argument in ((bootstrap, values[0]), (bootstrap_crossed, values)):
        once, again, other = (method(argument, seed=seed, resamples=99) for seed in (1, 1, 2))
        assert once == again != other


def test_simple_intervals_have_their_known_values():
    assert wilson(8, 10) == (0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 10).low == 0
    assert bootstrap([1.0, 2.0, 4.0, 8.0], np.median).value == 3
    shared = np.array([0.1, 0.4, 0.3])  # cancels in the differences
    assert paired_difference(shared + 0.1, shared) == pytest.approx((0.1, 0.1, 0.1))
    found = student_crossed(np.repeat(shared[:, None], 50, axis=1))  # only seeds vary
    assert found == pytest.approx(paired_difference(shared, np.zeros(3)))
    noise = student_crossed(np.random.default_rng(0).normal(0, 1, (20, 50)))  # neither seeds nor items vary
    assert (noise.high - noise.low) / 2 == pytest.approx(1.96 / 1000**0.5, rel=0.3)
    same = np.full((2, 2), 0.5)
    assert student_crossed(same) == bootstrap_crossed(same, resamples=10) == (0.5, 0.5, 0.5)


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
