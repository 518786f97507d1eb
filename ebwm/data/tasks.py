"""The tasks by name: clips of video, text, sequences of states, and pairs."""

import math
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebwm.checks import refusal
from ebwm.data.configs import ClipsConfig, TextConfig, task_class
from ebwm.data.digits import moving_digits
from ebwm.data.encoders import principal
from ebwm.data.shown import ShownClips
from ebwm.data.task import SPLITS, Sequences, Task, Tokens, Vectors
from ebwm.data.text import ignore_index, perplexity, text_corpus
from ebwm.data.tokenizer import load_tokenizer
from ebwm.data.video import video_folder

__all__ = ["Clips", "ClipsConfig", "Text", "TextConfig", "load_data", "load_task"]


class Clips(Sequences):
    """Clips of video as sequences of standardised frames."""

    @classmethod
    def load(cls, config: ClipsConfig, seed: int = 0, data: Any = None) -> "Clips":
        """Make moving digits, or read video files; each split has scans or files that no other split has."""
        splits = {split: _clips(config, split, seed) for split in SPLITS}
        splits = splits if config.features is None else principal(splits, config.features)
        return cls(config, Vectors(splits["train"].state_dim), splits)

    @classmethod
    def restore(cls, config: ClipsConfig, folder: Path, tensors: dict[str, Tensor]) -> "Clips":
        """The task of a finished run; the width of its states is that of the embedding."""
        if "embed.weight" not in tensors:
            raise refusal("folder", str(folder), "its model.safetensors lacks 'embed.weight'", "train again")
        return cls(config, Vectors(tensors["embed.weight"].shape[1]))

    def save(self, folder: Path) -> None:
        """No file is needed."""

    def shown(self, count: int = 64) -> ShownClips:
        """Clips of the test split; principal components are those of the training split."""
        principal_components = self.config.features is not None
        test = Clips.load(self.config).splits["test"] if principal_components else _clips(self.config, "test", seed=0)
        return ShownClips(test, count)


def _clips(config: ClipsConfig, split: str, seed: int) -> Any:
    """Clips of a split: of video files, or moving digits."""
    shape = dict(frames=config.frames, size=config.size, seed=seed)
    if config.folder is not None:
        return video_folder(config.folder, split, spacing=config.spacing, **shape)
    count = config.train_clips if split == "train" else config.eval_clips
    return moving_digits(split, clips=count, turn=config.turn, **shape)


class Text(Sequences):
    """Windows of text whose next token is predicted."""

    tokenizer: Any  # between text and tokens
    usage: Callable[[Path], str] = staticmethod(
        lambda folder: f"Generate text: ebwm generate --model {shlex.quote(str(folder))}")

    @classmethod
    def load(cls, config: TextConfig, seed: int = 0, data: Any = None) -> "Text":
        """Tokenise a corpus."""
        names = ("tokenizer", "length", "packing", "documents", "held_out", "key")
        corpus = partial(text_corpus, config.source, seed=seed, **{name: getattr(config, name) for name in names})
        return cls._of(config, corpus("train").tokenizer, {split: corpus(split) for split in SPLITS})

    @classmethod
    def restore(cls, config: TextConfig, folder: Path, tensors: dict[str, Tensor]) -> "Text":
        """The task of a finished run, with its tokenizer."""
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise refusal("folder", str(folder), "holds a model of text, but no tokenizer.json")
        return cls._of(config, load_tokenizer(str(file)))

    @classmethod
    def _of(cls, config: TextConfig, tokenizer: Any, splits: dict[str, Any] | None = None) -> "Text":
        task = cls(config, Tokens(tokenizer.vocabulary, ignore_index(tokenizer, config.packing)), splits)
        task.tokenizer = tokenizer
        return task

    def digests(self) -> dict[str, str]:
        """SHA-256 of each split, and of the corpus."""
        return super().digests() | {"corpus": self.splits["test"].corpus_digest}

    def summary(self, errors: Tensor, target: Tensor) -> dict[str, Any]:
        """Perplexity and bits per byte, with standard errors over windows."""
        return perplexity(errors.cpu(), self.tokenizer.bytes[target.cpu()])._asdict()

    @staticmethod
    def describe(summary: dict[str, Any]) -> str:
        """Perplexity and bits per byte in words."""
        return (f"perplexity {summary['value']:.4g} ± {summary['error']:.2g}, "
                f"{summary['bits_per_byte']:.4g} ± {summary['bits_error']:.2g} bits per byte, "
                f"over {summary['tokens']:,} tokens; standard errors over windows")

    def baselines(self) -> dict[str, float]:
        """Uniform probabilities, and frequencies of tokens in some windows of the training split."""
        target = self.pair(self.items("test"))[1]
        target = target[target != self.state.ignore_index]
        tokens = self.items("train").flatten()
        tokens = tokens[tokens != self.state.ignore_index]
        counts = torch.bincount(tokens, minlength=self.state.vocabulary) + 1.0
        nats = (counts.sum().log() - counts.log())[target].mean()
        return {"uniform": math.log(self.state.vocabulary), "token frequencies": float(nats)}

    def save(self, folder: Path) -> None:
        """Write the tokenizer."""
        self.tokenizer.save(folder / "tokenizer.json")


def load_task(
    config: Any,  # the section `data` of a configuration
    seed: int = 0,  # fixes moving digits and splits
    data: Any = None,  # tensors instead of the source, for tasks that take them
) -> Task:
    """The task of a configuration, with its data."""
    return task_class(config.kind).load(config, seed, data)


def load_data(
    config: Any,  # the section `data` of a configuration
    seed: int = 0,  # fixes moving digits and splits
) -> dict[str, Any]:  # "train", "valid", "test"
    """The three splits of a data set."""
    return load_task(config, seed).splits
