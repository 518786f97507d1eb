"""The plotting style: contrast, colour blindness, independence of a user's own configuration."""

import itertools
import math

import matplotlib
import pytest
from matplotlib.figure import Figure

from ebwm.figures.style import COLOURS, ROLES, colour, points, seeds_text, spread, style


def luminance(colour):
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def deuteranope(colour):
    """A colour as seen without green cones (Viénot, Brettel and Mollon 1999, in linear RGB)."""
    r, g, b = ((int(colour[i:i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return 0.29275 * r + 0.70725 * g, -0.02234 * r + 0.02234 * g + b


@pytest.mark.parametrize("theme", COLOURS)
def test_colours_contrast_with_the_background_and_differ_for_the_colour_blind(theme):
    palette = COLOURS[theme]
    assert palette.keys() == COLOURS["light"].keys()
    assert min(contrast(palette[role], palette["background"]) for role in (*ROLES, "truth")) > 3
    assert contrast(palette["text"], palette["background"]) > 7
    seen = [deuteranope(palette[role]) for role in ROLES]
    assert min(math.dist(a, b) ** 0.5 for a, b in itertools.combinations(seen, 2)) > 0.25


def test_style_sets_and_restores_the_theme():
    before = matplotlib.rcParams.copy()
    with style("dark"):
        assert colour("ebt") == COLOURS["dark"]["ebt"]
        assert matplotlib.rcParams["axes.facecolor"] == COLOURS["dark"]["background"]
    assert colour("ebt") == COLOURS["light"]["ebt"] and matplotlib.rcParams == before


def test_spread_draws_mean_seeds_and_band_and_points_each_seed_and_the_interval():
    ax = Figure().subplots()
    mean = spread(ax, [0, 1], [[1, 2], [3, 6]], "#0072b2", "EBT")
    assert list(mean.get_ydata()) == [2, 4] and ax.get_legend_handles_labels()[1] == ["EBT"]
    assert len(ax.lines) == 3 and len(ax.collections) == 1
    assert ax.collections[0].get_datalim(ax.transData).intervaly.tolist() == [1, 6]
    ax = Figure().subplots()
    points(ax, 1, [3, 4], "#0072b2", "EBT", (3.5, 3.0, 4.5))
    assert ax.lines[0].get_xdata().tolist() == [1, 1] and ax.lines[0].get_ydata().tolist() == [3, 4]
    assert ax.containers[0].lines[2][0].get_segments()[0][:, 1].tolist() == [3.0, 4.5]
    for draw, *of_one_seed in ((spread, [0, 1], [1, 2], "#0072b2", "one seed"), (points, 0, [3], "#0072b2")):
        draw(alone := Figure().subplots(), *of_one_seed)
        assert len(alone.lines) == 1 and not alone.collections and not alone.containers


def test_more_than_five_seeds_in_a_row_are_a_range():
    assert [seeds_text(seeds) for seeds in ([], [0], [0, 1, 2, 3, 4], range(3, 13), [0, 2, 4, 6, 8, 10])] == [
        "", "0", "0, 1, 2, 3, 4", "3 to 12", "0, 2, 4, 6, 8, 10"]
