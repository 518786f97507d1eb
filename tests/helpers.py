"""Shared helpers: random tensors from named streams, tiny models, gradients of a loss, and comparisons."""

from functools import partial

import pytest
import torch

from ebwm.ebt import CONDITIONINGS, EBT
from ebwm.energy import Quadratic
from ebwm.modifiers import clamped, guarded, noisy
from ebwm.sampler import gradient_descent, hmc, langevin, mala, nesterov, softmax_descent
from ebwm.settings import generator

BOWL = Quadratic(torch.tensor([1.0, -0.5]).double(), torch.tensor([1.0, 4.0]).double())
MANUAL = [name for name in CONDITIONINGS if name != "adaln"]  # conditionings with a manual gradient
KERNELS = {  # from a step size to a kernel, and its evaluations in three steps
    "descent": (gradient_descent, [1, 1, 1]), "softmax": (softmax_descent, [1, 1, 1]),
    "nesterov": (nesterov, [1, 1, 1]), "langevin": (langevin, [1, 1, 1]), "mala": (mala, [2, 1, 1]),
    "hmc": (partial(hmc, steps=3), [4, 3, 3]), "noisy": (lambda size: noisy(nesterov(size), 0.3), [1, 1, 1]),
    "clamped": (lambda size: clamped(nesterov(size), norm=1.0), [1, 1, 1]),
    "clamped mala": (lambda size: clamped(mala(size), norm=0.1), [2, 2, 2]),
    "guarded": (lambda size: guarded(gradient_descent(size)), [2, 1, 1]),
    "guarded nesterov": (lambda size: guarded(nesterov(size)), [3, 2, 2]),
}  # fmt: skip
by_conditioning = pytest.mark.parametrize("conditioning", CONDITIONINGS)
by_gradient = pytest.mark.parametrize("gradient", ["auto", "eager"])
close = partial(torch.testing.assert_close, rtol=0, atol=1e-12)
softmax = partial(torch.softmax, dim=-1)


def draw(*shape, stream="states"):
    """Standard normal float64 numbers of a named stream."""
    return torch.randn(shape, dtype=torch.float64, generator=generator(0, stream))


def draw_tokens(vocabulary, *shape):
    """Uniform random tokens."""
    return torch.randint(vocabulary, shape, generator=generator(0, "tokens"))


def ebt(dim=8, depth=2, heads=2, step_size=0.7, **settings):
    """A tiny EBT in float64 with weights fixed by a seed."""
    return EBT(dim, depth, heads, step_size=step_size, generator=generator(0, "weights"), **settings).double()


def perturbed(model):
    """The model with gains and biases that differ from their initial values."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * draw(*parameter.shape, stream="gains"))
    return model


def gradients(model, value, *others):
    """Gradients of a loss for every parameter and for other tensors; zeros for those without one."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, [*parameters, *others], allow_unused=True, materialize_grads=True)
    return dict(zip([*names, *(f"other {i}" for i in range(len(others)))], found, strict=True))


def learned(model, loss, *others):
    """A loss with its gradients."""
    return {"loss": loss.detach(), **gradients(model, loss, *others)}


def assert_same(one, other, tolerance=1e-10):
    """Assert that tensors by name differ by less than a fraction of the largest entry, or of 1."""
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].shape == other[name].shape, name
        size = max(1.0, other[name].abs().max().item())
        difference = (one[name] - other[name]).abs().max().item() / size
        assert difference < tolerance, f"{name} differs by {difference} of {size}"


def rows(*cases, error=ValueError):
    """Rows of a table of refusals: calls, and what the message must contain."""
    return [(f"{part} {index}", call, error, part) for index, (call, part) in enumerate(cases)]


def refused(call, error=ValueError, argument=None, **bad):
    """Rows of a table of refusals: each of some bad arguments by itself, which the message must name.

    A list gives several values; `argument` is the name in the message, if that differs.
    """
    made = getattr(getattr(call, "func", call), "__name__", "")
    values = [(key, value) for key, given in bad.items() for value in (given if isinstance(given, list) else [given])]
    named = lambda key, value: (argument or key) + "=" * isinstance(value, int | float | str)
    return [(f"{made} {key} {index}", partial(call, **{key: value}), error, named(key, value))
            for index, (key, value) in enumerate(values)]
