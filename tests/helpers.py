"""Shared helpers: random tensors from named streams, tiny models, gradients of a loss, and comparisons."""

import torch

from ebwm.ebt import EBT
from ebwm.settings import generator


def draw(*shape, stream="states"):
    """Standard normal float64 numbers of a named stream."""
    return torch.randn(shape, dtype=torch.float64, generator=generator(0, stream))


def ebt(dim=8, depth=2, heads=2, step_size=0.7, **settings):
    """A tiny EBT in float64 with weights fixed by a seed."""
    return EBT(dim, depth, heads, step_size=step_size, generator=generator(0, "weights"), **settings).double()


def gradients(model, value, *others):
    """Gradients of a loss for every parameter and for other tensors; zeros for those without one."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, [*parameters, *others], allow_unused=True, materialize_grads=True)
    return dict(zip([*names, *(f"other {i}" for i in range(len(others)))], found, strict=True))


def learned(model, loss):
    """A loss with its gradients."""
    return {"loss": loss.detach(), **gradients(model, loss)}


def assert_same(one, other, tolerance=1e-10):
    """Assert that tensors by name differ by less than a fraction of the largest entry, or of 1."""
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].shape == other[name].shape, name
        size = max(1.0, other[name].abs().max().item())
        difference = (one[name] - other[name]).abs().max().item() / size
        assert difference < tolerance, f"{name} differs by {difference} of {size}"
