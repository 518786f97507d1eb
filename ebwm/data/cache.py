"""Disk cache of arrays: each is a `.npy` file beside a `.json` card with facts about it and a checksum"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ebwm import settings
from ebwm.checks import refusal
from ebwm.files import sha256, write_json, write_whole

__all__ = ["SPLITS", "cache_entry", "cache_folder", "cached_array", "cached_arrays", "make_folder", "open_array"]

Chunk = TypeVar("Chunk")
Facts = dict[str, Any]
SPLITS = ("train", "valid", "test")  # of every data set, in the order in which they are stored
VERSION = 2  # of the layout; a new number makes every entry again


def cache_folder(
    cache: str | os.PathLike | None,  # a folder; that of the settings by default
) -> Path:
    """The folder of all cache entries."""
    return settings.load().cache if cache is None else Path(cache)


def cache_entry(
    kind: str,  # start of the name
    *values: Any,  # everything that determines the content, as JSON can hold it
) -> str:  # `kind` and 16 hexadecimal digits
    """Name of a cache entry; another one for each change of the values."""
    text = json.dumps([VERSION, *values], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def cached_array(
    kind: str,  # start of the entry's name
    parameters: Facts,  # everything that determines the array
    make: Callable[[], tuple[np.ndarray, Facts]],  # computes the array and facts about it
    cache: str | os.PathLike | None,  # cache folder; that of the settings by default
) -> tuple[np.ndarray, Facts]:  # the array as a memory map, and its facts
    """Read one array from the cache; compute and store it first if it is missing or damaged."""
    path = cache_folder(cache) / f"{cache_entry(kind, parameters)}.npy"
    facts = _verified(path)
    if facts is None:
        array, facts = make()
        _store(path, array, facts)
    return open_array(path), facts


def cached_arrays(
    folder: Path,  # of these arrays alone
    chunks: Callable[[], Iterable[Chunk]],  # inputs, one for each array
    identify: Callable[[Chunk], Facts],  # facts that a stored array must have to belong to a chunk
    make: Callable[[Chunk], tuple[np.ndarray, Facts]],  # computes the array of a chunk, and further facts
) -> list[tuple[Path, Facts]]:  # file and facts of each array
    """Compute and store arrays one by one; an interrupted or damaged sequence resumes with what is missing.

    Once all arrays are stored, an index lists them, and later calls do not read the chunks.
    """
    path = lambda number: folder / f"{number:05d}.npy"
    index = (_sealed(folder / "index.json") or {}).get("arrays", [])
    if index and all(_verified(path(number), facts) is not None for number, facts in enumerate(index)):
        return [(path(number), facts) for number, facts in enumerate(index)]
    found = []
    for number, chunk in enumerate(chunks()):
        identity = identify(chunk)
        facts = _verified(path(number), identity)
        if facts is None:
            array, more = make(chunk)
            facts = identity | more
            _store(path(number), array, facts)
        found.append((path(number), facts))
    _write_card(folder / "index.json", {"arrays": [facts for _, facts in found]})
    return found


def open_array(
    path: Path,  # a `.npy` file
) -> np.ndarray:
    """Open a stored array as a memory map."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def make_folder(
    folder: Path,  # of cache entries
) -> None:
    """Create a folder of the cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder.parent, error) from error


def _store(path: Path, array: np.ndarray, facts: Facts) -> None:
    try:
        write_whole(path, lambda draft: np.save(draft, array, allow_pickle=False))
        _write_card(path.with_suffix(".json"), facts, sha256(path))
    except OSError as error:
        raise _not_writable(path.parent, error) from error


def _not_writable(folder: Path, error: OSError) -> Exception:
    reason = error.strerror or f"{error}; the disk may be full"
    return refusal("cache", str(folder), f"cannot be written ({reason})", "choose another folder", OSError)


def _verified(path: Path, expected: Facts | None = None) -> Facts | None:
    """The facts of a stored array, or None if it is missing, damaged or has other facts than expected."""
    try:
        facts = _sealed(path.with_suffix(".json"), sha256(path))
    except OSError:
        return None
    return facts if facts is not None and (expected or {}).items() <= facts.items() else None


def _sealed(card: Path, digest: str = "") -> Facts | None:
    """The facts on a card, or None if the card or the file with this digest was changed since."""
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
        facts = content["facts"]
        return facts if isinstance(facts, dict) and content["sha256"] == _seal(facts, digest) else None
    except (OSError, ValueError, KeyError, TypeError):  # a damaged card is written again
        return None


def _write_card(card: Path, facts: Facts, digest: str = "") -> None:
    write_json(card, {"facts": facts, "sha256": _seal(facts, digest)})


def _seal(facts: Facts, digest: str) -> str:
    return hashlib.sha256(json.dumps([digest, facts], sort_keys=True).encode()).hexdigest()
