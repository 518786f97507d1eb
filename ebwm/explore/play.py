"""Games that a person plays beside a model that learned them: the real next frame, and the predicted one."""

import base64
import json
import math
import string
import struct
import zlib
from collections.abc import Callable
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import between, one_of, refusal
from ..data.games import as_states, episodes, make_game
from ..data.task import Scale
from ..data.worlds import Dice, Frame, Game
from ..files import write_json
from ..saving import FILE
from ..settings import generator
from ..training.learner import Learner, load_run
from ..training.run import train
from ..usage import UsageError

__all__ = ["DEFAULT", "MODES", "Player", "Session", "Shown", "keys_of", "open_run", "png", "small_run", "train_small"]

MODES = ("track", "dream")
PLAYED = "game.json"  # of a run on states: the game, and the number of states of an episode
KEYS = {"up": "ArrowUp", "forward": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft", "right": "ArrowRight",
        "stay": " ", "fire": " "}
SIGNS = string.digits[1:] + string.ascii_lowercase  # keys of other actions, by number
KEPT = 60  # steps whose errors and energies are shown
DEFAULT = "push:5"  # game of a small model
FRAMES, EPISODES = 8, 2048  # of an episode on which a small model is trained; number of episodes
LARGE = 256  # numbers of a frame above which a small model takes smaller frames and latent candidates
COMPRESSED = ("data.encoder=pixels", "data.size=32", f"data.train_episodes={EPISODES}", "model.dim=256",
              "model.candidates=latent")
SMALL = ("model.depth=2", "optimiser.batch=32", "optimiser.learning_rate=8e-3", "walk.start=last", "walk.step_size=1.0",
         "eval_every=1000", "run.logger=none")


class Player(NamedTuple):
    """A game, a model that learned it, and the way from frames to states and back."""

    game: Game
    learner: Learner
    encode: Callable[[np.ndarray], Tensor]  # frames [n height width channels] -> states [n state_dim]
    decode: Callable[[Tensor], np.ndarray]  # states [n state_dim] -> frames
    choices: Tensor  # each action as the model takes it [actions action_dim]
    window: int  # largest number of states in a context


class Shown(NamedTuple):
    """A step of a session."""

    real: Frame  # the true frame
    predicted: Frame  # what the model expected; after a reset, the true frame
    error: float | None  # of the prediction; None after a reset
    still: float | None  # error of repeating the last frame
    energy: float | None  # of the true frame after the context; None for a model without an energy
    own_energy: float | None  # of the predicted frame


class Session:
    """A game and its learned copy, step by step; equal seeds and actions give equal steps.

    In mode "track" the model predicts from the true frames, in mode "dream" from the frames that it predicted, as
    they are shown: with pixels that exist. A player has one game: start another session only when one has ended.
    """

    def __init__(
        self,
        player: Player,  # what is played
        seed: int = 0,  # of the game and of the noise of predictions
        mode: str = "track",  # or "dream"
    ):
        self.player, self.mode = player, mode
        self.set_mode(mode)
        self.reset(seed)

    def reset(
        self,
        seed: int,  # an integer of at least 0
    ) -> Shown:
        """Start a new game."""
        frame = self.player.game.reset(index(seed))
        self.seed, self.noise, self.dice = seed, generator(seed, "play"), Dice(seed, "play")
        self.real = self.dreamed = self.player.encode(frame[None])
        self.actions, self.done, self.history = [], False, []
        self.shown = Shown(frame, frame, None, None, None, None)
        return self.shown

    def set_mode(
        self,
        mode: str,  # one of MODES
    ) -> None:
        """Change the mode; a dream begins from the true frames."""
        one_of("mode", mode, MODES, UsageError)
        if mode != self.mode:
            self.dreamed = self.real
        self.mode = mode

    @torch.no_grad()
    def press(
        self,
        action: int,  # index in the game's actions
        event: str | None = None,  # impossible event that follows, one of `events`
    ) -> Shown:
        """Play an action in the game and predict its effect; after the end of a game the next one starts."""
        game = self.player.game
        between("action", index(action), 0, len(game.actions) - 1, UsageError)
        if event is not None:
            one_of("event", event, self.events, UsageError)
        if self.done:
            return self.reset(self.seed + 1)
        if not np.array_equal(game.frame(), self.shown.real):
            raise UsageError(f"game={game.name!r}: another session of this player has moved it; make a new session")
        self.actions.append(action)
        context = self._context()
        predicted = self.player.learner.predict(context, self.noise)[:, -1]
        self.done = game.step(action).done
        if event:
            game.disturb(event, self.dice)
        self.shown = self._shown(game.frame(), predicted, context)
        self.history = [*self.history, self.shown][-KEPT:]
        return self.shown

    @property
    def events(self) -> tuple[str, ...]:
        """Impossible events that `press` can show."""
        return tuple(kind for kind in self.player.game.kinds if kind != "freeze")

    def _context(self) -> tuple[Tensor, Tensor]:
        """The last states and the actions after them, as a batch of one."""
        states = (self.dreamed if self.mode == "dream" else self.real)[-self.player.window:]
        return states[None], self.player.choices[self.actions[-len(states):]][None]

    def _shown(self, frame: Frame, predicted: Tensor, context: tuple[Tensor, Tensor]) -> Shown:
        learner, state = self.player.learner, self.player.encode(frame[None])
        energies: list[float | None] = [None, None]
        if hasattr(learner.model, "landscape"):
            candidates = learner.model.encode(torch.stack([state, predicted]))
            energies = learner.model.landscape(context).last().expand(2)(candidates.unsqueeze(2)).flatten().tolist()
        error, still = (float(learner.errors(guess, state)) for guess in (predicted, context[0][:, -1]))
        expected = self.player.decode(predicted)
        self.real, self.dreamed = torch.cat([self.real, state]), torch.cat([self.dreamed, self.player.encode(expected)])
        return Shown(frame, expected[0], error, still, *energies)

    def summary(self) -> dict[str, Any]:  # as JSON
        """All that a view shows."""
        last = {name: _number(value) for name, value in self.shown._asdict().items() if not isinstance(value, np.ndarray)}
        pictures = {name: f"data:image/png;base64,{base64.b64encode(png(frame)).decode()}"
                    for name, frame in (("real", self.shown.real), ("predicted", self.shown.predicted))}
        game = self.player.game
        rows = [{name: _number(getattr(step, name)) for name in ("error", "still", "energy")} for step in self.history]
        return dict(game=game.name, seed=self.seed, mode=self.mode, step=len(self.actions), done=self.done,
                    action=game.actions[self.actions[-1]] if self.actions else None, keys=keys_of(game.actions),
                    events=self.events, history=rows, **last, **pictures)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def keys_of(
    actions: tuple[str, ...],  # names
) -> list[dict[str, str]]:  # name and key of each, as browsers call it
    """A key for each action: arrows and space where the name says so, else a digit, or a letter from the tenth on."""
    found, used = [], set()
    for number, name in enumerate(actions):
        sign = SIGNS[number:number + 1]
        key = KEYS.get(name, sign)
        found.append({"name": name, "key": sign if key in used else key})
        used.add(key)
    return found


def png(
    frame: Frame,  # RGB
) -> bytes:
    """A picture as a PNG file."""
    height, width, _ = frame.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), frame.reshape(height, -1)], 1)
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes()))
            + chunk(b"IEND", b""))


# Models


def open_run(
    folder: Path | str,  # of a finished run on a game
    game: str | None = None,  # name of the game; None: that of the run
) -> Player:
    """A model of a game: a run with `data.kind=game`, or one on states with a game.json, as `train_small` writes."""
    learner, task, config = load_run(folder)
    data, facts, frames_of = config.data, _facts(Path(folder)), getattr(task, "decode", None)
    if not (frames_of or facts or (game and "states" in task.scales)):
        raise refusal("RUN", str(folder), "must be a run on a game", "train a small model with: ebwm play", UsageError)
    if getattr(data, "symbolic", False):
        raise refusal("RUN", str(folder), "has symbols for states", "train with data.symbolic=false", UsageError)
    made = make_game(game or facts.get("game") or data.game, getattr(data, "size", None))
    shape, choices = made.reset(0).shape, torch.eye(len(made.actions))
    if (known := getattr(task.state, "action_dim", None)) != len(choices):
        rule = f"has {len(choices)} actions, the model of {folder} was trained with {known}"
        raise refusal("--game", made.name, rule, "name the game of the run", UsageError)
    learner.model.eval().requires_grad_(False)
    if frames_of:
        decode = lambda states: frames_of(states, shape)
        return _checked(Player(made, learner, task.encode, decode, choices, data.frames - 1))
    return _of_states(made, learner, task.scales, facts.get("frames", 16) - 1)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / PLAYED
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _checked(player: Player) -> Player:
    """Refuse a game whose frames do not come back from their states."""
    try:
        frames = player.game.frame()[None]
        player.decode(player.encode(frames))
    except (ValueError, RuntimeError) as error:
        rule = f"has frames that the model cannot show ({error})"
        raise refusal("--game", player.game.name, rule, "name the game of the run", UsageError) from error
    return player


def _of_states(game: Game, learner: Learner, scales: dict[str, Scale], window: int) -> Player:
    """A model whose states are standardised pixels."""
    shape, scale = game.frame().shape, scales["states"]
    if len(scale.mean) != math.prod(shape):
        rule = f"has frames of {math.prod(shape)} numbers, the model was trained on {len(scale.mean)}"
        raise refusal("--game", game.name, rule, "name the game of the run", UsageError)
    constant = torch.tensor([std == 1.0 for std in scale.std])  # the deviation of other values from 0 to 1 is lower
    encode = lambda frames: scale.standardise(as_states(frames))

    def decode(states: Tensor) -> np.ndarray:
        values = scale.restore(states.masked_fill(constant, 0.0)).clamp(0, 1)
        return (255 * values).round().byte().numpy().reshape(-1, *shape)

    return Player(game, learner, encode, decode, scales["actions"].standardise(torch.eye(len(game.actions))), window)


def small_run(
    game: str,  # name, as for `make_game`
    runs: Path,  # folder of runs
) -> Path | None:  # None: there is none
    """The newest run of `train_small` on a game."""
    found = [path.parent for path in sorted(runs.glob(f"*/{PLAYED}"), key=lambda path: path.stat().st_mtime)
             if (path.parent / FILE).is_file()]
    return next((path for path in reversed(found) if _facts(path)["game"] == game), None)


def train_small(
    game: str,  # name, as for `make_game`
    runs: Path,  # folder of runs
    updates: int = 1000,  # of the optimiser
    progress: bool = True,  # show a progress bar
) -> Path:  # folder of the run
    """Train a small EBT on a game, for `open_run`."""
    options = [*SMALL, f"optimiser.updates={updates}", f"optimiser.warmup={max(1, updates // 20)}"]
    if math.prod(make_game(game).reset(0).shape) > LARGE:
        options += [*COMPRESSED, f"data.game={game}", f"data.frames={FRAMES}"]
        run = train("game-xxs", runs, progress, overrides=options)
    else:
        recorded = episodes(game, count=EPISODES, frames=FRAMES)
        width = 16 * math.ceil(max(80, math.prod(recorded.frames.shape[2:])) / 16)
        run = train("smoke", runs, progress, data=recorded.data, overrides=[*options, f"model.dim={width}"])
    write_json(run / PLAYED, {"game": game, "frames": FRAMES})
    return run
