"""One contract for everything that can be walked: a tiny instance of each kind, the same questions to all."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ebwm import thinking
from ebwm.baselines import Transformer
from ebwm.ebt import EBT, JointEBT
from ebwm.energy import DoubleWell, GaussianMixture, Quadratic
from ebwm.objective import S1, reconstruct
from ebwm.sampler import State, Through, gradient_descent, langevin, run
from ebwm.settings import generator


@dataclass(frozen=True)
class Kind:
    """Something that can be walked."""

    make: Callable[[], tuple[Callable[[Tensor], Tensor], Tensor]]  # a landscape and candidates
    items: tuple[int, ...]  # shape of the energies
    model: Callable[[], EBT] | None = None  # for what can be trained
    batch: Callable[[EBT], tuple[Tensor, Tensor]] | None = None  # its states and targets


def analytic(energy, dim):
    return lambda: (energy, torch.randn(4, dim, dtype=torch.float64, generator=generator(0)))


def tiny(kind=EBT, **settings):
    return lambda: kind(8, 2, 2, generator=generator(0, "weights"), **settings).double()


def draw(*shape, stream="states"):
    return torch.randn(shape, dtype=torch.float64, generator=generator(0, stream))


def causal_batch(model):
    if model.tokens is not None:
        return torch.randint(model.state_dim, (2, 2, 5), generator=generator(0, "states"))
    return draw(2, 2, 5, model.state_dim)


def candidates_of(model, *shape):
    """Anything; where states are tokens, distributions."""
    y = draw(*shape, model.candidate_dim, stream="start")
    return y if model.tokens is None else y.softmax(-1)


def causal(at=0, **settings):
    """The landscape of one step of an EBT, which can be trained."""
    make = tiny(**settings)

    def landscape():
        model = make()
        return model.landscape(causal_batch(model)[0]).at_step(at), candidates_of(model, 2, 5)

    return Kind(landscape, (2, 5), make, causal_batch)


def joint(**settings):
    """Candidates of three rows with one energy each."""
    make = tiny(JointEBT, rows=3, candidate_dim=4, **settings)

    def landscape():
        model = make()
        observations = None if model.state_dim is None else draw(2, 5, model.state_dim)
        return model.landscape(observations), draw(2, 3, 4, stream="start")

    batch = lambda model: (draw(2, 5, model.state_dim), draw(2, 3, 4, stream="targets"))
    return Kind(landscape, (2,), make, batch) if "state_dim" in settings else Kind(landscape, (2,))


def single_items():
    landscape, start = causal().make()
    rows, positions = torch.tensor([1, 0, 1]), torch.tensor([0, 4, 2])
    return landscape.at(rows, positions), start[rows, positions]


def logits():
    landscape, start = causal(vocabulary=11).make()
    return Through(landscape, lambda y: y.softmax(-1)), start.log()


DOUBLE = dict(dtype=torch.float64)
MIXTURE = GaussianMixture(torch.eye(2, **DOUBLE), torch.tensor([0.5, 0.5], **DOUBLE))
KINDS = {
    "quadratic": Kind(analytic(Quadratic(torch.zeros(3, **DOUBLE), torch.ones(3, **DOUBLE)), 3), (4,)),
    "double well": Kind(analytic(DoubleWell(), 2), (4,)),
    "mixture": Kind(analytic(MIXTURE, 2), (4,)),
    "causal states": causal(),
    "causal states, by autograd": causal(gradient="eager"),
    "causal latents": causal(candidates="latent", state_dim=12),
    "step token in the context": causal(step="context_token", steps=3),
    "step token in the context, a later step": causal(1, step="context_token", steps=3),
    "step token for candidates": causal(step="candidate_token"),
    "step token for candidates, a later step": causal(1, step="candidate_token"),
    "adaLN": causal(step="adaln"),
    "adaLN, a later step": causal(1, step="adaln"),
    "distributions of tokens": causal(vocabulary=11),
    "logits of tokens": Kind(logits, (2, 5)),
    "items that leave early": Kind(single_items, (3,)),
    "joint candidates": joint(),
    "joint candidates with observations": joint(state_dim=5),
    "joint candidates with observations, adaLN": joint(state_dim=5, step="adaln"),
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
    other[first] += draw(*y[first].shape, stream="elsewhere")
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
    """In one landscape: the kernel is called without the loop, which would go on to that of the next step."""
    landscape, y = kind.make()
    state, kernel, energies = State(y), gradient_descent(1e-4), []
    for _ in range(6):
        state, info = kernel(landscape, state)
        energies.append(info.energy)
    assert (torch.stack(energies).diff(dim=0) < 0).all()


@by_name(TRAINABLE)
def test_it_is_trained_and_predicts(kind):
    model = kind.model()
    states, targets = kind.batch(model)
    reconstruct(model, states, targets, S1(steps=max(2, model.steps)), generator=generator(0)).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    prediction = thinking.predict(model, states, steps=2, samples=2, generator=generator(0))
    scores = () if model.tokens is None else (model.state_dim,)  # logits, where the target is one number
    assert prediction.value.shape == (*targets.shape, *scores)
    assert prediction.energy.shape == kind.items


def test_the_baseline_answers_to_the_same_shapes():
    states = torch.randn(2, 5, 12, generator=generator(0))
    assert Transformer(8, 2, 2, state_dim=12, generator=generator(0))(states).shape == states.shape
