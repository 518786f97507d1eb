"""One contract for all landscapes: plain callables, models' landscapes, their parts, and wrappers."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.ebt import CONDITIONINGS, EBT
from ebwm.energy import Quadratic, Transformed, Wrapper, as_landscape, gradient_by_autograd
from ebwm.evaluation.cost import Counted
from ebwm.joint import JointEBT
from ebwm.modifiers import BoundedGradient
from ebwm.objective import S1, S2, smooth_l1
from ebwm.replay import Replay
from ebwm.sampler import STARTS, gradient_descent, init_candidates, nesterov, run
from ebwm.settings import generator
from ebwm.stopping import budget, run_until
from ebwm.thinking import predict
from tests import helpers
from tests.dense import DenseLandscape
from tests.helpers import KERNELS, assert_same, by_conditioning, close, draw, ebt, learned, perturbed, softmax


class Kind(NamedTuple):
    """A landscape, or a trainable model with its context."""

    landscape: Callable[[], tuple[Callable, torch.Tensor]]  # a landscape and candidates
    items: tuple[int, ...]  # shape of the energies
    model: Callable | None = None  # makes the model, if it can be trained
    batch: Callable | None = None  # from the model to a context and targets


def plain(energy):
    return Kind(lambda: (energy, draw(4, 3, stream="start")), (4,))


def causal_batch(model):
    """A context and targets; two contexts of five states."""
    if model.tokens is not None:
        return helpers.draw_tokens(model.state_dim, 2, 2, 5).unbind()
    states, targets = draw(2, 2, 5, model.state_dim)
    return (states if model.embed_actions is None else (states, draw(2, 5, 3, stream="actions"))), targets


def causal(part=lambda landscape: landscape, items=(2, 5), step=0, **settings):
    """A landscape of an EBT, or a part of it."""
    make = partial(ebt, conditioned_steps=3, **settings)

    def landscape():
        model = make()
        here = part(model.landscape(causal_batch(model)[0]).at_step(step))
        y = draw(*items, model.candidate_dim, stream="start")
        if model.tokens is not None:
            here = Transformed(here, softmax)
        return here, y

    return Kind(landscape, items, *((make, causal_batch) if items == (2, 5) and not step else ()))


def growing(**settings):
    """The landscape of contexts that were rewound to unequal lengths and grow; without trainable weights."""
    def landscape():
        model = ebt(conditioned_steps=3, action_dim=3, **settings).requires_grad_(False)
        states, actions = draw(2, 6, 8), draw(2, 6, 3, stream="actions")
        cache = model.cache(2, 6)
        cache.append((states, actions))
        cache.rewind([3, 2])
        return cache.append((states[:, 3:5], actions[:, 3:5])), draw(2, 2, 8, stream="start")

    return Kind(landscape, (2, 2))


def joint(step=0, **settings):
    """Candidates of three rows with one energy each."""
    make = lambda: JointEBT(8, 2, 2, rows=3, candidate_dim=4, conditioned_steps=3, **settings,
                            generator=generator(0, "weights")).double()
    batch = lambda model: (draw(2, 5, 6) if model.state_dim else None, draw(2, 3, 4, stream="targets"))

    def landscape():
        model = make()
        return model.landscape(batch(model)[0]).at_step(step), draw(2, 3, 4, stream="start")

    return Kind(landscape, (2,), *(() if step else (make, batch)))  # trained as at step 0


double = partial(torch.tensor, dtype=torch.float64)
SOME = torch.tensor([9, 0, 4, 7, 0])
KINDS = {
    "callable": plain(lambda y: y.sin().sum(-1) + y.square().sum(-1)),
    "quadratic": plain(Quadratic(double([1.0, 0.0, -1.0]), double([1.0, 2.0, 3.0]))),
    **{f"causal {name} {gradient}": causal(gradient=gradient, step_conditioning=name)
       for name, gradient in product(CONDITIONINGS[:3], ("auto", "eager"))},
    "causal adaln": causal(step_conditioning="adaln"),
    **{f"causal {name}, a later step": causal(step=1, step_conditioning=name) for name in CONDITIONINGS[1:]},
    "latents": causal(candidates="latent", state_dim=12),
    "tokens": causal(vocabulary=7),
    "tokens eager": causal(vocabulary=7, gradient="eager"),
    "actions": causal(action_dim=3),
    "actions eager, context_token": causal(action_dim=3, gradient="eager", step_conditioning="context_token"),
    "last": causal(lambda landscape: landscape.last(), (2, 1)),
    "items": causal(lambda landscape: landscape.select(SOME), (5,), step_conditioning="candidate_token"),
    "expanded": causal(lambda landscape: landscape.expand(3), (3, 2, 5)),
    "expanded items": causal(lambda landscape: landscape.select(SOME).expand(2), (2, 5)),
    "growing": growing(),
    "growing context_token": growing(step_conditioning="context_token"),
    "growing eager": growing(gradient="eager"),
    "joint": joint(),
    "joint with context": joint(state_dim=6),
    "joint with context, adaln": joint(state_dim=6, step_conditioning="adaln"),
    "joint with context, adaln, a later step": joint(1, state_dim=6, step_conditioning="adaln"),
    "joint adaln": joint(step_conditioning="adaln"),
    "joint eager": joint(gradient="eager"),
    "joint eager with context, adaln": joint(gradient="eager", state_dim=6, step_conditioning="adaln"),
}
WRAPPERS = {
    "unwrapped": lambda landscape: landscape,
    "counted": Counted,
    "clamped": lambda landscape: BoundedGradient(landscape, value=0.02, norm=0.03),
    "transformed": lambda landscape: Transformed(landscape, torch.tanh),
    "all": lambda landscape: Counted(Transformed(BoundedGradient(landscape, None, 0.1), torch.sin)),
}
TRAINABLE = {name: kind for name, kind in KINDS.items() if kind.model}
by_trainable = pytest.mark.parametrize("kind", TRAINABLE.values(), ids=list(TRAINABLE))
PAIRS = [*product(KINDS, ("unwrapped", "all")),
         *product(("quadratic", "tokens", "joint with context"), ("counted", "clamped", "transformed"))]
by_pair = pytest.mark.parametrize("kind, wrap", [(KINDS[kind], WRAPPERS[wrap]) for kind, wrap in PAIRS],
                                  ids=map(", ".join, PAIRS))


def made(kind, wrap=lambda landscape: landscape):
    """A wrapped landscape, candidates, and the trainable weights."""
    landscape, y = kind.landscape()
    inner = landscape = wrap(as_landscape(landscape))
    while isinstance(inner, Wrapper):
        inner = inner.inner
    weights = inner.model.parameters() if hasattr(inner, "model") else ()
    return landscape, y, [weight for weight in weights if weight.requires_grad]


def reference(landscape, y):
    """Energies and their gradient by autograd, bounded where the landscape bounds it."""
    if isinstance(landscape, Transformed):
        transformed, pull_back = torch.func.vjp(landscape.transform, y)
        energies, grad = reference(landscape.inner, transformed)
        return energies, pull_back(grad)[0]
    if isinstance(landscape, (Counted, BoundedGradient)):
        energies, grad = reference(landscape.inner, y)
        return energies, landscape.bound(grad, energies.ndim) if isinstance(landscape, BoundedGradient) else grad
    return gradient_by_autograd(landscape.energy, y, create_graph=True)


@by_pair
def test_value_and_grad_equals_autograd_of_the_energy(kind, wrap):
    """Also the gradients of a loss on energies and gradient, for candidates and weights."""
    landscape, y, weights = made(kind, wrap)
    expected = reference(landscape, y.requires_grad_())
    assert expected[0].shape == kind.items and expected[1].shape == y.shape
    plain = landscape.value_and_grad(y)
    assert torch.equal(landscape.gradient(y), plain[1])
    assert not any(part.requires_grad for part in plain)
    close(plain, tuple(part.detach() for part in expected))
    derivatives = partial(torch.autograd.grad, inputs=[y, *weights], retain_graph=True, materialize_grads=True,
                          allow_unused=True)
    found = [derivatives((energies * energies.detach().sin()).sum() + (grad * y.cos()).square().sum())
             for energies, grad in (landscape.value_and_grad(y, create_graph=True), expected)]
    assert found[0][0].abs().sum() > 0
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@by_pair
def test_selections_samples_and_steps_agree_with_the_whole(kind, wrap):
    landscape, y, _ = made(kind, wrap)
    axes, count = len(kind.items), math.prod(kind.items)
    chosen, again, samples = torch.tensor([count - 1, 0, 1]), torch.tensor([2, 0]), torch.stack([y, y / 2])
    flat = lambda part, axes=axes: part.flatten(0, axes - 1)
    for step in (0, 1, 9):
        whole = landscape.at_step(step)
        assert whole.at_step(step) is whole
        expected = [flat(part) for part in whole.value_and_grad(y)]
        for part, items in [(whole.select(chosen), chosen), (landscape.select(chosen).at_step(step), chosen),
                            (whole.select(chosen).select(again), chosen[again])]:
            close(part.value_and_grad(flat(y)[items]), [each[items] for each in expected])
            close(part(flat(y)[items]), expected[0][items])
        if kind is KINDS["expanded"] or kind is KINDS["expanded items"]:
            continue
        expected = [torch.stack(pair) for pair in zip(*map(whole.value_and_grad, samples), strict=True)]
        for several in (whole.expand(2), landscape.expand(2).at_step(step)):
            close(several.value_and_grad(samples), expected)
            items = chosen + torch.tensor([0, count, 0])
            close(several.select(items)(flat(samples, axes + 1)[items]), expected[0].flatten()[items])


@by_pair
def test_detached_contexts_and_unwrapped_landscapes_agree(kind, wrap):
    """Streamed training proves the gradients through the detached copies."""
    landscape, y, weights = made(kind, wrap)
    inner, transformed = landscape.unwrap(y)
    close(inner(transformed), landscape(y))
    detached, tensors, copies = landscape.detach_context()
    found = [each.value_and_grad(y, create_graph=bool(weights)) for each in (landscape, detached)]
    assert all(copy.is_leaf for copy in copies) and len(tensors) == len(copies)
    close(*found)


@by_pair
def test_every_kernel_samples_it_and_items_stop_one_by_one(kind, wrap):
    """What is counted is what is reported; an item that stops ends where it was after its number of steps."""
    landscape, start, _ = made(kind, wrap)
    places, axes, limits = [], len(kind.items), torch.randint(1, 4, kind.items, generator=generator(0))
    limits.view(-1)[0], limits.view(-1)[-1] = 1, 3
    with torch.no_grad():
        for make, _ in KERNELS.values():
            counted = Counted(landscape)
            result = run(counted, start, make(1e-3), 3, generator(0))
            assert result.state.y.shape == start.shape and result.info.finite.all()
            assert all(field.shape == (3, *kind.items) for field in result.info)
            assert counted.evaluations == int(result.evaluations.sum())
        run(landscape, start, nesterov(1e-3), 3, callback=lambda index, state, info: places.append(state.y))
        counted = Counted(landscape)
        found = run_until(counted, start, nesterov(1e-3), 3, budget(limits))
    assert torch.equal(found.info.evaluations.sum(0), limits)
    assert counted.evaluations == int(found.evaluations.sum()) == int(limits.sum()) + limits.numel()
    ends = torch.stack(places).flatten(1, axes)[limits.flatten() - 1, torch.arange(limits.numel())]
    close(found.state.y.flatten(0, axes - 1), ends)


@by_trainable
def test_streamed_s1_equals_s1_of_one_graph(kind):
    """Also the gradients of an encoder in front of the context, and of a parameter of the loss."""
    found = []
    for stream in (True, False):
        model = kind.model()
        context, targets = kind.batch(model)
        recipe, others, options = S1(steps=model.conditioned_steps + 1, stream=stream), [], {}
        if model.tokens is None:
            others = [torch.ones(targets.shape[-1]).double().requires_grad_()]
            options["loss"] = lambda y, target, gain=others[0]: smooth_l1(y * gain, target)
            if isinstance(context, torch.Tensor):
                others.append(torch.eye(context.shape[-1]).double().requires_grad_())
                context = context @ others[1]
        loss = recipe(model, context, targets, generator=generator(0), **options)
        found.append(learned(model, 3 * loss, *others))
    assert_same(*found)
    assert all(gradient.abs().sum() > 0 for gradient in found[0].values())


@by_trainable
def test_s2_trains_every_weight_and_stores_what_it_replays(kind):
    model, replay = kind.model(), Replay(8)
    for _ in range(2):
        loss = S2(2, most=4)(model, *kind.batch(model), generator=generator(0), replay=replay)
    assert all(value.isfinite().all() and value.any() for value in learned(model, loss).values())
    assert len(replay) == 4


@pytest.mark.parametrize("name", ["causal none auto", "latents", "tokens", "actions", "joint", "joint with context"])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("recipe", [S1, partial(S2, replay=0.0)], ids=["S1", "S2"])
def test_recipes_start_at_named_or_given_candidates(name, recipe, start):
    """In the walk, or in the call. Without a context the most recent candidates are zeros."""
    kind = TRAINABLE[name]
    model = kind.model()
    context, targets = kind.batch(model)
    recent = torch.zeros_like(targets) if context is None else model.encode(context)
    noise = generator(0)
    given, state = init_candidates(start, recent, noise), noise.get_state()
    loss = lambda recipe, noise, **options: learned(
        model, recipe(model, context, targets, generator=noise, **options))
    named = loss(recipe(start=start), generator(0))
    assert_same(named, loss(recipe(start=given), generator(0).set_state(state)))
    assert_same(named, loss(recipe(), generator(0).set_state(state), start=given))


@by_trainable
def test_the_best_of_several_walks_has_the_lowest_energy(kind):
    model = kind.model()
    context, targets = kind.batch(model)
    walk = dict(steps=3) if context is not None else dict(steps=3, start=torch.zeros(2, 3, 4).double(), noise=0.01)
    few, many = (predict(model, context, samples=count, generator=generator(0), **walk) for count in (1, 4))
    scores = () if model.tokens is None else (model.state_dim,)
    assert many.value.shape == (*targets.shape, *scores) and many.energy.shape == kind.items
    assert (many.energy <= few.energy).all() and (many.evaluations == 4 * few.evaluations).all()
    if not model.latent:
        candidates = many.value if model.tokens is None else softmax(many.value)
        close(model.landscape(context).at_step(2)(candidates), many.energy)


def test_equal_walks_are_pointed_out():
    model, states = EBT(16, 1, 2, state_dim=3, generator=generator(0)), draw(2, 4, 3).float()
    with pytest.warns(UserWarning, match="samples=2: all walks are equal"):
        predict(model, states, steps=2, samples=2, start="zeros")


def test_a_plain_energy_may_hold_something_of_each_item():
    """Items stop at different steps, until fewer are left than there are targets."""
    targets, allowed = draw(2, 3), torch.tensor([[1, 40, 5], [40, 1, 40]])
    for hold in (targets[..., None].expand(2, 3, 2), targets[:, :1, None]):
        energy = lambda y, hold=hold: (y - hold).square().sum(-1)
        found = run_until(energy, torch.zeros(2, 3, 2).double(), gradient_descent(0.2), 40, budget(allowed))
        for steps in (1, 5, 40):
            alone = run(energy, torch.zeros(2, 3, 2).double(), gradient_descent(0.2), steps)
            close(found.state.y[allowed == steps], alone.state.y[allowed == steps])
            close(found.state.energy[allowed == steps], alone.state.energy[allowed == steps])


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
@pytest.mark.parametrize("name", KERNELS)
def test_a_single_item_without_a_batch_axis(name, wrap):
    """An item of some features, and an item that is one number, end as in a batch of one."""
    kernel = KERNELS[name][0](1e-3)
    for energy, start in [(lambda y: y.square().sum(-1), draw(3)), (lambda y: y.square(), draw(1)[0])]:
        alone, batch = (run(wrap(energy), y, kernel, 4, generator(0)) for y in (start, start[None]))
        until = run_until(wrap(energy), start, kernel, 4, budget(3), generator(0))
        assert until.state.y.shape == start.shape and until.state.energy.shape == ()
        close([alone.state.y, *alone.info], [batch.state.y[0], *(field[:, 0] for field in batch.info)])


# Exactness: model, gradient rule, landscape


def sampled(model, landscape, start, targets, steps, detach=False):
    """Energies, final candidates, and the gradients of a loss on them."""
    tokens, kernel = model.tokens is not None, gradient_descent(model.step_size)
    result = run(Transformed(landscape, softmax) if tokens else landscape, start, kernel, steps,
                 create_graph=True, detach=detach, final_energy=False)
    loss = smooth_l1(result.state.y, targets) + result.state.y.sin().mean()
    return {"y": result.state.y.detach(), "energy": result.info.energy, **learned(model, loss, start)}


@by_conditioning
@pytest.mark.parametrize("options", [
    {}, {"candidates": "latent", "state_dim": 20}, {"embed": "identity"}, {"embed": "affine", "state_dim": 3},
    {"vocabulary": 9}, {"action_dim": 3}, {"recompute": True},
], ids=str)
@settings(max_examples=3, deadline=None)
@given(batch=st.integers(1, 3), length=st.integers(1, 7), heads=st.integers(1, 3), depth=st.integers(1, 3),
       head_dim=st.sampled_from([4, 6]), steps=st.integers(1, 3), detach=st.booleans())
def test_manual_eager_and_dense_gradients_are_equal(
    conditioning, options, batch, length, heads, depth, head_dim, steps, detach
):
    """Energies, final candidates, and by a second-order loss the gradient for every parameter."""
    manual, eager = (perturbed(EBT(heads * head_dim, depth, heads, step_size=2.0, gradient=gradient,
                                   step_conditioning=conditioning, generator=generator(1), **options).double())
                     for gradient in ("auto", "eager"))
    assert manual.manual_gradient == (conditioning != "adaln") and not eager.manual_gradient
    context = draw(manual.state_dim, length, batch).transpose(0, 2)  # of any memory layout
    if manual.tokens is not None:
        context = context[..., 0].abs().mul(3).long()
    if manual.embed_actions is not None:
        context = context, draw(batch, length, 3, stream="actions")
    targets, start = draw(2, batch, length, manual.candidate_dim, stream="start")
    pairs = [(manual, manual.landscape), (eager, eager.landscape), (eager, partial(DenseLandscape, eager))]
    first, *others = [sampled(model, make(context), start.clone().requires_grad_(), targets, steps, detach)
                      for model, make in pairs]
    for other in others:
        assert_same(first, other)


@pytest.mark.parametrize("kind", [kind for name, kind in TRAINABLE.items() if "joint" in name])
def test_energies_of_joint_candidates_equal_those_of_masked_attention(kind):
    model, y = perturbed(kind.model()), draw(2, 3, 4, stream="start")
    context = kind.batch(model)[0]
    for step in range(3):
        close(model.landscape(context).at_step(step)(y), DenseLandscape(model, context).at_step(step)(y))


@pytest.mark.parametrize("conditioning, steps", [("none", [0]), ("adaln", [0, 2])])
def test_evaluations_without_a_graph_share_the_folded_weights_of_a_joint_ebt(monkeypatch, conditioning, steps):
    folded, calls = JointEBT.folded, []
    monkeypatch.setattr(JointEBT, "folded", lambda self, *given: calls.append(given) or folded(self, *given))
    kind = joint(state_dim=6, step_conditioning=conditioning)
    (landscape, y), (fresh, _) = kind.landscape(), kind.landscape()
    later, expected = (part.at_step(2) for part in (landscape, fresh))
    for _ in range(2):
        landscape.value_and_grad(y), later.value_and_grad(y)
    assert calls == [(torch.float64, step) for step in steps]
    assert torch.equal(later.value_and_grad(y)[1], expected.value_and_grad(y, create_graph=True)[1].detach())
    close(landscape.select(torch.tensor([1])).value_and_grad(y[1:])[1], fresh.value_and_grad(y)[1][1:])
    assert len(calls) == len(steps) + 2
