"""Walks of a policy that stop by item, energies around faults, and success rates, in figures."""

import pandas as pd
import pytest
import torch

from ebwm.evaluation.statistics import wilson
from ebwm.figures.experiment import robot_scores, robots
from ebwm.figures.experiment.robot_scores import along
from ebwm.figures.experiment.robot_stops import MOST, stopping
from ebwm.figures.experiment.tables import over_seeds
from ebwm.policy.chunks import Chunks
from ebwm.policy.demonstrations import collect
from ebwm.policy.evaluation import evaluate_policy, evaluation_seeds
from ebwm.policy.policies import PolicySettings
from ebwm.policy.rollout import EpisodeResult
from ebwm.policy.training import fit_policy
from ebwm.settings import generator


@pytest.fixture(scope="module")
def trained():
    chunks = Chunks.of(collect("reach", 12, 0))
    return chunks, fit_policy(chunks, PolicySettings.named("ebt", updates=40, dim=16, depth=1), device="cpu").policy


@pytest.mark.parametrize("stop", ["gradient", "energy"])
def test_walks_stop_by_item_near_the_fewest_steps_of_training(trained, stop):
    chunks, policy = trained
    changed = stopping(policy, chunks, stop, seed=0)
    assert (changed.predictor.walk.stop, policy.predictor.walk.stop) == (stop, "none")
    assert changed.predictor.model is policy.predictor.model
    context, _ = Chunks.pair(chunks.items("valid"))
    steps = changed.predictor.predict(context, generator(1, "steps")).steps
    assert steps.unique().numel() > 1 and steps.max() <= MOST
    assert 0.2 < (steps <= policy.predictor.walk.least).float().mean() < 0.8
    results = evaluate_policy(changed, "reach", evaluation_seeds(2), workers=0)
    rows = along(results)
    assert len(rows) == sum(len(result.chunks) for result in results)
    assert rows.walk.between(1, MOST).all() and torch.tensor(rows.energy.to_numpy()).isfinite().all()


def test_energies_around_a_fault_are_those_of_the_chunks_beside_it():
    """Paths differ from step 3 on; episodes without a fault are left out; a twin that has ended is not a number."""
    def episode(seed, path, energies, outcome="success"):
        chunks = [dict(at=at, energy=energy) for at, energy in energies.items()]
        return EpisodeResult(seed, outcome, len(path) - 1, chunks, trace={"states": [[x] for x in path], "actions": []})

    same, other = [0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2, 3]
    usual = [episode(7, same, {0: 1.0, 2: 2.0, 4: 3.0}), episode(8, same, {0: 1.0}),
             episode(9, same[:4], {0: 1.0, 2: 2.0})]
    faulty = [episode(7, other, {0: 1.0, 2: 2.0, 4: 7.0, 6: 5.0}), episode(8, same, {0: 1.0}),
              episode(9, other, {0: 1.0, 2: 2.0, 4: 8.0}, "failure")]
    found = robot_scores.around_fault(usual, faulty)
    assert found.fillna(-1).values.tolist() == [[7, True, 3, 2.0, 7.0, 3.0, 5.0], [9, False, 3, 2.0, 8.0, -1, 8.0]]
    assert robot_scores.around_fault(usual[1:2], faulty[1:2]).empty


def test_a_rate_over_seeds_has_the_wider_of_two_intervals():
    """Student's over seeds where they differ, Wilson's over episodes where they agree; one seed has Wilson's."""
    rows = lambda *successes: pd.concat([pd.DataFrame(dict(seed=seed, success=[True] * hits + [False] * (50 - hits)))
                                         for seed, hits in enumerate(successes)])
    seeds = over_seeds([0.40, 0.52, 0.94, 0.42, 0.80])
    differ, agree, one = (robots.rate(rows(*hits)) for hits in ((20, 26, 47, 21, 40), (0, 0, 0), (25,)))
    assert differ == pytest.approx(seeds) and differ["low"] < wilson(154, 250).low
    assert agree == wilson(0, 150)._asdict() and one == wilson(25, 50)._asdict()
    assert robots.rate(rows(50, 0))["low"] == 0 and robots.rate(rows(50, 0))["high"] == 1
