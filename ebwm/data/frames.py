"""Task: predict the features of the next frame, encoded once by a frozen network and read from the cache."""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import pickle
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ebwm.checks import refusal
from ebwm.compat import import_timm, require
from ebwm.data.cache import cache_entry, cache_folder, cached_array, cached_arrays, make_folder, open_array
from ebwm.data.configs import FramesConfig
from ebwm.data.features import FLOOR, FrameEncoder, default_encoder, fitted_encoder, frame_encoder
from ebwm.data.sources import CameraClips, Made, Source, make_source
from ebwm.data.task import SPLITS, Scale, Sequences, Vectors, read_task, save_task
from ebwm.files import write_json
from ebwm.saving import load_tensors, save_tensors

__all__ = ["FITTED", "Encoded", "EncodedFrames", "EncodedSequences", "Frames", "FramesConfig", "encode_split", "load_encoder",
           "named_encoder", "save_encoder"]

PART = 64  # units whose features are in one file of the cache
FITTED = {"principal": 16, "autoencoder": 32}  # encoders that are fitted to training frames, and their image sizes
FITTING = 256  # training units whose frames they are fitted to
LARGEST = 64  # pixels along an image of a fitted encoder
SHOWN = 32  # maximum number of clips to show


# Encoding


class Encoded(NamedTuple):
    """The features of a unit of a source."""

    features: Float[np.ndarray, "clips frames features"]
    reason: str = ""  # why there is no clip


def _encode(made: Made, encoder: FrameEncoder, frames: int) -> Encoded:
    """Encode the clips of a unit."""
    if not made.clips:
        return Encoded(np.zeros((0, frames, encoder.features), np.float32), made.reason)
    return Encoded(encoder.encode(np.concatenate(made.clips)).numpy().reshape(-1, frames, encoder.features))


_given: dict[str, Any] = {}  # source and encoder of a process that encodes


def _begin(source: Source, encoder: bytes | None, with_timm: bool) -> None:
    """Prepare a process; timm is imported with its remedy before an encoder that needs it is read."""
    torch.set_num_threads(1)
    if with_timm:
        import_timm()
    _given.update(source=source, encoder=pickle.loads(encoder) if encoder else None)


def _work(unit: Any) -> Made | Encoded:
    """Encode a unit, or only decode it if the encoder is on a GPU of another process."""
    source, encoder = _given["source"], _given["encoder"]
    made = source.clips(unit)
    return _encode(made, encoder, source.config.frames) if encoder else made


def _results(source: Source, encoder: FrameEncoder, units: Iterable[Any], workers: int) -> Iterator[Encoded]:
    """The features of units in their order; the processes are a few units ahead."""
    frames, here = source.config.frames, encoder.device.type != "cpu"
    if not workers:
        yield from (_encode(source.clips(unit), encoder, frames) for unit in units)
        return
    given = source, None if here else pickle.dumps(encoder), "timm" in sys.modules
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=given)
    finish = lambda future: _encode(future.result(), encoder, frames) if here else future.result()
    waiting: deque[Future] = deque()
    try:
        for unit in units:
            waiting.append(pool.submit(_work, unit))
            if len(waiting) > 2 * workers:
                yield finish(waiting.popleft())
        while waiting:
            yield finish(waiting.popleft())
    except BrokenProcessPool:
        raise refusal("data.workers", workers, "a process that encodes was lost", "use data.workers=0, or give the run "
                      "more memory", OSError) from None
    finally:
        pool.shutdown(cancel_futures=True)


def encode_split(
    source: Source,
    split: str,  # "train", "valid" or "test"
    encoder: FrameEncoder,
    workers: int = 0,  # processes that decode and encode; 0: this one
) -> tuple[list[Float[np.ndarray, "clips frames features"]], list[dict[str, Any]]]:  # memory maps, and facts of each
    """Encode the clips of a split once, part by part; an interrupted encoding resumes with what is missing."""
    from tqdm.std import tqdm

    units = source.units(split)
    parts = [units[start:start + PART] for start in range(0, len(units), PART)]
    folder = cache_folder(None) / cache_entry("frames", source.facts, split, units, encoder.digest)
    absent = {number for number in range(len(parts)) if not (folder / f"{number:05d}.json").exists()}
    ahead = _results(source, encoder, (unit for number in sorted(absent) for unit in parts[number]), workers)

    def make(number: int) -> tuple[np.ndarray, dict[str, Any]]:
        part = parts[number]
        results = islice(ahead, len(part)) if number in absent else _results(source, encoder, part, 0)
        found = []
        for result in results:
            found.append(result)
            bar.update()
        features = np.concatenate([result.features for result in found])
        skipped = [[str(unit[0]), one.reason] for unit, one in zip(part, found, strict=True) if one.reason]
        return features, {"clips": [len(one.features) for one in found], "skipped": skipped,
                          "digest": hashlib.sha256(features).hexdigest()}

    total = sum(len(parts[number]) for number in absent)
    with (tqdm(total=total, unit=source.unit, disable=None if total else True, desc=f"encode {split}") as bar,
          contextlib.closing(ahead)):
        stored = cached_arrays(folder, lambda: range(len(parts)), lambda number: {"units": len(parts[number])}, make)
    return [open_array(path) for path, _ in stored], [facts for _, facts in stored]


# Data sets


class EncodedFrames(torch.utils.data.Dataset):
    """Clips as standardised features, read from memory-mapped files."""

    def __init__(
        self,
        shards: list[Float[np.ndarray, "clips frames features"]],  # raw features
        facts: list[dict[str, Any]],  # of each, from `encode_split`
        most: int | None = None,  # maximum number of clips; None: all
        scale: Scale | None = None,  # None: that of these clips
    ):
        self.shards, self.facts = [shard for shard in shards if len(shard)], facts
        self.ends = np.cumsum([len(shard) for shard in self.shards])
        count = int(self.ends[-1]) if len(self.ends) else 0
        self.count = count if most is None else min(count, most)
        self.scale = scale or self._scale()
        self.mean, self.std = (torch.tensor(numbers) for numbers in (self.scale.mean, self.scale.std))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Float[Tensor, "frames features"]:
        if not -self.count <= index < self.count:
            raise IndexError(index)
        index %= self.count
        shard = int(np.searchsorted(self.ends, index, "right"))
        row = self.shards[shard][index - (self.ends[shard - 1] if shard else 0)]
        return (torch.from_numpy(np.array(row)) - self.mean) / self.std

    def whole(
        self,
        limit: int | None = None,  # number of clips from the start; None: all
    ) -> Float[Tensor, "clips frames features"]:
        """The states of all clips in their fixed order, for evaluation."""
        return torch.stack([self[index] for index in range(min(len(self), limit or len(self)))])

    @property
    def state_dim(self) -> int:
        """Number of features of a state."""
        return self.shards[0].shape[2]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the features, the number of clips, and the standardisation to six digits."""
        scale = [f"{number:.6g}" for number in (*self.scale.mean, *self.scale.std)]
        facts = [[part["digest"] for part in self.facts], len(self), scale]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _scale(self) -> Scale:
        """Mean and standard deviation of each feature; small deviations are raised to FLOOR."""
        sums, count, left = np.zeros((2, self.state_dim)), 0, self.count
        for shard in self.shards:
            rows = shard[:left].reshape(-1, self.state_dim).astype(np.float64)
            sums += np.stack([rows.sum(0), np.square(rows).sum(0)])
            count, left = count + len(rows), max(0, left - len(shard))
        mean, square = sums / count
        variance = np.maximum(square - mean**2, 0)
        floor = FLOOR * float(np.sqrt(variance.mean())) or 1.0
        return Scale(mean.tolist(), np.maximum(np.sqrt(variance), floor).tolist())

    def place(
        self,
        index: int,  # of a clip
    ) -> tuple[int, int]:  # number of its unit in the split, number of the clip in it
        """Where a clip comes from."""
        ends = np.cumsum([count for part in self.facts for count in part["clips"]])
        unit = int(np.searchsorted(ends, index, "right"))
        return unit, index - int(ends[unit - 1] if unit else 0)


# Encoders of runs


def _encoder_of(config: FramesConfig, source: Source) -> FrameEncoder:
    """The encoder of a configuration, fitted to training frames if it is not pretrained; sets the size of frames."""
    name = default_encoder() if config.encoder == "default" else config.encoder
    kind = name.partition(":")[0]
    frames, size = None, config.size
    if kind in FITTED:
        source.size = size = config.size or FITTED[kind]
        if size > LARGEST:
            raise refusal("data.size", size, f"must be at most {LARGEST} for data.encoder={name}")
        frames = _fitting_frames(source)
    encoder = named_encoder(name, config, size, frames, source.seed)
    source.size = encoder.size
    return encoder


def named_encoder(
    name: str,  # as for `frame_encoder`
    config: Any,  # with the entries weights and pool
    size: int | None,  # height and width of an image in pixels; None: the encoder's own
    frames: UInt8[np.ndarray, "n height width 3"] | None,  # training frames
    seed: int,  # of an encoder that is trained
) -> FrameEncoder:
    """The encoder of a section `data`; messages name the entries of the section."""
    try:
        return frame_encoder(name, config.weights, config.pool, size, frames=frames, seed=seed)
    except (ValueError, OSError) as error:
        entry, _, rest = str(error).partition("=")
        raise type(error)(f"data.{'encoder' if entry == 'name' else entry}={rest}") from None


def _fitting_frames(source: Source) -> UInt8[np.ndarray, "n height width 3"]:
    """Every fourth frame of the first clips of some training units."""
    units = source.units("train")[:FITTING]

    def make() -> tuple[np.ndarray, dict[str, Any]]:
        made = [source.clips(unit) for unit in units]
        clips = [found.clips[0][::4] for found in made if found.clips]
        if not clips:
            raise refusal("data.source", source.config.source, f"has no clip in {len(units)} videos",
                          f"the first: {made[0].reason}")
        return np.concatenate(clips), {}

    return cached_array("fitting-frames", dict(source.facts, units=units), make, None)[0]


def save_encoder(
    folder: Path,  # of a run
    encoder: FrameEncoder,
    config: Any,  # with the entries weights and pool
) -> None:
    """Write the encoder's name and digest; of an encoder that was fitted, the weights."""
    fitted = encoder.name.partition(":")[0] in FITTED
    about = dict(name=encoder.name, size=encoder.size, weights=config.weights, pool=config.pool, digest=encoder.digest)
    write_json(folder / "encoder.json", about)
    if fitted:
        save_tensors(folder / "encoder.safetensors", encoder.module.state_dict(), {})


def load_encoder(
    folder: Path,  # of a run
) -> FrameEncoder:
    """The encoder of a finished run; other weights than those of its training are refused."""
    path = folder / "encoder.json"
    if not path.is_file():
        raise refusal("folder", str(folder), "must hold the encoder.json of a finished run", error=FileNotFoundError)
    about = json.loads(path.read_text(encoding="utf-8"))
    if about["name"].partition(":")[0] in FITTED:
        return fitted_encoder(about["name"], load_tensors(folder / "encoder.safetensors")[0], about["size"])
    encoder = frame_encoder(about["name"], about["weights"], about["pool"], about["size"])
    if encoder.digest != about["digest"]:
        raise refusal("weights", about["weights"] or about["name"], "are not those with which the run was trained",
                      f"find the file with which the encoder has the digest {about['digest'][:12]}")
    return encoder


# The task


class EncodedSequences(Sequences):
    """Sequences of encoded, standardised frames."""

    scales: dict[str, Scale]  # of "states"
    folder: Path | None = None  # of a finished run

    @functools.cached_property
    def encoder(self) -> FrameEncoder:
        """The frozen encoder; of a finished run, loaded when it is first used."""
        return load_encoder(self.folder)

    @classmethod
    def restore(cls, config: Any, folder: Path, tensors: dict[str, Tensor]) -> "EncodedSequences":
        """The task of a finished run, with its standardisation and its encoder."""
        state, scales = read_task(folder, Vectors)
        task = cls(config, state)
        task.scales, task.folder = scales, folder
        return task

    def encode(
        self,
        frames: UInt8[np.ndarray, "*items height width channels"],
    ) -> Float[Tensor, "*items features"]:
        """States of frames."""
        flat = self.encoder.encode(frames.reshape(-1, *frames.shape[-3:]))
        return self.scales["states"].standardise(flat).reshape(*frames.shape[:-3], -1)


class Frames(EncodedSequences):
    """Clips as sequences of features of their frames."""

    source: Source | None = None  # of the clips; None at inference

    @classmethod
    def load(cls, config: FramesConfig, seed: int = 0, data: Any = None) -> "Frames":
        """Encode the clips of all splits, or read them from the cache; all are standardised by the training split."""
        source = make_source(config, seed)
        encoder = _encoder_of(config, source)
        lock = cache_folder(None) / f"{cache_entry('frames', source.facts, encoder.digest)}.lock"
        make_folder(lock.parent)
        with require("filelock", "training").FileLock(lock):  # processes of a run wait for the first
            found = {split: encode_split(source, split, encoder, config.workers) for split in SPLITS}
        _check_found(config, found)
        splits = {"train": EncodedFrames(*found["train"], source.most("train"))}
        scale = splits["train"].scale
        splits |= {split: EncodedFrames(*found[split], source.most(split), scale) for split in SPLITS[1:]}
        task = cls(config, Vectors(encoder.features), splits)
        task.encoder, task.source, task.scales = encoder, source, {"states": scale}
        _tell(task.report(), config)
        return task

    def save(self, folder: Path) -> None:
        """Write standardisation, encoder, and a report of the videos."""
        save_task(folder, self.state, self.scales)
        save_encoder(folder, self.encoder, self.config)
        write_json(folder / "videos.json", self.report())

    def shown(self, count: int = 64) -> CameraClips:
        """New movements of a camera if states are pixels, a quarter of them over photographs that are not in training."""
        if (self.config.source, self.encoder.name) != ("camera", "pixels"):
            asked = f"{self.config.source} with data.encoder={self.encoder.name}"
            remedy = "train with data.source=camera data.encoder=pixels"
            raise refusal("data.source", asked, "has no images to show", remedy)
        others = min(count, SHOWN) // 4
        return CameraClips(self.config, 0, self.scales["states"], self.encoder.size, (min(count, SHOWN) - others, others))

    def report(self) -> dict[str, Any]:
        """Number of clips of each split, videos that were left out with the reasons, and missing videos."""
        skipped = {split: [pair for part in data.facts for pair in part["skipped"]] for split, data in self.splits.items()}
        return {"encoder": self.encoder.name, "clips": {split: len(data) for split, data in self.splits.items()},
                "skipped": skipped, "missing": self.source.missing()}

    def pixels(
        self,
        split: str,
        index: int,  # of a clip
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        """The frames of a clip, made again."""
        unit, number = self.splits[split].place(index)
        return self.source.clips(self.source.units(split)[unit]).clips[number]


def _check_found(config: FramesConfig, found: dict[str, tuple[list, list]]) -> None:
    for split, (shards, facts) in found.items():
        if not sum(map(len, shards)):
            skipped = [pair for part in facts for pair in part["skipped"]]
            rule = f"has no {split} clip in {len(skipped)} videos, such as {skipped[0][0]} ({skipped[0][1]})"
            raise refusal("data.source", config.source, rule, "use a smaller data.frames or data.spacing, or "
                          "data.short=spread")


def _tell(report: dict[str, Any], config: FramesConfig) -> None:
    """Warn of videos that were left out."""
    for name, split in (("missing", report["missing"]), ("skipped", report["skipped"])):
        counts = {part: len(videos) for part, videos in split.items() if videos}
        if counts:
            first = next(videos[0] for videos in split.values() if videos)
            first = first if isinstance(first, str) else f"{first[0]} ({first[1]})"
            numbers = ", ".join(f"{count:,} of {part}" for part, count in counts.items())
            warnings.warn(f"data.source={config.source!r}: {name} videos: {numbers}, such as {first}; videos.json of "
                          "the run lists them", stacklevel=3)
