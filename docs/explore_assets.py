"""Files that pages of explorers load to run models: the runtime, and models as ONNX files; random numbers as there."""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from ebwm import settings  # noqa: E402
from ebwm.onnx_export import to_onnx  # noqa: E402
from ebwm.writing import INCLUDED  # noqa: E402

LIMIT = 600  # seconds for a package


class Package(NamedTuple):
    """A package of npm by its exact version, and the files that a page needs of it."""

    name: str
    version: str
    integrity: str  # SHA-512 of the archive, as npm states it
    files: tuple[str, ...]


RUNTIME = Package(
    "onnxruntime-web", "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"))


class AssetError(RuntimeError):
    """Files that cannot be made here; the page then has only the recorded walks."""


# Files


def write(
    folder: Path,  # of the scripts of explorers in the built site
    name: str,  # of the explorer, and of the folder of its models
    models: dict[str, tuple[str, ...]],  # as in `model_files`
    load: Callable[[Path], Any],  # as in `model_files`
    cache: Path | None = None,  # keeps packages and exported models; None: that of the settings
) -> int:  # size of what the page loads, in bytes; 0 if it cannot be made here
    """Write the runtime and the models of a page if npm and the extra `onnx` are there; say what is not."""
    cache = cache or settings.load(ROOT).cache
    shutil.rmtree(folder / name, ignore_errors=True)
    try:
        parts = {"runtime": package_files(RUNTIME, cache), name: model_files(models, load, cache)}
    except (AssetError, ImportError) as error:
        print(f"docs: the page of the {name} explorer has only recorded walks: {error}", file=sys.stderr)
        return 0
    for part, files in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder / part)
    return sum(file.stat().st_size for files in parts.values() for file in files)


def package_files(
    package: Package,  # to download, unless the cache has it
    cache: Path,  # folder
) -> list[Path]:
    """Files of a package of npm, whose archive has the stated SHA-512."""
    folder = cache / "npm" / f"{package.name}-{package.version}"
    found = [folder / Path(name).name for name in package.files]
    if not all(path.is_file() for path in found):
        folder.mkdir(parents=True, exist_ok=True)
        archive = _packed(package, folder)
        with tarfile.open(archive) as content:
            for name, path in zip(package.files, found, strict=True):
                path.write_bytes(content.extractfile(f"package/{name}").read())
        archive.unlink()
    return found


def _packed(package: Package, folder: Path) -> Path:
    """The archive of a package, by npm."""
    if not (npm := shutil.which("npm")):
        raise AssetError("'npm' is not on the PATH: apt-get install npm")
    command = [npm, "pack", f"{package.name}@{package.version}", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise AssetError(f"npm did not answer within {LIMIT} s") from None
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = next(iter(done.stderr.strip().splitlines()), "no archive")
        raise AssetError(f"npm cannot get {package.name}@{package.version} ({reason})")
    digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        archives[0].unlink()
        raise ValueError(f"{package.name}@{package.version} has sha512-{digest}: must be {package.integrity}")
    return archives[0]


def model_files(
    models: dict[str, tuple[str, ...]],  # the files of each included model
    load: Callable[[Path], Any],  # from the folder of an included model to the model
    cache: Path,  # folder
) -> list[Path]:
    """Included models as ONNX files, exported unless the cache has them."""
    sources = [ROOT / "ebwm/onnx_export.py", *(INCLUDED / name / "model.safetensors" for name in models)]
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()
    folder = cache / "onnx" / digest[:16]
    for name, files in models.items():
        if not all((folder / file).is_file() for file in files):
            to_onnx(load(INCLUDED / name), folder)
    return [folder / file for files in models.values() for file in files]


# Random numbers


def normals(
    seed: int,  # state of mulberry32, from 0
    count: int,  # of numbers, even
) -> np.ndarray:
    """Standard normal numbers, as the pages draw them: mulberry32 and the method of Box and Muller."""
    state = np.uint32(seed) + np.uint32(0x6D2B79F5) * np.arange(1, count + 1, dtype=np.uint32)
    mixed = (state ^ (state >> 15)) * (state | 1)
    mixed ^= mixed + (mixed ^ (mixed >> 7)) * (mixed | 61)
    uniform = (mixed ^ (mixed >> 14)) / 2**32
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[::2])), 2 * np.pi * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).ravel()
