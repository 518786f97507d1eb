"""Task: predict the next frame of a game from the frames and the actions before it."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ebwm.checks import one_of, refusal
from ebwm.data.configs import GameConfig
from ebwm.data.features import EncodedClips, FrameEncoder, encoded_clips
from ebwm.data.frames import FITTED, EncodedSequences, load_encoder, named_encoder, save_encoder
from ebwm.data.games import POLICIES, Recordings, as_states, episode_seeds, episodes, make_game, record
from ebwm.data.shown import PLAYED, Beginning, PixelClips
from ebwm.data.task import SPLITS, Scale, Vectors, save_task
from ebwm.data.video import VideoDataset

__all__ = ["Acted", "Acting", "GameClips", "GameConfig", "Symbols"]


class Symbols(FrameEncoder):
    """Symbols of cells as features, without a network."""

    digest = "symbols"

    def __init__(
        self,
        features: int,  # of a frame: height x width x symbols
    ):
        self.name, self.features = "symbols", features

    def encode(
        self,
        frames: UInt8[np.ndarray, "n height width channels"],
    ) -> Float[Tensor, "n features"]:
        """Symbols as vectors of 0 and 1."""
        return as_states(frames)


class Acted(torch.utils.data.Dataset):
    """Episodes as standardised states and one-hot actions."""

    def __init__(
        self,
        states: EncodedClips,
        recordings: Recordings,  # the same episodes
    ):
        self.states, self.recordings, self.actions = states, recordings, recordings.one_hot()

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: int) -> tuple[Float[Tensor, "frames features"], Float[Tensor, "frames choices"]]:
        return self.states[index], self.actions[index]

    def whole(
        self,
        limit: int | None = None,  # number of episodes from the start; None: all
    ) -> tuple[Float[Tensor, "episodes frames features"], Float[Tensor, "episodes frames choices"]]:
        """States and actions of all episodes in their fixed order, for evaluation."""
        return self.states.whole(limit), self.actions[:limit]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of states and actions."""
        return hashlib.sha256(json.dumps([self.states.digest, self.recordings.digest]).encode()).hexdigest()


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


class Acting(EncodedSequences):
    """Episodes of a game whose next state depends on an action."""

    @classmethod
    def load(cls, config: GameConfig, seed: int = 0, data: Any = None) -> "Acting":
        """Play the episodes of all splits and encode their frames, or read both from the cache."""
        counts = {"train": config.train_episodes, "valid": config.eval_episodes, "test": config.eval_episodes}
        shape = dict(policy=config.policy, frames=config.frames, symbolic=config.symbolic, seed=seed, size=config.size)
        played = {split: episodes(config.game, split, count=count, **shape) for split, count in counts.items()}
        encoder = _encoder(config, played["train"].frames, seed)
        pixels = {split: VideoDataset(found.frames, 0.0, 1.0) for split, found in played.items()}
        encoded = encoded_clips(pixels, encoder)
        splits = {split: Acted(encoded[split], played[split]) for split in SPLITS}
        task = cls(config, Vectors(encoder.features, len(played["train"].names)), splits)
        task.encoder, task.scales = encoder, {"states": encoded["train"].scale}
        return task

    @functools.cached_property
    def encoder(self) -> FrameEncoder:
        """The frozen encoder; of a finished run, loaded when it is first used."""
        return Symbols(self.state.dim) if self.config.symbolic else load_encoder(self.folder)

    def save(self, folder: Path) -> None:
        """Write sizes, standardisation and encoder."""
        save_task(folder, self.state, self.scales)
        if not self.config.symbolic:
            save_encoder(folder, self.encoder, self.config)

    def shown(self, count: int = 64) -> GameClips:
        """Episodes of the test split, which any action can continue, if states are pixels."""
        if self.encoder.name != "pixels":
            raise refusal("data.encoder", self.encoder.name, "has no pixels to show", "train with data.encoder=pixels")
        return GameClips(self.config, 0, "test", count, self.scales["states"])

    def decode(
        self,
        states: Float[Tensor, "*items features"],  # such as predictions
        shape: tuple[int, int, int],  # height, width and channels of a frame
    ) -> UInt8[np.ndarray, "*items height width channels"]:
        """Frames of states, if states are pixels or symbols; features have no decoder."""
        if self.encoder.name not in ("pixels", "symbols"):
            raise refusal("data.encoder", self.encoder.name, "has no decoder", "use `nearest_frames` of real frames")
        values = self.scales["states"].restore(states.cpu()).clamp(0, 1).mul(255).round()
        return values.byte().numpy().reshape(*states.shape[:-1], *shape)


def _encoder(
    config: GameConfig, frames: UInt8[np.ndarray, "episodes frames height width channels"], seed: int
) -> FrameEncoder:
    """The encoder of a configuration; images have the size of the game's frames, unless it is pretrained."""
    height, width, channels = frames.shape[2:]
    if config.symbolic:
        return Symbols(height * width * channels)
    plain = config.encoder.partition(":")[0] in ("pixels", *FITTED)
    size = min(height, width) if plain else None
    flat = frames[:256, ::4].reshape(-1, height, width, channels)
    return named_encoder(config.encoder, config, size, flat, seed)
