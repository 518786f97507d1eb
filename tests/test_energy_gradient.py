"""The manual gradient: derivatives, streaming, outdated contexts, dtypes, compiled and fused forms.

Its equality with the eager and the dense form is tested in test_contract.py.
"""

import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ebwm.ebt import EBT
from ebwm.gradient.attention import can_be_fused
from ebwm.gradient.sweeps import energy_gradient
from ebwm.objective import S1, StreamedLoss, smooth_l1
from ebwm.sampler import evaluate, gradient_descent, run
from ebwm.settings import generator
from tests.helpers import assert_same, draw, gradients

CONDITIONINGS = ["none", "context_token", "candidate_token", "adaln"]
MANUAL = CONDITIONINGS[:3]
by_conditioning = pytest.mark.parametrize("conditioning", CONDITIONINGS)
by_gradient = pytest.mark.parametrize("gradient", ["auto", "eager"])


def model_of(gradient, conditioning="none", heads=2, depth=2, head_dim=6, **settings):
    """An EBT whose gains and biases differ from their initial values."""
    model = EBT(heads * head_dim, depth, heads, step_size=2.0, gradient=gradient,
                step_conditioning=conditioning, generator=generator(1, "weights"), **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * draw(*parameter.shape, stream="gains"))
    return model


@pytest.mark.parametrize("conditioning", MANUAL)
def test_gradcheck_of_the_manual_gradient(conditioning):
    """Numerical differences of energies and gradient, for candidates, weights and context."""
    model = model_of("handwritten", conditioning, depth=1, heads=1, head_dim=4)
    landscape, y = model.landscape(draw(1, 3, 4)), draw(1, 3, 4, stream="start")
    energy = landscape.at_step(1).inputs(True)
    leaves = [tensor.detach().requires_grad_() for tensor in energy.tensors()]
    kv = [part[:, :, :-1].detach().requires_grad_() for part in leaves[5:]]
    x = model.embed_candidates(y).detach().requires_grad_()

    def manual(x, *tensors):  # the column of zeros of keys and values is a constant here
        padded = [F.pad(part, (0, 0, 0, 1)) for part in tensors[5:]]
        return energy_gradient(energy.replaced([*tensors[:5], *padded]), x, create_graph=True)

    assert torch.autograd.gradcheck(manual, (x, *leaves[:5], *kv))


@by_conditioning
def test_gradgradcheck_of_the_eager_energy(conditioning):
    model = model_of("eager", conditioning, depth=1, heads=1, head_dim=4)
    states, y = draw(1, 3, 4), draw(1, 3, 4, stream="start").requires_grad_()
    names = ("blocks.0.qkv.weight", "head.weight", "step_embedding.weight")
    weights = [p for name, p in model.named_parameters() if name in names]
    energy = lambda y, *_: model.landscape(states).at_step(1)(y)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel of the context has no second derivative
        assert torch.autograd.gradgradcheck(energy, (y, *weights))


def test_energies_of_the_manual_gradient_have_gradients():
    """Contrastive losses differentiate energies; here a loss contains energies and gradient."""
    found = []
    for gradient in ("handwritten", "eager"):
        model, y = model_of(gradient), draw(2, 4, 12, stream="start").requires_grad_()
        here = evaluate(model.landscape(draw(2, 4, 12)), y, create_graph=True)
        loss = (here.energy * here.energy.detach().cos()).sum() + here.grad.square().sum()
        found.append(gradients(model, loss, y))
    assert_same(*found)


def test_a_third_derivative_is_refused_and_a_second_backward_pass_is_not():
    model, y = model_of("handwritten"), draw(2, 4, 12, stream="start").requires_grad_()
    value = evaluate(model.landscape(draw(2, 4, 12)), y, create_graph=True).grad.square().sum()
    (once,) = torch.autograd.grad(value, y, retain_graph=True)
    (second,) = torch.autograd.grad(value, y, create_graph=True)
    assert once.equal(second)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


# Streaming


@by_conditioning
@by_gradient
@pytest.mark.parametrize("steps", [1, 4])
def test_streaming_changes_no_gradient(conditioning, gradient, steps):
    """Nor that of an encoder in front of the context, or of a parameter of the loss."""
    found = []
    for stream in (True, False):
        model = model_of(gradient, conditioning, conditioned_steps=3, candidates="latent", state_dim=9)
        encoder, gain = torch.eye(9).double().requires_grad_(), torch.ones(9).double().requires_grad_()
        loss = S1(steps, stream=stream)(
            model, draw(2, 4, 9) @ encoder, draw(2, 4, 9, stream="targets"), generator=generator(0),
            loss=lambda y, target, gain=gain: smooth_l1(y * gain, target))
        assert loss.requires_grad
        found.append({"loss": loss.detach(), **gradients(model, 3 * loss, encoder, gain)})
    assert found[0]["other 0"].abs().sum() > 0 and found[0]["other 1"].abs().sum() > 0
    assert_same(*found, tolerance=1e-12)


def test_streaming_stores_nothing_of_a_step():
    model, start = model_of("eager"), draw(2, 4, 12, stream="start")
    streamed, stored = StreamedLoss(model.landscape(draw(2, 4, 12))), []
    for _ in range(3):
        end = run(streamed.landscape, start, gradient_descent(model.step_size), 1, create_graph=True,
                  final_energy=False)
        streamed.add(end.state.y.square().mean())
        del end
        stored.append(len(streamed.gradients))
    assert stored[0] == stored[1] == stored[2] > 0
    assert all(leaf.shape != start.shape for leaf in streamed.gradients)


@pytest.mark.parametrize("stream", [True, False])
def test_losses_without_trainable_weights_have_no_graph(stream):
    batch, recipe = draw(2, 2, 4, 12), S1(2, stream=stream)
    frozen = recipe(model_of("auto").requires_grad_(False), *batch, generator=generator(0))
    with torch.no_grad():
        validated = recipe(model_of("auto"), *batch, generator=generator(0))
    trained = recipe(model_of("auto"), *batch, generator=generator(0))
    assert not frozen.requires_grad and not validated.requires_grad
    assert frozen.equal(trained.detach()) and validated.equal(trained.detach())


# Contexts that are out of date


@by_gradient
@pytest.mark.parametrize("change", [
    lambda m: m.head.weight.mul_(2),
    lambda m: m.load_state_dict({n: p + 1 for n, p in m.state_dict().items()}, assign=True),
    lambda m: setattr(m, "head", torch.nn.Linear(12, 1, bias=False).double()),
], ids=["in place", "assigned", "replaced"])
@torch.no_grad()
def test_changed_weights_are_detected(gradient, change):
    model, states, y = model_of(gradient), draw(2, 4, 12), draw(2, 4, 12, stream="start")
    landscape, cache = model.landscape(states), model.cache(2, 4)
    grown, items = cache.append(states[:, :2]), landscape.select(torch.tensor([1]))
    evaluate(landscape, y)
    change(model)
    for use in (lambda: landscape(y), lambda: evaluate(landscape, y), lambda: evaluate(grown, y[:, :2]),
                lambda: items(y[:1, 0]), lambda: cache.append(states[:, :1])):
        with pytest.raises(RuntimeError, match="parameters"):
            use()


@pytest.mark.parametrize("conditioning", ["context_token", "adaln"])
def test_changed_states_are_detected_where_a_step_needs_them(conditioning):
    model, states = model_of("auto", conditioning), draw(2, 4, 12)
    landscape = model.landscape(states)
    states.mul_(2)
    with pytest.raises(RuntimeError):
        landscape.at_step(1)(draw(2, 4, 12, stream="start"))


def test_weights_changed_before_a_backward_pass_are_detected():
    model, y = model_of("handwritten"), draw(2, 4, 12, stream="start")
    value = evaluate(model.landscape(draw(2, 4, 12)), y, create_graph=True).grad.square().sum()
    with torch.no_grad():
        model.blocks[0].out.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@by_conditioning
@by_gradient
def test_earlier_evaluations_do_not_change_training(conditioning, gradient):
    """Evaluations without a graph or under autocast are cached apart from those of training."""
    states, y, found = draw(2, 4, 12), draw(2, 4, 12, stream="start").requires_grad_(), []
    for used in (False, True):
        model = model_of(gradient, conditioning)
        landscape = model.landscape(states)
        if used:
            evaluate(landscape.at_step(1), y.detach())
            with torch.no_grad():
                landscape.at_step(1)(y)
            with torch.autocast("cpu", torch.bfloat16):
                evaluate(landscape.at_step(1), y.detach())
        here = evaluate(landscape.at_step(1), y, create_graph=True)
        found.append(gradients(model, here.grad.square().sum() + here.energy.sin().sum(), y))
    assert_same(*found)


@by_gradient
def test_contexts_without_a_graph_cannot_be_trained_on(gradient):
    model, y = model_of(gradient), draw(2, 4, 12, stream="start")
    with torch.no_grad():
        landscape = model.landscape(draw(2, 4, 12))
    for made in (landscape, model.cache(2, 4).append(draw(2, 4, 12))):
        with pytest.raises(RuntimeError, match="graph"):
            evaluate(made, y, create_graph=True)


# Memory layouts, dtypes, compiled and fused forms


def test_memory_layouts_do_not_matter():
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

    def learn(dtype):
        model.to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            end = run(model.landscape(states.to(dtype)), start.to(dtype), gradient_descent(model.step_size),
                      2, create_graph=True, final_energy=False)
            loss = smooth_l1(end.state.y, targets.to(dtype))
        assert end.state.y.dtype == end.info.energy.dtype == dtype
        return end.info.energy, torch.cat([g.flatten() for g in gradients(model, loss).values()]).double()

    for limit, low, exact in zip((0.01, 0.03), learn(torch.float32), learn(torch.float64), strict=True):
        assert ((low - exact).norm() / exact.norm()).item() < limit


COMPILED = """
import torch
from ebwm.ebt import EBT
from ebwm.objective import S1
from ebwm.settings import generator

found = []
for compile in (False, True):
    model = EBT(16, 2, 2, generator=generator(0), compile=compile).double()
    states, targets = torch.randn(2, 2, 5, 16, dtype=torch.float64, generator=generator(0))
    S1(2)(model, states, targets, generator=generator(0)).backward()
    found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
assert found[0].abs().max() > 1e-3
assert (found[0] - found[1]).abs().max() < 1e-12, (found[0] - found[1]).abs().max()
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler, which torch.compile needs")
def test_compiled_sweeps_are_equal():
    """In a separate process, because run-time type checks and compilers do not work together."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "adjoint_tangent for [10, 16] in" in done.stderr


@pytest.mark.skipif(not can_be_fused(torch.device("cpu"), 8), reason="no triton that interprets its kernels")
@pytest.mark.parametrize("conditioning", MANUAL)
def test_fused_kernels_are_equal(conditioning):
    """In Triton's interpreter, on machines without a GPU."""
    found = []
    for gradient in ("fused", "handwritten"):
        model = model_of(gradient, conditioning, head_dim=8)
        states, start = draw(2, 2, 5, 16)
        end = run(model.landscape(states), start.requires_grad_(), gradient_descent(model.step_size), 2,
                  create_graph=True, detach=False, final_energy=False)
        loss = end.state.y.sin().sum()
        found.append({"y": end.state.y, "energy": end.info.energy, **gradients(model, loss, start)})
        assert model.uses_fused_kernels(torch.device("cpu")) == (gradient == "fused")
    assert_same(*found)
