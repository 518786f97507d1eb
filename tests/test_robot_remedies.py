"""Figures on robots: ways to train an EBT-Policy, walks that stop by item, energies around faults, success rates."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from ebwm.evaluation.statistics import wilson
from ebwm.figures.experiment import robot_scores, robots
from ebwm.figures.experiment.robot_progress import fewer_updates, updates_to_reach
from ebwm.figures.experiment.robot_remedies import (
    TWINS,
    WAYS,
    cost_of,
    episode_errors,
    errors_by_step,
    held_out_windows,
    layer_weights,
    settings_of,
)
from ebwm.figures.experiment.robot_stops import MOST, stopping
from ebwm.figures.experiment.tables import over_seeds
from ebwm.policy.chunks import Chunks
from ebwm.policy.demonstrations import collect
from ebwm.policy.evaluation import evaluate_policy, evaluation_seeds
from ebwm.policy.policies import PolicySettings
from ebwm.policy.rollout import EpisodeResult
from ebwm.policy.training import fit_policy
from ebwm.randomness import normal_like
from ebwm.sampler import State
from ebwm.schedules import random_steps
from ebwm.settings import generator

SIZES = dict(dim=16, depth=2, trunk="mlp", updates=4, batch=8)


@pytest.fixture(scope="module")
def demonstrations():
    return collect("reach", 4)


@pytest.fixture(scope="module")
def chunks(demonstrations):
    return Chunks.of(demonstrations)


def predictor_of(chunks, name, **sizes):
    options = settings_of(WAYS[name], SIZES | sizes)
    return options.predictor(options.shape(chunks.splits["train"][0]))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(chunks):
    return Chunks.pair(chunks.splits["train"].gather(torch.arange(6)))


@pytest.mark.parametrize("name", WAYS)
def test_each_way_learns_and_predicts_the_same_for_the_same_seed(chunks, name):
    options = settings_of(WAYS[name], SIZES, factor=0.1, learning_rate=1e-3)
    first, again = (fit_policy(chunks, options, 1).policy.predictor for _ in range(2))
    context, target = batch_of(chunks)
    found = [policy.predict(context, seeded()).value for policy in (first, again)]
    assert found[0].shape == target.shape and found[0].isfinite().all() and torch.equal(*found)
    untrained = options.predictor(options.shape(chunks.splits["train"][0]), 1)
    changed = [not torch.equal(before, after) for before, after in zip(
        untrained.model.trunk.layers.parameters(), first.model.trunk.layers.parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize("name", ["ebt", "steps", "many"])
def test_walks_from_noise_learn_from_the_gradient_through_their_last_step(chunks, name):
    predictor, (context, target) = predictor_of(chunks, name), batch_of(chunks)
    landscape, alpha, draw = predictor.model.landscape(context), predictor.model.step_size, seeded()
    y, steps = normal_like(target, draw), random_steps(predictor.walk.least, predictor.walk.most, draw)
    for step in range(steps):
        y = y.detach().requires_grad_()
        y = y - alpha * torch.autograd.grad(landscape.energy(y).sum(), y, create_graph=step == steps - 1)[0]
    expected = F.smooth_l1_loss(y, target)
    weights = list(predictor.model.trunk.layers.parameters())
    loss = predictor.loss(context, target, seeded())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    found, wanted = (torch.autograd.grad(value, weights) for value in (loss, expected))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(found, wanted, strict=True))


def test_a_proposal_learns_by_its_own_error_alone(chunks):
    predictor, (context, target) = predictor_of(chunks, "proposal_full"), batch_of(chunks)
    loss, own = predictor.loss(context, target, seeded()), F.smooth_l1_loss(predictor.model.proposal(context), target)
    weights = list(predictor.model.proposal.parameters())
    found, expected = (torch.autograd.grad(value, weights) for value in (loss, own))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(predictor.starts(context, target, seeded()), predictor.model.proposal(context))


def test_walks_that_start_at_the_middle_need_no_noise(chunks):
    predictor, (context, target) = predictor_of(chunks, "middle"), batch_of(chunks)
    assert not predictor.starts(context, target, seeded()).any()
    assert torch.equal(predictor.predict(context, seeded(0)).value, predictor.predict(context, seeded(1)).value)


def test_step_sizes_of_a_walk_shrink(chunks):
    predictor, (context, target) = predictor_of(chunks, "decay"), batch_of(chunks)
    landscape, start = predictor.model.landscape(context), predictor.starts(context, target, seeded())
    sizes = []
    for kernel in predictor.kernels(torch.tensor(2.0), 3):
        sizes.append(kernel(landscape, State(start))[1].step_size[0].item())
    assert sizes == [2.0, 1.0, 0.5]


def test_twins_and_remedies_have_as_many_weights(chunks):
    weights = {name: layer_weights(predictor_of(chunks, name, dim=128, depth=4)) for name in WAYS}
    for name, twins in TWINS.items():
        assert all(weights[twin] == pytest.approx(weights[name], rel=0.05) for twin in twins)
    others = [name for name, way in WAYS.items() if way.kind == "ebt" and name != "proposal_full"]
    assert all(weights[name] == pytest.approx(weights["cloning"], rel=0.05) for name in others)


def test_errors_are_means_over_the_windows_of_an_episode(chunks, demonstrations):
    predictor, windows = predictor_of(chunks, "cloning"), held_out_windows(demonstrations, chunks)
    assert [len(part["action"]) for part in windows] == [len(episode.actions) for episode in demonstrations.episodes]
    context, target = Chunks.pair(windows[1])
    expected = F.smooth_l1_loss(predictor.predict(context, seeded()).value, target).item()
    assert episode_errors(predictor, windows, seeded())[1] == pytest.approx(expected)


def test_errors_by_step_end_at_the_prediction(chunks, demonstrations):
    windows, predictor = held_out_windows(demonstrations, chunks), predictor_of(chunks, "proposal_full")
    rows = errors_by_step(predictor, windows, 2, seeded())
    assert list(rows.step.unique()) == [0, 1, 2] and list(rows.item.unique()) == [0, 1, 2, 3]
    found = rows[rows.step == 2].loss.to_numpy()
    assert np.allclose(found, episode_errors(predictor, windows, seeded()), atol=1e-6)


def test_costs_count_both_parts(chunks):
    batch = chunks.splits["train"].gather(torch.arange(6))
    costs = {name: cost_of(predictor_of(chunks, name), batch, seeded()) for name in ("cloning", "ebt", "proposal_full")}
    assert costs["proposal_full"]["update"] > costs["ebt"]["update"] > costs["cloning"]["update"]
    assert costs["proposal_full"]["prediction"] > costs["ebt"]["prediction"] + costs["cloning"]["prediction"] / 2


# Walks that stop by item, faults, and rates


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
    rows = robot_scores.along(results)
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


def test_a_difference_has_a_width_where_all_seeds_differ_by_the_same():
    """The wider of Student's interval over seeds and one over episodes; one seed has none."""
    def rows(*hits):
        return pd.concat([pd.DataFrame(dict(seed=seed, episode=range(50), success=np.arange(50) < count, retries=count))
                          for seed, count in enumerate(hits)])

    same = robots.difference(rows(20, 30), rows(10, 20))
    assert same == pytest.approx(dict(value=0.2, low=0.1167, high=0.2755), abs=1e-4)
    seeds = over_seeds([0.2, -0.4, 0.6])
    assert robots.difference(rows(20, 10, 40), rows(10, 30, 10)) == pytest.approx(seeds)
    assert robots.difference(rows(20), rows(10)) == dict(value=pytest.approx(0.2), low=None, high=None)
    retries = robots.difference(rows(4, 6, 8), rows(1, 2, 3), "retries")
    assert retries == pytest.approx(over_seeds([3.0, 4.0, 5.0]))


def test_updates_until_success_are_interpolated_and_compared_over_seeds():
    rates = pd.Series([0.0, 0.2, 0.6, 0.5], index=[10, 100, 1000, 2000])
    assert updates_to_reach(rates, 0.4) == pytest.approx(10**2.5)
    assert updates_to_reach(rates, 0.2) == pytest.approx(100) and updates_to_reach(rates, 0) == 10
    assert np.isnan(updates_to_reach(rates, 0.7))
    theirs = pd.DataFrame([rates, rates])
    ours = theirs.rename(columns=lambda updates: updates / 4)
    found = fewer_updates(ours, theirs)
    assert found == pytest.approx(dict(value=75, low=75, high=75))
    slower = pd.DataFrame([rates.to_numpy(), [0.0, 0.1, 0.5, 0.5]], columns=rates.index)
    apart = fewer_updates(theirs, slower)
    assert apart["low"] < apart["value"] < apart["high"] and apart["value"] > 0
    assert fewer_updates(theirs, theirs * 0) == dict(value=None, low=None, high=None)
