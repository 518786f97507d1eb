"""Training of policies on demonstrations."""

import contextlib
import copy
import json
import shutil
import warnings
from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebwm import checks, settings
from ebwm.files import write_json
from ebwm.policy.cameras import frozen_encoder, prepared
from ebwm.policy.chunks import Chunks, ChunksConfig, Windows
from ebwm.policy.demonstrations import Demonstrations
from ebwm.policy.models import standard_step_size
from ebwm.policy.policies import FILE, Policy, PolicySettings
from ebwm.policy.predictors import EnergyPolicy, Predictor, chunk_learner
from ebwm.training.checkpoint import Checkpoints
from ebwm.training.configuration import Config, OptimiserConfig
from ebwm.training.learner import BatchOrder
from ebwm.training.signals import recorded_signals
from ebwm.training.trainer import Observer, Trainer, load_weights, restore, train_loop, trainer_state
from ebwm.usage import Stopped, UsageError

__all__ = ["Trained", "fit_policy", "train_policy"]

TRAINING = "training"  # folder of checkpoints, until the training is finished
PROBED = 64  # windows on which the step size is measured
SAVE_EVERY = 500  # updates between checkpoints


@dataclass
class Trained:
    """A policy with the log of its training."""

    policy: Policy
    log: list[dict[str, Any]]
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # averaged weights after some updates

    def after(
        self,
        updates: int,  # one of those kept
    ) -> Policy:
        """The policy as it was after some updates."""
        checks.one_of("updates", updates, self.kept)
        predictor = copy.copy(self.policy.predictor)
        predictor.model = copy.deepcopy(predictor.model)
        load_weights(predictor.model, self.kept[updates])
        return Policy(predictor, self.policy.normaliser, self.policy.options, self.policy.encoder, self.policy.instruction)


class _Log(Observer):
    """Rows of the log and weights to keep; checkpoints if there is a place for them."""

    def __init__(
        self,
        trainer: Trainer,
        note: Callable[[dict[str, Any]], Any] | None,
        keep: Container[int],
        checkpoints: Checkpoints | None,
        facts: dict[str, Any],
    ):
        self.trainer, self.note, self.keep, self.checkpoints, self.facts = trainer, note, keep, checkpoints, facts
        self.rows, self.kept, self.received = [], {}, []

    def updated(self, row: dict[str, Any], batch: Any) -> None:
        self.rows.append(row)
        if (updates := self.trainer.updates) in self.keep:
            self.kept[updates] = {name: weight.clone() for name, weight in self.trainer.average.items()}
        stopped = self.received and updates < self.trainer.config.optimiser.updates
        if self.checkpoints and (stopped or updates % SAVE_EVERY == 0):
            self._save()
        if self.note:
            self.note(row)
        if stopped:
            folder = self.checkpoints.folder.parent
            raise Stopped(f"{self.received[0]}: stopped after update {updates}, and saved in {folder}; repeat the command "
                          "to resume", self.received[0], folder)

    def _save(self) -> None:
        tensors, meta = trainer_state(self.trainer)
        self.checkpoints.save(self.trainer.updates, tensors, meta | self.facts)


def fit_policy(
    chunks: Chunks,  # windows of demonstrations
    options: PolicySettings,  # the policy and its training
    seed: int = 0,  # fixes initial weights, batches and noise
    note: Callable[[dict[str, Any]], Any] | None = None,  # receives every row of the log
    keep: Container[int] = (),  # numbers of updates after which the averaged weights are kept
    device: torch.device | str | None = None,  # None: that of the settings
    checkpoints: Path | None = None,  # folder of checkpoints, from which an interrupted training resumes
) -> Trained:
    """Train a policy; it predicts with the moving average of its weights, at the end of training.

    A training that resumes ends as if it had not stopped, to the last bit; its log has the rows since then. With a
    folder of checkpoints, SIGINT and SIGTERM stop it after an update, which is saved, and raise `Stopped`.
    """
    for name in ("observe", "predict"):
        if getattr(options, name) != (known := getattr(chunks.config, name)):
            raise checks.refusal(name, getattr(options, name), f"must be {known}, as for the windows of demonstrations")
    device = torch.device(device or settings.device())
    data, batch = chunks.splits["train"], min(options.batch, len(chunks.splits["train"]))
    trainer, predictor = _trainer(data, batch, options, seed, device)
    facts = json.loads(json.dumps({"settings": asdict(options), "seed": seed, "data": data.digest if checkpoints else ""}))
    saved = Checkpoints(checkpoints, keep=1) if checkpoints else None
    if saved:
        _resume(trainer, saved, facts)
    log = _Log(trainer, note, keep, saved, facts)
    valid = _moved(chunks.items("valid"), device)
    with recorded_signals() if saved else contextlib.nullcontext([]) as log.received:
        train_loop(trainer, _batches(data, batch, seed, device, trainer.batches), valid, log)
    load_weights(predictor.model, trainer.average)
    return Trained(Policy(predictor, chunks.normaliser, options), log.rows, log.kept)


def _trainer(
    data: Windows, batch: int, options: PolicySettings, seed: int, device: torch.device
) -> tuple[Trainer, Predictor]:
    predictor = options.predictor(options.shape(data[0]), seed)
    predictor.model.to(device)
    fixed = isinstance(predictor, EnergyPolicy) and not _set_step_size(predictor, data, seed, device)
    optimiser = OptimiserConfig(
        options.updates, batch, options.learning_rate, warmup=max(1, options.updates // 20),
        weight_decay=options.weight_decay, average=options.average, step_size_multiplier=0.0 if fixed else 3.0)
    config = Config(optimiser=optimiser, seed=seed, eval_every=options.updates)
    return Trainer(chunk_learner(predictor), config, device), predictor


def _resume(trainer: Trainer, saved: Checkpoints, facts: dict[str, Any]) -> None:
    """Continue from the newest good checkpoint, if there is one; warn of later ones, which cannot be read."""
    checkpoint, refused = saved.newest()
    for line in refused:
        place = f"resumes from {checkpoint.path}" if checkpoint else "starts again"
        warnings.warn(f"{line}; training {place}", stacklevel=4)
    if checkpoint is None:
        return
    if different := [name for name, value in facts.items() if checkpoint.meta.get(name) != value]:
        rule = f"holds an interrupted training with other {' and '.join(different)}"
        raise checks.refusal("folder", str(saved.folder.parent), rule, "repeat its command, or delete it", UsageError)
    restore(trainer, checkpoint.tensors, checkpoint.meta)


def _moved(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: part.to(device) for name, part in batch.items()}


def _batches(
    data: Windows, batch: int, seed: int, device: torch.device, first: int = 0
) -> Iterator[dict[str, Tensor]]:
    """Batches in the order of `ebwm train`, each gathered at once."""
    for items in BatchOrder(len(data), batch, seed, first):
        yield _moved(data.gather(torch.tensor(items)), device)


def _set_step_size(
    predictor: EnergyPolicy, data: Windows, seed: int, device: torch.device
) -> bool:  # whether it is trained
    model, walk = predictor.model, predictor.walk
    context, _ = Chunks.pair(next(_batches(data, min(PROBED, len(data)), seed, device)))
    model.step_size.data.fill_(walk.step_size or walk.factor * standard_step_size(model, context))
    return walk.learned


def train_policy(
    demonstrations: Demonstrations,  # to learn from
    folder: Path | str,  # receives the policy
    options: PolicySettings | None = None,  # the policy and its training
    seed: int = 0,  # fixes initial weights, batches and noise
    note: Callable[[dict[str, Any]], Any] | None = None,  # receives every row of the log
    reading: dict[str, Any] | None = None,  # how the demonstrations were read, such as {"mask": "train"}; kept in FILE
) -> Policy:
    """Train a policy on demonstrations and save it; an interrupted training in the folder is resumed.

    FILE is written last: a folder that holds it holds the whole policy.
    """
    options, folder = options or PolicySettings(), Path(folder)
    if demonstrations.episodes and "state" not in demonstrations.episodes[0].observations:
        options = replace(options, state=False)
    config = ChunksConfig(observe=options.observe, predict=options.predict)
    encoder = frozen_encoder(options.images)
    chunks = Chunks.of(prepared(demonstrations, options.images, encoder, options.state), config, seed)
    policy = fit_policy(chunks, options, seed, note, checkpoints=folder / TRAINING).policy
    policy.encoder = encoder
    policy.predictor.model.save(folder)
    chunks.save(folder)
    write_json(folder / FILE, {"simulator": demonstrations.simulator, "demonstrations": demonstrations.digest,
                               "seed": seed, "settings": asdict(options)} | ({"reading": reading} if reading else {}))
    shutil.rmtree(folder / TRAINING, ignore_errors=True)
    return policy
