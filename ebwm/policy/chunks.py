"""Task: predict a chunk of actions, as one joint candidate, from the last observations of a demonstration."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebwm.checks import refusal
from ebwm.data.configs import HeldOut
from ebwm.data.task import SPLITS, Rows, Scale, Task, read_task, save_task, split_items
from ebwm.entries import Amount, Count, section
from ebwm.policy.demonstrations import Demonstrations, Episode
from ebwm.policy.formats import read_demonstrations
from ebwm.policy.reading import check_demonstrations
from ebwm.settings import generator
from ebwm.usage import UsageError

__all__ = ["Chunks", "ChunksConfig", "Normaliser", "Windows", "split_episodes"]

CONSTANT = 1e-4  # a feature of actions whose range is smaller counts as constant
Batch = dict[str, Tensor]


@section(UsageError)
class ChunksConfig:
    """Windows of demonstrations: the last observations, and the actions that follow."""

    task: ClassVar[str] = "ebwm.policy.chunks:Chunks"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "chunks"  # name of the task
    source: str | None = None  # HDF5 file of robomimic or folder of LeRobot; None: `Chunks.of`
    mask: str | None = None  # robomimic: name of a filter of the file; None: all episodes
    camera: str | None = None  # whose images are observations; None: the only one of the source, if any; "": none
    bounded: bool = True  # refuse actions outside of [-1, 1]
    observe: Count = 2  # observations of a context
    predict: Count = 16  # actions of a chunk
    held_out: HeldOut = 0.1  # share of episodes in validation, and in test; below one episode, both are the same one
    floor: Amount = 0.02  # smallest standard deviation by which a feature of the state is divided
    eval_items: Count = 512  # windows of validation and of test that are scored

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_items

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"windows of {self.observe} observations and {self.predict} actions"


@dataclass(frozen=True)
class Normaliser:
    """Normalisation of states to a standard deviation of 1, and of actions to [-1, 1]."""

    states: Scale
    actions: Scale

    @classmethod
    def of(
        cls,
        states: Float[Tensor, "steps state_dim"],  # state_dim is 0 without states
        actions: Float[Tensor, "steps action_dim"],
        floor: float = 0.02,  # of the standard deviation: nearly constant features are not blown up
    ) -> "Normaliser":
        """Fit mean and standard deviation of states, and the range of actions.

        A constant action in [-1, 1] stays as it is, any other becomes 0.
        """
        scale = Scale.of(states) if states.shape[1] else Scale()
        low, high = actions.double().amin(0), actions.double().amax(0)
        constant = high - low < CONSTANT
        centre, half = (high + low) / 2, ((high - low) / 2).where(~constant, 1.0)
        centre = centre.where(~constant | (centre.abs() > 1), 0.0)
        return cls(Scale(scale.mean, [max(std, floor) for std in scale.std]), Scale(centre.tolist(), half.tolist()))

    def state(
        self,
        states: Float[Tensor, "*items state_dim"],  # of the simulator
    ) -> Float[Tensor, "*items state_dim"]:
        """Normalised states."""
        if states.shape[-1] != len(self.states.mean):
            rule = f"must have {len(self.states.mean)} features"
            raise refusal("state", list(states.shape), rule, "give those of the demonstrations", UsageError)
        mean, std = self._offset_and_unit(self.states, states.device)
        return ((states.double() - mean) / std).float()

    def action(
        self,
        actions: Float[Tensor, "*items action_dim"],  # of the simulator
    ) -> Float[Tensor, "*items action_dim"]:
        """Actions from their range to [-1, 1]; those outside of it are clipped."""
        centre, half = self._offset_and_unit(self.actions, actions.device)
        return ((actions.double() - centre) / half).clamp(-1, 1).float()

    def restore(
        self,
        actions: Float[Tensor, "*items action_dim"],  # in [-1, 1], such as predictions
    ) -> Float[Tensor, "*items action_dim"]:
        """Actions of the simulator."""
        centre, half = self._offset_and_unit(self.actions, actions.device)
        return (actions.double() * half + centre).float()

    @staticmethod
    def _offset_and_unit(scale: Scale, device: torch.device) -> Float[Tensor, "2 features"]:
        """Both rows of a scale in float64, so that rounding does not depend on the units."""
        return torch.tensor([scale.mean, scale.std], dtype=torch.float64, device=device)

    def save(
        self,
        folder: Path,  # of a run
        state: Rows,  # what its model predicts
    ) -> None:
        """Write task.json."""
        save_task(folder, state, {"states": self.states, "actions": self.actions})

    @classmethod
    def load(
        cls,
        folder: Path,  # of a run
    ) -> tuple["Normaliser", Rows]:  # and what its model predicts
        """Read task.json."""
        try:
            state, scales = read_task(folder, Rows)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if scales.keys() != {"states", "actions"}:
            raise refusal("folder", str(folder), "must hold the task.json of a policy", "train again", UsageError)
        return cls(**scales), state


class Windows(torch.utils.data.Dataset):
    """One window for each step of each episode: observations up to the step, and actions from it on.

    The first observation is repeated before an episode, the last action after it.
    """

    def __init__(
        self,
        steps: Batch,  # "action" [steps action_dim]; "state" [steps state_dim], "image" [steps size size 3] or both
        lengths: Int[Tensor, " episodes"],  # steps of each episode
        observe: int,  # observations of a window
        predict: int,  # actions of a window
        instructions: Batch | None = None,  # "language" [episodes vectors l], "language_mask" [episodes vectors]
    ):
        self.steps, self.instructions = steps, instructions or {}
        self.episode = torch.arange(len(lengths)).repeat_interleave(lengths)  # of each window
        stops, now = lengths.cumsum(0).repeat_interleave(lengths), torch.arange(int(lengths.sum()))
        starts = stops - lengths.repeat_interleave(lengths)
        self.past = (now[:, None] + torch.arange(1 - observe, 1)).maximum(starts[:, None])  # steps of each window
        self.future = (now[:, None] + torch.arange(predict)).minimum(stops[:, None] - 1)

    def __len__(self) -> int:
        return len(self.past)

    def __getitem__(self, index: int) -> Batch:
        return self.gather(index)

    def gather(
        self,
        index: int | Int[Tensor, " items"],
    ) -> Batch:  # "state" [items observe state_dim], "action" [items predict action_dim]; "image", "language" if any
        """Windows by their index, a whole batch in one call."""
        past, future, episode = self.past[index], self.future[index], self.episode[index]
        found = {name: values[future if name == "action" else past] for name, values in self.steps.items()}
        return found | {name: values[episode] for name, values in self.instructions.items()}

    def whole(
        self,
        limit: int | None = None,  # number of windows, evenly spaced; None: all
    ) -> Batch:
        """Windows in their order, for evaluation."""
        count = len(self) if limit is None else min(limit, len(self))
        return self.gather(torch.arange(count) * len(self) // count)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all steps and windows."""
        digest = hashlib.sha256()
        parts = self.steps | self.instructions | {"past": self.past, "future": self.future}
        for name, values in sorted(parts.items()):
            digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
            digest.update(values.contiguous().numpy())
        return digest.hexdigest()


class Chunks(Task):
    """Windows of demonstrations, normalised on the training split.

    The first action of a chunk is the one that follows the last observation of its context.
    """

    normaliser: Normaliser

    @classmethod
    def load(cls, config: ChunksConfig, seed: int = 0, data: Any = None) -> "Chunks":
        """Read demonstrations from the source, or take those in `data`."""
        if data is None and config.source is None:
            remedy = "or pass demonstrations: Chunks.of(demonstrations, config)"
            raise refusal("data.source", None, "must be a file of robomimic or a folder of LeRobot", remedy, UsageError)
        read = lambda: read_demonstrations(config.source, None, config.mask, config.camera, config.bounded)
        return cls.of(read() if data is None else data, config, seed)

    @classmethod
    def of(
        cls,
        demonstrations: Demonstrations,
        config: ChunksConfig | None = None,  # None: the defaults
        seed: int = 0,  # fixes which episodes are held out
    ) -> "Chunks":
        """Windows of demonstrations in memory."""
        check_demonstrations(demonstrations)
        config = config or ChunksConfig()
        episodes = demonstrations.episodes
        chosen = split_episodes(len(episodes), config.held_out, seed)
        raw = {split: _flat([episodes[number] for number in numbers]) for split, numbers in chosen.items()}
        actions = raw["train"]["action"]
        states = raw["train"].get("state", actions[:, :0])
        normaliser, instructions, splits = Normaliser.of(states, actions, config.floor), _instructions(episodes), {}
        for split, numbers in chosen.items():
            lengths = torch.tensor([len(episodes[number].actions) for number in numbers])
            change = {"state": normaliser.state, "action": normaliser.action}
            steps = {name: change.get(name, torch.as_tensor)(values) for name, values in raw[split].items()}
            spoken = {name: values[numbers] for name, values in instructions.items()}
            splits[split] = Windows(steps, lengths, config.observe, config.predict, spoken)
        task = cls(config, Rows(config.predict, actions.shape[1], states.shape[1]), splits)
        task.normaliser = normaliser
        return task

    @classmethod
    def restore(cls, config: ChunksConfig, folder: Path, tensors: dict[str, Tensor]) -> "Chunks":
        """The task of a finished run, with its normalisation."""
        normaliser, state = Normaliser.load(folder)
        task = cls(config, state)
        task.normaliser = normaliser
        return task

    @staticmethod
    def pair(batch: Batch) -> tuple[Batch, Float[Tensor, "b predict action_dim"]]:
        """Observations by name, each [b observe ...], and the chunk of actions in [-1, 1]."""
        return {name: values for name, values in batch.items() if name != "action"}, batch["action"]

    def baselines(self) -> dict[str, float]:
        """The mean chunk of evenly spaced windows of the training split."""
        target = self.items("test")["action"]
        mean = self.items("train")["action"].mean(0)
        return {"mean chunk": float(self.errors(mean.expand_as(target), target).mean())}

    def save(self, folder: Path) -> None:
        """Write the sizes and the normalisation."""
        self.normaliser.save(folder, self.state)


def split_episodes(
    count: int,  # number of episodes
    held_out: float,  # share of validation, and of test
    seed: int,  # fixes which episodes they are
) -> dict[str, list[int]]:  # numbers of episodes, by split
    """Split episodes at random.

    If the share is less than one episode, one episode is both validation and test: success in the simulator is the
    test of a policy, and each of a few demonstrations counts.
    """
    if count < 2:
        raise refusal("demonstrations", count, "must be at least 2 episodes", "record more", UsageError)
    if held_out * count < 1:
        order = torch.randperm(count, generator=generator(seed, "split")).tolist()
        return {"train": sorted(order[1:]), "valid": order[:1], "test": order[:1]}
    parts = split_items(count, held_out, seed, "demonstrations")
    return {split: parts[split].tolist() for split in SPLITS}


def _instructions(episodes: list[Episode]) -> Batch:
    """The vectors of instructions, padded to one number with 0, and if they have several which of them are there."""
    if episodes[0].language is None:
        return {}
    parts = [torch.from_numpy(episode.language) for episode in episodes]
    lengths = torch.tensor([len(part) for part in parts])
    found = {"language": torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)}
    if (lengths < lengths.max()).any():
        found["language_mask"] = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    return found


def _flat(episodes: list[Episode]) -> Batch:
    """The steps of episodes, one after the other."""
    joined = lambda arrays: torch.from_numpy(np.concatenate(list(arrays)))
    steps = {name: joined(episode.observations[name] for episode in episodes) for name in episodes[0].observations}
    return steps | {"action": joined(episode.actions for episode in episodes)}
