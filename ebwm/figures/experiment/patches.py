"""Images completed patch by patch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ebwm.ebt import EBT
from ebwm.thinking import generate

__all__ = ["completed"]


def completed(
    model: nn.Module,  # an EBT or a Transformer++ of patches
    given: Float[Tensor, "b known features"],  # the start and the first patches
    states: int,  # number of states of the whole, with the start
    steps: int,  # of an EBT's walks
    generator: torch.Generator,  # draws their starts
) -> Float[Tensor, "b states features"]:
    """The given states, and those that the model predicts one after the other from its own predictions."""
    count = states - given.shape[1]
    if isinstance(model, EBT):
        return torch.cat([given, generate(model, given, count, steps, generator=generator).value], 1)
    cache, rows, latest = model.cache(len(given), states - 1), [given], given
    for _ in range(count):
        latest = cache.append(latest).unsqueeze(1)
        rows.append(latest)
    return torch.cat(rows, 1)
