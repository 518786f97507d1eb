"""Games whose next frame depends on an action: their interface, and a small one that needs no other package."""

import contextlib
import copy
import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from ebwm.checks import at_least, between, one_of

__all__ = ["Cell", "Dice", "Frame", "Game", "Push", "Step", "Symbolic", "far_cell", "resample",
           "route"]

Frame = UInt8[np.ndarray, "height width channels"]
Cell = tuple[int, int]  # row and column


# Random integers and images


class Dice:
    """Random integers of a named stream, the same on every machine and with every version of NumPy."""

    def __init__(
        self,
        seed: int,  # an integer of at least 0
        stream: str,  # name of this use of the seed: streams of one seed are independent
    ):
        digest = hashlib.sha256(f"{stream}:{seed}".encode()).digest()
        self.bits = np.random.PCG64(int.from_bytes(digest[:8], "little"))

    def below(
        self,
        count: int,  # at least 1
    ) -> int:
        """An integer from 0 to `count` - 1."""
        return int(self.bits.random_raw()) % count

    def chance(
        self,
        probability: float,  # from 0 to 1
    ) -> bool:
        """True with this probability."""
        return int(self.bits.random_raw()) < probability * 2**64


def resample(
    frame: Frame,  # pixels
    size: int,  # height and width of the result
) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """Scale a frame by the mean over areas. All sums are integers, so that the bytes are the same on every machine."""
    height, width, _ = frame.shape
    rows, columns = _overlaps(height, size).astype(np.float64), _overlaps(width, size).astype(np.float64)
    sums = np.tensordot(rows, np.tensordot(frame.astype(np.float64), columns, (1, 1)), 1).swapaxes(1, 2)
    return ((sums.astype(np.int64) + height * width // 2) // (height * width)).astype(np.uint8)


def _overlaps(source: int, size: int) -> np.ndarray:
    """Length of the overlap of each new pixel with each old one, [size source]; a new pixel has length `source`."""
    new, old = np.arange(size)[:, None] * source, np.arange(source) * size
    return np.clip(np.minimum(new + source, old + size) - np.maximum(new, old), 0, None)


def route(
    free: Bool[np.ndarray, "height width"],  # cells that may be entered
    start: Cell,
    goal: Cell,
) -> list[Cell]:  # without the start; empty if there is no way
    """A shortest way between two cells, by breadth-first search."""
    before, waiting = {start: start}, deque([start])
    while waiting and goal not in before:
        row, column = waiting.popleft()
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < free.shape[0] and 0 <= cell[1] < free.shape[1]
            if inside and free[cell] and cell not in before:
                before[cell] = row, column
                waiting.append(cell)
    way = [goal] if goal in before else []
    while way and way[-1] != start:
        way.append(before[way[-1]])
    return way[-2::-1]


def far_cell(
    free: Bool[np.ndarray, "height width"],  # cells that may be entered
    place: Cell,
    taken: Sequence[Cell],  # cells to avoid
    dice: Dice,  # source of randomness
) -> Cell:  # the place itself if no other cell is left
    """A random free cell that is further away than two moves."""
    distance = lambda cell: abs(cell[0] - place[0]) + abs(cell[1] - place[1])
    cells = [cell for cell in _cells(free) if distance(cell) > 2 and cell not in taken]
    return cells[dice.below(len(cells))] if cells else place


def _cells(free: Bool[np.ndarray, "height width"]) -> list[Cell]:
    return [tuple(cell) for cell in np.argwhere(free).tolist()]


# Games


class Step(NamedTuple):
    """What an action leads to."""

    frame: Frame  # the next frame
    reward: float  # received for the action
    done: bool  # whether the game has ended


class Game(ABC):
    """A game that is acted on; the same seed and the same actions give the same frames."""

    name: str  # as `make_game` takes it
    source: str  # the package that makes the frames, and its version
    actions: tuple[str, ...]  # name of each action; an action is its index
    kinds: ClassVar[tuple[str, ...]] = ("freeze",)  # impossible events that `impossible` can show
    size: int | None = None  # height and width of frames; None: as the game renders them

    @abstractmethod
    def start(self, seed: int) -> None:
        """Start a new game."""

    @abstractmethod
    def act(self, action: int) -> tuple[float, bool]:
        """Play one action; returns its reward and whether the game has ended."""

    @abstractmethod
    def render(self) -> Frame:
        """The present frame in the game's own size."""

    def planes(self) -> Frame:
        """The present cells by their contents, one channel of 0 and 255 for each symbol; not all games have them."""
        raise TypeError(f"game={self.name!r}: has no symbols; use symbolic=False")

    def scripted(
        self,
        dice: Dice,  # source of randomness
    ) -> int:
        """An action of the game's own player; without one, a random action."""
        return dice.below(len(self.actions))

    def frame(self) -> Frame:
        """The present frame."""
        made = self.render()
        return made if self.size is None or made.shape[:2] == (self.size, self.size) else resample(made, self.size)

    def reset(
        self,
        seed: int,  # an integer of at least 0
    ) -> Frame:
        """Start a new game and return its first frame."""
        at_least("seed", seed, 0)
        self.start(seed)
        return self.frame()

    def step(
        self,
        action: int,  # index in `actions`
    ) -> Step:
        """Play one action."""
        between("action", action, 0, len(self.actions) - 1)
        reward, done = self.act(action)
        return Step(self.frame(), reward, done)

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """Undo at the end of the block all that happened in it."""
        before = copy.deepcopy(vars(self))
        try:
            yield
        finally:
            vars(self).clear()
            vars(self).update(before)

    def branches(self) -> UInt8[np.ndarray, "actions height width channels"]:
        """The next frame of each action; the state of the game does not change."""
        return np.stack([self._after(action) for action in range(len(self.actions))])

    def _after(self, action: int) -> Frame:
        with self.trial():
            return self.step(action).frame

    def impossible(
        self,
        kind: str,  # one of `kinds`
        action: int,  # index in `actions`
        dice: Dice,  # source of randomness
    ) -> Frame:
        """The frame after an action if the world breaks its rules; the possible one if that would change nothing.

        "freeze" repeats the frame although the action changes it. The state of the game does not change.
        """
        one_of("kind", kind, self.kinds)
        if kind == "freeze":
            return self.frame()
        with self.trial():
            self.step(action)
            self.disturb(kind, dice)
            return self.frame()

    def disturb(
        self,
        kind: str,  # one of `kinds` except "freeze"
        dice: Dice,  # source of randomness
    ) -> None:
        """Break the rules in the present state, if that is possible in it."""
        raise NotImplementedError(kind)


class Symbolic(Game):
    """A game whose frames are the contents of its cells instead of pixels."""

    def __init__(
        self,
        game: Game,  # with `planes`
    ):
        self.game, self.name, self.source, self.actions = game, game.name, game.source, game.actions
        self.kinds = game.kinds

    def start(self, seed: int) -> None:
        self.game.start(seed)

    def act(self, action: int) -> tuple[float, bool]:
        return self.game.act(action)

    def render(self) -> Frame:
        return self.game.planes()

    def scripted(self, dice: Dice) -> int:
        return self.game.scripted(dice)

    def disturb(self, kind: str, dice: Dice) -> None:
        self.game.disturb(kind, dice)


# The built-in game


MOVES = {"stay": (0, 0), "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
COLOURS = {"floor": (0, 0, 0), "wall": (110, 110, 110), "switch": (0, 110, 60), "block": (200, 60, 40),
           "lit block": (240, 210, 60), "agent": (60, 120, 250)}


class Push(Game):
    """An agent that pushes a block between walls; entering the switch changes the colour of the block."""

    source, actions = "push 1", tuple(MOVES)  # a new number makes stored episodes again
    kinds = ("freeze", "teleport", "recolour")

    def __init__(
        self,
        cells: int = 7,  # height and width of the world in cells, with the walls around it
        walls: int | None = None,  # walls inside, at random places; None: `cells` - 4
        size: int | None = None,  # height and width of frames in pixels; None: one pixel for each cell
    ):
        between("cells", cells, 5, 64)
        self.walls = (cells - 4) if walls is None else walls
        between("walls", self.walls, 0, cells - 4)
        self.name, self.cells, self.size = f"push:{cells}", cells, size

    def start(self, seed: int) -> None:
        dice = Dice(seed, "push")
        self.free = np.zeros((self.cells, self.cells), bool)
        self.free[1:-1, 1:-1] = True
        for _ in range(self.walls):
            self.free[self._somewhere(dice, [])] = False
        self.switch = self._somewhere(dice, [])
        self.block = self._somewhere(dice, [self.switch])
        self.agent = self._somewhere(dice, [self.switch, self.block])
        self.lit, self.goal = dice.chance(0.5), self.agent

    def _somewhere(self, dice: Dice, taken: list[Cell]) -> Cell:
        """A random free cell that is not taken."""
        cells = [cell for cell in _cells(self.free) if cell not in taken]
        return cells[dice.below(len(cells))]

    def act(self, action: int) -> tuple[float, bool]:
        step = tuple(MOVES.values())[action]
        target, beyond = _moved(self.agent, step), _moved(_moved(self.agent, step), step)
        if target == self.block and target != self.agent and self.free[beyond]:
            self.block = beyond
        if self.free[target] and target != self.block:
            pressed = target == self.switch != self.agent
            self.agent, self.lit = target, self.lit ^ pressed
            return float(pressed), False
        return 0.0, False

    def scripted(self, dice: Dice) -> int:
        """Walk to random cells, pushing the block when it is in the way."""
        way = route(self.free, self.agent, self.goal)
        if not way or dice.chance(0.1):
            self.goal = self._somewhere(dice, [self.agent])
            way = route(self.free, self.agent, self.goal)
        step = (way[0][0] - self.agent[0], way[0][1] - self.agent[1]) if way else (0, 0)
        return list(MOVES.values()).index(step)

    def disturb(self, kind: str, dice: Dice) -> None:
        """Move the agent by two cells or more, or change the colour of the block without the switch."""
        if kind == "recolour":
            self.lit = not self.lit
            return
        self.agent = far_cell(self.free, self.agent, [self.block, self.switch], dice)

    def _symbols(self) -> dict[str, Any]:
        """The cells of each symbol, in the order in which they are drawn."""
        return {"wall": ~self.free, "switch": self.switch, "lit block" if self.lit else "block": self.block,
                "agent": self.agent}

    def render(self) -> Frame:
        pixels = np.zeros((self.cells, self.cells, 3), np.uint8)
        for name, place in self._symbols().items():
            pixels[place] = COLOURS[name]
        return pixels

    def planes(self) -> Frame:
        made, names = np.zeros((self.cells, self.cells, len(COLOURS) - 1), np.uint8), list(COLOURS)[1:]
        for name, place in self._symbols().items():
            made[..., names.index(name)][place] = 255
        return made


def _moved(cell: Cell, step: Cell) -> Cell:
    return cell[0] + step[0], cell[1] + step[1]
