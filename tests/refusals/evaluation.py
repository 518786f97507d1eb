"""Refusals of ebwm.evaluation and ebwm.diagnostics."""

import numpy as np
import torch

from ebwm.diagnostics import Trace, effective_sample_size, health, r_hat
from ebwm.energy import DoubleWell
from ebwm.evaluation.cost import (
    Shape,
    dense_training,
    ebt_prediction,
    ebt_training,
    paper_training,
    peak_gpu_memory,
    seconds,
)
from ebwm.evaluation.statistics import (
    bootstrap,
    bootstrap_crossed,
    paired_difference,
    percent_faster,
    power_law,
    student_crossed,
    wilson,
)
from ebwm.evaluation.uncertainty import auroc, calibration, mode_coverage, rank_correlation, risk_coverage
from ebwm.sampler import gradient_descent, run

SHAPE, ONE, NAN, INF = Shape(16, 1, 1, 3), np.zeros((1, 2)), float("nan"), float("inf")
LAW = power_law([1, 2, 3], [3, 2, 1])


def unfinished():
    """A walk without its last energy."""
    return run(DoubleWell(), torch.zeros(3, 2), gradient_descent(0.1), 1, final_energy=False)


CASES = [(f"{argument} {index}", call, ValueError, argument) for index, (call, argument) in enumerate([
    # statistics
    (lambda: bootstrap([1.0]), "values.shape=[1]"),
    (lambda: bootstrap([1.0, NAN]), "values[1]=nan"),
    (lambda: paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]), "len(ours)=2"),
    (lambda: wilson(3, 2), "successes=3"),
    (lambda: wilson(0, 0), "trials=0"),
    (lambda: bootstrap_crossed(np.ones(2)), "values.shape=[2]"),
    (lambda: student_crossed([[1.0, 2.0]]), "values.shape=[1, 2]"),
    (lambda: student_crossed([[1.0, 2.0], [3.0, INF]]), "values[1, 1]=inf"),
    (lambda: power_law([2, 2, 2], [1, 2, 3]), "x=[2.0, 2.0, 2.0]"),
    (lambda: power_law([1, 2, 3], [1, 2, -3]), "min(y)=-3"),
    (lambda: power_law([1, 2, 3], [1, 2, 3, 4]), "len(x)=3"),
    (lambda: LAW.interval(0), "x=0"),
    (lambda: percent_faster(LAW, power_law([1, 2, 3, 4], [4, 3, 2, 1])), "len(ours.x)=3"),
    (lambda: percent_faster(LAW, power_law([1, 2, 3], [1, 1, 1])), "theirs.exponent=0"),
    # uncertainty
    (lambda: rank_correlation([1, 2], [1, 2]), "x.shape=[2]"),
    (lambda: rank_correlation([1, 2, 3], [1, 2, 3, 4]), "len(x)=3"),
    (lambda: rank_correlation([1, 2, NAN], [1, 2, 3]), "x[2]=nan"),
    (lambda: rank_correlation([1, 2, 3], [5, 5, 5]), "y=[5.0, 5.0, 5.0]"),
    (lambda: auroc([1, 2, 3], [0, 1, 1]), "scores.shape=[3]"),
    (lambda: auroc([1, 1, 1, 1], [0, 0, 1, 1]), "scores=[1.0"),
    (lambda: auroc([1, 2, 3, 4], [0, 1, 1]), "positive=[0, 1, 1]"),
    (lambda: auroc([1, 2, 3, 4], [0, 1, 1, 2]), "positive=[0, 1, 1, 2]"),
    (lambda: auroc([1, 2, 3, 4], [0, 1, 1, 1]), "sum(positive)=3"),
    (lambda: risk_coverage([], []), "errors.shape=[0]"),
    (lambda: risk_coverage([1.0], [1.0, 2.0]), "len(errors)=1"),
    (lambda: calibration([0.5, 1.2], [0, 1]), "max(probabilities)=1.2"),
    (lambda: calibration([0.5, -0.1], [0, 1]), "min(probabilities)=-0.1"),
    (lambda: calibration([0.5, 0.2], np.array([0, 0.5])), "outcomes=[0.0, 0.5]"),
    (lambda: calibration([0.5], [1], bins=0), "bins=0"),
    (lambda: mode_coverage(ONE, np.zeros((1, 3)), 1.0), "samples.shape=[1, 2]"),
    (lambda: mode_coverage(np.zeros((0, 2)), ONE, 1.0), "samples.shape=[0, 2]"),
    (lambda: mode_coverage(ONE, ONE * NAN, 1.0), "modes=[[nan"),
    (lambda: mode_coverage(ONE, np.array([[0.0, 0.0], [3.0, 4.0]]), 2.5), "radius=2.5"),
    (lambda: mode_coverage(ONE, ONE, 0.0), "radius=0"),
    # cost
    (lambda: ebt_training(SHAPE, 0), "steps=0"),
    (lambda: ebt_training(SHAPE, 2, 3), "differentiated=3"),
    (lambda: ebt_training(SHAPE, 2, 0), "differentiated=0"),
    (lambda: ebt_prediction(SHAPE, 2, 0), "samples=0"),
    (lambda: dense_training(SHAPE, -1), "steps=-1"),
    (lambda: paper_training(10, -1), "tokens=-1"),
    (lambda: seconds({}), "len(functions)=0"),
    (lambda: seconds({"a": list}, rounds=0), "rounds=0"),
    (lambda: peak_gpu_memory(list, "cpu"), "device='cpu'"),
    # diagnostics
    (lambda: Trace(every=0), "every=0"),
    (lambda: Trace(burn_in=-1), "burn_in=-1"),
    (lambda: effective_sample_size(torch.zeros(3, 2)), "samples.shape=[3, 2]"),
    (lambda: r_hat(torch.zeros(9, 1)), "samples.shape[1]=1"),
    (lambda: health(unfinished()), "result.state.energy=None"),
])]
