"""Tables and intervals of the figures: nested results as data frames, matrices [seeds items], Student's intervals."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ebwm.evaluation.statistics import paired_difference, student_crossed
from ebwm.evaluation.uncertainty import risk_coverage

__all__ = ["Interval", "Tables", "Values", "bounds", "by_seed", "crossed", "cube", "frame_of", "grid", "interval_rows",
           "jackknife", "jackknifed", "join", "matrix", "over_clips", "over_seeds", "percent_higher", "rank_correlation", "report",
           "resampled", "risk_curve", "select", "share_of_gain", "within"]

Interval = dict[str, float | None]  # value, low, high
Tables = Mapping[str, Any]  # table by name: a data frame, rows, or one row
Values = np.ndarray | pd.DataFrame | pd.Series | Sequence  # an array, or what becomes one


# Tables


def frame_of(
    table: Any,  # a data frame, a list of rows, or one row; a row whose values are arrays gives one row an entry
) -> pd.DataFrame:
    """A data frame."""
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, Mapping) and all(np.ndim(value) == 0 for value in table.values()):
        table = [table]
    return pd.DataFrame(table)


def join(
    parts: Mapping[Hashable, Tables],  # tables of each part; a key is a tuple if there are several names
    *names: str,  # columns for the keys
) -> dict[str, pd.DataFrame]:
    """Concatenate the tables of all parts, with the keys of the parts as first columns."""
    found = {}
    for table in dict.fromkeys(name for part in parts.values() for name in part):
        frames = {key: frame_of(part[table]) for key, part in parts.items() if table in part}
        found[table] = pd.concat(frames, names=names).reset_index(list(names)).reset_index(drop=True)
    return found


def select(
    frame: pd.DataFrame,  # rows
    **where: Any,  # value of a column, or a list of its values
) -> pd.DataFrame:
    """The rows with given values."""
    for name, value in where.items():
        frame = frame[frame[name].isin(value) if isinstance(value, list | tuple) else frame[name] == value]
    return frame


def matrix(
    frame: pd.DataFrame,  # one row for each seed and item
    column: str,  # values
    item: str = "clip",  # column that names the item
    **where: Any,  # selects rows, as for `select`
) -> Float[np.ndarray, "seeds items"]:
    """Values by seed and item, both in ascending order."""
    return select(frame, **where).pivot(index="seed", columns=item, values=column).to_numpy()


def cube(
    frame: pd.DataFrame,  # one row for each seed, window and place
    column: str,  # values
) -> Float[np.ndarray, "seeds windows places"]:
    """Values by seed, window and place, all in ascending order."""
    wide = frame.pivot(index=["seed", "window"], columns="place", values=column)
    return wide.to_numpy().reshape(frame["seed"].nunique(), -1, wide.shape[1])


def by_seed(
    frame: pd.DataFrame,  # one row for each seed and key
    column: str,  # values
    key: str = "model",  # outer key of the result
) -> dict[str, dict[str, float]]:
    """Values by key and seed, for a manifest."""
    return {name: dict(zip(map(str, part.seed), part[column], strict=True))
            for name, part in frame.reset_index().groupby(key)}


def grid(
    function: Callable[..., Any],  # called with one key of each level
    *levels: Iterable[Hashable],  # keys of each level
) -> dict[Any, Any]:
    """Nested dictionaries of a function's results."""
    first, *rest = levels
    inner = [tuple(level) for level in rest]
    return {key: grid(lambda *keys, key=key: function(key, *keys), *inner) if inner else function(key)
            for key in first}


def report(
    nested: Mapping[Any, Any],  # intervals in nested dictionaries
) -> pd.DataFrame:
    """Intervals as rows of a table, for display."""
    rows: dict[tuple, Any] = {}

    def collect(part: Mapping[Any, Any], keys: tuple) -> None:
        if "value" in part:
            rows[keys] = part
        else:
            for key, value in part.items():
                collect(value, (*keys, key))

    collect(nested, ())
    return pd.DataFrame(list(rows.values()), index=[" | ".join(map(str, keys)) for keys in rows])


# Intervals


def crossed(
    values: Values,  # one for each seed and item [seeds items]
) -> Interval:
    """Mean over seeds and items with Student's interval; no bounds for one seed or values that are not finite."""
    values = np.asarray(values, dtype=float)
    if len(values) > 1 and np.isfinite(values).all():
        return student_crossed(values)._asdict()
    return _alone(values)


def over_clips(
    frame: pd.DataFrame,  # rows of several seeds and clips
    column: str,  # values
) -> Interval:
    """Mean over clips, each the mean of its rows, with its interval over seeds and clips."""
    return crossed(frame.pivot_table(index="seed", columns="clip", values=column).to_numpy())


def interval_rows(
    frame: pd.DataFrame,  # rows of several seeds and clips
    by: Sequence[str],  # columns that divide the rows into groups
    columns: Iterable[str],  # values
) -> pd.DataFrame:  # the columns of `by`, measure, value, low and high
    """`over_clips` of each group and column; without those that are absent, or missing for an item of the group."""
    rows = [dict(zip(by, keys, strict=True), measure=name, **over_clips(part, name))
            for keys, part in frame.groupby(list(by)) for name in columns if name in part and part[name].notna().all()]
    return pd.DataFrame(rows).astype(dict(low=float, high=float))


def over_seeds(
    values: Values,  # one for each seed [seeds]
) -> Interval:
    """Mean over seeds with Student's interval; no bounds for one seed or values that are not finite."""
    values = np.asarray(values, dtype=float)
    if len(values) > 1 and np.isfinite(values).all():
        return paired_difference(values, np.zeros(len(values)))._asdict()
    return _alone(values)


def within(
    interval: Interval,
    low: float,  # least value that the quantity can have
    high: float,  # largest
) -> Interval:
    """The interval without values that the quantity cannot have, such as correlations above 1; its coverage is the same."""
    if interval["low"] is None:
        return interval
    return {**interval, "low": max(interval["low"], low), "high": min(interval["high"], high)}


def _alone(values: np.ndarray) -> Interval:
    value = float(values.mean()) if np.isfinite(values).all() else None
    return dict(value=value, low=None, high=None)


def bounds(
    interval: Interval | None,  # value, low, high
) -> tuple[float, float, float] | None:  # None without bounds
    """An interval as a tuple, for `points`."""
    if interval is None or interval["low"] is None:
        return None
    return interval["value"], interval["low"], interval["high"]


def percent_higher(
    values: Float[np.ndarray, "seeds items"],
    base: Float[np.ndarray, "seeds items"],  # values to which they refer
) -> Float[np.ndarray, "seeds items"]:  # contributions, whose mean is by how many percent the mean is higher
    """A difference in percent of the mean of a base, linearised in both means (Cochran 1977, chapter 6)."""
    ratio = values.mean() / base.mean()
    return 100 * (ratio - 1 + (values - ratio * base) / base.mean())


# Statistics that are not means


def rank_correlation(
    first: Float[np.ndarray, " n"],  # values
    second: Float[np.ndarray, " n"],  # values of the same items
) -> float:
    """Spearman's rank correlation."""
    from scipy import stats

    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])


def jackknife(
    statistic: Callable[..., float],  # of the items
    *items: Float[np.ndarray, "n ..."],  # arguments, each with the items as first axis
) -> Float[np.ndarray, " n"]:  # pseudo-values, whose mean takes the place of the statistic
    """Pseudo-values of a statistic, by leaving out one item after another (Tukey 1958)."""
    count, whole = len(items[0]), statistic(*items)
    without = [statistic(*(np.delete(part, i, 0) for part in items)) for i in range(count)]
    return count * whole - (count - 1) * np.asarray(without)


def jackknifed(
    statistic: Callable[[pd.DataFrame], float],  # of a frame with the column `clip`
    frame: pd.DataFrame,  # rows of several seeds and clips
    groups: int,  # number of groups of clips, by the remainder of their number
) -> Interval:
    """A statistic of rows with its interval over seeds and groups of clips."""
    return crossed([_pseudo_values(statistic, part, groups) for _, part in frame.groupby("seed")])


def _pseudo_values(statistic: Callable[[pd.DataFrame], float], frame: pd.DataFrame, groups: int) -> np.ndarray:
    """Pseudo-values of a statistic of rows, by leaving out one group of clips after another."""
    group = frame["clip"].to_numpy() % groups
    whole, parts = statistic(frame), np.unique(group)
    return np.array([len(parts) * whole - (len(parts) - 1) * statistic(frame[group != part]) for part in parts])


def resampled(
    statistic: Callable[[Sequence[int], Sequence[int]], float],  # of the numbers of the seeds and of the items
    seeds: int,  # number
    items: int,  # number
    draws: int = 499,  # number of resamples
) -> Interval:
    """A statistic with the interval of a bootstrap over seeds and items, too narrow for three seeds; one seed has none."""
    found: Interval = dict(value=statistic(range(seeds), range(items)), low=None, high=None)
    if seeds > 1:
        order = np.random.default_rng(0)
        drawn = [statistic(order.integers(seeds, size=seeds), order.integers(items, size=items)) for _ in range(draws)]
        found["low"], found["high"] = np.quantile(drawn, [0.025, 0.975])
    return found


def share_of_gain(
    errors: pd.Series,  # of each item
    score: pd.Series,  # lower where the item is answered first
) -> float:  # 0 for a random order, 1 for an oracle that knows the errors
    """How much a score lowers the risk of the answered items, relative to an oracle."""
    found = risk_coverage(errors, score)
    return (found.risk[-1] - found.area) / (found.risk[-1] - found.oracle)


def risk_curve(
    errors: pd.Series,  # of each item
    score: pd.Series,  # lower where the item is answered first
) -> dict[str, np.ndarray]:
    """Risk by coverage, at about a hundred places."""
    found = risk_coverage(errors, score)
    kept = np.unique(np.linspace(0.05, 1, 96) * (len(found.risk) - 1)).astype(int)
    return dict(coverage=found.coverage[kept], risk=found.risk[kept])
