"""Games of MiniGrid (Farama Foundation, MIT licence), seen from above."""

import importlib.metadata
from typing import Any

import numpy as np

from ebwm.checks import one_of
from ebwm.compat import require
from ebwm.data.worlds import Cell, Dice, Frame, Game, far_cell, route

__all__ = ["DEFAULT", "MiniGrid"]

DEFAULT = "MiniGrid-FourRooms-v0"
TILE = 8  # pixels of a cell before frames are scaled
MOVES, ALL = ("left", "right", "forward"), ("left", "right", "forward", "pickup", "drop", "toggle")
SCENERY = {"wall", "floor", "goal", "lava"}  # objects that only moves affect
PASSABLE = {"floor", "goal"}


class MiniGrid(Game):
    """An environment of MiniGrid; its time limit and its goal do not end an episode."""

    kinds = ("freeze", "teleport", "recolour")

    def __init__(
        self,
        environment: str = DEFAULT,  # its name, such as "MiniGrid-Empty-Random-6x6-v0"; "MiniGrid-" may be left out
        size: int | None = 64,  # height and width of frames in pixels; None: 8 pixels for each cell
    ):
        gymnasium = require("gymnasium", "games")
        require("minigrid", "games")
        environment = environment if environment.startswith("MiniGrid-") else f"MiniGrid-{environment}"
        known = [name for name in gymnasium.registry if name.startswith("MiniGrid-")]
        one_of("environment", environment, known)
        self.name, self.size = f"minigrid:{environment}", size
        self.source = f"minigrid {importlib.metadata.version('minigrid')}"
        self.world: Any = gymnasium.make(environment).unwrapped
        self.start(0)
        self.actions = MOVES if {thing.type for thing in self.world.grid.grid if thing} <= SCENERY else ALL

    def start(self, seed: int) -> None:
        self.world.reset(seed=seed)
        self.goal: Cell | None = None

    def act(self, action: int) -> tuple[float, bool]:
        return float(self.world.step(self.world.actions(action))[1]), False

    def render(self) -> Frame:
        return self.world.get_frame(highlight=False, tile_size=TILE)

    def planes(self) -> Frame:
        """Channels of 11 kinds of things, 6 colours and 4 states or directions."""
        cells = self.world.grid.encode().astype(np.int64)
        cells[tuple(self.world.agent_pos)] = 10, 0, self.world.agent_dir
        parts = [np.eye(count, dtype=np.uint8)[cells[..., part]] for part, count in enumerate((11, 6, 4))]
        return 255 * np.concatenate(parts, axis=-1).swapaxes(0, 1)

    def _cells(self, kinds: set[str]) -> np.ndarray:
        """Whether each cell, [width height], is empty or holds a thing of these kinds."""
        grid = self.world.grid
        holds = [thing is None or thing.type in kinds or getattr(thing, "is_open", False) for thing in grid.grid]
        return np.array(holds).reshape(grid.height, grid.width).T

    def scripted(self, dice: Dice) -> int:
        """Walk to random cells; with objects, one in five actions is random."""
        if self.actions == ALL and dice.chance(0.2):
            return dice.below(len(ALL))
        free, here = self._cells(PASSABLE), tuple(map(int, self.world.agent_pos))
        way = route(free, here, self.goal) if self.goal else []
        if not way or dice.chance(0.05):
            cells = [tuple(cell) for cell in np.argwhere(free).tolist() if tuple(cell) != here]
            self.goal = cells[dice.below(len(cells))] if cells else here
            way = route(free, here, self.goal)
        if not way:
            return dice.below(len(self.actions))
        step = way[0][0] - here[0], way[0][1] - here[1]
        turns = ([(1, 0), (0, 1), (-1, 0), (0, -1)].index(step) - self.world.agent_dir) % 4
        return {0: 2, 1: 1, 2: dice.below(2), 3: 0}[turns]

    def disturb(self, kind: str, dice: Dice) -> None:
        """Move the agent by more than two cells, or change the colour of an object other than a wall."""
        if kind == "teleport":
            here = tuple(map(int, self.world.agent_pos))
            self.world.agent_pos = far_cell(self._cells(set()), here, [], dice)
            return
        things = [thing for thing in self.world.grid.grid if thing and thing.type != "wall"]
        if things:
            thing = things[dice.below(len(things))]
            thing.color = "purple" if thing.color != "purple" else "yellow"
