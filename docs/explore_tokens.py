"""Files of the page of the tokens explorer: recorded walks, models, and the runtime that runs them in a browser."""

import base64
import hashlib
import json
import math
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from ebwm import settings  # noqa: E402
from ebwm.onnx_export import to_onnx  # noqa: E402
from ebwm.writing import INCLUDED, Language, load_language  # noqa: E402

STEPS, WALKS, TOP, LIMIT = 8, 8, 10, 600  # as in tokens_model.js; seconds for a package
MODELS = {"text": ("prefill.onnx", "step.onnx"), "text_transformer": ("forward.onnx",)}
EXAMPLES = (  # a context and its continuation; sorted by the measured entropy
    ("Return the number of items in the list. If the argument is not a list, raise a Type", "Error"),
    ("Open the file for reading and return a new", " file"),
    ("Raises a ValueError if x is", " not"),
    ("Create a new", " object"),
    ("The weather in the north of the", " country"),
)


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
    cache: Path | None = None,  # keeps packages and exported models; None: that of the settings
) -> None:
    """Write the recorded walks, and models and runtime if npm and the extra `onnx` are there; say what is not."""
    cache = cache or settings.load(ROOT).cache
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = [*package_files(RUNTIME, cache), *model_files(cache)]
    except (AssetError, ImportError) as error:
        files = []
        print(f"docs: the page of the tokens explorer has only recorded walks: {error}", file=sys.stderr)
    target = folder / "tokens"
    shutil.rmtree(target, ignore_errors=True)
    for file in files:
        target.mkdir(exist_ok=True)
        shutil.copy(file, target)
    text = json.dumps(recorded() | {"bytes": sum(file.stat().st_size for file in files)}, separators=(",", ":"))
    (folder / "tokens_data.js").write_text(f"window.ebwmTokens = {text};\n", encoding="utf-8")


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
    cache: Path,  # folder
) -> list[Path]:
    """The included models of text as ONNX files, exported unless the cache has them."""
    sources = [ROOT / "ebwm/onnx_export.py", *(INCLUDED / name / "model.safetensors" for name in MODELS)]
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()
    folder = cache / "onnx" / digest[:16]
    for name, files in MODELS.items():
        if not all((folder / file).is_file() for file in files):
            to_onnx(load_language(INCLUDED / name).model, folder)
    return [folder / file for files in MODELS.values() for file in files]


# Recorded walks


def normals(
    seed: int,  # from 0
    count: int,  # of numbers, even
) -> np.ndarray:
    """Standard normal numbers, as tokens_model.js draws them: mulberry32 and the method of Box and Muller."""
    state = np.uint32(seed) + np.uint32(0x6D2B79F5) * np.arange(1, count + 1, dtype=np.uint32)
    mixed = (state ^ (state >> 15)) * (state | 1)
    mixed ^= mixed + (mixed ^ (mixed >> 7)) * (mixed | 61)
    uniform = (mixed ^ (mixed >> 14)) / 2**32
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[::2])), 2 * np.pi * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).ravel()


def recorded() -> dict[str, Any]:
    """Everything that the page shows without the models: the tokenizer, and the walks of the examples at seed 0."""
    ebt, transformer = (load_language(INCLUDED / name) for name in MODELS)
    states = [{"text": text, "following": following, **state(ebt, transformer, text, following)}
              for text, following in EXAMPLES]
    states.sort(key=lambda made: made["entropies"][0][2])
    tokenizer = json.loads(ebt.tokenizer._json())["model"]
    return {"tokenizer": {name: tokenizer[name] for name in ("vocab", "merges")}, "end": ebt.tokenizer.end,
            "window": ebt.config.data.length, "stepSize": ebt.model.step_size.item(), "examples": states}


@torch.no_grad()
def state(
    ebt: Language,  # walks to the next token
    transformer: Language,  # predicts it in one pass
    text: str,  # context
    following: str,  # text that begins with the next token
    seed: int = 0,  # of the starts
) -> dict[str, Any]:  # as `predict` of tokens_model.js
    """Walks to the next token of a text, step by step."""
    tokens = torch.tensor([ebt.prompt(text)[-ebt.config.data.length :]])
    truth = ebt.tokenizer.encode(following)[0]
    logits, energies = _walks(ebt, tokens, seed)
    entropies, likely, truths = zip(*(_facts(walk, truth) for walk in logits.unbind(1)), strict=True)
    entropy, top, known = _facts(transformer.model(tokens)[0, -1:], truth)
    return {"truth": truth, "energies": [_short(walk) for walk in energies.T], "entropies": entropies,
            "likely": likely, "truths": truths,
            "transformer": {"entropy": entropy[0], "likely": top[0], "truth": known[0]}}


def _walks(ebt: Language, tokens: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [STEPS + 1, WALKS, vocabulary] and energies [STEPS + 1, WALKS]."""
    count = ebt.model.state_dim
    starts = torch.from_numpy(normals(seed, WALKS * count).astype("float32")).view(WALKS, 1, 1, count)
    landscape, places = ebt.model.landscape(tokens).last().expand(WALKS), [starts]
    walk = replace(ebt.walk()["walk"], steps=STEPS)
    found = walk.run(ebt.model, landscape, starts, callback=lambda index, after, info: places.append(after.y))
    energies = torch.cat([found.info.energy, found.state.energy[None]])
    return torch.stack(places).flatten(2, 3).squeeze(2), energies.flatten(1)


def _short(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def _facts(logits: torch.Tensor, truth: int) -> tuple[list[float], list[list], list[float]]:
    """Entropies in bits, the most likely tokens with their probabilities, and the probability of the true one."""
    p = logits.double().softmax(-1)
    found = p.topk(TOP)
    likely = [[[token, share] for token, share in zip(row.tolist(), _short(shares), strict=True)]
              for row, shares in zip(found.indices, found.values, strict=True)]
    return _short(torch.special.entr(p).sum(-1) / math.log(2)), likely, _short(p[:, truth])
