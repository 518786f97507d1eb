"""Sources of clips of colour frames, made one unit at a time in any process: a moving camera, digits, video files."""

import functools
import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ebwm.checks import refusal
from ebwm.compat import require
from ebwm.data.configs import FramesConfig
from ebwm.data.digits import choose, moving_digits, raw_words
from ebwm.data.layouts import Entry, list_videos
from ebwm.data.photographs import camera_path, photograph_splits, photographs, reduced, render
from ebwm.data.shown import PixelClips
from ebwm.data.task import Scale
from ebwm.data.video import Sampling, images_of

__all__ = ["Camera", "CameraClips", "Digits", "Made", "Source", "Videos", "make_source"]

MADE = 1024  # clips of the training split of a source that makes them, by default
DIGIT_FRAME = 32  # height and width in pixels of frames of digits, which the encoder scales
Clip = UInt8[np.ndarray, "frames height width 3"]


class Made(NamedTuple):
    """The clips of a unit."""

    clips: list[Clip]
    reason: str = ""  # why there is none


class Source(ABC):
    """Clips of three splits, in units: a file, or the number of a clip that is made."""

    unit: ClassVar[str] = "clip"  # name of a unit

    def __init__(
        self,
        config: FramesConfig,
        seed: int,  # fixes clips and splits
        size: int = 224,  # height and width of a frame in pixels; may be set until the first clip is made
    ):
        self.config, self.seed, self.size = config, seed, size

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """All that determines the clips of a unit, as JSON can hold it."""

    @abstractmethod
    def units(self, split: str) -> list[Any]:
        """The units of a split, as JSON can hold them."""

    @abstractmethod
    def clips(self, unit: Any) -> Made:
        """The clips of a unit, or the reason why there is none."""

    def missing(self) -> dict[str, list[str]]:
        """Videos that official split files name and that are not there, by split."""
        return {}

    def most(self, split: str) -> int | None:
        """Maximum number of clips of a split; None: no limit."""
        return self.config.train_clips if split == "train" else self.config.eval_clips


class _MadeSource(Source):
    """Clips that are made from a seed."""

    def units(self, split: str) -> list[Any]:
        return [[split, number] for number in range(self.most(split) or MADE)]


class Camera(_MadeSource):
    """A camera that moves over photographs; the same clips as `ebwm.data.photographs.camera_clips`."""

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        config, digest = self.config, hashlib.sha256()
        for image in (image for images in self.images.values() for image in images):
            digest.update(f"{image.shape}".encode() + image.tobytes())
        return dict(source="camera", frames=config.frames, size=self.size, seed=self.seed, pan=config.pan,
                    zoom=config.zoom, turn=config.turn, images=digest.hexdigest())

    @functools.cached_property
    def images(self) -> dict[str, list[UInt8[np.ndarray, "_ _ 3"]]]:
        """The photographs of each split, reduced to the size of frames."""
        found = photographs()
        return {split: [reduced(found[name], self.size) for name in names]
                for split, names in photograph_splits(tuple(found), self.seed).items()}

    def clips(self, unit: Any) -> Made:
        split, number = unit
        config, words = self.config, raw_words(number + 1, 4, self.seed, split)[number:]
        image = self.images[split][int(choose(words[:, 3], 0, len(self.images[split]))[0])]
        path = camera_path(words[0, :3], image.shape[:2], config.frames, config.pan, config.zoom, config.turn)
        return Made([render(image, *path, self.size)])


class Digits(_MadeSource):
    """Moving digits."""

    @property
    def facts(self) -> dict[str, Any]:
        return dict(source="digits", frames=self.config.frames, size=DIGIT_FRAME, seed=self.seed)

    @functools.cached_property
    def made(self) -> dict[str, UInt8[np.ndarray, "clips frames size size"]]:
        """The clips of each split, in the cache."""
        shape = dict(frames=self.config.frames, size=DIGIT_FRAME, seed=self.seed)
        return {split: moving_digits(split, clips=self.most(split) or MADE, **shape).clips
                for split in ("train", "valid", "test")}

    def clips(self, unit: Any) -> Made:
        split, number = unit
        return Made([np.repeat(self.made[split][number][..., None], 3, axis=-1)])


class Videos(Source):
    """Clips of video files in a folder; a unit is a file or a part of one."""

    unit = "video"

    def __init__(self, config: FramesConfig, seed: int, size: int = 224):
        super().__init__(config, seed, size)
        require("av", "video")
        self.folder = Path(config.source)
        self.listing = list_videos(self.folder, config.layout, config.split_files, seed)

    @property
    def facts(self) -> dict[str, Any]:
        config = self.config
        return dict(source="videos", frames=config.frames, size=self.size, spacing=config.spacing, short=config.short,
                    per_video=config.per_video)

    def missing(self) -> dict[str, list[str]]:
        return self.listing.missing

    def units(self, split: str) -> list[Any]:
        """Entries with the size and the time of change of their files, so that a changed file is encoded again."""
        stats = ((entry, (self.folder / entry.name).stat()) for entry in self.listing.splits[split][:self.most(split)])
        return [[*entry, stat.st_size, stat.st_mtime_ns] for entry, stat in stats]

    def clips(self, unit: Any) -> Made:
        entry, config = Entry(*unit[:3]), self.config
        try:
            images = self._images(entry, config.spacing)
            if len(images) < config.frames and config.short == "spread" and len(images) > 1:
                images = self._images(entry, len(images) * config.spacing / config.frames)
                chosen = np.linspace(0, len(images) - 1, config.frames).round().astype(int)
                images = [images[place] for place in chosen]
        except (require("av", "video").FFmpegError, OSError, ValueError) as error:
            return Made([], f"unreadable: {getattr(error, 'strerror', None) or error}")
        if len(images) < config.frames:
            lasts, needs = len(images) * config.spacing, config.frames * config.spacing
            return Made([], f"too short: about {lasts:.3g} s, a clip needs {needs:.3g} s")
        return Made([np.stack(images[start:start + config.frames]) for start in self._starts(len(images))])

    def _images(self, entry: Entry, spacing: float) -> list[UInt8[np.ndarray, "size size 3"]]:
        """The images of an entry at fixed intervals."""
        sampling = Sampling(frames=2, spacing=max(spacing, 0.001), size=self.size, colour=True)
        with open(self.folder / entry.name, "rb") as file:
            images = images_of(file, sampling)
        start, stop = (len(images) * share // 100 for share in entry.share)
        if entry.seconds:
            start, stop = (round(second / float(sampling.interval)) for second in entry.seconds)
        return images[start:stop]

    def _starts(self, images: int) -> list[int]:
        """First images of the clips, evenly spaced; of a single clip, the middle."""
        last, frames = images - self.config.frames, self.config.frames
        count = self.config.per_video or images // frames
        if count == 1:
            return [last // 2]
        return sorted({round(number * last / (count - 1)) for number in range(count)})


def make_source(
    config: FramesConfig,
    seed: int,  # fixes clips and splits
    size: int = 224,  # height and width of a frame in pixels
) -> Source:
    """The source of a configuration: a name, or a folder."""
    if config.source in ("camera", "digits"):
        if config.split_files or config.layout != "auto":
            raise refusal("data.source", config.source, "has no split files", "write data.source=DIR")
        return {"camera": Camera, "digits": Digits}[config.source](config, seed, size)
    return Videos(config, seed, size)


class CameraClips(PixelClips):
    """New movements over photographs: those of training, then others."""

    def __init__(
        self,
        config: FramesConfig,  # of the models
        seed: int,  # of the data set
        scale: Scale,  # of the states
        size: int,  # height and width of a frame in pixels
        counts: tuple[int, int],  # clips over photographs of training, and over others
    ):
        require("skimage.data", "features")
        source = make_source(config, seed)
        source.size, unseen = size, config.train_clips
        units = [("train", unseen + number) for number in range(counts[0])]
        units += [("test", number) for number in range(counts[1])]
        self.names = [_photograph(split, number, seed) for split, number in units]
        self.trained = [split == "train" for split, _ in units]
        super().__init__(np.stack([source.clips(unit).clips[0] for unit in units]), scale)

    def facts(
        self,
        clip: int,
    ) -> dict[str, str]:  # by name
        """The photograph, and whether the models were trained on it."""
        return {"Photograph": f"{self.names[clip]} ({'' if self.trained[clip] else 'not '}in training)"}


def _photograph(split: str, number: int, seed: int) -> str:
    """The name of the photograph of a clip, as the source chooses it."""
    names = photograph_splits(seed=seed)[split]
    return names[int(choose(raw_words(number + 1, 4, seed, split)[number:, 3], 0, len(names))[0])]
