"""The picture of the figure `downstream`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebwm.compat import require
from ebwm.figures.experiment import panels
from ebwm.figures.experiment.tables import Interval, select
from ebwm.figures.style import colour

MARKS = {"s1": ("ebt", 0.18, "EBT, S1"), "transformer": ("transformer", -0.18, "Transformer++")}


class Downstream(NamedTuple):
    """Tables and statistics of the figure."""

    sets: Sequence[str]  # of texts
    nats: Mapping[tuple[str, str], np.ndarray]  # sum of losses by seed, for each model and set
    scores: pd.DataFrame  # perplexities with intervals
    tokens: Mapping[str, int]  # of each set
    bytes: Mapping[str, int]  # of each set
    bound: Mapping[str, float]  # entropy of a token, where it is known
    ratios: Mapping[str, np.ndarray]  # log ratios by seed, for each set
    intervals: Mapping[str, Interval]  # of the log ratios; "mean" is that over sets
    paper: pd.DataFrame  # perplexities of the paper's table
    paper_ratios: pd.Series  # log ratios of the paper's table


def draw(
    found: Downstream,  # tables and statistics
    heading: tuple[str, Sequence[int], str],  # first line, seeds, and status of the data
) -> Any:  # the figure
    """Perplexity and bits per byte on each set, the paper's table, and log ratios."""
    figure = require("matplotlib.pyplot", "figures").figure(figsize=(10, 8.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.45, 1])
    left, right = top.subplots(1, 2, sharey=True)
    _dots(left, found, lambda nats, name: np.exp(nats / found.tokens[name]), bounds=True)
    _dots(right, found, lambda nats, name: nats / np.log(2) / found.bytes[name], bounds=False)
    left.set(title="Here: perplexity", xscale="log", xlabel="perplexity of a token")
    panels.round_ticks(left.xaxis)
    right.set(title="Here: bits per byte", xlabel="bits per byte")
    panels.legend_below(top, left, 4, fontsize=8)
    paper, theirs, ours = bottom.subplots(1, 3, width_ratios=[1, 1, 1.1])
    for kind, (role, shift, _) in MARKS.items():
        paper.plot(found.paper[kind], np.arange(len(found.paper)) - shift, "s", ms=5, color=colour(role))
    paper.set(title="EBT, Table 3: perplexity", xscale="log", xlabel="perplexity")
    panels.round_ticks(paper.xaxis)
    _rows(paper, list(found.paper.index))
    mean = found.paper_ratios.mean()
    _ratios(theirs, {**{name: [value] for name, value in found.paper_ratios.items()}, "mean": [mean]}, {}, "truth")
    means = np.mean([values.mean() for values in found.ratios.values()])
    _ratios(ours, {**found.ratios, "mean": [means]}, found.intervals, "ebt")
    theirs.set(title="Table 3: log ratios", xlabel="EBT minus Transformer++")
    ours.set(title="Here: log ratios", xlabel="EBT minus Transformer++")
    what, seeds, status = heading
    panels.heading(figure, what, seeds, "points: seeds; bars: 95 % intervals", status)
    return figure


def _rows(panel: Any, names: Sequence[str]) -> None:
    panels.named_ticks(panel.yaxis, names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", alpha=0.4)


def _dots(panel: Any, found: Downstream, per: Any, bounds: bool) -> None:
    for kind, (role, shift, title) in MARKS.items():
        for row, name in enumerate(found.sets):
            values = per(found.nats[kind, name], name)
            panel.plot(values, np.full(len(values), row - shift), "o", ms=4.5, alpha=0.75, mew=0, color=colour(role),
                       label=None if row else title)
            one = select(found.scores, model=kind, text=name).iloc[0]
            if bounds and pd.notna(one.low):
                panel.plot([one.low, one.high], [row - shift] * 2, color=colour(role), lw=1.2)
    for row, name in enumerate(found.sets):
        panel.plot(per(found.nats["ngram", name], name), [row], "x", ms=5, color=colour("truth"),
                   label=None if row else "3-grams")
    rows = {name: row for row, name in enumerate(found.sets) if name in found.bound}
    lowest = [per(found.bound[name] * found.tokens[name], name) for name in rows]
    panel.plot(lowest, list(rows.values()), "|", ms=12, mew=2, color=colour("floor"), label="the grammar's entropy")
    _rows(panel, list(found.sets))


def _ratios(panel: Any, entries: Mapping[str, Any], intervals: Mapping[str, Interval], role: str) -> None:
    for row, (name, values) in enumerate(entries.items()):
        mean, interval = name == "mean", intervals.get(name)
        panel.plot(values, np.full(len(values), row), "D" if mean else "o", ms=5, alpha=0.75, mew=0, color=colour(role))
        if interval and interval["low"] is not None:
            panel.plot([interval["low"], interval["high"]], [row] * 2, color=colour(role), lw=2 if mean else 1.2)
    panels.zero(panel, across=False, ls="-")
    _rows(panel, list(entries))
