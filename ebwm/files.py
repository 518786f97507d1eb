"""Atomic writing of files, and digests of their contents."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["flush", "sha256", "write_json", "write_whole"]


def write_whole(
    path: Path,  # path of the file
    write: Callable[[Path], Any],  # function that writes to a given path
) -> None:
    """Write to a hidden file beside `path`, then rename it, so that no reader and no crash sees half a file."""
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
    path: Path,  # a file, or a folder to flush its entries
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
    value: Any,  # a value that JSON can represent
) -> None:
    """Write JSON, sorted and indented."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def sha256(
    path: Path,  # any file
) -> str:  # 64 hexadecimal digits
    """The SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
