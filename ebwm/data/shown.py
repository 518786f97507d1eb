"""Clips to show beside predictions, as a task's `shown` returns them."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ebwm.data.task import Scale

__all__ = ["PLAYED", "Beginning", "PixelClips", "ShownClips"]

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
        return self.scale.standardise(torch.from_numpy(frames.astype(np.float32)).flatten(-3) / 255)

    def images(
        self,
        states: Float[Tensor, "*n dim"],  # states, or predictions of them
    ) -> Float[Tensor, "*n height width channels"]:
        """Images of states, with values from 0 to 1."""
        return self.scale.restore(states).clamp(0, 1).unflatten(-1, self.clips.shape[2:])
