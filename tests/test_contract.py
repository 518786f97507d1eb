"""One contract for everything that can be walked: a tiny instance of each kind, the same questions to all.

A kind that isn't built yet stands here too, marked as expected to fail because it is missing. For the step
inputs, whose names are settled, building one without taking its mark away fails the suite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ebwm import thinking
from ebwm.baselines import Transformer
from ebwm.ebt import EBT
from ebwm.energy import DoubleWell, GaussianMixture, Quadratic
from ebwm.objective import S1, reconstruct
from ebwm.sampler import gradient_descent, langevin, run
from ebwm.settings import generator


@dataclass(frozen=True)
class Kind:
    """Something that can be walked."""

    make: Callable[[], tuple[Callable[[Tensor], Tensor], Tensor]]  # a landscape and candidates
    items: tuple[int, ...]  # shape of the energies
    model: Callable[[], EBT] | None = None  # for what can be trained


def analytic(energy, dim):
    return lambda: (energy, torch.randn(4, dim, dtype=torch.float64, generator=generator(0)))


def tiny(**settings):
    return lambda: EBT(8, 2, 2, generator=generator(0, "weights"), **settings).double()


def causal(**settings):
    def make():
        model = tiny(**settings)()
        states = torch.randn(2, 5, model.state_dim, dtype=torch.float64, generator=generator(0, "states"))
        start = torch.randn(2, 5, model.candidate_dim, dtype=torch.float64, generator=generator(0, "start"))
        return model.landscape(states), start

    return make


def single_items():
    landscape, start = causal()()
    rows, positions = torch.tensor([1, 0, 1]), torch.tensor([0, 4, 2])
    return landscape.at(rows, positions), start[rows, positions]


def missing(id, why, **settings):
    """A kind that design names and nobody has built."""
    make = lambda: tiny(**settings)
    reason = f"not built yet: {why}"
    return pytest.param(
        lambda: make()(), id=id, marks=pytest.mark.xfail(reason=reason, raises=TypeError, strict=True)
    )


DOUBLE = dict(dtype=torch.float64)
MIXTURE = GaussianMixture(torch.eye(2, **DOUBLE), torch.tensor([0.5, 0.5], **DOUBLE))
KINDS = {
    "quadratic": Kind(analytic(Quadratic(torch.zeros(3, **DOUBLE), torch.ones(3, **DOUBLE)), 3), (4,)),
    "double well": Kind(analytic(DoubleWell(), 2), (4,)),
    "mixture": Kind(analytic(MIXTURE, 2), (4,)),
    "causal states": Kind(causal(), (2, 5), tiny()),
    "causal latents": Kind(
        causal(candidates="latent", state_dim=12), (2, 5), tiny(candidates="latent", state_dim=12)
    ),
    "items that leave early": Kind(single_items, (3,)),
}
TRAINABLE = {name: kind for name, kind in KINDS.items() if kind.model}
by_name = lambda kinds: pytest.mark.parametrize("kind", kinds.values(), ids=list(kinds))


@by_name(KINDS)
def test_one_energy_for_each_item(kind):
    landscape, y = kind.make()
    assert landscape(y).shape == kind.items
    assert landscape(y).isfinite().all()


@by_name(KINDS)
def test_items_do_not_touch_each_other(kind):
    landscape, y = kind.make()
    first = (0,) * len(kind.items)
    other = y.clone()
    other[first] += 0.5
    moved = (landscape(other) - landscape(y)).abs() > 1e-12
    assert moved[first] and moved.sum() == 1


@by_name(KINDS)
@pytest.mark.parametrize(
    "kernel", [gradient_descent(1e-3), langevin(1e-3, temperature=0.1)], ids=["descent", "Langevin"]
)
def test_every_kernel_walks_it(kind, kernel):
    landscape, y = kind.make()
    result = run(landscape, y, kernel, 3, generator(0))
    assert result.state.y.shape == y.shape
    assert result.state.energy.shape == kind.items
    assert all(field.shape == (3, *kind.items) for field in result.info[:5])
    assert result.info.finite.all()


@by_name(KINDS)
def test_small_steps_go_down(kind):
    landscape, y = kind.make()
    result = run(landscape, y, gradient_descent(1e-3), 5)
    trace = torch.cat([result.info.energy, result.state.energy[None]])
    assert (trace.diff(dim=0) <= 0).all()


@by_name(TRAINABLE)
def test_it_is_trained_and_predicts(kind):
    model = kind.model()
    states, targets = torch.randn(2, 2, 5, model.state_dim, **DOUBLE, generator=generator(0))
    reconstruct(model, states, targets, S1(steps=2), generator=generator(0)).backward()
    assert all(p.grad is not None for p in model.parameters())
    prediction = thinking.predict(model, states, steps=2, samples=2, generator=generator(0))
    assert prediction.value.shape == targets.shape
    assert prediction.energy.shape == kind.items


def test_the_baseline_answers_to_the_same_shapes():
    states = torch.randn(2, 5, 12, generator=generator(0))
    assert Transformer(8, 2, 2, state_dim=12, generator=generator(0))(states).shape == states.shape


@pytest.mark.parametrize(
    "make",
    [
        missing("step token in the context", "step='context_token'", step="context_token"),
        missing("step token for candidates", "step='candidate_token'", step="candidate_token"),
        missing("adaLN", "step='adaln'", step="adaln"),
        missing("joint candidates", "one energy for an image or an action chunk", form="joint"),
        missing("vocabulary", "candidates in vocabulary space, integer targets", vocabulary=11),
    ],
)
def test_kinds_to_come(make):
    make()
