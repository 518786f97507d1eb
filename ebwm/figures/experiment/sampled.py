"""Items of a split in a random order, so that the first of them represent the whole split."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Sampled"]


class Sampled:
    """A split whose order is random and fixed. A corpus keeps the windows of a document together, so that the first
    windows of a split are of few documents; here the first ones are drawn from all of it, without replacement."""

    def __init__(
        self,
        split: Any,  # a data set whose items are tensors of one shape
        seed: int = 0,  # fixes the order
    ):
        self.split = split
        self.order = np.random.default_rng(seed).permutation(len(split))

    def __getattr__(self, name: str) -> Any:
        if name == "split":  # a copy that has no attributes yet
            raise AttributeError(name)
        return getattr(self.split, name)

    def __len__(self) -> int:
        return len(self.order)

    def whole(
        self,
        limit: int | None = None,  # number of items; all by default
    ) -> Tensor:  # items in the first axis
        """The first items of the random order, for evaluation."""
        return torch.stack([self.split[int(index)] for index in self.order[:limit]])
