"""Refusals of ebwm.data."""

import functools
import math
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from ebwm.data.configs import (
    ClipsConfig,
    FramesConfig,
    GameConfig,
    PairsConfig,
    PatchesConfig,
    StatesConfig,
    TextConfig,
)
from ebwm.data.digits import moving_digits
from ebwm.data.documents import PACKAGES, documents
from ebwm.data.documents import _package_files as packages
from ebwm.data.features import encoded_clips, frame_encoder, nearest_frames, save_features, train_autoencoder
from ebwm.data.forks import forking_digits
from ebwm.data.games import episodes, make_game
from ebwm.data.grammars import Dyck, Sums
from ebwm.data.images import Images, crops, from_patches, image_splits, split_images, to_patches
from ebwm.data.ngram import NGram
from ebwm.data.photographs import camera_clips, moving_camera, photograph_splits, photographs
from ebwm.data.pretrained import read_weights
from ebwm.data.questions import downstream, text_windows
from ebwm.data.states import States
from ebwm.data.tasks import load_task
from ebwm.data.text import perplexity, text_corpus
from ebwm.data.tokenizer import load_tokenizer
from ebwm.data.video import VideoDataset, video_folder, video_hub
from ebwm.evaluation.statistics import perplexity_ratio

digits = functools.partial(moving_digits, cache="unused")
forks = functools.partial(forking_digits, cache="unused")
EMPTY = tempfile.gettempdir() + "/ebwm-no-such-folder"
DIRECTORY = tempfile.mkdtemp()
RECORDING = torch.zeros(1, 9, 2)


def corpus(text, **settings):
    """The corpus of a file with some text."""
    path = Path(tempfile.mkdtemp(), "text.txt")
    path.write_text(text, encoding="utf-8")
    return text_corpus(path, **dict(length=16, cache=path.parent / "cache") | settings)


def outdated(function, *arguments):
    """A call while another version of numpy is wanted."""
    with mock.patch.dict(PACKAGES, numpy="0.1"):
        packages.cache_clear()
        return function(*arguments)


def bytes_of(content):
    """A file with some bytes."""
    path = Path(tempfile.mkdtemp(), "x.onnx")
    path.write_bytes(content)
    return path


def deep_json():
    """A file with one line of very many brackets."""
    path = Path(tempfile.mkdtemp(), "deep.jsonl")
    path.write_text('{"text": ' + "[" * 10**5, encoding="utf-8")
    return path


def saved_images(kind):
    """A folder of four grey images of a type of pixels."""
    from PIL import Image

    folder = tempfile.mkdtemp()
    for number in range(4):
        Image.fromarray(np.full((4, 4), 500 * number, kind)).save(Path(folder, f"{number}.png"))
    return folder


def saved_arrays(*names):
    """A folder with a file for each array."""
    folder = tempfile.mkdtemp()
    for name in names:
        np.save(Path(folder, f"{name}.npy"), np.zeros((4, 3, 2)))
    return folder


def table(function, *cases, **defaults):
    """Cases of one function: a label for each bad argument, and the arguments."""
    return [(f"{getattr(function, '__name__', 'data')} {name}={value!r}",
             functools.partial(function, **defaults | {name: value}), ValueError, f"{name}=")
            for name, value in cases]


CASES = [
    *table(ClipsConfig, ("frames", 0), ("features", 0), ("spacing", 0.0)),
    *table(TextConfig, ("held_out", 0.0), ("length", 0), ("documents", 0), ("packing", "loose")),
    *table(StatesConfig, ("held_out", 0.0), ("held_out", 0.5), ("length", 1), ("eval_items", 0)),
    *table(PairsConfig, ("held_out", 0.0), ("eval_items", 0)),
    *table(PatchesConfig, ("held_out", 0.0), ("patch", 0), ("size", 0), ("train_items", 0), ("eval_items", 0)),
    *table(to_patches, ("patch", 0), ("patch", 3), ("patch", 9), images=torch.zeros(1, 1, 8, 8)),
    *table(from_patches, ("patches", torch.zeros(1, 15, 4)), patch=2, shape=(1, 8, 8)),
    *table(image_splits, ("size", 9)), *table(Images, ("pixels", np.zeros((0, 1, 4, 4), np.uint8))),
    *table(crops, ("size", 21), images=[np.zeros((20, 40, 3), np.uint8)], count=1),
    ("no images", lambda: image_splits(tempfile.mkdtemp()), FileNotFoundError, "source="),
    ("16-bit images", lambda: image_splits(saved_images(np.uint16)), ValueError, "source='0.png': must have at most 8"),
    ("states and actions", lambda: States.load(StatesConfig(source=saved_arrays("states", "actions"))), ValueError,
     "np.savez"),
    ("one recording", lambda: States.load(StatesConfig(), data=RECORDING), ValueError, "data.length"),
    ("few windows", lambda: States.load(StatesConfig(length=4), data=RECORDING), ValueError, "data.length"),
    ("source", lambda: image_splits("digit"), FileNotFoundError, "source="),
    ("two images", lambda: split_images(np.zeros((5, 1, 2, 2), np.uint8), np.zeros(5, bool)), ValueError, "source="),
    *table(digits, ("split", "validation"), ("clips", 0), ("frames", 1), ("size", 15), ("seed", -1),
           ("turn", 1.5), ("turn", math.nan), ("speeds", (0, 8)), ("speeds", (32, 8)), ("speeds", (8, 129)),
           ("digits", ()), ("digits", (-1, 3)), ("occlusion", -1), ("occlusion", 17), split="train"),
    *table(forks, ("split", "dev"), ("clips", 0), ("frames", 1), ("size", 15), ("seed", -1), ("every", 0),
           ("every", 16), ("speed", 0), ("speed", 57), ("chances", ()), ("chances", (0.5, 1.5)),
           ("chances", (math.nan,)), ("chances", (0.5, 0.501)), ("digits", (3, 10)), split="train"),
    *table(make_game, ("game", "chess"), ("game", "push:x"), ("size", 0), game="push"),
    *table(episodes, ("split", "dev"), ("policy", "best"), ("count", 0), ("frames", 1), ("seed", -1), game="push"),
    ("push:4", lambda: make_game("push:4"), ValueError, "cells=4"),
    ("step", lambda: make_game("push").step(5), ValueError, "action=5"),
    ("symbols", lambda: make_game("push", 8, symbolic=True), ValueError, "size=8"),
    *table(VideoDataset, ("std", 0.0), ("clips", np.zeros((0, 2, 4, 4), np.uint8)),
           clips=np.zeros((1, 2, 4, 4), np.uint8), mean=0.5, std=0.5),
    *table(video_folder, ("frames", 1), ("spacing", 0.0), ("stride", -1.0), ("size", 0), ("size", 10**6),
           ("split", "dev"), folder=EMPTY, split="train"),
    ("no folder", lambda: video_folder(EMPTY, "train"), FileNotFoundError, "folder="),
    ("no video", lambda: video_folder(tempfile.mkdtemp(), "train"), FileNotFoundError, "folder="),
    *table(frame_encoder, ("name", "pixel"), ("name", "timm"), ("name", "pixels:3"), ("name", "principal:4"),
           ("name", "autoencoder:x"), ("name", "timm:no_such_model")),
    *((f"weights {suffix}", functools.partial(read_weights, file), error, "weights=") for suffix, file, error in [
        ("missing", EMPTY, FileNotFoundError), ("other", __file__, ValueError)]),
    ("lite0 file", lambda: frame_encoder("efficientnet_lite0", EMPTY), FileNotFoundError, "weights="),
    ("onnx file", lambda: frame_encoder("dinov2_shaped", __file__), ValueError, "weights="),
    *((f"onnx {content}", functools.partial(frame_encoder, "dinov2_shaped", bytes_of(content)), ValueError, "weights=")
      for content in (b"", b"81", b":\x02\x0a\x01", b":\x04\x0a\x02\x08\x09")),
    ("onnx size", lambda: frame_encoder("dinov2_shaped", __file__, size=100), ValueError, "size="),
    ("vae folder", lambda: frame_encoder("vae:any", __file__), FileNotFoundError, "weights="),
    *table(train_autoencoder, ("size", 12), ("features", 0), frames=np.zeros((2, 8, 8, 3), np.uint8)),
    *table(nearest_frames, ("bank", torch.zeros(0, 3)), ("bank", torch.zeros(2, 4)), states=torch.zeros(2, 3)),
    *table(encoded_clips, ("splits", {}), encoder=frame_encoder("pixels")),
    *table(save_features, ("splits", {}), folder="features"),
    *table(FramesConfig, ("frames", 1), ("layout", "ucf"), ("short", "loop"), ("pool", "max"), ("size", 0),
           ("pan", 0.5), ("turn", -1.0), ("spacing", 0.0), ("workers", -1), ("per_video", 0), ("train_clips", 0)),
    *table(GameConfig, ("policy", "best"), ("frames", 1), ("pool", "max"), ("size", 0)),
    ("symbols", lambda: GameConfig(symbolic=True, size=8), ValueError, "symbolic=True"),
    *((f"frames {named}", functools.partial(load_task, FramesConfig(**changes)), error, named)
      for named, error, changes in [
        ("data.source=", FileNotFoundError, {"source": EMPTY, "encoder": "pixels"}),
        ("data.source='camera'", ValueError, {"layout": "ssv2", "encoder": "pixels"}),
        ("data.layout='ssv2'", FileNotFoundError, {"source": DIRECTORY, "layout": "ssv2", "encoder": "pixels"}),
        ("data.split_files=", FileNotFoundError, {"source": DIRECTORY, "split_files": EMPTY, "encoder": "pixels"}),
        ("data.encoder='pixel'", ValueError, {"source": "digits", "encoder": "pixel"}),
        ("data.weights=", FileNotFoundError, {"source": "digits", "encoder": "efficientnet_lite0", "weights": EMPTY}),
        ("data.size=224", ValueError, {"encoder": "principal:4", "size": 224})]),
    *table(photographs, ("names", ("eagle",)), ("names", ("chelseas",))),
    *table(photograph_splits, ("names", ("a", "b"))),
    *table(moving_camera, ("clips", 0), ("frames", 1), ("size", 3), ("seed", -1), ("split", "dev"), ("pan", -0.1),
           ("zoom", 0.5), ("turn", math.nan), images={"a": np.zeros((9, 9, 3), np.uint8)}),
    *table(camera_clips, ("split", "dev"), images={}),
    *table(video_hub, ("limit", 0), name="owner/name", split="train"),
    *table(text_corpus, ("split", "dev"), ("packing", "loose"), ("length", 0), ("documents", 0),
           ("held_out", 0.5), ("held_out", -0.1), cache="unused"),
    *((f"source {kind}", functools.partial(documents, source), FileNotFoundError, "source=") for kind, source in {
        "path": tempfile.gettempdir() + "/none.txt", "name": "texts/none.txt", "folder": tempfile.mkdtemp()}.items()),
    ("packages", functools.partial(outdated, documents, "packages"), ValueError, "source='packages': needs numpy 0.1"),
    ("deep JSON", lambda: [*documents(deep_json())], ValueError, "source='deep.jsonl:1'"),
    *((f"source {named}", functools.partial(corpus, text, **changes), error, named) for named, text, changes, error in [
        ("source=", "", {}, ValueError), ("source=", "one\n" * 99, {"length": 10**6}, ValueError),
        ("source=", "one\n" * 99, {"split": "valid", "held_out": 0}, ValueError),
        ("cache=", "one\n" * 99, {"cache": __file__}, OSError)]),
    *table(perplexity, ("losses", torch.full((1, 2), math.nan))),
    *((f"tokenizer {spec}", functools.partial(load_tokenizer, spec, ["a small text of small words"]), error,
       "tokenizer=") for spec, error in [
        ("train:256", ValueError), ("train:many", ValueError), ("train:400", ValueError),
        ("train:100000000000", ValueError), ("bytes", FileNotFoundError),
        ("mine/none.json", FileNotFoundError), (sys.executable, ValueError)]),
    *table(Dyck, ("pairs", 5), ("length", 7), ("depth", 0), ("shift", -0.5), ("shift", math.nan),
           ("along", "width")),
    *table(Sums, ("digits", 0), ("terms", 1), ("operations", "*"), ("along", "width"), ("shift", -1)),
    *table(Dyck().draw, ("count", 0), ("seed", -1), count=1),
    *table(functools.partial(NGram.fit, np.arange(10)), ("order", 0), vocabulary=10),
    *((named, call, ValueError, named) for named, call in [
        ("tokens=10", lambda: NGram.fit(np.arange(10), 10)), ("tokens=(0, 9)", lambda: NGram.fit(np.arange(10), 2, 9)),
        ("tokens=(-1, 3)", lambda: NGram.fit(np.arange(10), 2, 10).log_probabilities(np.array([3, -1]))),
        ("tokens=(10, 10)", lambda: NGram.fit(np.arange(10), 2, 10).distribution([10])),
        ("depth + shift=6", lambda: Dyck(length=10, shift=1.5)),
        ("tokenizer=", lambda: load_tokenizer("train:300"))]),
    *table(downstream, ("name", "gsm"), ("limit", 0), name="gsm8k"),
    *((f"questions in {source}", functools.partial(downstream, "gsm8k", source), FileNotFoundError, "source=")
      for source in ("none.json", tempfile.gettempdir())),
    *table(text_windows, ("length", 0), texts=["a"], encode=str.encode, end=0),
    ("one window", lambda: perplexity_ratio(np.ones((2, 2)), np.array([[1.0, 2.0], [math.nan] * 2])),
     ValueError, "shifted"),
]
