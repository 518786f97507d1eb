"""The gradient by hand against autograd: every way to the same numbers, in float64."""

import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from ebwm.ebt import EBT, DenseLandscape, JointEBT
from ebwm.gradient.sweeps import can_be_fused, energy_gradient
from ebwm.objective import S1, Streamed, reconstruct, smooth_l1
from ebwm.sampler import evaluate, gradient_descent, run
from ebwm.settings import generator

STEPS = ["none", "context_token", "candidate_token", "adaln"]
BY_HAND = STEPS[:3]


def draw(*shape, stream="states"):
    return torch.randn(shape, dtype=torch.float64, generator=generator(0, stream))


def model_of(gradient, heads=2, depth=2, head_dim=6, **settings):
    model = EBT(heads * head_dim, depth, heads, step_size=2.0, gradient=gradient,
                generator=generator(1, "weights"), **settings).double()
    with torch.no_grad():  # gains and biases that are not what they begin as
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * draw(*parameter.shape, stream="gains"))
    return model


def gradients(model, value, *others):
    """Of a loss: by every parameter and by whatever else is given."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, [*parameters, *others], allow_unused=True, materialize_grads=True)
    return dict(zip([*names, *(f"given {i}" for i in range(len(others)))], found, strict=True))


def walked(model, landscape, start, targets, steps, detach=False):
    """Energies, the walk's end, and the gradients of a loss on it, of the energies too."""
    walk = run(landscape, start, gradient_descent(model.step_size), steps, create_graph=True, detach=detach,
               final_energy=False)
    loss = smooth_l1(model.decode(walk.state.y), targets) + walk.state.y.sin().mean()
    return {"y": walk.state.y.detach(), "energy": walk.info.energy, **gradients(model, loss, start)}


def same(one, other, tolerance=1e-10):
    """Equal to a share of the largest entry, or of 1."""
    assert one.keys() == other.keys()
    for name in one:
        size = max(1.0, one[name].abs().max().item())
        difference = (one[name] - other[name]).abs().max().item() / size
        assert difference < tolerance, f"{name} differs by {difference} of {size}"


shapes = {
    "batch": st.integers(1, 3),
    "length": st.integers(1, 7),
    "heads": st.integers(1, 3),
    "depth": st.integers(1, 3),
    "head_dim": st.sampled_from([2, 6]),
    "walk": st.integers(1, 3),
}


@pytest.mark.parametrize("step", BY_HAND)
@hypothesis_settings(max_examples=12, deadline=None)
@given(**shapes, detach=st.booleans(), recompute=st.booleans())
def test_by_hand_equals_eager_equals_dense(
    step, batch, length, heads, depth, head_dim, walk, detach, recompute
):
    settings = {"heads": heads, "depth": depth, "head_dim": head_dim, "step": step, "steps": 2}
    hand, eager = model_of("handwritten", recompute=recompute, **settings), model_of("eager", **settings)
    assert hand.by_hand and not eager.by_hand
    states, start, targets = draw(3, batch, length, heads * head_dim)
    start.requires_grad_()
    ways = [(hand, hand.landscape(states)), (eager, eager.landscape(states)),
            (eager, DenseLandscape(eager, states))]
    first, *others = [walked(model, landscape, start, targets, walk, detach) for model, landscape in ways]
    for other in others:
        same(first, other)


@hypothesis_settings(max_examples=8, deadline=None)
@given(**shapes)
def test_adaln_equals_dense(batch, length, heads, depth, head_dim, walk):
    model = model_of("auto", heads=heads, depth=depth, head_dim=head_dim, step="adaln")
    assert not model.by_hand
    states, start, targets = draw(3, batch, length, heads * head_dim)
    start.requires_grad_()
    same(*(walked(model, landscape, start, targets, walk)
           for landscape in (model.landscape(states), DenseLandscape(model, states))))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("settings", [
    {"candidates": "latent", "state_dim": 20},
    {"embed": "identity"},
    {"embed": "affine", "state_dim": 7},
], ids=lambda s: "-".join(map(str, s.values())))
def test_maps_of_candidates(step, settings):
    found = []
    for gradient in ("auto", "eager"):
        model = model_of(gradient, step=step, **settings)
        states, targets = draw(2, 2, 4, model.state_dim)
        start = draw(2, 4, model.candidate_dim, stream="start").requires_grad_()
        found.append(walked(model, model.landscape(states), start, targets, 2))
    same(*found)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
@pytest.mark.parametrize("walk", [1, 4])
def test_streaming_changes_nothing(step, gradient, walk):
    found = []
    for stream in (True, False):
        model = model_of(gradient, step=step, steps=3, candidates="latent", state_dim=9)
        states, targets = draw(2, 2, 4, 9)
        states.requires_grad_()
        loss = reconstruct(model, states, targets, S1(walk, stream=stream), generator=generator(0))
        found.append({"loss": loss.detach(), **gradients(model, loss, states)})
    same(*found, tolerance=1e-12)


def test_a_streamed_loss_learns_whatever_the_loss_holds():
    model, states, targets = model_of("auto"), *draw(2, 2, 4, 12)
    found = []
    for stream in (True, False):
        gain = torch.ones(12, dtype=torch.float64, requires_grad=True)
        value = reconstruct(model, states, targets, S1(2, stream=stream), generator=generator(0),
                            loss=lambda y, t, gain=gain: smooth_l1(y * gain, t))
        found.append(torch.autograd.grad(3 * value, gain)[0])
    assert found[0].abs().sum() > 0
    torch.testing.assert_close(*found, rtol=0, atol=1e-13)


def test_without_gradients_a_loss_is_only_a_number():
    model, states, targets = model_of("auto"), *draw(2, 2, 4, 12)
    with torch.no_grad():
        value = reconstruct(model, states, targets, S1(2), generator=generator(0))
    assert not value.requires_grad
    assert value.equal(reconstruct(model, states, targets, S1(2), generator=generator(0)).detach())


@pytest.mark.parametrize("step", BY_HAND)
def test_gradcheck_of_the_gradient_by_hand(step):
    """Numerical differences of both outputs, by candidates, weights and context."""
    model = model_of("handwritten", depth=1, heads=1, head_dim=4, step=step)
    landscape, y = model.landscape(draw(1, 3, 4)), draw(1, 3, 4, stream="start")
    energy = landscape.energy(1, True)
    given = [tensor.detach().requires_grad_() for tensor in energy.tensors()]
    memory = [part[:, :, :-1].detach().requires_grad_() for part in given[5:]]
    x = model.embed_candidates(y).detach().requires_grad_()

    def by_hand(x, *tensors):  # keys and values have their column of zeros added here, where it is a constant
        padded = [F.pad(part, (0, 0, 0, 1)) for part in tensors[5:]]
        return energy_gradient(energy.replaced([*tensors[:5], *padded]), x, create_graph=True)

    assert torch.autograd.gradcheck(by_hand, (x, *given[:5], *memory))


@pytest.mark.parametrize("step", STEPS)
def test_gradgradcheck_of_the_eager_energy(step):
    model = model_of("eager", depth=1, heads=1, head_dim=4, step=step)
    states, y = draw(1, 3, 4), draw(1, 3, 4, stream="start").requires_grad_()
    names = ("blocks.0.qkv.weight", "head.weight", "step_embedding.weight")
    weights = [p for name, p in model.named_parameters() if name in names]
    energy = lambda y, *_: model.landscape(states)(y, model.steps - 1)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel of the context has no second derivative
        assert torch.autograd.gradgradcheck(energy, (y, *weights))


def test_energies_by_hand_have_gradients_too():
    """What contrastive losses need: first order through energies, here with second order through a step."""
    found = []
    for gradient in ("handwritten", "eager"):
        model, states = model_of(gradient), draw(2, 4, 12)
        y = draw(2, 4, 12, stream="start").requires_grad_()
        here = evaluate(model.landscape(states), y, create_graph=True)
        loss = (here.energy * here.energy.detach().cos()).sum() + here.grad.square().sum()
        found.append(gradients(model, loss, y))
    same(*found)


def test_a_third_derivative_raises():
    model, y = model_of("handwritten"), draw(2, 4, 12, stream="start").requires_grad_()
    here = evaluate(model.landscape(draw(2, 4, 12)), y, create_graph=True)
    (second,) = torch.autograd.grad(here.grad.square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_a_backward_pass_can_be_had_twice():
    model, y = model_of("handwritten"), draw(2, 4, 12, stream="start").requires_grad_()
    value = evaluate(model.landscape(draw(2, 4, 12)), y, create_graph=True).grad.square().sum()
    (once,) = torch.autograd.grad(value, y, retain_graph=True)
    assert once.equal(torch.autograd.grad(value, y)[0])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_items_repeats_and_caches_answer_alike(step, gradient):
    model, states = model_of(gradient, step=step), draw(3, 6, 12)
    y = draw(3, 6, 12, stream="start")
    landscape = model.landscape(states)
    for k in range(model.steps):
        whole = evaluate(landscape.at_step(k), y)
        rows, positions = torch.tensor([2, 0, 0]), torch.tensor([0, 5, 2])
        items = evaluate(landscape.at(rows, positions).at_step(k), y[rows, positions])
        same({"e": items.energy, "g": items.grad},
             {"e": whole.energy[rows, positions], "g": whole.grad[rows, positions]})
        twice = evaluate(landscape.repeat(2).at_step(k), torch.cat([y, y + 1], 1))
        same({"e": twice.energy[:, :6], "g": twice.grad[:, :6]}, {"e": whole.energy, "g": whole.grad})
        cache = model.cache(3, capacity=6)
        grown = [cache.append(states[:, begin:end]).at_step(k) for begin, end in ((0, 3), (3, 4), (4, 6))][-1]
        last = evaluate(grown, y[:, 4:])
        same({"e": last.energy, "g": last.grad}, {"e": whole.energy[:, 4:], "g": whole.grad[:, 4:]})


@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_a_context_outlives_no_change_of_the_weights(gradient):
    model, states, y = model_of(gradient), draw(2, 4, 12), draw(2, 4, 12, stream="start")
    landscape, cache = model.landscape(states), model.cache(2, 4)
    grown, items = cache.append(states[:, :2]), landscape.at(torch.tensor([0]), torch.tensor([1]))
    evaluate(landscape, y)
    with torch.no_grad():
        model.head.weight.mul_(2)
    for ask in (lambda: landscape(y), lambda: evaluate(landscape, y), lambda: evaluate(grown, y[:, :2]),
                lambda: items(y[:1, 0]), lambda: cache.append(states[:, :1])):
        with pytest.raises(RuntimeError, match="parameters have changed since this context was computed"):
            ask()


@pytest.mark.parametrize("change", [
    lambda m: m.load_state_dict({n: p + 1 for n, p in m.state_dict().items()}, assign=True),
    lambda m: setattr(m, "head", torch.nn.Linear(12, 1, bias=False).double()),
], ids=["assigned", "replaced"])
def test_other_weights_are_noticed(change):
    model, y = model_of("auto"), draw(2, 4, 12, stream="start")
    landscape = model.landscape(draw(2, 4, 12))
    change(model)
    with pytest.raises(RuntimeError, match="parameters have changed"):
        landscape(y)


@pytest.mark.parametrize("step", ["context_token", "adaln"])
def test_states_that_change_before_a_step_is_asked_for_are_noticed(step):
    model, states, y = model_of("auto", step=step), draw(2, 4, 12), draw(2, 4, 12, stream="start")
    landscape = model.landscape(states)
    states.mul_(2)
    with pytest.raises(RuntimeError, match="have changed since this context was computed"):
        landscape(y, 1)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_asking_without_a_graph_first_changes_no_training(step, gradient):
    """Whatever was asked of a landscape before, in whichever mode, training on it is complete."""
    states, y, found = draw(2, 4, 12), draw(2, 4, 12, stream="start").requires_grad_(), []
    for asked in (False, True):
        model = model_of(gradient, step=step)
        landscape = model.landscape(states)
        if asked:
            evaluate(landscape.at_step(1), y.detach())
            with torch.no_grad():
                landscape.at_step(1)(y)
            with torch.autocast("cpu", torch.bfloat16):
                evaluate(landscape.at_step(1), y.detach())
        here = evaluate(landscape.at_step(1), y, create_graph=True)
        found.append(gradients(model, here.grad.square().sum() + here.energy.sin().sum(), y))
    same(*found)


@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_a_context_without_a_graph_is_not_trained_on(gradient):
    model, y = model_of(gradient), draw(2, 4, 12, stream="start")
    with torch.no_grad():
        landscape = model.landscape(draw(2, 4, 12))
    for made in (landscape, model.cache(2, 4).append(draw(2, 4, 12))):
        with pytest.raises(RuntimeError, match="computed without a graph, and can't be trained on"):
            evaluate(made, y, create_graph=True)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_derived_landscapes_keep_the_step(step, gradient):
    model, y = model_of(gradient, step=step), draw(2, 4, 12, stream="start")
    landscape = model.landscape(draw(2, 4, 12)).at_step(1)
    whole = landscape(y)
    rows, positions = torch.tensor([1, 0]), torch.tensor([2, 3])
    items = landscape.at(rows, positions)
    chosen = torch.tensor([1])
    found = {"at": items(y[rows, positions]), "keep": items.at(chosen)(y[[0], [3]]),
             "last": landscape.last()(y[:, 3:]), "repeat": landscape.repeat(2)(torch.cat([y, y], 1))[:, 4:],
             "items": items.repeat(2)(y[rows, positions].repeat(2, 1))[2:]}
    same(found, {"at": whole[rows, positions], "keep": whole[[0], [3]], "last": whole[:, 3:], "repeat": whole,
                 "items": whole[rows, positions]})


@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_a_cache_that_grows_or_is_rewound_never_answers_for_what_was(gradient):
    model, states, y = model_of(gradient), draw(2, 4, 12), draw(2, 4, 12, stream="start")
    cache = model.cache(2, 4)
    early = cache.append(states[:, :2])
    first = evaluate(early, y[:, :2])
    late = cache.append(states[:, 2:])
    with pytest.raises(RuntimeError, match="the cache holds 4 states and held 2"):
        evaluate(early, y[:, :2])
    evaluate(late, y[:, 2:])
    cache.rewind(0)
    again = evaluate(cache.append(states[:, :2]), y[:, :2])
    same({"e": again.energy, "g": again.grad}, {"e": first.energy, "g": first.grad})


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gradient", ["auto", "eager"])
def test_states_from_an_encoder_are_learned_through_when_streaming(step, gradient):
    found = []
    for stream in (True, False):
        model, encoder = model_of(gradient, step=step), torch.eye(12, dtype=torch.float64).requires_grad_()
        loss = reconstruct(model, draw(2, 4, 12) @ encoder, draw(2, 4, 12, stream="targets"),
                           S1(3, stream=stream), generator=generator(0))
        found.append(gradients(model, loss, encoder))
    assert found[0]["given 0"].abs().sum() > 0
    same(*found)


def test_streaming_an_eager_walk_keeps_nothing_of_a_step():
    model, start = model_of("eager"), draw(2, 4, 12, stream="start")
    streamed, kept = Streamed(model.landscape(draw(2, 4, 12))), []
    for _ in range(3):
        walk = run(streamed.landscape, start, gradient_descent(model.step_size), 1, create_graph=True,
                   final_energy=False)
        streamed.take(walk.state.y.square().mean())
        del walk
        kept.append(len(streamed.gradients))
    assert kept[0] == kept[1] == kept[2] > 0
    assert all(leaf.shape != start.shape for leaf in streamed.gradients)


def test_a_frozen_model_has_a_loss_too():
    model = model_of("auto").requires_grad_(False)
    for stream in (True, False):
        loss = reconstruct(model, *draw(2, 2, 4, 12), S1(2, stream=stream), generator=generator(0))
        assert not loss.requires_grad and loss.isfinite()


def test_a_graph_outlives_no_change_of_the_weights():
    model, y = model_of("handwritten"), draw(2, 4, 12, stream="start")
    value = evaluate(model.landscape(draw(2, 4, 12)), y, create_graph=True).grad.square().sum()
    with torch.no_grad():
        model.blocks[0].out.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_layouts_of_memory_do_not_matter():
    model, states, y = model_of("handwritten"), draw(2, 4, 12), draw(2, 4, 12, stream="start")
    strange = lambda x: x.transpose(0, 2).contiguous().transpose(0, 2)
    assert not strange(states).is_contiguous()
    one, other = (evaluate(model.landscape(s), c) for s, c in ((states, y), (strange(states), strange(y))))
    torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradient", ["handwritten", "eager"])
def test_bfloat16_stays_close_to_float64(gradient):
    """Products in bf16, all else in float32: energies within 1 %, gradients of the loss within 3 %."""
    model = EBT(64, 3, 4, step_size=2.0, gradient=gradient, generator=generator(0, "weights"))
    states, targets, start = torch.randn(3, 2, 16, 64, generator=generator(0))

    def learn(cast):
        model.to(cast)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast == torch.float32):
            walk = run(model.landscape(states.to(cast)), start.to(cast), gradient_descent(model.step_size), 2,
                       create_graph=True, final_energy=False)
            loss = smooth_l1(walk.state.y, targets.to(cast))
        assert walk.state.y.dtype == walk.info.energy.dtype == cast
        return walk.info.energy, gradients(model, loss)

    (energy, found), (right, wanted) = learn(torch.float32), learn(torch.float64)
    assert ((energy - right).norm() / right.norm()).item() < 0.01
    flat = lambda grads: torch.cat([g.flatten().double() for g in grads.values()])
    assert ((flat(found) - flat(wanted)).norm() / flat(wanted).norm()).item() < 0.03


COMPILED = """
import torch
from ebwm.ebt import EBT
from ebwm.objective import S1, reconstruct
from ebwm.settings import generator

found = []
for compile in (False, True):
    model = EBT(16, 2, 2, generator=generator(0), compile=compile).double()
    states, targets = torch.randn(2, 2, 5, 16, dtype=torch.float64, generator=generator(0))
    reconstruct(model, states, targets, S1(2), generator=generator(0)).backward()
    found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
assert found[0].abs().max() > 1e-3
assert (found[0] - found[1]).abs().max() < 1e-12, (found[0] - found[1]).abs().max()
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler, which torch.compile needs")
def test_compiled_sweeps_answer_alike():
    """In a process of its own, as run-time type checks and compilers don't mix; it says how long it took."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compiled layer_adjoint_tangent for [10, 16] in" in done.stderr


@pytest.mark.skipif(not can_be_fused(torch.device("cpu"), 8), reason="no triton that interprets its kernels")
@pytest.mark.parametrize("step", BY_HAND)
def test_fused_kernels_answer_alike(step):
    """In Triton's interpreter, where there is no GPU."""
    found = []
    for gradient in ("fused", "handwritten"):
        model = model_of(gradient, head_dim=8, step=step)
        states, start, targets = draw(3, 2, 5, 16)
        start.requires_grad_()
        found.append(walked(model, model.landscape(states), start, targets, 2))
        assert model.fused(torch.device("cpu")) == (gradient == "fused")
    same(*found)


@pytest.mark.parametrize("settings", [{}, {"state_dim": 5}, {"state_dim": 5, "step": "adaln"}], ids=str)
def test_joint_candidates(settings):
    """One energy for all rows; rows feel each other; items don't; trained through a walk."""
    model = JointEBT(12, 2, 2, rows=3, candidate_dim=4, generator=generator(0), **settings).double()
    states = draw(2, 6, 5) if "state_dim" in settings else None
    y, landscape = draw(2, 3, 4, stream="start"), model.landscape(states)
    found = evaluate(landscape, y, create_graph=True)
    assert found.energy.shape == (2,) and found.grad.shape == y.shape
    other = y.clone()
    other[0, 1] += 1
    assert ((landscape(other) - landscape(y)).abs() > 1e-9).tolist() == [True, False]
    moved = (evaluate(landscape, other).grad - found.grad)[0].abs().amax(-1)
    assert (moved > 1e-9).all()
    assert landscape.at(torch.tensor([1]))(y[1:]).allclose(found.energy[1:])
    if states is not None:
        loss = reconstruct(model, states, y, S1(2), generator=generator(0))
        assert all(g.abs().sum() > 0 for g in gradients(model, loss).values())


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.landscape(draw(2, 4, 12))(draw(2, 4, 12).float()), "candidates have dtype torch.float32"),
    (lambda m: m.landscape(draw(2, 4, 12).float()), "states have dtype torch.float32"),
    (lambda m: m.landscape(draw(2, 4, 12).to("meta")), "states have device meta"),
    (lambda m: m.landscape(draw(2, 0, 12)), "states hold no state"),
    (lambda m: m.landscape(draw(2, 4, 12))(draw(2, 4, 12), step=2), "step is 2; this model has the steps 0"),
    (lambda m: m.landscape(draw(2, 4, 12)).gradient(draw(2, 4, 12), step=-1), "step is -1; this model has"),
    (lambda m: m.cache(2, 3).append(draw(2, 4, 12)), "states add 4 to 0; this cache has room for 3"),
    (lambda m: EBT(12, 1, 2, step="time"), "step is 'time'; it must be one of none, context_token"),
    (lambda m: EBT(12, 1, 2, embed="identity", state_dim=8), "embed is 'identity'"),
    (lambda m: EBT(12, 1, 2, gradient="handwritten", step="adaln"), "gradient is 'handwritten' with step"),
    (lambda m: EBT(12, 1, 2, gradient="fast"), "gradient is 'fast'; it must be one of auto"),
    (lambda m: EBT(12, 1, 2, step="adaln", steps=0), "steps is 0"),
    (lambda m: EBT(12, 1, 2, vocabulary=9, candidates="latent"), "'latent' with a vocabulary"),
    (lambda m: EBT(12, 1, 2, vocabulary=9).landscape(torch.ones(2, 3)), "tokens must be whole numbers"),
    (lambda m: EBT(12, 1, 2, vocabulary=9, embed="affine"), "embed is 'affine' with a vocabulary"),
    (lambda m: EBT(12, 1, 2, vocabulary=9).landscape(torch.tensor([[9]])), "states hold the tokens 9 to 9"),
    (lambda m: m.bfloat16().landscape(draw(2, 4, 12)), "the model is torch.bfloat16; keep its weights"),
    (lambda m: m.cache(3, 4).append(draw(2, 4, 12)), "states are for 2 contexts; this cache holds 3"),
    (lambda m: m.cache(3, 4).rewind(1), "length is 1; this cache holds 0 states"),
    (lambda m: m.landscape(draw(2, 4, 12)).at(*torch.zeros(2, 1).long())(draw(3, 12)),
     r"candidates have shape \[3, 12\]; they must be \[1, 12\]"),
    (lambda m: JointEBT(12, 1, 2).cache(2, 4), "joint candidates don't follow each"),
    (lambda m: JointEBT(12, 1, 2, step="context_token"), "for joint candidates it must be"),
    (lambda m: JointEBT(12, 1, 2).landscape(draw(1, 2, 12)), "states are given, but this"),
    (lambda m: JointEBT(12, 1, 2, state_dim=4).landscape(), "states are missing, but this model looks at"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(model_of("auto", step="context_token"))
