"""Measurements on games: episodes as states, use of actions, actions and impossible events told by scores, rollouts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ebwm.data.encoders import Encoded, principal
from ebwm.data.games import Outcomes, Recordings, episodes, probes
from ebwm.data.task import SPLITS, Items, Vectors
from ebwm.data.video import VideoDataset
from ebwm.diffusion import denoising_error
from ebwm.evaluation.actions import (
    Score,
    action_use,
    energy_score,
    error_score,
    rollout,
    score_actions,
    surprise,
    which_action,
)
from ebwm.figures.experiment.tables import Interval, Tables, over_seeds, within
from ebwm.settings import generator
from ebwm.training.learner import Learner

__all__ = ["Played", "World", "load_world", "measure", "predicted_frames", "recalled", "scores_of", "statistics",
           "uninformed", "verdicts"]

SAME = 1e-3  # distance below which two states are the same
ERRORS = ("true actions", "shuffled actions", "use")  # measures that are not between 0 and 1


class Played(NamedTuple):
    """States with the action that follows each of them, as a batch of the training loop."""

    states: Float[Tensor, "n s state_dim"]
    actions: Float[Tensor, "n s action_dim"]

    def to(
        self,
        device: torch.device,  # of the models
    ) -> "Played":
        """The same on another device."""
        return Played(self.states.to(device), self.actions.to(device))


class World(NamedTuple):
    """A game as principal components, and contexts whose next frame is known for every action and impossible event."""

    name: str  # of the game, without its size
    data: dict[str, Items]  # items of `Played`, by split
    probed: Outcomes  # contexts of the test split
    encoded: Encoded  # the training split, with its encoder

    @property
    def state(self) -> Vectors:
        """What a model predicts."""
        return Vectors(self.encoded.state_dim, len(self.probed.episodes.names))

    def played(
        self,
        recorded: Recordings,  # of this game
    ) -> Played:
        """Episodes as states and one-hot actions."""
        return Played(self.states(recorded.frames), recorded.one_hot())

    def states(
        self,
        frames: np.ndarray,  # [*items height width channels]
    ) -> Float[Tensor, "*items state_dim"]:
        """Encoded frames."""
        items, frame = frames.shape[:-3], frames.shape[-3:]
        return self.encoded.states(frames.reshape(-1, 1, *frame))[:, 0].unflatten(0, items)

    def visible(
        self,
        kind: str,  # of an impossible event
    ) -> Bool[np.ndarray, " contexts"]:
        """Contexts in which the event changes the state; components do not show what never varies in training."""
        apart = self.states(self.probed.impossible[kind]) - self.states(self.probed.following)
        return (apart.norm(dim=-1) > SAME).numpy()

    def pixels(
        self,
        states: Float[Tensor, "n state_dim"],  # or predictions of them
    ) -> list[list[int]]:  # from 0 to 255
        """Pixels of frames, row by row."""
        return (255 * self.encoded.images(states.cpu())).round().clamp(0, 255).int().flatten(1).tolist()


def load_world(
    game: str,  # as for `make_game`
    parameters: Mapping[str, Any],  # policy, frames, sizes, features, context, train_episodes, eval_episodes and probes
) -> World:
    """The three splits of a game, and the contexts of its probes."""
    name = game.partition(":")[0]
    common = dict(policy=parameters["policy"], size=parameters["sizes"].get(name))
    counts = {split: parameters["eval_episodes"] for split in SPLITS} | {"train": parameters["train_episodes"]}
    recorded = {split: episodes(game, split, count=count, frames=parameters["frames"], **common)
                for split, count in counts.items()}
    probed = probes(game, count=parameters["probes"], frames=parameters["context"], **common)
    pixels = recorded["train"].frames
    raw = VideoDataset(pixels, float(pixels.mean() / 255), float(pixels.std() / 255))
    world = World(name, {}, probed, principal({"train": raw}, parameters["features"])["train"])
    return world._replace(data={split: Items(world.played(part)) for split, part in recorded.items()})


def recalled(
    train: Played,  # the whole training split
    test: Played,  # the whole test split
) -> float:
    """Share of the steps of the test, of frame, action and next frame, that also occur in training."""
    known = set(_steps(train))
    return float(np.mean([step in known for step in _steps(test)]))


def _steps(items: Played) -> list[bytes]:
    states, actions = (part.cpu() for part in items)
    both = torch.cat([(states[:, :-1] / SAME).round(), actions[:, :-1], (states[:, 1:] / SAME).round()], -1)
    return [step.tobytes() for step in (both.flatten(0, 1) + 0.0).numpy()]


def uninformed(
    world: World,
) -> dict[str, float]:  # by measure
    """Accuracy of telling the action without a score: by the most frequent action, and by any of the different frames."""
    asked = world.probed.distinct
    frames = [len({frame.tobytes() for frame in branches}) for branches in world.probed.branches[asked]]
    return {"by action": float(np.bincount(world.probed.taken[asked]).max() / asked.sum()),
            "by frame": float(np.mean(1 / np.array(frames)))}


# Measurements of one model


def scores_of(
    learner: Learner,  # trained
    seed: int,  # of the noise
) -> dict[str, Score]:  # by name; lower fits better
    """What a model can say about a candidate: its energy or its denoising error, and the error of its prediction."""
    found = {"error": error_score(learner, seed)}
    if hasattr(learner.model, "landscape"):
        return {"energy": energy_score(learner.model)} | found
    return ({"denoising": _denoising_score(learner, seed)} if hasattr(learner.model, "denoise") else {}) | found


def _denoising_score(learner: Learner, seed: int) -> Score:
    @torch.no_grad()
    def score(context: Any, candidates: Tensor) -> Tensor:
        noise = generator(seed, "denoising", candidates.device)
        length, errors = context[0].shape[1], []
        for candidate in candidates.unbind(1):  # only the last position counts
            padded = candidate[:, None].expand(-1, length, -1)
            errors.append(denoising_error(learner.model, context, padded, noise, 1)[:, -1])
        return torch.stack(errors, 1)

    return score


def measure(
    learner: Learner,  # trained
    world: World,  # its game
    items: Played,  # of the test split
    seed: int,  # of the noise
) -> dict[str, Any]:  # tables `measures`, with score, measure and value, and `rollouts`, by the number of steps ahead
    """Errors with true and shuffled actions, actions told, areas under the ROC of impossible events, and a rollout."""
    used = action_use(learner, items, seed)
    rows = [("error", "true actions", used.true.value), ("error", "shuffled actions", used.shuffled.value),
            ("error", "use", used.difference.value)]
    for name, score in scores_of(learner, seed).items():
        rows += [(name, *row) for row in _told(score, world, items) + _surprises(score, world, items)]
    context = world.probed.episodes.frames.shape[1]
    ahead = rollout(learner, items, min(context, items.states.shape[1] - 1), seed)
    steps = dict(ahead=range(1, ahead.errors.shape[1] + 1), error=ahead.errors.mean(0).tolist(),
                 last_frame=ahead.last_state.mean(0).tolist())
    return {"measures": pd.DataFrame(rows, columns=["score", "measure", "value"]), "rollouts": steps}


def _told(score: Score, world: World, items: Played) -> list[tuple[str, float]]:
    """Accuracy of telling the action: by the score of the true frame under each action, and of each action's frame."""
    device, probed = items.states.device, world.probed
    context, choices = world.played(probed.episodes).to(device), torch.eye(len(probed.episodes.names), device=device)
    under = score_actions(score, context, world.states(probed.following).to(device), choices)
    frames = score(context, world.states(probed.branches).to(device))
    taken, distinct = torch.from_numpy(probed.taken), torch.from_numpy(probed.distinct)
    return [(name, which_action(found.cpu(), taken, distinct).value)
            for name, found in (("by action", under), ("by frame", frames))]


def _surprises(score: Score, world: World, items: Played) -> list[tuple[str, float]]:
    """Areas under the ROC of impossible frames against the true ones, of the contexts in which they differ."""
    device, probed = items.states.device, world.probed
    context, rows = world.played(probed.episodes).to(device), []
    scored = lambda frames: score(context, world.states(frames)[:, None].to(device))[:, 0].cpu().numpy()
    true = scored(probed.following)
    for kind, frames in probed.impossible.items():
        seen = world.visible(kind)
        if seen.sum() > 1:
            rows.append((kind, surprise(true[seen], scored(frames)[seen]).value))
    return rows


def predicted_frames(
    learners: Mapping[str, Learner],  # by kind
    world: World,  # their game
    items: Played,  # of the test split
    ahead: list[int],  # numbers of steps that are shown
    seed: int,  # of the noise
) -> Tables:
    """Frames of an episode with the median change: the true ones, and those of each model's rollout."""
    given = world.probed.episodes.frames.shape[1]
    moved = (items.states[:, given:] - items.states[:, given - 1:given]).abs().mean((1, 2))
    one = Played(*(part[moved.argsort()[len(moved) // 2]][None] for part in items))
    shown = {"true": one.states[0, given:]}
    shown |= {kind: rollout(learner, one, given, seed).states[0] for kind, learner in learners.items()}
    steps = [step for step in ahead if step <= len(shown["true"])]
    rows = [dict(row=kind, ahead=step, pixels=pixels) for kind, states in shown.items()
            for step, pixels in zip(steps, world.pixels(states[[step - 1 for step in steps]]), strict=True)]
    return {"frames": pd.DataFrame(rows)}


# Statistics over seeds


def statistics(
    measures: pd.DataFrame,  # value by model, score, measure and seed
    pairs: Mapping[str, tuple[str, str]],  # name -> "MODEL SCORE", less "MODEL SCORE"
) -> tuple[dict[str, dict[str, Interval]], dict[str, dict[str, Interval]]]:  # by "MODEL SCORE" or pair, and measure
    """Intervals over seeds: of each measure of each score, and of differences between two scores of one seed."""
    named = measures.assign(key=measures.model + " " + measures.score)
    wide = named.pivot(index="seed", columns=["key", "measure"], values="value")
    values = {key: _bounded(_intervals(wide[key])) for key in dict.fromkeys(named.key)}
    return values, {name: _intervals(wide[first] - wide[second]) for name, (first, second) in pairs.items()}


def _intervals(columns: pd.DataFrame) -> dict[str, Interval]:
    return {name: over_seeds(column) for name, column in columns.dropna(axis=1).items()}


def _bounded(found: dict[str, Interval]) -> dict[str, Interval]:
    """Shares and areas between 0 and 1; errors and their differences as they are."""
    return {name: interval if name in ERRORS else within(interval, 0, 1) for name, interval in found.items()}


def verdicts(
    differences: Mapping[str, Mapping[str, Interval]],  # from `statistics`
) -> pd.DataFrame:  # one row for each pair and measure
    """Whether each difference can be distinguished from 0, in words."""
    rows = [dict(pair=pair, measure=measure, **found, verdict=_verdict(found))
            for pair, measured in differences.items() for measure, found in measured.items()]
    return pd.DataFrame(rows).set_index(["pair", "measure"])


def _verdict(found: Interval) -> str:
    if found["low"] is None:
        return "one seed"
    return "higher" if found["low"] > 0 else "lower" if found["high"] < 0 else "not distinguishable"
