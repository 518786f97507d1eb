"""Simulators of robots, their experts and demonstrations."""

import importlib.util
import sys

import numpy as np
import pytest

from ebwm.compat import MissingPart
from ebwm.policy import physics
from ebwm.policy.demonstrations import collect, record
from ebwm.policy.experts import make_expert
from ebwm.policy.reach import OBSTACLE, SPEED, side
from ebwm.policy.simulators import Disturbance, make_simulator
from ebwm.usage import UsageError

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


@pytest.mark.parametrize("refused, message", [
    (lambda: make_simulator("reech"), "simulator='reech': must be one of .*did you mean 'reach'"),
    (lambda: make_simulator("reach", images=84), "option='images': must be one of image"),
    (lambda: make_simulator("reach").reset(0, Disturbance(fault="drop")), "fault='drop': has no meaning in 'reach'"),
    (lambda: Disturbance(push=-1), "push=-1: must be"),
    (lambda: Disturbance(fault="fall"), "fault='fall': must be one of"),
    (lambda: make_expert("robosuite:ToolHang"), "simulator='robosuite:ToolHang': has no expert"),
    (lambda: collect("reach", 1, style="wild"), "style='wild': must be one of clean, clumsy"),
])
def test_refusals_of_names(refused, message):
    with pytest.raises(UsageError, match=message):
        refused()


@pytest.mark.parametrize("action", [np.zeros(3, np.float32), np.full(2, np.nan, np.float32)])
def test_actions_that_cannot_be_taken_are_refused(action):
    simulator = make_simulator("reach")
    simulator.reset(0)
    with pytest.raises(ValueError, match=r"^action="):
        simulator.step(action)


@pytest.mark.parametrize("name", ["metaworld:hammer", "robosuite:Lift"])
def test_a_missing_package_is_named_with_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ImportError, match=r"pip install 'ebwm\[policy\]'"):
        make_simulator(name)


# Simulators on MuJoCo

needs_mujoco = pytest.mark.skipif(not all(map(importlib.util.find_spec, ("mujoco", "metaworld", "robosuite"))),
                                  reason="needs ebwm[policy]")
TASKS = "metaworld:pick-place", "metaworld:reach-wall", "robosuite:Lift"
needs_a_task = pytest.mark.parametrize("simulator", TASKS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def simulator(request):
    made = make_simulator(request.param)
    yield made
    made.close()


@needs_mujoco
@needs_a_task
def test_the_same_seed_is_the_same_episode_after_others_and_in_another_simulator(simulator):
    first = record(simulator, 5, "clumsy")
    assert first.success and first.observations["state"].shape == (len(first.actions), simulator.state_dim)
    simulator.reset(6, Disturbance(dynamics=0.5, push=0.5, at=0))
    simulator.step(np.ones(simulator.action_dim, np.float32))
    for again in (record(simulator, 5, "clumsy"), record(make_simulator(simulator.name), 5, "clumsy")):
        np.testing.assert_array_equal(again.observations["state"], first.observations["state"])


@needs_mujoco
@needs_a_task
def test_dynamics_scale_the_motion_of_the_hand(simulator):
    action = np.zeros(simulator.action_dim, np.float32)
    action[0] = 0.5
    moved = []
    for dynamics in (0.5, 1.0, 1.5):
        start = simulator.reset(1, Disturbance(dynamics=dynamics))["state"][0]
        end = [simulator.step(action).observation["state"][0] for _ in range(8)][-1]
        moved.append(end - start)
    assert moved[1] / moved[0] == pytest.approx(2, rel=0.2) and moved[2] / moved[0] == pytest.approx(3, rel=0.2)


@needs_mujoco
@pytest.mark.parametrize("simulator", ["metaworld:pick-place", "robosuite:Lift"], indirect=True, scope="module")
def test_a_lifted_object_is_dropped_once(simulator):
    expert, heights = make_expert(simulator.name), []
    observation = simulator.reset(3, Disturbance(fault="drop"))
    while not simulator.dropped and len(heights) < simulator.limit:
        heights.append(simulator.data.qpos[simulator.model.jnt_qposadr[simulator.joint] + 2])
        observation = simulator.step(expert.act(observation)).observation
    assert simulator.dropped and len(heights) >= simulator.usual // 2
    assert heights[-1] > min(heights) + 0.015


@needs_mujoco
@pytest.mark.parametrize("simulator", ["robosuite:Lift"], indirect=True, scope="module")
def test_an_object_is_dropped_before_a_fast_lift_succeeds(simulator, monkeypatch):
    mujoco = pytest.importorskip("mujoco")
    advance, none = simulator._advance, np.zeros(simulator.action_dim, np.float32)

    def lift(action):
        advance(action)
        simulator._pose[2] += 0.1
        mujoco.mj_forward(simulator.model, simulator.data)

    for fault, at, wanted in ((None, 0, [True]), ("drop", 0, [False, True]), ("drop", 1, [False] * 3)):
        simulator.reset(3, Disturbance(fault=fault, at=at))
        with monkeypatch.context() as lifting:
            lifting.setattr(simulator, "_advance", lift)
            found = [simulator.step(none).success for _ in wanted]
        assert found == wanted and simulator.dropped == (fault == "drop" and wanted[-1])


@needs_mujoco
@needs_a_task
def test_pictures_show_the_motion(simulator):
    observation = simulator.reset(0)
    try:
        before = simulator.picture(48)
    except MissingPart as missing:
        pytest.skip(str(missing))
    for _ in range(20):
        observation = simulator.step(make_expert(simulator.name).act(observation)).observation
    assert before.shape == (48, 48, 3) and before.std() > 10 and (simulator.picture(48) != before).any()


@needs_mujoco
@pytest.mark.parametrize("simulator", ["robosuite:Can", "robosuite:Square"], indirect=True, scope="module")
def test_the_first_observation_is_that_of_the_start(simulator):
    """robosuite's first observation of an object is one of zeros if its sensors are not updated after a reset."""
    none = np.zeros(simulator.action_dim, np.float32)
    for seed in (0, 1):
        first = simulator.reset(seed)["state"]
        second = simulator.step(none).observation["state"]
        assert np.abs(first - second).max() < 0.1 and np.abs(first).max() > 0.5
        assert (first == 0).sum() <= (second == 0).sum()


@needs_mujoco
@pytest.mark.parametrize("simulator", ["robosuite:Lift"], indirect=True, scope="module")
def test_a_machine_without_graphics_gets_one_line_with_a_remedy(simulator, monkeypatch):
    def fails():
        raise RuntimeError("no display\nand no EGL")

    monkeypatch.setattr(physics, "_library", fails)
    simulator.reset(0)
    with pytest.raises(MissingPart, match=r"^MuJoCo cannot draw pictures here \(no display\): ") as refused:
        physics.Camera(simulator.model, "frontview", 48)
    assert "\n" not in str(refused.value)
