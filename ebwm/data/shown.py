"""Clips to show beside predictions: of a data set, of a game with another action, and of a moving camera."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ebwm.checks import one_of
from ebwm.compat import require
from ebwm.data.configs import FramesConfig, GameConfig
from ebwm.data.digits import choose, raw_words
from ebwm.data.games import POLICIES, as_states, episode_seeds, make_game, record
from ebwm.data.photographs import photograph_splits
from ebwm.data.sources import make_source
from ebwm.data.task import Scale

__all__ = ["PLAYED", "Beginning", "CameraClips", "GameClips", "PixelClips", "ShownClips"]

PLAYED = "as played"  # the action of the recorded episode


class Beginning(NamedTuple):
    """The frames that models see, with actions if there are any, and the next frame."""

    context: Tensor | tuple[Tensor, Tensor]  # states [1 s dim], or these with actions [1 s a]
    target: Float[Tensor, " dim"]  # the next state
    facts: dict[str, str]  # what there is to say in words, by name


class ShownClips:
    """The clips of a data set."""

    actions: tuple[str, ...] = ()  # names, for a game

    def __init__(
        self,
        data: Any,  # data set of clips, with images of its states
        count: int,  # maximum number of clips
    ):
        self.data, self.clips = data, data.clips[:count]
        self.scale = getattr(data, "scale", data)  # with mean and standard deviation of the states

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, clip: int) -> Float[Tensor, "frames dim"]:
        return self.data[clip]

    @property
    def frames(self) -> int:
        """Number of frames of a clip."""
        return self.clips.shape[1]

    def images(
        self,
        states: Float[Tensor, "*n dim"],  # states, or predictions of them
    ) -> Float[Tensor, "..."]:  # [*n height width], or with an axis of colours
        """Images of states, with values from 0 to 1."""
        return self.data.images(states)

    def beginning(
        self,
        clip: int,
        position: int,  # number of frames that the models see
        action: str = PLAYED,  # after them; only a game has others
    ) -> Beginning:
        """A clip up to a position, and what follows."""
        states = self[clip]
        return Beginning(states[None, :position], states[position], self.facts(clip))

    def facts(
        self,
        clip: int,
    ) -> dict[str, str]:  # by name
        """What there is to say about a clip."""
        return {}


class PixelClips(ShownClips):
    """Clips of colour frames whose states are standardised pixels."""

    def __init__(
        self,
        clips: UInt8[np.ndarray, "clips frames height width channels"],
        scale: Scale,  # of the states
    ):
        self.clips, self.scale = clips, scale

    def __getitem__(self, clip: int) -> Float[Tensor, "frames dim"]:
        return self.states(self.clips[clip])

    def states(
        self,
        frames: UInt8[np.ndarray, "n height width channels"],
    ) -> Float[Tensor, "n dim"]:
        """Standardised pixels."""
        return self.scale.standardise(as_states(frames))

    def images(
        self,
        states: Float[Tensor, "*n dim"],  # states, or predictions of them
    ) -> Float[Tensor, "*n height width channels"]:
        """Images of states, with values from 0 to 1."""
        return self.scale.restore(states).clamp(0, 1).unflatten(-1, self.clips.shape[2:])


class GameClips(PixelClips):
    """Episodes of a game, which another action can continue."""

    def __init__(
        self,
        config: GameConfig,  # of the models
        seed: int,  # of the data set
        split: str,  # "train", "valid" or "test"
        count: int,  # number of episodes
        scale: Scale,  # of the states
    ):
        self.game, self.seeds = make_game(config.game, config.size), episode_seeds(split, count, seed)
        self.actions = self.game.actions
        played = [record(self.game, POLICIES[config.policy], config.frames, number) for number in self.seeds]
        clips, self.taken = map(np.stack, zip(*played, strict=True))
        super().__init__(clips, scale)

    def action(
        self,
        clip: int,
        position: int,  # number of frames before the action
        name: str,  # one of `actions`, or PLAYED
    ) -> int:
        """The index of an action."""
        one_of("action", name, (PLAYED, *self.actions))
        return int(self.taken[clip, position - 1]) if name == PLAYED else self.actions.index(name)

    def after(
        self,
        clip: int,
        position: int,  # number of frames that are played as recorded
    ) -> UInt8[np.ndarray, "actions height width channels"]:
        """The game's next frame after each action."""
        self.game.reset(self.seeds[clip])
        for action in self.taken[clip, :position - 1]:
            self.game.step(int(action))
        return self.game.branches()

    def beginning(
        self,
        clip: int,
        position: int,  # number of frames that the models see
        action: str = PLAYED,  # name of the action after them, or PLAYED
    ) -> Beginning:
        """An episode up to a position, and the game's next frame after an action."""
        chosen, taken = self.action(clip, position, action), self.taken[clip, :position].copy()
        played, taken[-1] = self.actions[taken[-1]], chosen
        target = self.states(self.after(clip, position)[chosen][None])[0]
        facts = {"Actions before": ", ".join(self.actions[action] for action in taken[:-1]) or "none",
                 "Action": f"{self.actions[chosen]} ({PLAYED if self.actions[chosen] == played else f'played: {played}'})"}
        actions = torch.eye(len(self.actions))[torch.from_numpy(taken)][None]
        return Beginning((self[clip][None, :position], actions), target, facts)


class CameraClips(PixelClips):
    """New movements over photographs: those of training, then others."""

    def __init__(
        self,
        config: FramesConfig,  # of the models
        seed: int,  # of the data set
        scale: Scale,  # of the states
        size: int,  # height and width of a frame in pixels
        counts: tuple[int, int],  # clips over photographs of training, and over others
    ):
        require("skimage.data", "features")
        source = make_source(config, seed)
        source.size, unseen = size, config.train_clips
        units = [("train", unseen + number) for number in range(counts[0])]
        units += [("test", number) for number in range(counts[1])]
        self.names = [_photograph(split, number, seed) for split, number in units]
        self.trained = [split == "train" for split, _ in units]
        super().__init__(np.stack([source.clips(unit).clips[0] for unit in units]), scale)

    def facts(
        self,
        clip: int,
    ) -> dict[str, str]:  # by name
        """The photograph, and whether the models were trained on it."""
        return {"Photograph": f"{self.names[clip]} ({'' if self.trained[clip] else 'not '}in training)"}


def _photograph(split: str, number: int, seed: int) -> str:
    """The name of the photograph of a clip, as the source chooses it."""
    names = photograph_splits(seed=seed)[split]
    return names[int(choose(raw_words(number + 1, 4, seed, split)[number:, 3], 0, len(names))[0])]
