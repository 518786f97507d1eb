"""The sweeps through `torch.compile`."""

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .sweeps import LayerInputs, Sweeps

__all__ = ["compiled_sweeps"]


@cache
def compiled_sweeps() -> Sweeps:  # each is compiled at its first call with a shape
    """The four sweeps, compiled; equal up to rounding."""
    return Sweeps(*map(_compiled, Sweeps()))


def _compiled(sweep: Callable) -> Callable:
    """A compiled sweep that reports on stderr how long compilation took for each new shape."""
    compiled, seen = torch.compile(sweep, dynamic=False), set()

    def call(x: Tensor, inputs: LayerInputs, *rest: Any) -> tuple:  # arguments and results of the sweep
        key = (x.shape, x.dtype, x.device, inputs.context[0].shape)
        if key in seen:
            return compiled(x, inputs, *rest)
        began = time.perf_counter()
        result = compiled(x, inputs, *rest)
        seen.add(key)
        took = time.perf_counter() - began
        print(f"compiled {sweep.__name__[1:]} for {list(x.shape)} in {took:.1f} s", file=sys.stderr)
        return result

    return call
