"""Checkpoints of a run with their digests, and the lock of its folder."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from ebwm.checks import at_least, refusal
from ebwm.compat import require
from ebwm.files import sha256, write_whole
from ebwm.saving import CheckpointError, load_tensors, meta_of, save_tensors

if TYPE_CHECKING:  # imported where tensors are written: torch takes a second
    import torch

__all__ = ["FORMAT", "Checkpoint", "CheckpointError", "Checkpoints", "check_digest", "check_finite", "held",
           "locked"]

FORMAT = 2  # of a run's checkpoints; a file of another format is refused
LOCK = ".lock"  # file that is locked
LOCK_TIMEOUT = 0.2  # seconds that `locked` waits, because `held` takes a shared lock for a moment


class Checkpoint(NamedTuple):
    """The content of a checkpoint."""

    path: Path
    tensors: dict[str, "torch.Tensor"]  # by name
    meta: dict[str, Any]  # JSON values of the state; `update` is the number of updates


class Checkpoints:
    """The checkpoints of a run: the last ones and the best, each with a file of its SHA-256."""

    def __init__(
        self,
        folder: Path,  # of the checkpoints; created when the first is saved
        keep: int = 3,  # number of last checkpoints
    ):
        at_least("keep", keep, 1)
        self.folder, self.keep = Path(folder), keep

    def all(self) -> list[Path]:  # oldest first
        """All checkpoints, valid or not."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def save(
        self,
        update: int,  # number of updates
        tensors: dict[str, "torch.Tensor"],  # by name; non-finite values are refused
        meta: dict[str, Any],  # JSON values of the state
        score: float | None = None,  # validation loss; the checkpoint with the lowest is kept
    ) -> Path:  # of the checkpoint
        """Write a checkpoint and its digest, then delete old ones."""
        check_finite(tensors)
        path = self.folder / f"{update:08d}.safetensors"
        save_tensors(path, tensors, meta | {"format": FORMAT, "update": update, "score": score})
        line = f"{sha256(path)}  {path.name}\n"
        write_whole(_digest_file(path), lambda draft: draft.write_text(line, encoding="utf-8"))
        self._delete_old(path)
        return path

    def load(
        self,
        path: Path,  # one of the checkpoints
    ) -> Checkpoint:
        """Read a checkpoint after checking its digest and its format."""
        check_digest(path)
        tensors, meta = load_tensors(path)
        if meta.get("format") != FORMAT:
            remedy = "resume it with the version of ebwm that wrote it"
            raise refusal("format", meta.get("format"), f"{path}: must be {FORMAT}", remedy, CheckpointError)
        return Checkpoint(path, tensors, meta)

    def newest(self) -> tuple[Checkpoint | None, list[str]]:  # None if there is none; reasons
        """The newest valid checkpoint, and why later ones were refused."""
        refused = []
        for path in reversed(self.all()):
            try:
                return self.load(path), refused
            except CheckpointError as error:
                refused.append(str(error))
            except OSError as error:
                refused.append(f"{path}: cannot be read ({error.strerror})")
        return None, refused

    def best(self) -> Path | None:  # None if none was scored
        """The checkpoint with the lowest score."""
        scores = {path: self._score(path) for path in self.all()}
        scored = {path: score for path, score in scores.items() if score is not None}
        return min(scored, key=scored.get) if scored else None

    def sweep(self) -> None:
        """Delete incomplete files that a crash left; the caller must hold the lock of the folder."""
        for draft in self.folder.glob(".*.safetensors*"):
            draft.unlink(missing_ok=True)

    @staticmethod
    def _score(path: Path) -> float | None:
        try:
            with safe_open(path, "pt") as file:
                score = meta_of(file).get("score")
        except (SafetensorError, json.JSONDecodeError, RecursionError, TypeError, OSError):
            return None
        return score if isinstance(score, int | float) and math.isfinite(score) else None

    def _delete_old(self, saved: Path) -> None:
        """Delete old checkpoints; files with later numbers do not belong to this run and are left alone."""
        ours = [path for path in self.all() if path <= saved]
        kept = {*ours[-self.keep:], self.best()}
        for path in ours:
            if path not in kept:
                _digest_file(path).unlink(missing_ok=True)
                path.unlink()


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def check_digest(
    path: Path,  # a file; its digest is in FILE.sha256, as `sha256sum` writes it
) -> None:
    """Refuse a file whose SHA-256 is not the stored one."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    stored = _digest_file(path)
    if not stored.is_file():
        raise CheckpointError(f"{path}: {stored.name} is missing; the file is incomplete or of another program")
    if stored.read_text(encoding="ascii", errors="replace").partition(" ")[0] != sha256(path):
        reason = "the file is damaged" if path.stat().st_size else "the file is empty"
        raise CheckpointError(f"{path}: {reason} (SHA-256 differs from {stored.name})")


def check_finite(
    tensors: dict[str, "torch.Tensor"],  # by name
) -> None:
    """Refuse a state with non-finite values."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FloatingPointError(f"{name} holds non-finite values and is not saved as a checkpoint")


@contextlib.contextmanager
def locked(
    folder: Path,  # of a run
) -> Iterator[None]:
    """Lock a folder for writing; a second writer is refused."""
    filelock = require("filelock", "training")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT, poll_interval=LOCK_TIMEOUT / 10)
    except filelock.Timeout:
        raise CheckpointError(f"{folder}: another process is writing here; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()


def held(
    folder: Path,  # of a run
) -> bool:  # False on a system without flock
    """Whether a process has locked a folder for writing; needs no right to write."""
    try:
        import fcntl

        with open(folder / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
