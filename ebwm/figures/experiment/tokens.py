"""Energies of predicted tokens: walks by token and step, their tables, and the words of texts that are shown."""

from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ebwm import settings
from ebwm.data.task import token_errors
from ebwm.figures.experiment.text import entropy
from ebwm.figures.experiment.walks import Measure, initial, trace
from ebwm.training.learner import Learner

__all__ = ["by_token", "by_window", "random_text", "shown", "walked", "words", "written"]


def random_text(
    number: int,  # fixes the characters
    length: int,  # number of characters
) -> str:
    """A text of random characters from a to z."""
    drawn = torch.randint(26, (length,), generator=settings.generator(number, "letters"))
    return "".join(ascii_lowercase[index] for index in drawn)


def written(
    pieces: Any,  # tokenizer
    token: int,  # its number
) -> str:
    """A token for display, with visible spaces."""
    return pieces.decode([token]).replace("\n", "\\n").replace(" ", "␣") or "end"


def _losses(targets: Tensor, ignored: int | None) -> Measure:
    """Loss and entropy of predicted logits."""
    return lambda logits: torch.stack([token_errors(logits, targets, ignored), entropy(logits)])


@torch.no_grad()
def walked(
    model: nn.Module,  # an EBT of tokens
    windows: Int[Tensor, "n length+1"],  # with the true tokens as context
    steps: int,  # of a walk
    ignored: int | None,  # target that is not scored
    generator: torch.Generator,  # draws the starts
    portion: int,  # windows at once
) -> Float[np.ndarray, "3 steps n length"]:
    """Energy, loss of the true token and entropy of the prediction, at the start and after each step."""
    parts = []
    for part in windows.split(portion):
        start = initial(model, part[:, :-1], generator)
        made = trace(model, model.landscape(part[:, :-1]), start, steps, _losses(part[:, 1:], ignored))
        parts.append(torch.stack([made.energies, *made.values.unbind(1)]).cpu().numpy())
    return np.concatenate(parts, 2)


@torch.no_grad()
def by_token(
    found: Float[np.ndarray, "3 steps n length"],  # from `walked`
    windows: Int[Tensor, "n length+1"],  # of the walks
    trained: int,  # steps in training
    other: Learner,  # a model that predicts in one pass
    ignored: int | None,  # target that is not scored
) -> pd.DataFrame:
    """Energies, loss and entropy of each token, beside those of another model."""
    energy, loss, spread = found
    passes = [_losses(part[:, 1:], ignored)(other.predict(part[:, :-1], None)) for part in windows.split(16)]
    other_loss, other_entropy = torch.cat(passes, 1).cpu().numpy()
    window, place = np.indices(energy.shape[1:])
    columns = dict(window=window, place=place, token=windows[:, 1:].cpu().numpy(), energy_start=energy[0],
                   energy_trained=energy[trained], energy_end=energy[-1], loss=loss[trained],
                   entropy=spread[trained], other_loss=other_loss, other_entropy=other_entropy)
    return pd.DataFrame({name: part.ravel() for name, part in columns.items()})


def by_window(
    found: Float[np.ndarray, "3 steps n length"],  # from `walked`
) -> pd.DataFrame:
    """Mean energy and loss of each window and step, and the share of tokens whose energy falls in the next step."""
    means, falls = np.nanmean(found, axis=-1), (np.diff(found[0], axis=0) < 0).mean(-1)
    step, number = np.indices(means[0].shape)
    falls = np.vstack([falls, np.full((1, falls.shape[1]), np.nan)])
    columns = dict(step=step, window=number, energy=means[0], loss=means[1], falls=falls)
    return pd.DataFrame({name: part.ravel() for name, part in columns.items()})


def shown(
    found: Float[np.ndarray, "3 steps 1 length"],  # from `walked`
    window: Int[Tensor, "1 length+1"],  # of the walk
    pieces: Any,  # tokenizer
) -> pd.DataFrame:
    """Energies and losses of one text by place and step, with its tokens."""
    energy, loss, _ = found[:, :, 0]
    return pd.DataFrame([dict(place=place, label=written(pieces, token), step=step, energy=energy[step, place],
                              loss=loss[step, place])
                         for place, token in enumerate(window[0, 1:].tolist()) for step in range(len(energy))])


def words(
    part: pd.DataFrame,  # rows of `shown` of one text and step
) -> pd.DataFrame:  # word and energy
    """Mean energies of the words of a text, in lower case."""
    part = part.sort_values("place")
    starts = part.label.str.startswith("␣") | ~part.label.str.contains(r"\w") | (part.place == 0)
    spelled = part.groupby(starts.cumsum()).agg(word=("label", "".join), energy=("energy", "mean"))
    return spelled.assign(word=spelled.word.str.strip("␣").str.lower())
