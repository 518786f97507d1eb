"""A point on a plane that has to get around an obstacle, on the left or on the right: two ways that both succeed."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from ebwm.policy.interface import Scene

__all__ = ["OBSTACLE", "Reach", "side", "side_of_path"]

OBSTACLE = 0.3  # radius; its centre is the origin
SPEED = 0.06  # largest displacement in one step along each axis
RADIUS = 0.08  # of the goal
AGENT = 0.05  # radius of the agent, for the eye
BACKGROUND, GREY, RED, GREEN, BLUE = (250, 250, 247), (120, 128, 138), (200, 70, 60), (76, 160, 100), (48, 102, 190)


class Reach(Scene):
    """A point with velocity actions in the square [-1, 1] x [-1, 1], from the bottom to a goal at the top.

    A point that touches the obstacle stays there, and the episode has failed. `Disturbance.dynamics` is a factor of the
    velocity, `push` the length of a displacement of the point in a direction of the seed.
    """

    name = "reach"
    layout = {"agent": 2, "goal": 2}
    action_dim = 2
    limit = 60
    usual = 36
    faults = ("block",)

    def _start(self, seed: int) -> None:
        x, y, goal_x, goal_y = np.random.default_rng([seed, 0]).uniform(-1, 1, 4)
        self.x, self.y = 0.2 * x, -0.8 + 0.1 * y
        self.goal = 0.2 * goal_x, 0.8 + 0.1 * goal_y
        self.touched = False
        self.trail = [(self.x, self.y)]

    def _advance(self, action: np.ndarray) -> None:
        scale = SPEED * self.disturbance.dynamics
        self._move(scale * float(action[0]), scale * float(action[1]))

    def _move(self, dx: float, dy: float) -> None:
        """Move unless the obstacle was touched; stop where the way enters it."""
        if self.touched:
            return
        share = _way_to_obstacle(self.x, self.y, dx, dy)
        self.touched = share < 1
        self.x = min(1.0, max(-1.0, self.x + share * dx))
        self.y = min(1.0, max(-1.0, self.y + share * dy))
        self.trail.append((self.x, self.y))

    def _state(self) -> Float[np.ndarray, "4"]:
        return np.array((self.x, self.y, *self.goal), np.float32)

    def _success(self) -> bool:
        return not self.touched and math.hypot(self.x - self.goal[0], self.y - self.goal[1]) < RADIUS

    def _push(self, strength: float) -> None:
        angle = self.random.uniform(0, 2 * math.pi)
        self._move(strength * math.cos(angle), strength * math.sin(angle))

    def picture(self, size: int = 256) -> UInt8[np.ndarray, "size size 3"]:
        """Obstacle, goal, and the agent with its trail, from above."""
        axis = (np.arange(size) + 0.5) * 2.1 / size - 1.05
        x, y = axis[None, :], -axis[:, None]
        image = np.full((size, size, 3), BACKGROUND, np.float64)
        disk = lambda centre, radius: np.hypot(x - centre[0], y - centre[1]) - radius
        soft = 2.1 / size  # width of edges
        _paint(image, disk((0, 0), OBSTACLE), GREY, soft)
        _paint(image, np.abs(disk(self.goal, RADIUS)) - 0.012, GREEN, soft)
        _paint(image, disk(self.goal, RADIUS), GREEN, soft, 0.3)
        for start, end in zip(self.trail, self.trail[1:], strict=False):
            _paint_segment(image, start, end, axis)
        _paint(image, disk((self.x, self.y), AGENT), RED if self.touched else BLUE, soft)
        return image.round().astype(np.uint8)


def _way_to_obstacle(x: float, y: float, dx: float, dy: float) -> float:
    """Share of a displacement up to the obstacle; 1 if it does not touch it."""
    square, toward = dx * dx + dy * dy, x * dx + y * dy
    root = toward * toward - square * (x * x + y * y - OBSTACLE * OBSTACLE)
    if root <= 0 or toward >= 0:
        return 1.0
    return min(1.0, max(0.0, (-toward - math.sqrt(root)) / square))


def _paint(image: np.ndarray, distance: np.ndarray, colour: Sequence[int], soft: float, strength: float = 1.0) -> None:
    """Blend a colour into the pixels at a negative distance, with soft edges."""
    share = strength * np.clip(0.5 - distance / soft, 0, 1)[..., None]
    image += share * (np.array(colour) - image)


def _paint_segment(image: np.ndarray, start: tuple, end: tuple, axis: np.ndarray) -> None:
    """Draw one segment of the trail, in the part of the image around it."""
    margin = 0.03
    (left, right), (low, high) = sorted((start[0], end[0])), sorted((start[1], end[1]))
    columns = slice(*np.searchsorted(axis, (left - margin, right + margin)))
    rows = slice(*np.searchsorted(axis, (-high - margin, -low + margin)))
    x, y = axis[None, columns] - start[0], -axis[rows, None] - start[1]
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
    distance = np.hypot(x - along * dx, y - along * dy) - 0.009
    _paint(image[rows, columns], distance, BLUE, axis[1] - axis[0], 0.6)


def side(
    episode: object,  # with states of "reach" in `observations["state"]`, such as an `Episode`
) -> str | None:
    """The side on which an episode of "reach" passed the obstacle: "left", "right", or None if it did not."""
    return side_of_path(episode.observations["state"][:, :2])


def side_of_path(
    path: Float[np.ndarray, "steps 2"],  # positions of the agent
) -> str | None:
    """The side on which a path first passes the obstacle's centre: "left", "right", or None if it does not."""
    above = path[:, 1] >= 0
    if not above.any():
        return None
    return "left" if path[above.argmax(), 0] < 0 else "right"
