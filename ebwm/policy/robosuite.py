"""Tasks of robosuite (MIT licence): a Panda arm under OSC_POSE, with the state of robomimic's data sets."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from ebwm.checks import one_of
from ebwm.compat import require
from ebwm.policy.physics import Physics
from ebwm.usage import UsageError

__all__ = ["RoboSuite", "TASKS"]

TASKS = {
    "Lift": ("Lift", "cube_joint0", 10, 28, 200),
    "Can": ("PickPlaceCan", "Can_joint0", 14, 97, 400),
    "Square": ("NutAssemblySquare", "SquareNut_joint0", 14, 140, 400),
    "ToolHang": ("ToolHang", "tool_joint0", 44, 400, 700),
}  # environment, joint and size of the object, steps of the expert, limit
ROBOT = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}


class RoboSuite(Physics):
    """A task of robosuite; actions are the hand's translation and rotation, and the gripper (1 closes it).

    The parts of the state have robomimic's names. An episode starts with one step without motion: before it, the
    object's pose as seen from the hand is zero. `Disturbance.dynamics` is a factor of the hand's motion.
    """

    action_dim = 7
    still = (6,)

    def __init__(
        self,
        task: str,  # "Lift" | "Can" | "Square" | "ToolHang"
        image: int | None = None,  # pixels along each side of the image in observations; None: no image
    ):
        super().__init__(image)
        one_of("task", task, TASKS, UsageError)
        environment, joint, size, self.usual, self.limit = TASKS[task]
        self.name, self.layout = f"robosuite:{task}", ROBOT | {"object": size}
        self.view = {"name": "sideview" if task == "ToolHang" else "agentview", "hidden": (0,)}
        with _quiet(), _seeded(0):  # the size of Lift's cube is drawn
            self.world: Any = _imported().make(
                environment, robots="Panda", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False,
                control_freq=20, ignore_done=True, hard_reset=False)
        self.model, self.data = self.world.sim.model._model, self.world.sim.data._data
        self.joint = self.model.joint(joint).id

    def _start(self, seed: int) -> None:
        with _seeded(seed):
            self.world.rng = np.random.default_rng(seed)
            self.world.reset()
        self._amplify(self.disturbance.dynamics)
        self._rest()
        self._advance(np.array((0, 0, 0, 0, 0, 0, -1.0)))

    def _amplify(self, factor: float) -> None:
        """Scale what an action does to the hand."""
        controller = self.world.robots[0].part_controllers["right"]
        reach = factor * np.array((0.05, 0.05, 0.05, 0.5, 0.5, 0.5))  # metres and radians
        controller.output_max, controller.output_min, controller.action_scale = reach, -reach, None

    def _advance(self, action: np.ndarray) -> None:
        self.seen = self.world.step(action)[0]

    def _state(self) -> Float[np.ndarray, " state_dim"]:
        parts = [*(self.seen[name] for name in ROBOT), self.seen["object-state"]]
        return np.concatenate(parts).astype(np.float32)

    def _success(self) -> bool:
        return bool(self.world._check_success())

    def close(self) -> None:
        super().close()
        self.world.close()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which robosuite draws from, and restore it."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence robosuite's advice, and undo its choice of a graphics library for all programs that are started."""
    before, library = logging.root.manager.disable, os.environ.get("MUJOCO_GL")
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        os.environ.pop("MUJOCO_GL", None)
        if library is not None:
            os.environ["MUJOCO_GL"] = library


def _imported() -> ModuleType:
    require("mujoco", "policy")
    return require("robosuite", "policy")
