"""The folder of a run: configuration, log, events, checkpoints, and metrics for TensorBoard or Weights & Biases."""

import contextlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ebwm.files import write_json, write_whole
from ebwm.training.checkpoint import Checkpoints, check_finite, locked
from ebwm.training.configuration import Config, as_dict
from ebwm.training.trainer import Trainer, trainer_state
from ebwm.usage import Failure

__all__ = ["LOGGERS", "RunError", "RunFolder", "new_folder"]


class RunError(Failure):
    """A run that cannot continue; the message gives the reason and the remedy."""


class RunFolder:
    """Files of a run; only the first process writes."""

    def __init__(
        self,
        path: Path,  # of the folder
        config: Config,  # of the run
        writes: bool = True,  # whether this process writes
    ):
        self.path, self.config, self.writes = path, config, writes
        self.checkpoints = Checkpoints(path / "checkpoints", config.run.keep)
        self.log = self.logger = None
        self.mark: tuple[int, int] | None = None  # device and number of the folder, once it is open

    def lock(self) -> contextlib.AbstractContextManager:
        """Exclude other writers."""
        return locked(self.path) if self.writes else contextlib.nullcontext()

    def open(
        self,
        trainer: Trainer,  # state from which the run starts or resumes
    ) -> None:
        """Start to write; lines of log and events after this state are dropped."""
        if not self.writes:
            return
        self.mark = _mark(self.path)
        self.checkpoints.sweep()
        for draft in self.path.glob(".[0-9]*"):
            draft.unlink(missing_ok=True)
        write_json(self.path / "config.json", as_dict(self.config))
        _keep_lines(self.path / "events.jsonl", lambda row: row["batch"] <= trainer.batches)
        self.rewind(trainer)

    def rewind(
        self,
        trainer: Trainer,  # state from which the log continues
    ) -> None:
        """Drop lines of the log after this state: the log has one line for each update that led to it."""
        if not self.writes:
            return
        self.close()
        before = lambda row: row["batch"] <= trainer.batches and row["update"] <= trainer.updates
        _keep_lines(self.path / "log.jsonl", before)
        self.log = (self.path / "log.jsonl").open("a", buffering=1, encoding="utf-8")
        chosen = LOGGERS.get(self.config.run.logger)
        self.logger = chosen[2](self.path, self.config, trainer.updates) if chosen else None

    def check(self) -> None:
        """Refuse to write if the folder was moved or deleted since the run opened it."""
        if self.mark is not None and _mark(self.path) != self.mark:
            raise RunError(f"{self.path}: the folder of the run was moved or deleted while it was written; nothing more is "
                           "written; resume the run in its new place with ebwm train --resume, or start it again")

    def close(self) -> None:
        """Close the log and the logger."""
        for part in (self.log, self.logger):
            if part is not None:
                part.close()

    def write_row(
        self,
        row: dict[str, Any],  # of an update
    ) -> None:
        """Append a row to the log."""
        if self.log:
            self.log.write(json.dumps(row) + "\n")
        if self.logger:
            self.logger.write(row)

    def event(
        self,
        trainer: Trainer,  # state at the event
        kind: str,  # such as "skipped", "spike", "rolled back", "alarm", "refused", "resumed", "stopped"
        text: str,  # details
    ) -> None:
        """Append an event."""
        row = {"update": trainer.updates, "batch": trainer.batches, "kind": kind, "what": text}
        self.check()
        if self.writes:
            with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def save(
        self,
        trainer: Trainer,  # state to save
        extra: dict[str, Any],  # JSON values that are saved with it
        score: float | None = None,  # validation loss at this update
    ) -> None:
        """Write a checkpoint; a non-finite state is refused on every process."""
        tensors, meta = trainer_state(trainer)
        check_finite(tensors)
        self.check()
        if self.writes:
            self.checkpoints.save(trainer.updates, tensors, meta | extra, score)


def _mark(path: Path) -> tuple[int, int] | None:
    """What distinguishes a folder from another one of the same name; None if there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_dev, path.stat().st_ino


def _keep_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a file with some of its rows; an incomplete last line, left by a crash, and damaged lines are dropped."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    kept = [line + b"\n" for line in lines if (row := _row(line)) and keep(row)]
    write_whole(path, lambda draft: draft.write_bytes(b"".join(kept)))


def _row(line: bytes) -> dict[str, Any]:  # empty if the line is none
    """The row of a line of a log or of events."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    known = isinstance(row, dict) and all(isinstance(row.get(name), int) for name in ("update", "batch"))
    return row if known else {}


def new_folder(
    runs: Path,  # folder of runs
) -> Path:
    """Create the first of 001, 002, ... that does not exist; creation is atomic."""
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = runs / f"{number:03d}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise FileExistsError(f"{runs} holds 9,999 runs; move some away")


class _TensorBoard:
    def __init__(self, path: Path, config: Config, update: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(path / "tensorboard", purge_step=update + 1)

    def write(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "update":
                self.writer.add_scalar(name, value, row["update"])

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, path: Path, config: Config, update: int):
        import wandb

        about = {"name": path.name, "id": _wandb_id(path), "config": as_dict(config), "resume": "allow"}
        self.run = wandb.init(project="ebwm", dir=path, **about)
        self.run.define_metric("*", step_metric="update")  # a row after a rollback may have an earlier update

    def write(self, row: dict[str, Any]) -> None:
        self.run.log(row)

    def close(self) -> None:
        self.run.finish()


def _wandb_id(path: Path) -> str:
    """A random identifier, stored in the run's folder, because runs in several folders share names."""
    file = path / "wandb-id.txt"
    if not file.is_file():
        write_whole(file, lambda draft: draft.write_text(uuid.uuid4().hex, encoding="utf-8"))
    return file.read_text(encoding="utf-8")


# Name of a logger: package, extra that installs it, class.
LOGGERS = {"tensorboard": ("tensorboard", "training", _TensorBoard), "wandb": ("wandb", "wandb", _Wandb)}
