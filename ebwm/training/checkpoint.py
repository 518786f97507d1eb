"""State on disk: tensors as safetensors with JSON in the header, and the checkpoints of a run."""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ebwm.compat import require
from ebwm.files import sha256, write_whole

__all__ = ["FORMAT", "Checkpoint", "CheckpointError", "Checkpoints", "check_digest", "check_finite", "held",
           "load_tensors", "locked", "save_tensors"]

FORMAT = 1  # of a run's checkpoints; a file of another format is refused
LOCK, GRACE = ".lock", 0.2  # name of a run's lock; seconds that `held` may be in the way of who wants it


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message names it and says why."""


def save_tensors(
    path: Path,  # where to write, ending in .safetensors
    tensors: dict[str, Tensor],  # by name
    meta: dict[str, Any] | None = None,  # kept as JSON in the file's header
) -> None:
    """Save tensors, and what belongs to them, in one file."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    header = {"meta": json.dumps(meta or {}, sort_keys=True)}
    write_whole(path, lambda draft: _save_file(tensors, draft, header))


def _save_file(tensors: dict[str, Tensor], draft: Path, header: dict[str, str]) -> None:
    """Write; what the system refuses, such as more than the disk holds, is an OSError as everywhere else."""
    try:
        save_file(tensors, draft, header)
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(draft)) from error
        raise


def load_tensors(
    path: Path,  # a file written by `save_tensors`
) -> tuple[dict[str, Tensor], dict[str, Any]]:  # tensors by name, and what was kept beside them
    """Read tensors back; nothing in the file is ever run."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    if not Path(path).stat().st_size:
        raise CheckpointError(f"{path}: the file is empty")
    try:
        with safe_open(path, "pt") as file:
            meta = _meta(file)
            return {name: file.get_tensor(name) for name in file.keys()}, meta
    except (SafetensorError, json.JSONDecodeError, RecursionError, TypeError) as error:
        raise CheckpointError(f"{path}: not a safetensors checkpoint ({error})") from None


def _meta(file: Any) -> dict[str, Any]:
    """What the header of an open file holds as JSON."""
    meta = json.loads((file.metadata() or {}).get("meta", "{}"))
    if not isinstance(meta, dict):
        raise TypeError(f"its meta is {type(meta).__name__}, and must be a dictionary")
    return meta


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    path: Path
    tensors: dict[str, Tensor]  # by name
    meta: dict[str, Any]  # the rest of a run's state; `update` says after how many updates


class Checkpoints:
    """The checkpoints of a run: the last few and the best, each with the SHA-256 of its bytes beside it."""

    def __init__(
        self,
        folder: Path,  # of the checkpoints, which need not exist yet
        keep: int = 3,  # so many of the last ones
    ):
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least 1 checkpoint must stay")
        self.folder, self.keep = Path(folder), keep

    def all(self) -> list[Path]:  # oldest first
        """The checkpoints that there are, good or not."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def save(
        self,
        update: int,  # updates that have been made
        tensors: dict[str, Tensor],  # by name; a float that isn't finite is refused
        meta: dict[str, Any],  # the rest of the state
        score: float | None = None,  # validation loss: the lowest so far is kept beyond the last few
    ) -> Path:  # of the checkpoint
        """Write a checkpoint, then its digest, then let old ones go."""
        check_finite(tensors)
        path = self.folder / f"{update:08d}.safetensors"
        save_tensors(path, tensors, meta | {"format": FORMAT, "update": update, "score": score})
        line = f"{sha256(path)}  {path.name}\n"
        write_whole(_beside(path), lambda draft: draft.write_text(line))
        self._thin(path)
        return path

    def load(
        self,
        path: Path,  # one of the checkpoints
    ) -> Checkpoint:
        """Read a checkpoint whose bytes are those that were written, in a format that is known."""
        check_digest(path)
        tensors, meta = load_tensors(path)
        if meta.get("format") != FORMAT:
            found = meta.get("format", "none")
            raise CheckpointError(f"{path}: its format is {found}, and this version of ebwm reads {FORMAT}")
        return Checkpoint(path, tensors, meta)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:  # None if no good one is left; what was refused
        """The newest checkpoint that is good, and why those after it are not."""
        refused = []
        for path in reversed(self.all()):
            try:
                return self.load(path), refused
            except CheckpointError as error:
                refused.append(str(error))
            except OSError as error:
                refused.append(f"{path}: it cannot be read ({error.strerror})")
        return None, refused

    def best(self) -> Path | None:  # None where none was scored
        """The checkpoint with the lowest score."""
        scores = {path: self._score(path) for path in self.all()}
        scored = {path: score for path, score in scores.items() if score is not None}
        return min(scored, key=scored.get) if scored else None

    def sweep(self) -> None:
        """Remove what a crash left half-written; only for whoever holds the folder's lock."""
        for draft in self.folder.glob(".*.safetensors*"):
            draft.unlink(missing_ok=True)

    @staticmethod
    def _score(path: Path) -> float | None:
        try:
            with safe_open(path, "pt") as file:
                score = _meta(file).get("score")
        except (SafetensorError, json.JSONDecodeError, RecursionError, TypeError, OSError):
            return None
        return score if isinstance(score, int | float) and math.isfinite(score) else None

    def _thin(self, saved: Path) -> None:
        """Let old ones go; what lies there under a later number isn't of this run's making, and counts for nothing."""
        ours = [path for path in self.all() if path <= saved]
        stay = {*ours[-self.keep:], self.best()}
        for path in ours:
            if path not in stay:
                _beside(path).unlink(missing_ok=True)
                path.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def check_digest(
    path: Path,  # a file with its SHA-256 beside it, as `sha256sum` writes it
) -> None:
    """Refuse a file that isn't the one that was written."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    beside = _beside(path)
    if not beside.is_file():
        raise CheckpointError(f"{path}: no {beside.name} beside it; it wasn't written to the end, or isn't ours")
    told = beside.read_text(errors="replace").partition(" ")[0]
    if told != sha256(path):
        what = "the file is empty" if not path.stat().st_size else "its bytes aren't those that were written"
        raise CheckpointError(f"{path}: {what} (SHA-256 differs from {beside.name})")


def check_finite(
    tensors: dict[str, Tensor],  # by name
) -> None:
    """Refuse a state that no run could go on from."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FloatingPointError(f"{name} holds values that aren't finite: not saved as a checkpoint")


@contextlib.contextmanager
def locked(
    folder: Path,  # of a run
) -> Iterator[None]:
    """Be the only one who writes to a folder; a second one is refused."""
    filelock = require("filelock", "training")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=GRACE, poll_interval=GRACE / 10)
    except filelock.Timeout:
        raise CheckpointError(f"{folder}: another process is training here; wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def held(
    folder: Path,  # of a run
) -> bool:  # never on a system without flock
    """Whether somebody writes to a folder; needs no right to write there oneself."""
    try:
        import fcntl

        with open(folder / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
