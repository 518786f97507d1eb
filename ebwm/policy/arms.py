"""State machines that solve robosuite's Lift, Can and Square from the state."""

from typing import ClassVar

import numpy as np
from scipy.spatial.transform import Rotation

from ebwm.policy.experts import Expert
from ebwm.policy.interface import Observation

__all__ = ["ArmExpert", "CanExpert", "LiftExpert", "SquareExpert"]

OPEN, CLOSED = -1.0, 1.0
REACH = 0.05, 0.5  # metres and radians of an action of 1
BIN = np.array((0.17, 0.36))  # in the can's compartment, within the arm's reach
PEG = np.array((0.23, 0.1))


class ArmExpert(Expert):
    """Grasps an object from above, then goes through the phases of its task; a lost object is grasped again."""

    moving = 6
    first: ClassVar[int]  # of the object's pose in the state
    gain = 2.0
    near = 0.015  # distance from the line above the object at which the hand goes down
    hover = 0.08  # height above the object at which the hand arrives
    hold = 6  # steps for closing the gripper
    fall = 0.05  # largest height that the hand goes down in a step while it takes an object
    slip = 0.05  # distance from the grasp at which the object counts as lost

    def __init__(self, seed: int = 0):
        super().__init__(seed)
        self.reset()

    def reset(self) -> None:
        self._enter("approach")

    def _enter(self, phase: str) -> None:
        self.phase, self.count, self.sum = phase, 0, np.zeros(2)

    def act(self, observation: Observation) -> np.ndarray:
        state = observation["state"].astype(np.float64)
        self.hand, self.hand_turn = state[:3], Rotation.from_quat(state[3:7])
        self.thing = state[self.first:self.first + 3]
        self.yaw = _yaw(Rotation.from_quat(state[self.first + 3:self.first + 7]))
        if self.phase in ("carry", "align", "lower") and np.linalg.norm(self._grasp() - self.hand) > self.slip:
            self._enter("approach")
        self.count += 1
        motion, yaw, grip = getattr(self, f"_{self.phase}")()
        turn = (Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi) * self.hand_turn.inv()).as_rotvec()
        action = np.concatenate((self.gain * motion / REACH[0], self.gain * turn / REACH[1], [grip]))
        return action.clip(-1, 1)

    def _grasp(self) -> np.ndarray:
        """The place of the hand for a grasp."""
        return self.thing

    def _grasp_yaw(self) -> float:
        """The yaw of the hand for a grasp."""
        return 0.0

    def _approach(self) -> tuple[np.ndarray, float, float]:
        error, yaw = self._grasp() - self.hand, self._grasp_yaw()
        if np.linalg.norm(error[:2]) < self.near and abs(_wrapped(yaw - _yaw(self.hand_turn), np.pi)) < 0.1:
            self.phase = "descend"
        error[2] += self.hover
        return self._with_integral(error), yaw, OPEN

    def _descend(self) -> tuple[np.ndarray, float, float]:
        error = self._grasp() - self.hand
        away, height = np.linalg.norm(error[:2]), error[2]
        error[2] = max(height, -self.fall)
        motion, yaw = self._with_integral(error), self._grasp_yaw()
        if away > self.near + 0.012:
            self._enter("approach")
        elif away < 0.01 and abs(height) < 0.008:
            self._enter("close")
        return motion, yaw, OPEN

    def _with_integral(self, error: np.ndarray) -> np.ndarray:
        """The error with the sum of small ones in the plane, against a lasting offset."""
        if np.linalg.norm(error[:2]) < 0.02:
            self.sum = (self.sum + 0.15 * error[:2]).clip(-0.02, 0.02)
        return error + np.append(self.sum, 0)

    def _close(self) -> tuple[np.ndarray, float, float]:
        if self.count >= self.hold:
            self._enter("carry")
        return self._grasp() - self.hand, self._grasp_yaw(), CLOSED


class LiftExpert(ArmExpert):
    """Lifts the cube."""

    first = 9

    def _grasp_yaw(self) -> float:
        return _wrapped(self.yaw, np.pi / 2)

    def _carry(self) -> tuple[np.ndarray, float, float]:
        return np.array((0, 0, 0.1)), _yaw(self.hand_turn), CLOSED


class CanExpert(ArmExpert):
    """Carries the can into its bin."""

    first = 16
    above = 0.012  # the can's centre, where the hand takes it
    height = 0.98  # of the can on the way

    def _grasp(self) -> np.ndarray:
        return self.thing + np.array((0, 0, self.above))

    def _carry(self) -> tuple[np.ndarray, float, float]:
        error = np.append(BIN - self.thing[:2], self.height - self.thing[2])
        away = np.linalg.norm(error[:2])
        if away < 0.03:
            self._enter("lower")
        if error[2] > 0.05:
            error[:2] *= 0.2
        return error, 0.0, CLOSED

    def _lower(self) -> tuple[np.ndarray, float, float]:
        error = np.append(BIN - self.thing[:2], 0.88 - self.thing[2])
        if error[2] > -0.02:
            self._enter("release")
        return error, 0.0, CLOSED

    def _release(self) -> tuple[np.ndarray, float, float]:
        if self.count > 20:
            self._enter("approach")
        return np.array((0, 0, 0.1 * (self.count > 3))), 0.0, OPEN


class SquareExpert(ArmExpert):
    """Takes the nut by its handle and puts it on the peg; it aligns again when it jams."""

    first = 16
    near = 0.008
    height = 0.975  # of the nut above the peg
    handle = 0.063  # from the nut's centre to the middle of the handle's free part
    fall = 0.02
    hold = 8
    patience = 5  # steps within the tolerance before the nut goes down

    def _grasp(self) -> np.ndarray:
        return self.thing + self.handle * np.array((np.cos(self.yaw), np.sin(self.yaw), 0))

    def _grasp_yaw(self) -> float:
        return _wrapped(self.yaw, np.pi)

    def _over_peg(self, height: float) -> tuple[np.ndarray, float]:
        """Error of the nut's place, and the yaw of the hand that aligns it."""
        error = np.append(PEG - self.thing[:2], height - self.thing[2])
        return error, _yaw(self.hand_turn) + self._turn()

    def _turn(self) -> float:
        """The rotation that aligns the nut with the peg, and keeps its handle on the near side of it."""
        turns = [_wrapped(aligned - self.yaw, 2 * np.pi) for aligned in (-np.pi / 2, np.pi / 2, np.pi)]
        return min(turns, key=abs)

    def _carry(self) -> tuple[np.ndarray, float, float]:
        error, yaw = self._over_peg(self.height)
        if error[2] > 0.03:
            error[:2] = 0
            yaw = yaw if error[2] < 0.08 else _yaw(self.hand_turn)
        elif np.linalg.norm(error[:2]) < 0.02:
            self._enter("align")
        return error, yaw, CLOSED

    def _align(self) -> tuple[np.ndarray, float, float]:
        error, yaw = self._over_peg(self.height)
        good = np.linalg.norm(error[:2]) < 0.003 and abs(self._turn()) < 0.03
        self.count = self.count if good else 0
        if self.count >= self.patience:
            self._enter("lower")
            self.lowest, self.jammed = self.thing[2], 0
        return self._with_integral(error), yaw, CLOSED

    def _lower(self) -> tuple[np.ndarray, float, float]:
        error, yaw = self._over_peg(0.80)
        self.jammed = 0 if self.thing[2] < self.lowest - 0.001 else self.jammed + 1
        self.lowest = min(self.lowest, self.thing[2])
        if self.jammed > 8:
            self._enter("align" if self.thing[2] > 0.9 else "release")
        error[2] = max(error[2], -0.02)
        return self._with_integral(error), yaw, CLOSED

    def _release(self) -> tuple[np.ndarray, float, float]:
        if self.count > 20:
            self._enter("approach")
        return np.array((0, 0, 0.05 * (self.count > 3))), _yaw(self.hand_turn), OPEN


def _yaw(turn: Rotation) -> float:
    """The angle of a rotation's x axis in the plane."""
    x, y, _ = turn.apply((1, 0, 0))
    return float(np.arctan2(y, x))


def _wrapped(angle: float, period: float) -> float:
    """An angle up to multiples of a period, from minus to plus half of it."""
    return float((angle + period / 2) % period - period / 2)
