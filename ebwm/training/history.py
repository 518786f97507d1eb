"""Training runs, read from their folders; also during a run and after a crash."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ebwm.checks import refusal, suggestion
from ebwm.data.configs import CONFIGS, task_class
from ebwm.training.checkpoint import held
from ebwm.training.configuration import RENAMED, flat
from ebwm.usage import UsageError

__all__ = ["LogReader", "Run", "UnknownRun", "find", "history", "known", "names", "read"]

LARGEST = 10**300  # number in a log; a larger one is dropped
LISTED = 10  # runs that a message names
TAIL = 256  # bytes before the new ones, by which a log that was written anew is noticed
TEXTS = ("kind", "what")  # entries of rows that are not numbers


class UnknownRun(UsageError):
    """A run that does not exist; the message lists those that do."""


class Run(NamedTuple):
    """Content of a run's folder."""

    path: Path
    values: dict[str, Any]  # configuration by dotted key; empty if it cannot be read
    last: dict[str, Any]  # last row of the log, with the last validation loss; empty before the first update
    events: list[dict[str, Any]]  # oldest first
    result: dict[str, Any]  # scores of a finished run
    running: bool  # whether a process holds the lock

    @property
    def made(self) -> int:
        """Number of updates made."""
        return self.last.get("update", 0)

    @property
    def total(self) -> int:
        """Number of updates of the whole run."""
        updates = self.values.get("optimiser.updates")
        return updates if isinstance(updates, int) else 0

    @property
    def state(self) -> str:
        """State: "running", "finished", "stopped" (by a signal, and saved), "broken off" or "unreadable"."""
        if self.running:
            return "running"
        if not self.values:
            return "unreadable"
        if self.result and self.made >= self.total:
            return "finished"
        marks = [event["kind"] for event in self.events if event["kind"] in ("stopped", "resumed")]
        return "stopped" if marks[-1:] == ["stopped"] else "broken off"

    @property
    def test_loss(self) -> float | None:
        """Test loss of a finished run; None while a resumed run is not finished."""
        loss = self.result.get("test_loss") if self.made >= self.total else None
        return loss if _is_number(loss) else None

    @property
    def baselines(self) -> dict[str, float]:
        """Test losses of trivial predictions, by name."""
        found = self.result.get("baselines")
        found = found if isinstance(found, dict) else {}
        return {_printable(name): loss for name, loss in found.items() if _is_number(loss)}

    @property
    def task(self) -> type:
        """The task that the run was trained on."""
        return task_class(self.kind)

    @property
    def loss(self) -> str:
        """Name and unit of the loss."""
        return CONFIGS[self.kind].loss

    @property
    def kind(self) -> str:
        """Name of the task."""
        kind = self.values.get("data.kind")
        return kind if isinstance(kind, str) and kind in CONFIGS else "clips"


# Finding runs


def known(
    folder: Path,  # of runs
) -> list[Path]:  # by name
    """The runs in a folder and in its subfolders, which jobs on a cluster create."""
    near, far = (sorted(path.parent for path in folder.glob(f"{deep}/config.json")) for deep in ("*", "*/*"))
    return near + [path for path in far if path.parent not in near]


def find(
    word: str,  # folder or name of a run
    folder: Path,  # of runs
) -> Path:
    """The folder of a run."""
    for path in (Path(word), folder / word):
        if (path / "config.json").is_file():
            return path
        if (path / "policy.json").is_file():
            raise refusal("RUN", word, "is a policy, not a run of ebwm train", "see: ebwm policy list", UnknownRun)
    existing = list(names(known(folder), folder))
    some = ", ".join(["..."] * (len(existing) > LISTED) + existing[-LISTED:]) or "none"
    raise refusal("RUN", word, f"must be the folder of a run, or a run in {folder}: {some}",
                  suggestion(word, existing), UnknownRun)


def names(
    paths: Iterable[Path],  # of runs
    folder: Path,  # of runs
) -> dict[str, Path]:
    """Runs by name: the path within the folder of runs, or the whole path of other runs."""
    real = lambda path: Path(os.path.realpath(path))  # unlike `resolve`, it accepts a loop of links
    folder, whole = real(folder), {path: real(path) for path in paths}
    within = {path: place.is_relative_to(folder) and place != folder for path, place in whole.items()}
    return {str(place.relative_to(folder) if within[path] else path): path for path, place in whole.items()}


def read(
    path: Path,  # of a run
) -> Run:
    """Read the folder of a run."""
    values = {RENAMED.get(key, key): value for key, value in flat(_object(path / "config.json"))}
    values = {_printable(key): _printable(value) for key, value in values.items()}
    events = [event for event in _parsed(_lines(path / "events.jsonl")) if "kind" in event]
    return Run(path, values, _last(path), events, _object(path / "result.json"), held(path))


def history(
    path: Path,  # of a run
) -> list[dict[str, Any]]:  # rows of the log; updates before a rollback are dropped
    """The updates that led to the present state of a run."""
    rows = []
    for row in _parsed(_lines(path / "log.jsonl")):
        while rows and rows[-1]["update"] >= row["update"]:
            rows.pop()
        rows.append(row)
    return rows


class LogReader:
    """Reads a log while it grows: each call returns the rows that are new."""

    def __init__(
        self,
        path: Path,  # of a run
    ):
        self.path, self.place, self.tail = path / "log.jsonl", 0, b""

    def read(self) -> tuple[bool, list[dict[str, Any]]]:  # whether to forget earlier rows; rows as in the log
        """Read what was appended since the last call; a log that was written anew is read from its start."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self.place - len(self.tail))
            anew = file.read(len(self.tail)) != self.tail
            if anew:
                self.place, self.tail = file.seek(0), b""
            return anew, self._rows(file.read())
        anew, self.place, self.tail = bool(self.place), 0, b""
        return anew, []

    def _rows(self, new: bytes) -> list[dict[str, Any]]:
        """The rows of new bytes; an incomplete last line is left for the next call."""
        whole = new.rfind(b"\n") + 1
        rows, last = list(_parsed(new[:whole].splitlines())), list(_parsed([new[whole:]]))
        taken = new if last else new[:whole]
        self.place, self.tail = self.place + len(taken), (self.tail + taken)[-TAIL:]
        return rows + last


def _last(path: Path) -> dict[str, Any]:
    """The last row of a run's history, read from the end of the log."""
    last, bound = {}, math.inf
    for row in _parsed(_backwards(path / "log.jsonl")):
        if row["update"] < bound:
            last, bound = last or row, row["update"]
            if "valid_loss" in row:
                return last | {"valid_loss": row["valid_loss"]}
    return last


def _object(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def _parsed(lines: Iterable[str | bytes]) -> Iterator[dict[str, Any]]:
    """Rows; an incomplete line, which is being written or was cut by a crash, and values of a wrong type are dropped."""
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("update"), int):
            yield {name: _printable(value) for name, value in row.items()
                   if (isinstance(value, str) if name in TEXTS else _is_number(value))}


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can represent, or not finite."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= LARGEST)


def _printable(value: Any) -> Any:
    """A text without the surrogates that JSON allows and UTF-8 does not; other values are unchanged."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def _lines(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        yield from file


def _backwards(path: Path, block: int = 1 << 16) -> Iterator[bytes]:
    """Lines, last first."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place:
            size = min(block, place)
            place = file.seek(place - size)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            yield from reversed(lines)
        yield rest
