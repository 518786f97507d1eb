"""Games of the Atari 2600 by the Arcade Learning Environment (ale-py).

ale-py has the GPL-2.0 licence, unlike this package, and is therefore an extra of its own; it includes the games.
"""

import contextlib
import importlib.metadata
from collections.abc import Iterator
from typing import Any

import numpy as np

from ebwm.checks import one_of
from ebwm.compat import require
from ebwm.data.worlds import Dice, Frame, Game

__all__ = ["Atari"]

SKIP = 4  # frames of the console for each action
IDLE = 30  # maximum number of idle actions at the start of a game
BALL_X, BALL_Y, PADDLE_X = 99, 101, 72  # addresses in the RAM of Breakout


class Atari(Game):
    """A game of the Atari 2600 with its minimal set of actions, without repeated ("sticky") actions."""

    def __init__(
        self,
        game: str = "breakout",  # name of the game in lower case, such as "space_invaders"
        size: int | None = 64,  # height and width of frames in pixels; None: 210 rows and 160 columns
    ):
        ale = require("ale_py", "atari")
        one_of("game", game, ale.roms.get_all_rom_ids())
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
        self.game, self.name, self.size = game, f"atari:{game}", size
        self.source = f"ale-py {importlib.metadata.version('ale-py')}"
        self.console: Any = ale.ALEInterface()
        self.console.setFloat("repeat_action_probability", 0.0)
        self.console.setInt("random_seed", 0)
        self.console.loadROM(ale.roms.get_rom_path(game))
        self.codes = self.console.getMinimalActionSet()
        self.actions = tuple(code.name.lower() for code in self.codes)

    def start(self, seed: int) -> None:
        self.console.reset_game()
        self.screen = self.console.getScreenRGB()
        for _ in range(Dice(seed, "idle").below(IDLE + 1)):
            self.act(0)

    def act(self, action: int) -> tuple[float, bool]:
        reward, before = 0.0, self.screen
        for _ in range(SKIP):
            before = self.console.getScreenRGB()
            reward += self.console.act(self.codes[action])
        self.screen = np.maximum(before, self.console.getScreenRGB())  # some games draw things in every other frame
        return reward, self.console.game_over()

    def render(self) -> Frame:
        return self.screen

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        state, screen = self.console.cloneState(include_rng=True), self.screen
        try:
            yield
        finally:
            self.console.restoreState(state)
            self.screen = screen

    def scripted(self, dice: Dice) -> int:
        """Follow the ball in Breakout, cross the road in Freeway; other games have no script."""
        if self.game == "freeway":
            return self.actions.index("up")
        if self.game != "breakout":
            return super().scripted(dice)
        ram = self.console.getRAM()
        if ram[BALL_Y] == 0:
            return self.actions.index("fire")
        ahead = int(ram[BALL_X]) - int(ram[PADDLE_X]) - 8
        return self.actions.index("noop" if abs(ahead) < 3 else "right" if ahead > 0 else "left")
