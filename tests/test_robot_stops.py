"""Walks of a policy that stop by item, in figures."""

import pytest
import torch

from ebwm.figures.experiment.robot_scores import along
from ebwm.figures.experiment.robot_stops import MOST, stopping
from ebwm.policy.chunks import Chunks
from ebwm.policy.demonstrations import collect
from ebwm.policy.evaluation import evaluate_policy, evaluation_seeds
from ebwm.policy.policies import PolicySettings, fit_policy
from ebwm.settings import generator


@pytest.mark.parametrize("stop", ["gradient", "energy"])
def test_walks_stop_by_item_near_the_fewest_steps_of_training(stop):
    chunks = Chunks.of(collect("reach", 12, 0))
    policy = fit_policy(chunks, PolicySettings.named("ebt", updates=40, dim=16, depth=1), device="cpu").policy
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
