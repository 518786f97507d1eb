"""Scripted experts as policies, for reference in figures."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ebwm.policy.experts import make_expert

__all__ = ["Scripted"]


class Scripted:
    """The expert of a simulator as a policy."""

    def __init__(
        self,
        simulator: str,  # name
    ):
        self.expert, self.facts = make_expert(simulator), []

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Start an episode."""
        self.expert.reset()

    def select_action(self, observation: dict[str, Tensor]) -> Float[Tensor, "1 action_dim"]:
        """The expert's action in a single environment."""
        action = self.expert.act({name: part[0].numpy() for name, part in observation.items()})
        return torch.from_numpy(np.asarray(action, dtype=np.float32))[None]
