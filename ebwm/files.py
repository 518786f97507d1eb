"""Atomic writing of files, and digests of their content."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["flush", "sha256", "write_json", "write_whole"]


def write_whole(
    path: Path,  # path of the file
    write: Callable[[Path], Any],  # function that writes to a path
) -> None:
    """Write a file atomically: to a hidden file beside `path`, which is then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(draft)
        flush(draft)
        os.replace(draft, path)
        flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def flush(
    path: Path,  # a file, or a folder to flush the names in it
) -> None:
    """Wait until a file is on the disk."""
    if os.name == "nt" and Path(path).is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(
    path: Path,  # path of the file
    value: Any,  # any value that JSON can hold
) -> None:
    """Write a JSON file, with sorted keys and an indent of 2."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def sha256(
    path: Path,  # path of a file
) -> str:  # 64 hexadecimal digits
    """The SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
