"""Random numbers from explicit generators only, also for a part of a batch."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import checks

__all__ = ["Randomness", "SubsetNoise", "check_generator", "draw_like", "normal_like"]


class SubsetNoise:
    """Draws noise for the whole batch and returns the rows of the active items."""

    def __init__(
        self,
        generator: torch.Generator | None,  # of the whole batch
        count: int,  # items of the whole batch
        active: Int[Tensor, " items"],  # flat indices of the active items
    ):
        self.generator, self.count, self.active = generator, count, active

    def draw(
        self,
        draw: Callable,  # torch.randn or torch.rand
        like: Float[Tensor, "..."],  # candidates of the active items; give the features, dtype and device
    ) -> Float[Tensor, "..."]:
        """Draw for the whole batch and select the active items."""
        whole = like.new_empty(1).expand(self.count, *like.shape[1:])
        return draw_like(draw, whole, self.generator)[self.active]


Randomness = torch.Generator | SubsetNoise | None  # a kernel's only source of randomness


def check_generator(
    generator: Randomness,  # source of randomness
) -> None:
    """Refuse random draws without a generator."""
    if not isinstance(generator, torch.Generator | SubsetNoise):
        raise checks.refusal("generator", generator, "random draws need an explicit torch.Generator",
                             "use ebwm.settings.generator(seed)", ValueError if generator is None else TypeError)


def draw_like(
    draw: Callable,  # torch.randn or torch.rand
    like: Tensor,  # gives shape, dtype and device
    generator: Randomness,  # the only source of randomness; None is refused
    out: Tensor | None = None,  # receives the numbers, instead of a new tensor
) -> Tensor:
    """Random numbers with the shape, dtype and device of a tensor; never from the global generator."""
    check_generator(generator)
    if isinstance(generator, SubsetNoise):
        return generator.draw(draw, like)
    if generator.device.type != like.device.type:
        remedy = f"use ebwm.settings.generator(seed, device={str(like.device)!r})"
        raise checks.refusal("generator.device", str(generator.device), f"must be {like.device}", remedy)
    return draw(like.shape, generator=generator, dtype=like.dtype, device=like.device, out=out)


def normal_like(
    like: Tensor,  # gives shape, dtype and device
    generator: Randomness,  # the only source of randomness; None is refused
    out: Tensor | None = None,  # receives the numbers, instead of a new tensor
) -> Tensor:
    """Standard normal random numbers with the shape, dtype and device of a tensor."""
    return draw_like(torch.randn, like, generator, out)
