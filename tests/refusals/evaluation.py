"""Refusals of ebwm.evaluation and ebwm.diagnostics."""

from functools import partial

import numpy as np
import torch

from ebwm import diagnostics
from ebwm.energy import DoubleWell
from ebwm.evaluation import cost, uncertainty
from ebwm.evaluation import statistics as stats
from ebwm.evaluation.cost import Shape
from ebwm.sampler import gradient_descent, run
from tests.helpers import refused, rows

SHAPE, ONE, NAN, INF = Shape(16, 1, 1, 3), np.zeros((1, 2)), float("nan"), float("inf")
YES = np.ones(3, dtype=bool)
LAW, LONGER, FLAT = (stats.power_law(range(1, len(y) + 1), y) for y in ([3, 2, 1], [4, 3, 2, 1], [1, 1, 1]))
UNFINISHED = run(DoubleWell(), torch.zeros(3, 2), gradient_descent(0.1), 1, final_energy=False)


def cases(function, *calls):
    """Cases of one function: arguments, and last what the message must contain."""
    return rows(*((partial(function, *arguments), named) for *arguments, named in calls))


CASES = [
    *cases(stats.bootstrap, ([1.0], "values.shape=[1]"), ([1.0, NAN], "values[1]=nan")),
    *cases(stats.paired_difference, ([1.0, 2.0], [1.0, 2.0, 3.0], "len(ours)=2")),
    *((f"{function.__name__} level {level}", partial(function, *given, level=level), ValueError, "level=")
      for function, given in {
          stats.bootstrap: [[1.0, 2.0]], stats.paired_difference: [[1, 2], [3, 5]], stats.wilson: [1, 2],
          stats.bootstrap_crossed: [np.eye(2)], stats.student_crossed: [np.eye(2)], stats.power_law: [[1, 2, 3]] * 2,
          stats.percent_faster: [LAW, LAW], LAW.interval: [2], uncertainty.rank_correlation: [[1, 2, 3]] * 2,
          uncertainty.auroc: [[1, 2, 3, 4], [0, 1, 0, 1]]}.items() for level in (0, 1, NAN, 95)),
    *refused(partial(uncertainty.rank_correlation, [1, 2, 3], [1, 2, 3]), resamples=0, seed=-1),
    *refused(partial(uncertainty.calibration, [0.5], [1]), draws=0, level=95),
    *cases(stats.wilson, (3, 2, "successes=3"), (0, 0, "trials=0")),
    *cases(stats.paired_rates, (YES[:0], YES[:0], "ours='bool [0]'")),
    *refused(partial(stats.bootstrap, [1, 2]), resamples=0, seed=-1),
    *refused(partial(stats.bootstrap_crossed, np.eye(2)), resamples=0),
    ("statistic", partial(stats.bootstrap, [1, 2], len), TypeError, "statistic='len'"),
    *cases(stats.perplexity_ratio, (np.ones(3), np.ones((3, 3)), "losses.shape=[3]")),
    *cases(stats.bootstrap_crossed, (np.ones(2), "values.shape=[2]")),
    *cases(stats.student_crossed, ([[1.0, 2.0]], "values.shape=[1, 2]"), ([[1, 2], [3, INF]], "values[1, 1]=inf")),
    *cases(stats.power_law, ([2, 2, 2], [1, 2, 3], "x=[2.0, 2.0, 2.0]"), ([1, 2, 3], [1, 2, -3], "min(y)=-3"),
           ([1, 2, 3], [1, 2, 3, 4], "len(x)=3")),
    *cases(LAW.interval, (0, "x=0")),
    *cases(stats.percent_faster, (LAW, LONGER, "len(ours.x)=3"), (LAW, FLAT, "theirs.exponent=0")),
    *cases(uncertainty.rank_correlation, ([1, 2], [1, 2], "x.shape=[2]"), ([1, 2, 3], [1, 2, 3, 4], "len(x)=3"),
           ([1, 2, NAN], [1, 2, 3], "x[2]=nan"), ([1, 2, 3], [5, 5, 5], "y=[5.0, 5.0, 5.0]")),
    *cases(uncertainty.auroc, ([1, 2, 3], [0, 1, 1], "scores.shape=[3]"), ([1, 1, 1, 1], [0, 0, 1, 1], "scores=[1.0"),
           ([1, 2, 3, 4], [0, 1, 1], "positive=[0, 1, 1]"), ([1, 2, 3, 4], [0, 1, 1, 2], "positive=[0, 1, 1, 2]"),
           ([1, 2, 3, 4], [0, 1, 1, 1], "sum(positive)=3")),
    *cases(uncertainty.risk_coverage, ([], [], "errors.shape=[0]"), ([1.0], [1.0, 2.0], "len(errors)=1")),
    *cases(uncertainty.calibration, ([0.5, 1.2], [0, 1], "max(probabilities)=1.2"), ([0.5], [1], 0, "bins=0"),
           ([0.5, -0.1], [0, 1], "min(probabilities)=-0.1"), ([0.5, 0.2], np.array([0, 0.5]), "outcomes=[0.0, 0.5]")),
    *cases(uncertainty.mode_coverage, (ONE, np.zeros((1, 3)), 1.0, "samples.shape=[1, 2]"), (ONE, ONE, 0.0, "radius=0"),
           (np.zeros((0, 2)), ONE, 1.0, "samples.shape=[0, 2]"), (ONE, ONE * NAN, 1.0, "modes=[[nan"),
           (ONE, np.array([[0.0, 0.0], [3.0, 4.0]]), 2.5, "radius=2.5")),
    *cases(cost.ebt_training, (SHAPE, 0, "steps=0"), *((SHAPE, 2, n, f"differentiated={n}") for n in (0, 3))),
    *cases(cost.ebt_prediction, (SHAPE, 2, 0, "samples=0")), *cases(cost.dense_training, (SHAPE, -1, "steps=-1")),
    *cases(cost.paper_training, (10, -1, "tokens=-1")), *cases(cost.peak_gpu_memory, (list, "cpu", "device='cpu'")),
    *cases(cost.seconds, ({}, "len(functions)=0"), ({"a": list}, 0, "rounds=0")),
    *cases(diagnostics.Trace, (0, "every=0"), (1, -1, "burn_in=-1")),
    *cases(diagnostics.effective_sample_size, (torch.zeros(3, 2), "samples.shape=[3, 2]")),
    *cases(diagnostics.r_hat, (torch.zeros(9, 1), "samples.shape[1]=1")),
    *cases(diagnostics.health, (UNFINISHED, "result.state.energy=None")),
    *cases(diagnostics.energy_trace, (UNFINISHED, "result.state.energy=None")),
]
