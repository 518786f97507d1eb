"""Training runs: train from start to end in one folder, stop and resume exactly, recover from faults."""

import contextlib
import errno
import math
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ebwm import settings
from ebwm.checks import instance, refusal
from ebwm.compat import require
from ebwm.data.configs import StatesConfig, task_class
from ebwm.entries import LARGEST
from ebwm.data.task import Task, count, select, stack
from ebwm.data.tasks import load_task
from ebwm.evaluation.cost import matrix_speed, peak_memory
from ebwm.files import write_json
from ebwm.saving import save_tensors
from ebwm.training.checkpoint import Checkpoint, CheckpointError
from ebwm.training.configuration import RESUMABLE_FIELDS, Config, ConfigError, as_dict, differences, from_dict, with_section
from ebwm.training.presets import load_config, override_all
from ebwm.training.distributed import SingleProcess, full_tensor, process_group
from ebwm.training.folder import LOGGERS, RunError, RunFolder, new_folder
from ebwm.training.learner import BatchOrder, make_learner, position_losses
from ebwm.training.memory import check_memory
from ebwm.training.optimiser import fix_step_size
from ebwm.training.signals import CHILD_SIGNALS, recorded_signals, set_handler
from ebwm.training.trainer import NUMBERS, Observer, Trainer, averaged, restore, roll_back, train_loop, update_flops
from ebwm.usage import Stopped

__all__ = ["RunError", "Stopped", "resume", "train"]

DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
LOADER_FAILURES = 4  # failures of the data loader after which a run fails
PROBED = 8  # items of a batch whose walks are probed
STEP_SIZE = "walk.step_size=auto: {:.3g}, {}"


class _Run(Observer):
    """A run in progress: it writes its folder, saves, evaluates, probes, and recovers from faults."""

    def __init__(self, folder: RunFolder, trainer: Trainer, task: Task, callback: Callable | None):
        self.folder, self.config, self.trainer, self.task = folder, folder.config, trainer, task
        self.world, self.callback = trainer.world, callback
        self.digests = task.digests()
        self.items = {name: _to(task.items(name), self.world.device) for name in ("valid", "test")}
        self.meta = {"config": _result_fields(self.config), "data": self.digests}
        self.received, self.bar = [], None
        self.flops = self.speed = self.saved = None

    def start(self, save: bool) -> None:
        """Write the files of the task, and a checkpoint if the folder has none of this state."""
        if self.folder.writes:
            self.task.save(self.folder.path)
        if save:
            self.folder.save(self.trainer, self.meta)
        self.saved = self.trainer.updates, self.trainer.batches

    def train(self, received: list[str], progress: bool) -> None:
        """Train to the last update, or until a signal is received."""
        self.received, total = received, self.config.optimiser.updates
        self.bar = _bar(total, self.trainer.updates, progress and not self.world.rank)
        with self.bar, contextlib.closing(self.batches()) as batches:
            train_loop(self.trainer, batches, self.items["valid"], self)

    def batches(self) -> Iterator[Any]:
        """Endless batches from the state of the run; a failed loader is restarted three times."""
        failure = ""
        for _ in range(LOADER_FAILURES):
            if failure:
                self.folder.event(self.trainer, "loader", f"restarted: {failure}")
            try:
                for batch in _loader(self.task.splits["train"], self.config, self.trainer):
                    yield _to(batch, self.world.device)
            except (RuntimeError, OSError, EOFError) as error:
                if not (self.config.run.workers and _loader_lost(error)):
                    raise
                failure = str(error)
        raise RunError(f"{self.folder.path}: data loader failed four times: {failure}; give the run more memory, or "
                       f"set run.workers below {self.config.run.workers}")

    def before_update(self, batch: Any) -> None:
        """Stop if any process received a signal; measure the cost of an update once."""
        stop = torch.tensor(float(bool(self.received)), device=self.world.device)
        if self.world.mean(stop) > 0:
            self._stop()
        if not self.flops:
            self.flops = update_flops(self.trainer, batch)
            self.speed = matrix_speed(self.world.device, self.config.run.precision == "bf16-mixed")

    def _stop(self) -> None:
        name = self.received[0] if self.received else "SIGTERM"
        if self.saved != (self.trainer.updates, self.trainer.batches):
            self._save()
        self.folder.event(self.trainer, "stopped", name)
        raise Stopped(f"{name}: stopped after update {self.trainer.updates} of {self.config.optimiser.updates}, and "
                      f"saved; resume with: ebwm train --resume {shlex.quote(str(self.folder.path))}", name,
                      self.folder.path)

    def updated(self, row: dict[str, Any], batch: Any) -> None:
        """Probe the walks, write the log, save."""
        self._spike(row)
        row |= self._pace(count(batch) * self.world.size, row["seconds"])
        self._probe(row, batch)
        self.folder.write_row(row)
        _show(self.bar, row)
        if self.callback and self.callback(row):
            self.received.append("callback")
        update, every = self.trainer.updates, self.config.run.save_every
        if update % every == 0 or update == self.config.optimiser.updates:
            self._save(row.get("valid_loss"))

    def _pace(self, items: int, seconds: float) -> dict[str, Any]:
        memory = peak_memory()
        if self.world.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() >> 20
        utilisation = self.flops / seconds / self.speed
        return {"items_per_second": items / seconds, "flops_utilisation": utilisation, "peak_mib": memory}

    def _probe(self, row: dict[str, Any], batch: Any) -> None:
        """Add statistics of a few walks to a row, with noise of a separate generator."""
        update, learner = self.trainer.updates, self.trainer.learner
        if learner.probe is None or (update > 1 and update % self.config.run.monitor_every):
            return
        noise = settings.generator(self.config.seed, f"look.{update}", self.world.device)
        context, _ = learner.pair(select(batch, slice(PROBED)))
        found = self.world.forward(learner.probe, context, noise)
        row |= {name: getattr(found, name) for name in ("energy_gap", "inner_gradient", "rising")}
        for line in found.alarms:
            self.folder.event(self.trainer, "alarm", line)

    def _spike(self, row: dict[str, Any]) -> None:
        if row["spike"]:
            self.folder.event(self.trainer, "spike", f"loss {row['loss']:.4g}")

    def skipped(self, row: dict[str, Any]) -> None:
        """Write an event; roll back after too many skipped updates in a row."""
        self._spike(row)
        text = f"loss {row['loss']:g}, gradient norm {row['grad_norm']:g}"
        if "nonfinite" in row:
            text = f"not finite: {', '.join(row['nonfinite'])}"
        self.folder.event(self.trainer, "skipped", text)
        if (skips := self.trainer.faults.consecutive_skips) >= self.config.faults.patience:
            self._roll_back(f"{skips} consecutive updates were not finite")

    def _roll_back(self, reason: str) -> None:
        """Return to the last good checkpoint, or fail."""
        trainer, update = self.trainer, self.trainer.updates
        checkpoint, refused = self.folder.checkpoints.newest()
        for line in refused:
            self.folder.event(trainer, "refused", line)
        if checkpoint is None or trainer.faults.rollbacks >= self.config.faults.rollbacks:
            limit = f"faults.rollbacks={self.config.faults.rollbacks} is reached"
            reason += f", and {'there is no checkpoint' if checkpoint is None else limit}"
            self.folder.event(trainer, "gave up", reason)
            raise RunError(f"{self.folder.path}: {reason}; lower optimiser.learning_rate or walk.step_size")
        remedy = roll_back(trainer, checkpoint.tensors, checkpoint.meta)
        self.folder.event(trainer, "rolled back", f"after update {update}: {reason}; {remedy}")
        self.folder.rewind(trainer)

    def _save(self, score: float | None = None) -> None:
        try:
            self.folder.save(self.trainer, self.meta, score)
            self.saved = self.trainer.updates, self.trainer.batches
        except FloatingPointError as error:
            self._roll_back(str(error))

    def finish(self) -> None:
        """Write the weights that predict, and their scores on the test split."""
        with averaged(self.trainer) as learner:
            losses = position_losses(learner, self.items["test"], self.config.seed)
            weights = {name: full_tensor(value).clone() for name, value in learner.model.state_dict().items()}
        if not self.folder.writes:
            return
        self.folder.check()
        save_tensors(self.folder.path / "model.safetensors", weights, _result_fields(self.config))
        target = self.trainer.learner.pair(self.items["test"])[1]
        write_json(self.folder.path / "result.json", {
            "test_loss": float(losses.nanmean()), "summary": self.task.summary(losses, target),
            "baselines": self.task.baselines(), "data_digests": self.digests,
            "faults": self.trainer.faults._asdict()})


def _to(batch: Any, device: torch.device) -> Any:
    return tree_map(lambda tensor: tensor.to(device), batch)


def _result_fields(config: Config) -> dict[str, Any]:
    """The entries of a configuration on which results depend."""
    values = as_dict(config)
    for section, _, name in (key.partition(".") for key in RESUMABLE_FIELDS):
        values[section].pop(name, None)
    return values


def _loader_lost(error: Exception) -> bool:
    """Whether a loader process ended or its data were lost; an error in the data set is reported as "Caught ..."."""
    text = str(error)
    broken = isinstance(error, OSError | EOFError) and not text.startswith("Caught")
    return broken or text.startswith("DataLoader worker (pid")


def _loader(data: Any, config: Config, trainer: Trainer) -> Iterable[Any]:
    """Batches of this process, from the state of a trainer."""
    part = trainer.world.rank, trainer.world.size
    order = BatchOrder(len(data), config.optimiser.batch, config.seed, trainer.batches, part)
    workers, noise = config.run.workers, settings.generator(config.seed, "loader")
    loader = torch.utils.data.DataLoader(
        data, batch_sampler=order, num_workers=workers, generator=noise, collate_fn=stack)
    batches = iter(loader)
    for number in CHILD_SIGNALS if workers else ():
        # PyTorch's handler raises in the middle of an update; the loop finds a lost process at the next batch.
        set_handler(number, signal.SIG_DFL)
    return batches


def _bar(total: int, done: int, progress: bool) -> Any:
    from tqdm.std import tqdm

    return tqdm(total=total, initial=done, unit="update", disable=not progress)


def _show(bar: Any, row: dict[str, Any]) -> None:
    """Show a row beside the progress bar."""
    names = {"loss": "loss", "gap": "energy_gap", "alpha": "step_size", "items/s": "items_per_second"}
    last = getattr(bar, "last", {})
    bar.last = last | {label: f"{row[name]:.4g}" for label, name in names.items() if name in row}
    bar.set_postfix(bar.last, refresh=False)
    bar.update()


def train(
    config: Config | str,  # configuration, or the name of a preset
    runs: Path | str | None = None,  # folder of runs; None: that of the settings
    progress: bool = True,  # show a progress bar
    callback: Callable[[dict[str, Any]], Any] | None = None,  # receives each row of the log; true: save, raise Stopped
    data: Any = None,  # arrays instead of files: states [items time features], (states, actions), or (context, target)
    overrides: Iterable[str] = (),  # "key=value", entries of the configuration to change
) -> Path:  # folder of the run: config.json, log.jsonl, checkpoints, model.safetensors, result.json
    """Train a model from start to end in one folder.

    Action t leads from state t to state t + 1; each state has one, also the last. `data.kind=pairs` takes contexts and
    targets, both [items rows features]. A run that a signal or the callback stops raises `Stopped`, with its folder.
    """
    config = load_config(config) if isinstance(config, str) else config
    instance("config", config, Config, "must be a Config or the name of a preset", "see ebwm.training.presets.presets()")
    instance("runs", runs, (str, Path, type(None)), "must be a path")
    if data is not None and not task_class(config.data.kind).in_memory:
        if config.data.kind != Config().data.kind:
            raise refusal("data.kind", config.data.kind, "takes no arrays", "use the preset states, or data.source", ConfigError)
        config = replace(config, data=StatesConfig())
    config = override_all(config, overrides)
    _check_environment()
    with process_group(settings.device(), config.run.precision, config.run.strategy) as world:
        trainer, task = _prepare(config, world, data, fit=True)
        path = world.broadcast(new_folder(Path(runs or settings.load().runs)) if not world.rank else None)
        folder = RunFolder(path, trainer.config, not world.rank)
        with folder.lock():
            if progress and not world.rank and config.walk.step_size != trainer.config.walk.step_size:
                print(STEP_SIZE.format(trainer.config.walk.step_size, task.state.auto_step), file=sys.stderr)
            return _execute(_Run(folder, trainer, task, callback), progress)


def resume(
    path: Path | str,  # folder of a run
    overrides: Iterable[str] = (),  # "key=value", for RESUMABLE_FIELDS
    progress: bool = True,  # show a progress bar
    changed: bool = False,  # accept other changes of the configuration or the data; with other data replay starts anew
    callback: Callable[[dict[str, Any]], Any] | None = None,  # receives each row of the log; true: save, raise Stopped
    data: Any = None,  # the arrays of the run, if it was trained on arrays
) -> Path:  # the same folder
    """Resume a run from its newest good checkpoint; it ends as if it had not stopped, to the last bit.

    A run that rolls back later may differ: the stop has saved one more checkpoint, to which it may return.
    """
    instance("path", path, (str, Path), "must be a path", "give the folder of a run")
    path = Path(path)
    if not (path / "config.json").is_file():
        raise ConfigError(f"run={str(path)!r}: must be the folder of a run; it has no config.json")
    config = load_config(str(path / "config.json"), overrides)
    _check_environment()
    with process_group(settings.device(), config.run.precision, config.run.strategy) as world:
        folder = RunFolder(path, config, not world.rank)
        with folder.lock():
            checkpoint, refused = folder.checkpoints.newest()
            if checkpoint is None:
                raise CheckpointError(f"{path}: no checkpoint to resume from: {'; '.join(refused) or 'there is none'}")
            with _readable(checkpoint):
                before, saved = from_dict(checkpoint.meta["config"]), dict(checkpoint.meta["data"])
            found = differences(before, config)
            _check_same(found, changed)
            trainer, task = _prepare(config, world, data)
            others = [name for name, digest in task.digests().items() if saved.get(name, digest) != digest]
            found += [f"data {name}: its digest has changed" for name in others]
            _check_same(found, changed)
            with _readable(checkpoint):
                restore(trainer, checkpoint.tensors, checkpoint.meta)
            if "train" in others and trainer.learner.replay is not None:
                trainer.learner.replay.parts = ()  # its items are of the data before
            return _execute(_Run(folder, trainer, task, callback), progress, refused, bool(found))


@contextlib.contextmanager
def _readable(checkpoint: Checkpoint) -> Iterator[None]:
    """Report a checkpoint that is intact, but not one of a run."""
    meta = checkpoint.meta
    try:
        numbers = [*(meta[name] for name in (*NUMBERS, "world_size")), *meta["losses"]]
        if not all(math.isfinite(number) and number < LARGEST for number in numbers):
            raise ValueError("a number is out of range")
        yield
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError, ValueError) as error:
        if isinstance(error, ConfigError | CheckpointError):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(f"{checkpoint.path}: not a checkpoint of this run ({reason}); delete it to use the one "
                              "before it, or start the run again") from error


def _check_environment() -> None:
    """Refuse a number of processes that no launcher has started."""
    size, remedy = os.environ.get("WORLD_SIZE", "1"), "unset it, or use torchrun"
    if size == "1" or "SLURM_PROCID" in os.environ:
        return
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):  # without these, lightning starts processes
        if name not in os.environ:
            raise refusal("WORLD_SIZE", size, f"is set without {name}, which torchrun would set", remedy, ConfigError)
    rank = os.environ["RANK"]
    if not (size.isdecimal() and rank.isdecimal() and int(rank) < int(size)):
        raise refusal("WORLD_SIZE", size, f"must be an integer above RANK={rank!r}", remedy, ConfigError)


def _check_same(found: list[str], changed: bool) -> None:
    if found and not changed:
        raise ConfigError(f"the configuration differs from the checkpoint's: {'; '.join(found)}; revert it, or pass "
                          "--changed")


def _prepare(config: Config, world: SingleProcess, data: Any, fit: bool = False) -> tuple[Trainer, Task]:
    """Build all that can be refused, before a run writes a file; `fit` reduces the batch for a small data set."""
    require("filelock", "training")
    try:
        if config.run.logger in LOGGERS:
            require(*LOGGERS[config.run.logger][:2])
        task = load_task(config.data, data=data)
        items = len(task.splits["train"])
        config = _fitted(config, items, world) if fit else config
        BatchOrder(items, config.optimiser.batch, config.seed, part=(0, world.size))
        check_memory(config, task, world)
        learner = make_learner(config.model, task, config.seed, config.recipe, config.walk)
    except (ValueError, OSError) as error:
        raise ConfigError(with_section(config, str(error))) from error
    config = _with_step_size(config, learner.model)
    fix_step_size(learner.model, config.optimiser)
    world.setup(learner.model)
    return Trainer(learner, config, world=world), task


def _with_step_size(config: Config, model: nn.Module) -> Config:
    """The configuration with the initial step size of the model in place of "auto"."""
    if config.walk.step_size != "auto" or not hasattr(model, "step_size"):
        return config
    return replace(config, walk=replace(config.walk, step_size=float(f"{model.step_size.item():.6g}")))


def _fitted(config: Config, items: int, world: SingleProcess) -> Config:
    """The configuration with the largest possible batch, if that of the configuration is larger than the data set."""
    parts = math.lcm(world.size, config.optimiser.accumulate)
    batch = items // parts * parts
    if config.optimiser.batch <= items or not batch:
        return config
    if not world.rank:
        warnings.warn(f"optimiser.batch={config.optimiser.batch}: the training split has {items} items; "
                      f"training uses optimiser.batch={batch}", stacklevel=4)
    return replace(config, optimiser=replace(config.optimiser, batch=batch))


def _execute(run: _Run, progress: bool, refused: list[str] | None = None, changed: bool = False) -> Path:
    """Train to the end; `refused`: checkpoints that could not be used, None for a new run."""
    folder, trainer = run.folder, run.trainer
    with recorded_signals() as received:
        try:
            folder.open(trainer)
            for line in refused or []:
                folder.event(trainer, "refused", line)
            if refused is not None:
                folder.event(trainer, "resumed", f"after update {trainer.updates}")
            run.start(save=refused is None or changed)
            run.train(received, progress)
            run.finish()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise RunError(_disk_full(folder)) from error
        finally:
            with contextlib.suppress(OSError):
                folder.close()
    return folder.path


def _disk_full(folder: RunFolder) -> str:
    checkpoint, _ = folder.checkpoints.newest()
    if checkpoint is None:
        return f"{folder.path}: the disk is full; there is no checkpoint yet"
    return (f"{folder.path}: the disk is full; the last good checkpoint is {checkpoint.path}; free space, then resume "
            f"with: ebwm train --resume {shlex.quote(str(folder.path))}")
