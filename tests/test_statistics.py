"""Intervals with known answers, coverage by simulation, and the papers' percentages from their points."""

import numpy as np
import pytest

from ebwm.statistics import bootstrap, paired_difference, percent_faster, power_law, wilson

# Digitised points and printed percentages of the EBT paper (2507.02092): x, Transformer++, EBT, printed.
TOKENS = [0.49, 0.98, 1.47, 1.96, 2.46, 2.95, 3.44, 3.93, 4.42, 4.92, 5.41, 5.90, 6.39, 6.88]
FINEWEB = [51.1 + 7.86 * i for i in range(11)]
SIZES = [51.9, 42.2, 28.6, 20.6, 17.0], [57.5, 44.6, 30.3, 22.2, 17.8]
VIDEO = [1.752, 1.665, 1.628, 1.557, 1.485], [1.885, 1.776, 1.700, 1.614, 1.513]
FIGURES = {
    "4a, data": (
        TOKENS,
        [64.4, 53.2, 49.3, 47.0, 45.6, 44.6, 43.6, 43.0, 42.4, 41.8, 41.3, 40.8, 40.4, 40.0],
        [73.7, 57.1, 51.6, 48.4, 46.2, 44.7, 43.5, 42.5, 41.6, 41.0, 40.4, 39.8, 39.3, 38.8],
        35.98,
    ),
    "4b, batch": (
        [4.1, 8.2, 16.4, 32.8, 65.5],
        [53.2, 47.5, 43.1, 39.5, 37.3],
        [56.3, 49.2, 42.3, 38.6, 35.9],
        28.46,
    ),
    "4c, depth": ([4, 8, 12, 16], [61.7, 55.2, 51.0, 48.0], [62.7, 55.4, 51.3, 48.2], 5.29),
    "5a, parameters": ([6.2, 12.4, 48.8, 176, 396], *SIZES, 2.91),
    "5b, FLOPs": ([3.19e16, 9.19e16, 7.09e17, 4.81e18, 1.63e19], *SIZES, 2.92),
    "5c, width": ([180, 240, 300, 360], [65.9, 57.65, 52.2, 47.9], [65.8, 57.1, 51.4, 48.0], 0.02),
    "9a, video width": ([384, 768, 1024, 1536, 2048], *VIDEO, 33.66),
    "9b, video parameters": ([6.2, 48.8, 176, 396, 708], *VIDEO, 34.28),
    "B.3b, FineWeb": (
        FINEWEB,
        [27.09, 26.76, 26.47, 26.23, 26.02, 25.82, 25.64, 25.46, 25.28, 25.10, 24.93],
        [27.80, 27.30, 26.87, 26.44, 26.13, 25.82, 25.51, 25.25, 25.03, 24.78, 24.56],
        51.70,
    ),
}


@pytest.mark.parametrize(("x", "transformer", "ebt", "printed"), FIGURES.values(), ids=list(FIGURES))
def test_the_papers_points_give_its_percentages_within_one_point(x, transformer, ebt, printed):
    found = percent_faster(power_law(x, ebt), power_law(x, transformer))
    assert found == pytest.approx(printed, abs=1)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([1.0]), r"values has shape \[1\]; it must be a row of 2 numbers or more"),
        (lambda: bootstrap([1.0, float("nan")]), "values holds 1 values that are not finite"),
        (lambda: paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]), "ours has 2 values and theirs 3"),
        (lambda: wilson(3, 2), "successes is 3, trials is 2"),
        (lambda: wilson(0, 0), "successes is 0, trials is 0"),
        (lambda: power_law([1, 2, 3], [1, 2, -3]), "must be equally many numbers above 0"),
        (lambda: power_law([1, 2, 3], [1, 2, 3, 4]), "must be equally many numbers above 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
