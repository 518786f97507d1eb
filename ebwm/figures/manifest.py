"""Manifests: the last file of a record, with a digest of every other file."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ebwm.figures.errors import FigureError
from ebwm.files import sha256
from ebwm.settings import SCALES

__all__ = ["JOB", "MANIFEST", "files_of", "load_manifest", "read_manifest", "sealed"]

MANIFEST, JOB = "manifest.json", "job.json"  # last file of a record; file through which the runner informs `Record`


def _digests(value: Any) -> bool:
    """Whether a value holds a digest for each of some names of files, without folders."""
    return isinstance(value, dict) and all(Path(name).name == name and isinstance(digest, str)
                                           for name, digest in value.items())


ENTRIES = {  # whether the value of an entry, None if it is missing, is valid
    "scale": lambda value: value in SCALES,
    "seeds": lambda value: isinstance(value, list) and all(type(seed) is int for seed in value),
    "results": lambda value: isinstance(value, dict),
    "data": _digests,
    "pictures": _digests,
    "parameters": lambda value: isinstance(value, dict) and isinstance(value.get("effective"), dict),
    "inputs": lambda value: value is None or (isinstance(value, dict) and "device" in value),
    "git": lambda value: value is None or isinstance(value, dict),
    "threads": lambda value: value is None or (type(value) is int and value > 0),
}


def sealed(
    manifest: dict[str, Any],  # content of a manifest
) -> dict[str, Any]:
    """The manifest with a digest of its other entries."""
    content = {name: value for name, value in manifest.items() if name != "seal"}
    text = json.dumps(content, sort_keys=True)
    return {**content, "seal": hashlib.sha256(text.encode()).hexdigest()}


def load_manifest(
    folder: Path,  # of a run or a record
) -> dict[str, Any]:
    """Read the manifest of a folder, and check its seal."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FigureError(f"{folder} has no {MANIFEST}; run the figure again")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise FigureError(f"{path} is not a valid manifest; run the figure again")
    if wrong := [name for name, valid in ENTRIES.items() if not valid(manifest.get(name))]:
        raise FigureError(f"{path} is not a valid manifest: its entry {wrong[0]!r} is missing or of another kind; "
                          "run the figure again")
    if manifest != sealed(manifest):
        raise FigureError(f"{path} was changed after it was written; run the figure again")
    return manifest


def read_manifest(
    folder: Path,  # of a run or a record
) -> dict[str, Any]:
    """Read the manifest of a folder, and check the digests of its files."""
    manifest = load_manifest(folder)
    digests = {**manifest["data"], **manifest["pictures"]}
    for name, digest in digests.items():
        if not (folder / name).is_file():
            raise FigureError(f"{folder / name} is missing; run the figure again")
        if sha256(folder / name) != digest:
            raise FigureError(f"{folder / name} differs from its digest in the manifest; run the figure again")
    return manifest


def files_of(
    manifest: dict[str, Any],  # content of a manifest
) -> list[str]:  # names, the manifest last
    """All files of a record."""
    return [*manifest["data"], *manifest["pictures"], MANIFEST]
