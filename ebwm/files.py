"""Atomic writing of files, and digests of their contents."""

import errno
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ebwm.checks import refusal

__all__ = ["check_temporary", "draft_of", "flush", "looked_in", "sha256", "write_json", "write_whole"]


def looked_in(
    path: Path,  # that does not exist
) -> str:  # for the end of a rule; empty if the path says it
    """Where a relative path was looked for."""
    return "" if path.is_absolute() else f", looked in {Path.cwd()}"


def draft_of(
    path: Path,  # of a file or folder to write
) -> Path:
    """A hidden path beside another, which no other writer uses, not even one of another machine with the same number."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{path.name}")


def write_whole(
    path: Path,  # path of the file
    write: Callable[[Path], Any],  # function that writes to a given path
) -> None:
    """Write to a hidden file beside `path`, then rename it, so that no reader and no crash sees half a file."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a device would be replaced by a file
        raise FileExistsError(errno.EEXIST, "is not a regular file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        write(draft)
        flush(draft)
        os.replace(draft, path)
        flush(path.parent)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # as of a full disk, which names no file
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
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


def check_temporary(
    error: type[Exception] = ValueError,  # the kind of exception
) -> None:
    """Refuse a folder of temporary files that is missing or full, before a program that needs it fails."""
    folder = os.environ.get("TMPDIR") or "/tmp"
    try:
        folder = os.environ.get("TMPDIR") or tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 14))
            file.flush()
    except OSError as fault:
        raise refusal("TMPDIR", folder, f"cannot be written ({os.strerror(fault.errno)})",
                      "free space there, or set TMPDIR to another folder", error) from None


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
