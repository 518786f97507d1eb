"""Sizes of models in the papers, by name."""

from typing import NamedTuple

from ebwm import checks

__all__ = ["SIZES", "Size", "size_named"]


class Size(NamedTuple):
    """Depth, width and heads of a model."""

    depth: int  # layers
    dim: int  # width
    heads: int  # attention heads


SIZES = {
    "4xs": Size(2, 128, 2),
    "3xs": Size(4, 256, 4),
    "xxs": Size(6, 384, 6),
    "xs": Size(12, 384, 6),
    "small": Size(12, 768, 12),
    "medium": Size(24, 1024, 16),
    "large": Size(24, 1536, 16),
    "xl": Size(24, 2048, 32),
}


def size_named(
    name: str,  # a key of SIZES
) -> Size:
    """Look up a size."""
    checks.one_of("size", name, SIZES)
    return SIZES[name]
