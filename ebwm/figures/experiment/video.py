"""What the figures of video features share: clips, settings, learners, and test losses of the best weights of a training."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Subset

from ebwm.blocks import non_embedding_parameters
from ebwm.data.configs import FramesConfig
from ebwm.data.digits import choose, raw_words
from ebwm.data.frames import Frames
from ebwm.data.sources import Camera
from ebwm.data.task import SPLITS, state_errors
from ebwm.figures.experiment.runs import Experiment
from ebwm.figures.experiment.scaling import Best
from ebwm.figures.experiment.tables import Tables
from ebwm.training.configuration import OptimiserConfig
from ebwm.training.learner import Learner, item_losses

__all__ = ["NAMES", "VideoClips", "chosen_settings", "photograph_of", "repeated_state", "score_training", "video_clips",
           "video_learner"]

NAMES = {"transformer": "Transformer++", "ebt": "EBT", "latent": "EBT, latent candidates"}
FIELDS = ("frames", "size", "spacing", "encoder", "train_clips", "eval_clips")


class VideoClips(NamedTuple):
    """Clips as standardised features."""

    task: Frames
    train: Subset  # clips for training
    held: dict[str, Float[Tensor, "clips frames features"]]  # "valid", "test", and "other" photographs of made clips

    def first(
        self,
        count: int,  # number of training clips
    ) -> Subset:
        """The first training clips."""
        return Subset(self.train, range(count))


def video_clips(
    experiment: Experiment,  # gives the parameters and the device
) -> VideoClips:
    """Clips of `video_dir`, else of `footage`, encoded once for all seeds and sizes.

    Clips of `footage` for validation and test show the training photographs along other paths.
    """
    parameters, whole = experiment.parameters, experiment.whole
    fields = {name: parameters[name] for name in FIELDS}
    if folder := parameters["video_dir"]:
        task = Frames.load(FramesConfig(source=folder, short="spread", **fields))
        train = task.splits["train"]
        return VideoClips(task, Subset(train, range(len(train))), {name: whole(task.splits[name]) for name in SPLITS[1:]})
    few, count = fields["eval_clips"], fields["train_clips"]
    task = Frames.load(FramesConfig(source=parameters["footage"], **fields | {"train_clips": count + 2 * few}))
    made, other = task.splits["train"], task.splits["test"]
    valid, test = whole(made)[count:].split(few)
    return VideoClips(task, Subset(made, range(count)), {"valid": valid, "test": test, "other": whole(other)})


def repeated_state(
    clips: Float[Tensor, "clips frames features"],
) -> float:
    """Loss of a prediction that repeats the last state."""
    return float(state_errors(clips[:, :-1], clips[:, 1:]).mean())


def chosen_settings(
    tuning: Mapping[str, Any],  # content of tuning.json
    kinds: Iterable[str],  # rows
    learning_rate: Mapping[str, float],  # instead of the chosen ones
    step_size: Mapping[str, float],  # instead of the chosen ones
) -> pd.DataFrame:  # learning_rate and step_size of each kind
    """The best settings of the trials, or those that are given instead."""
    given = {"learning_rate": learning_rate, "step_size": step_size}
    rows = {kind: {name: instead.get(kind, tuning["chosen"][kind].get(name)) for name, instead in given.items()}
            for kind in kinds}
    return pd.DataFrame(rows).T.astype(float)


def video_learner(
    experiment: Experiment,  # gives the number of steps, and the shape unless it is given
    task: Frames,
    kind: str,  # a key of NAMES
    seed: int,  # fixes the initial weights
    step_size: float | None = None,  # initial alpha of an EBT
    **shape: int,  # dim, depth and heads
) -> Learner:
    """A model of features; the candidates of an EBT are states as in the papers, or latent ones of the model's width."""
    if kind == "transformer":
        return experiment.learner(kind, task, seed, **shape)
    candidates = "latent" if kind == "latent" else "state"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="state_dim=.* is larger than dim")  # as in the papers
        return experiment.learner("ebt", task, seed, experiment.walk(step_size), candidates=candidates, **shape)


def score_training(
    experiment: Experiment,  # trains
    learner: Learner,  # to train
    train: Subset,  # training clips
    held: Mapping[str, Float[Tensor, "clips frames features"]],  # of `VideoClips`
    seed: int,  # fixes batches and noise
    optimiser: OptimiserConfig,
    scored: Collection[int],  # updates after which the weights that were best on validation so far are scored
    looks: Collection[int],  # updates after which weights are compared on validation
) -> Tables:  # `scores`, one row for each scored update; `losses`, one row for each of them and each test clip
    """Train a model, and score its best weights so far."""
    best, totals, parts = Best(learner, held["valid"], seed), [], []
    step = experiment.cost(learner, held["valid"][:1])["training step"] * optimiser.batch
    states = optimiser.batch * (held["valid"].shape[1] - 1)

    def score(row: dict[str, Any]) -> None:
        update = row["update"]
        found = {name: item_losses(learner, clips, seed).double().cpu().numpy()
                 for name, clips in held.items() if name != "valid"}
        means = {f"{name}_loss": losses.mean() for name, losses in found.items()}
        totals.append(dict(update=update, states=update * states, flops=float(update * step), kept=best.update,
                           seconds=row["seconds"], **means))
        parts.append(pd.DataFrame(dict(update=update, clip=range(len(found["test"])), loss=found["test"])))

    note = best.note({*looks, *scored}, scored, score)
    experiment.train(learner, train, seed, optimiser, valid=held["valid"][:1], note=note)
    scores = pd.DataFrame(totals).assign(parameters=non_embedding_parameters(learner.model))
    return {"scores": scores, "losses": pd.concat(parts, ignore_index=True)}


def photograph_of(
    task: Frames,  # with clips
    split: str,  # "train", "valid" or "test"
) -> Int[np.ndarray, " clips"]:  # 0 for clips of another source
    """The number of the photograph that each clip shows."""
    count, source = len(task.splits[split]), task.source
    if not isinstance(source, Camera):
        return np.zeros(count, dtype=np.int64)
    return choose(raw_words(count, 4, source.seed, split)[:, 3], 0, len(source.images[split]))
