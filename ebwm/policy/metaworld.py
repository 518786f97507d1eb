"""Tasks of Meta-World (Farama Foundation, MIT licence): a Sawyer arm on a table, with the goal in the state."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from ebwm.checks import one_of
from ebwm.compat import require
from ebwm.policy.experts import Expert
from ebwm.policy.interface import Observation
from ebwm.policy.physics import Physics
from ebwm.usage import UsageError

__all__ = ["MetaWorld", "MetaWorldExpert", "TASKS", "WALL", "WallExpert"]

TASKS = {"pick-place": (52, 200), "push-wall": (80, 200), "peg-insert-side": (104, 300), "hammer": (69, 200),
         "reach-wall": (79, 200)}  # steps of the expert, and the limit
LIFTED = ("pick-place", "peg-insert-side", "hammer")  # tasks whose object is lifted
WALL = 0.1, 0.75  # centre of the wall of "reach-wall"


class MetaWorld(Physics):
    """A task of Meta-World; actions are the hand's motion and the gripper's effort.

    `Disturbance.dynamics` is a factor of the hand's motion. In reach-wall, whose object is of no use, `push` is a
    displacement of the hand in metres.
    """

    layout = {"current": 18, "previous": 18, "goal": 3}
    action_dim = 4
    still = (3,)
    view = {"name": "corner2", "upside_down": True}

    def __init__(
        self,
        task: str,  # such as "pick-place"
        image: int | None = None,  # pixels along each side of the image in observations; None: no image
    ):
        super().__init__(image)
        one_of("task", task, TASKS, UsageError)
        require("metaworld", "policy")
        environments = require("metaworld.env_dict", "policy")
        self.name, self.task = f"metaworld:{task}", task
        self.usual, self.limit = TASKS[task]
        self.faults = ("drop", "block") if task in LIFTED else ("block",)
        self.world: Any = environments.ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        self.world._set_task_called = self.world.seeded_rand_vec = True
        self.world._freeze_rand_vec = self.world._partially_observable = False
        self.world.__dict__.pop("sawyer_observation_space", None)  # the cached one has no goal
        self.gain = self.world.action_scale
        self.model, self.data = self.world.model, self.world.data
        self.joint = int(np.flatnonzero(self.model.jnt_type == 0)[0])
        self.model.camera("corner2").pos = 0.75, 0.075, 0.7  # nearer to the table

    def _start(self, seed: int) -> None:
        self.world.seed(seed)
        self.world._did_see_sim_exception = False
        self.world.action_scale = self.gain * self.disturbance.dynamics
        self.state, self.done = self.world.reset()[0], False
        self._rest()

    def _advance(self, action: np.ndarray) -> None:
        self.state, _, _, _, facts = self.world.step(action.astype(np.float32))
        self.done = bool(facts["success"])

    def _state(self) -> Float[np.ndarray, "39"]:
        return np.asarray(self.state, np.float32)

    def _success(self) -> bool:
        return self.done

    def _push(self, strength: float) -> None:
        if self.task == "reach-wall":
            self.data.mocap_pos[0, :2] += self._horizontal(strength)
        else:
            super()._push(strength)

    def close(self) -> None:
        super().close()
        self.world.close()


class MetaWorldExpert(Expert):
    """The script that Meta-World has for a task."""

    moving = 3

    def __init__(
        self,
        task: str,  # such as "pick-place"
        seed: int = 0,
    ):
        super().__init__(seed)
        self.script = require("metaworld.policies", "policy").ENV_POLICY_MAP[f"{task}-v3"]()

    def act(self, observation: Observation) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of actions beyond [-1, 1]
            action = self.script.get_action(observation["state"].astype(np.float64))
        return np.clip(action, -1, 1)


class WallExpert(Expert):
    """Moves the hand around the wall of "reach-wall", on a side that the seed alone decides."""

    moving = 3
    sides = {"left": -0.17, "right": 0.36}  # x of the way past the wall

    def __init__(self, seed: int = 0):
        super().__init__(seed)
        self.side = ("left", "right")[np.random.default_rng([seed, 3]).integers(2)]

    def act(self, observation: Observation) -> np.ndarray:
        hand, goal = observation["state"][:3], observation["state"][-3:]
        target = goal
        if hand[1] < WALL[1] - 0.01:
            x = self.sides[self.side]
            near = abs(hand[0] - x) < 0.05
            target = np.array((x, WALL[1] + 0.05 if near else min(hand[1], WALL[1] - 0.1), goal[2]))
        return np.append(np.clip(10 * (target - hand), -1, 1), 0.0)
