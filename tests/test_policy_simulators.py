"""Simulators of robots, their experts and demonstrations."""

import numpy as np
import pytest

from ebwm.policy.demonstrations import collect
from ebwm.policy.experts import make_expert
from ebwm.policy.reach import OBSTACLE, SPEED, side
from ebwm.policy.simulators import Disturbance, make_simulator

UP = np.array([0, 1], np.float32)
ANGLE = 2 * np.pi * np.random.default_rng([7, 1]).random()  # of the push in the episode of seed 7


def test_demonstrations_of_reach_take_both_ways_and_are_the_same_bytes_for_any_number_of_workers():
    made = collect("reach", 20, seed=3, style="clumsy")
    assert {side(episode) for episode in made.episodes} == {"left", "right"}
    assert all(episode.success and episode.seed // 10_000 == 3 for episode in made.episodes)
    assert made.digest == collect("reach", 20, seed=3, style="clumsy", workers=2).digest
    assert made.digest != collect("reach", 20, seed=4, style="clumsy").digest


def test_both_sides_succeed_from_each_start():
    simulator, expert = make_simulator("reach"), make_expert("reach")
    for seed, way in [(seed, way) for seed in range(5) for way in ("left", "right")]:
        expert.side, observation, success, path = way, simulator.reset(seed), False, []
        while not success and len(path) < simulator.limit:
            path.append(observation["state"])
            observation, success = simulator.step(expert.act(observation))
        assert success
        assert np.sign(next(x for x, y, *_ in path if y >= 0)) == (-1 if way == "left" else 1)


def test_a_point_that_touches_the_obstacle_stays_there_and_has_failed():
    simulator = make_simulator("reach")
    simulator.reset(0)
    path = np.array([simulator.step(UP).observation["state"][:2] for _ in range(60)])
    assert np.hypot(*path[-1]) == pytest.approx(OBSTACLE)
    assert (path[-30:] == path[-1]).all()
    simulator.goal = tuple(path[-1])
    assert not simulator.step(UP).success


@pytest.mark.parametrize("disturbance, moved", [
    (Disturbance(), [SPEED] * 4),
    (Disturbance(dynamics=0.5), [SPEED / 2] * 4),
    (Disturbance(fault="block", at=2 / 36), [SPEED, SPEED, 0, 0]),
    (Disturbance(push=0.1, at=2 / 36), [SPEED, SPEED, SPEED + 0.1 * np.sin(ANGLE), SPEED]),
])
def test_disturbances_of_reach(disturbance, moved):
    simulator = make_simulator("reach")
    height = simulator.reset(7, disturbance)["state"][1]
    for expected in moved:
        before, height = height, simulator.step(UP).observation["state"][1]
        assert height - before == pytest.approx(expected, abs=1e-6) or expected is None
    simulator.reset(7)
    again = [simulator.step(UP).observation["state"][1] for _ in moved]
    assert np.diff(again) == pytest.approx(SPEED), "a reset ends disturbances"


def test_the_picture_of_reach():
    observation = make_simulator("reach", image=32).reset(0)
    assert observation["image"].shape == (32, 32, 3) and observation["image"].dtype == np.uint8
    assert tuple(observation["image"][16, 16]) == (120, 128, 138)
