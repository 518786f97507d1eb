"""Intervals with known answers, coverage by simulation, and the papers' percentages from their points."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebwm.evaluation.statistics import (
    bootstrap,
    bootstrap_crossed,
    paired_difference,
    percent_faster,
    power_law,
    ratio_of_sums,
    ratio_shares,
    student_crossed,
    wilson,
)

with (Path(__file__).parents[1] / "data" / "ebt_scaling.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
PRINTED = {row["figure"]: float(row["printed_percent"]) for row in ROWS}
PLACES = np.array([6.2, 12.4, 48.8, 176, 396])


def published(figure, model):
    chosen = [row for row in ROWS if (row["figure"], row["model"]) == (figure, model)]
    return power_law(*([float(row[axis]) for row in chosen] for axis in "xy"))


@pytest.mark.parametrize("figure", PRINTED)
def test_the_papers_points_give_its_percentages_within_one_point(figure):
    found = percent_faster(published(figure, "ebt"), published(figure, "transformer"))
    assert found.value == pytest.approx(PRINTED[figure], abs=1)
    assert found.low < found.value < found.high


def test_the_papers_points_are_all_there():
    counts = {"4a": 14, "4b": 5, "4c": 4, "5a": 5, "5b": 5, "5c": 4, "9a": 5, "9b": 5, "B.3b": 11}
    models = ("transformer", "ebt")
    found = Counter((row["figure"], row["model"]) for row in ROWS)
    assert found == {(figure, model): n for figure, n in counts.items() for model in models}
    assert {row["read"] for row in ROWS} == {"vector", "picture", "eye"}
    printed = [35.98, 28.46, 5.29, 2.91, 2.92, 0.02, 33.66, 34.28, 51.70]
    assert list(PRINTED.items()) == list(zip(counts, printed, strict=True))


def test_a_power_law_is_found_again():
    x = np.array([1.0, 3.0, 10.0, 40.0])
    law = power_law(x, 5 * x**-0.3)
    assert law.scale == pytest.approx(5) and law.exponent.value == pytest.approx(-0.3)
    assert law.exponent.low == pytest.approx(law.exponent.high, abs=1e-9)
    np.testing.assert_allclose(law(x), 5 * x**-0.3)


def test_the_interval_of_an_exponent_covers_it_as_often_as_it_says():
    rng, x, covered, rounds = np.random.default_rng(0), np.logspace(0, 3, 6), 0, 400
    for _ in range(rounds):
        exponent = power_law(x, x**-0.2 * np.exp(rng.normal(0, 0.1, len(x)))).exponent
        covered += exponent.low < -0.2 < exponent.high
    assert wilson(covered, rounds, level=0.999).low < 0.95 < wilson(covered, rounds, level=0.999).high


def test_the_bootstrap_covers_the_mean_nearly_as_often_as_it_says():
    """Of 30 normal values the percentile interval is a little short: |t| < 1.96 sqrt(29/30) covers 0.936."""
    rng, rounds, law = np.random.default_rng(1), 800, 0.936
    intervals = [bootstrap(rng.normal(2, 1, 30), resamples=999, seed=i) for i in range(rounds)]
    covered = sum(interval.low < 2 < interval.high for interval in intervals)
    assert abs(covered / rounds - law) < 3 * (law * (1 - law) / rounds) ** 0.5


def test_the_bootstrap_is_of_its_seed_alone():
    values = np.random.default_rng(0).normal(0, 1, 20)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert bootstrap([1.0, 2.0, 4.0, 8.0], np.median).value == 3


def test_the_interval_of_pairs_covers_as_often_as_it_says_even_of_three():
    rng, rounds = np.random.default_rng(0), 1_000
    found = [paired_difference(rng.normal(1, 1, 3), rng.normal(0, 1, 3)) for _ in range(rounds)]
    covered = wilson(sum(i.low < 1 < i.high for i in found), rounds, level=0.999)
    assert covered.low < 0.95 < covered.high


def test_pairs_are_tighter_than_clouds():
    shared = np.random.default_rng(0).normal(0, 1, 20)
    paired = paired_difference(shared + 0.1, shared)
    assert paired.value == pytest.approx(0.1) and paired.high - paired.low < 1e-9


def test_wilson_has_the_known_limits():
    found = wilson(8, 10)
    assert found.value == 0.8
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 10).low == 0


def scatter(rng, agreement, spread=0.02, places=(PLACES, PLACES), exponents=(-0.17, -0.13)):
    """Two power laws whose points deviate from them together."""
    shared, own = rng.normal(0, spread, (2, 5))
    errors = shared, agreement * shared + (1 - agreement**2) ** 0.5 * own
    return [power_law(x, 50 * x**b * np.exp(e)) for x, b, e in zip(places, exponents, errors, strict=True)]


@pytest.mark.parametrize("agreement", [-0.5, 0, 0.95])
@pytest.mark.parametrize("theirs", [PLACES, 7 * PLACES], ids=["same places", "moved"])
def test_the_interval_of_percent_faster_covers_it_as_often_as_it_says(agreement, theirs):
    """With the same places for both, or a constant factor between them, Fieller's interval is exact."""
    rng, rounds, truth = np.random.default_rng(0), 400, 100 * (0.17 / 0.13 - 1)
    found = [percent_faster(*scatter(rng, agreement, places=(PLACES, theirs))) for _ in range(rounds)]
    covered = wilson(sum(i.low < truth < i.high for i in found), rounds, level=0.999)
    assert covered.low < 0.95 < covered.high


def test_the_interval_of_percent_faster_holds_for_other_places_too():
    rng, rounds, truth = np.random.default_rng(0), 400, 100 * (0.17 / 0.13 - 1)
    places = PLACES, np.array([5.0, 14.0, 40.0, 200.0, 300.0])
    found = [percent_faster(*scatter(rng, 0.8, places=places)) for _ in range(rounds)]
    covered = wilson(sum(i.low < truth < i.high for i in found), rounds, level=0.999)
    assert covered.low < 0.95 < covered.high


def test_what_pairs_share_cancels_in_percent_faster():
    widths = []
    for agreement in (0, 0.95):
        found = [percent_faster(*scatter(np.random.default_rng(i), agreement)) for i in range(20)]
        widths.append(np.median([i.high - i.low for i in found]))
    assert widths[1] < widths[0] / 2


def test_a_ratio_to_a_slope_that_may_be_zero_is_unbounded():
    ours, theirs = scatter(np.random.default_rng(0), 0, spread=0.5, exponents=(-0.17, -0.001))
    assert theirs.exponent.low < 0 < theirs.exponent.high
    found = percent_faster(ours, theirs)
    assert (found.low, found.high) == (-np.inf, np.inf) and np.isfinite(found.value)


def test_lines_without_scatter_have_an_exact_ratio():
    found = percent_faster(power_law(PLACES, 3 * PLACES**-0.3), power_law(PLACES, PLACES**-0.2))
    assert found == pytest.approx((50, 50, 50), abs=1e-5)


@pytest.mark.parametrize("place", [48.8, 40_000])
def test_the_interval_of_one_more_point_holds_it_as_often_as_it_says(place):
    rng, rounds, held = np.random.default_rng(0), 400, 0
    for _ in range(rounds):
        law, _ = scatter(rng, 0)
        interval = law.interval(place)
        held += bool(interval.low < 50 * place**-0.17 * np.exp(rng.normal(0, 0.02)) < interval.high)
    held = wilson(held, rounds, level=0.999)
    assert held.low < 0.95 < held.high


def mixture(rng, seeds, seed_std, item_std, noise):
    by_seed, by_item = rng.normal(1, seed_std, (seeds, 1)), rng.normal(0, item_std, (1, 100))
    return by_seed + by_item + rng.normal(0, noise, (seeds, 100))


WORLDS = {"items": (0.003, 0.1, 0.05), "both": (0.02, 0.1, 0.05), "seeds": (0.02, 0, 0.01)}


@pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))
@pytest.mark.parametrize("seeds", [3, 8])
def test_crossed_t_covers_nearly_as_often_as_it_says(seeds, world):
    rng, rounds = np.random.default_rng(0), 800
    found = [student_crossed(mixture(rng, seeds, *world)) for _ in range(rounds)]
    covered = sum(i.low < 1 < i.high for i in found) / rounds
    assert 0.915 < covered < 0.985


@pytest.mark.parametrize(
    ("seeds", "world", "low", "high"),
    [(3, "items", 0.92, 0.98), (3, "both", 0.86, 0.94), (3, "seeds", 0.7, 0.82), (20, "seeds", 0.9, 0.96)],
)
def test_the_crossed_bootstrap_covers_as_its_page_says(seeds, world, low, high):
    """Of few seeds too seldom, where seeds matter; otherwise nearly as it should."""
    rng, rounds = np.random.default_rng(0), 300
    values = [mixture(rng, seeds, *WORLDS[world]) for _ in range(rounds)]
    found = [bootstrap_crossed(v, seed=i, resamples=299) for i, v in enumerate(values)]
    assert low < sum(i.low < 1 < i.high for i in found) / rounds < high


def test_pooling_is_too_short():
    rng, rounds = np.random.default_rng(0), 200
    found = [bootstrap(mixture(rng, 3, *WORLDS["items"]).ravel(), resamples=299) for _ in range(rounds)]
    assert sum(i.low < 1 < i.high for i in found) / rounds < 0.85


def test_the_crossed_bootstraps_variance_is_the_known_one():
    """Of V = a_i + b_j the resampled mean varies by var(a) / seeds + var(b) / items."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (6, 1)), rng.normal(0, 1, (1, 12))
    found = bootstrap_crossed(a + b, resamples=4_000, level=0.68269)
    assert (found.high - found.low) / 2 == pytest.approx((a.var() / 6 + b.var() / 12) ** 0.5, rel=0.06)
    assert found.value == pytest.approx((a + b).mean())


def test_crossed_t_of_seeds_alone_is_students():
    by_seed, zero = np.array([0.1, 0.4, 0.3]), [0.0, 0.0, 0.0]
    found = student_crossed(np.repeat(by_seed[:, None], 50, axis=1))
    assert found == pytest.approx(paired_difference(by_seed, zero))


def test_what_does_not_vary_has_no_width():
    same = [[0.5, 0.5], [0.5, 0.5]]
    assert student_crossed(same) == bootstrap_crossed(same, resamples=10) == (0.5, 0.5, 0.5)


def test_the_crossed_bootstrap_is_of_its_seed_alone():
    values = np.random.default_rng(0).normal(0, 1, (3, 20))
    once, again, other = (bootstrap_crossed(values, seed=seed, resamples=99) for seed in (1, 1, 2))
    assert once == again != other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([1.0]), r"values has shape \[1\]; it must be a row of 2 numbers or more"),
        (lambda: bootstrap([1.0, float("nan")]), "values holds 1 values that are not finite"),
        (lambda: paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]), "ours has 2 values and theirs 3"),
        (lambda: wilson(3, 2), "successes is 3, trials is 2"),
        (lambda: wilson(0, 0), "successes is 0, trials is 0"),
        (lambda: bootstrap_crossed(np.ones(2)), r"values have shape \[2\]; it must be \[seeds, items\]"),
        (lambda: student_crossed([[1.0, 2.0]]), r"values have shape \[1, 2\]; it must be \[seeds, items\]"),
        (lambda: student_crossed([[1.0, 2.0], [3.0, float("inf")]]), "values hold 1 numbers that are not"),
        (lambda: power_law([2, 2, 2], [1, 2, 3]), "x is 2.0 at all 3 points"),
        (lambda: power_law([1, 2, 3], [1, 2, 3]).interval(0), "x is 0; it must be above 0"),
        (lambda: percent_faster(power_law([1, 2, 3], [3, 2, 1]), power_law([1, 2, 3, 4], [4, 3, 2, 1])),
         "ours has 3 points and theirs 4"),
        (lambda: percent_faster(power_law([1, 2, 3], [3, 2, 1]), power_law([1, 2, 3], [1, 1, 1])),
         "theirs has exponent 0"),
        (lambda: power_law([1, 2, 3], [1, 2, -3]), "must be equally many numbers above 0"),
        (lambda: power_law([1, 2, 3], [1, 2, 3, 4]), "must be equally many numbers above 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Ratios


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 200)), min_size=2, max_size=20))
def test_the_mean_share_is_the_ratio_and_all_but_their_counts_may_scale(items):
    totals, counts = np.array(items).T
    value, error = ratio_of_sums(totals, counts)
    assert value == pytest.approx(totals.sum() / counts.sum())
    assert ratio_shares(totals, counts).mean() == pytest.approx(value, abs=1e-9)
    assert ratio_of_sums(3 * totals, 2 * counts) == pytest.approx((1.5 * value, 1.5 * error), abs=1e-9)


def test_where_counts_are_equal_a_ratio_is_a_mean():
    totals = np.random.default_rng(0).normal(5, 1, (3, 40))
    assert ratio_shares(totals, np.full(40, 8)) == pytest.approx(totals / 8)


def test_the_error_of_a_ratio_is_its_scatter_over_repeated_sets():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        counts = rng.integers(5, 200, size=100)
        found.append(ratio_of_sums(3 * counts + rng.normal(0, np.sqrt(counts)), counts))
    values, errors = np.array(found).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_ratios_that_have_no_error_or_no_value():
    value, error = ratio_of_sums(np.array([6.0]), np.array([2]))
    assert value == 3 and np.isnan(error)
    assert np.isnan(ratio_of_sums(np.ones(2), np.zeros(2))).all()
    value, error = ratio_of_sums(np.array([np.inf, 1.0]), np.full(2, 2))
    assert value == np.inf and np.isnan(error)
