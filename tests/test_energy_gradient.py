"""The manual gradient (exactness: test_contract.py): streaming, outdated contexts, dtypes, compiled and fused forms."""

import gc
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from ebwm.ebt import EBT
from ebwm.gradient import sweeps
from ebwm.gradient.attention import can_be_fused
from ebwm.joint import JointEBT
from ebwm.objective import S1, StreamedLoss, smooth_l1
from ebwm.sampler import evaluate, gradient_descent, run
from ebwm.settings import generator
from ebwm.thinking import predict
from tests.helpers import MANUAL, assert_same, by_conditioning, by_gradient, draw, ebt, gradients, learned, perturbed


def model_of(gradient, conditioning="none", head_dim=6, **settings):
    """A perturbed EBT of two heads."""
    return perturbed(ebt(2 * head_dim, step_size=2.0, gradient=gradient, step_conditioning=conditioning, **settings))


def test_a_third_derivative_is_refused_and_a_second_backward_pass_is_not():
    model, y = model_of("auto"), draw(2, 4, 12, stream="start").requires_grad_()
    value = evaluate(model.landscape(draw(2, 4, 12)), y, create_graph=True).grad.square().sum()
    (once,) = torch.autograd.grad(value, y, retain_graph=True)
    (second,) = torch.autograd.grad(value, y, create_graph=True)
    assert once.equal(second)
    with pytest.raises(RuntimeError, match=r"third derivative of the energy: .*; use gradient='eager'"):
        second.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(second.square().sum() + y.square().sum(), y)


# Streaming


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


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", [EBT, partial(JointEBT, rows=4, state_dim=12)], ids=["causal", "joint"])
def test_recomputation_repeats_the_first_sweeps_in_the_backward_pass(kind, recompute, monkeypatch):
    calls, first_order = [], sweeps.first_order
    monkeypatch.setattr(sweeps, "first_order", lambda *given: calls.append(1) or first_order(*given))
    model = kind(12, 2, 2, recompute=recompute, generator=generator(0)).double()
    grad = evaluate(model.landscape(draw(2, 4, 12)), draw(2, 4, 12, stream="start"), create_graph=True).grad
    before = len(calls)
    grad.square().sum().backward()
    assert before == 1 and len(calls) == 1 + recompute


def test_evaluations_without_a_graph_keep_no_results_of_a_layer(monkeypatch):
    held, adjoint = [], sweeps.Sweeps().adjoint
    model = model_of("auto", depth=4)
    energy = model.landscape(draw(2, 4, 12)).inputs()

    def counted(bar, inputs, forward):
        held.append(sum(type(thing) is sweeps._Forward for thing in gc.get_objects()))
        return adjoint(bar, inputs, forward)

    x = draw(2, 4, 12, stream="start")
    sweeps.energy_gradient(energy._replace(sweeps=sweeps.Sweeps()._replace(adjoint=counted)), x)
    assert held == [4, 3, 2, 1]


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
    model = model_of("auto")
    grad = evaluate(model.landscape(draw(2, 4, 12)), draw(2, 4, 12, stream="start"), create_graph=True).grad
    with torch.no_grad():
        model.blocks[0].out.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grad.square().sum().backward()


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


class Doubled(torch.nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("place, state_dim", [("blocks.0.out", 12), ("embed", 5)])
def test_layers_with_a_forward_of_their_own_are_refused(place, state_dim):
    model = model_of("auto", state_dim=state_dim)
    model.set_submodule(place, Doubled(state_dim, 12, bias=False).double())
    with pytest.raises(TypeError, match=r"layer='Doubled': must be nn.Linear; use gradient='eager'"):
        model.landscape(draw(2, 4, state_dim)).value_and_grad(draw(2, 4, state_dim, stream="start"))


# Dtypes, compiled and fused forms


@by_gradient
def test_autocast_leaves_float64_alone(gradient):
    model, y = model_of(gradient), draw(2, 4, 12, stream="start")
    expected = model.landscape(draw(2, 4, 12)).value_and_grad(y)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.landscape(draw(2, 4, 12)).value_and_grad(y)
    assert all(map(torch.equal, found, expected))


def test_latent_candidates_keep_their_dtype_under_autocast():
    model, states = EBT(16, 1, 2, state_dim=3, candidates="latent", generator=generator(0)), torch.ones(2, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert predict(model, states, 2, generator=generator(1)).value.dtype == torch.float32
        S1(steps=2)(model, states, states, generator=generator(1)).backward()


@by_gradient
@pytest.mark.parametrize("kind", [EBT, partial(JointEBT, state_dim=64)], ids=["causal", "joint"])
def test_bfloat16_stays_close_to_float64(kind, gradient):
    """Products in bf16, all else in float32: energies within 1 %, gradients of the loss within 3 %."""
    model = kind(64, 3, 4, step_size=2.0, gradient=gradient, generator=generator(0, "weights"))
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
from ebwm import EBT, JointEBT
from ebwm.gradient.compiled import compiled_sweeps
from ebwm.objective import S1
from ebwm.settings import generator

compile_by = torch.compile
for kind, translated, options in ((EBT, ["_layer_forward"], {}),
                                  (JointEBT, [], {"rows": 5, "state_dim": 16, "step_conditioning": "adaln"})):
    found, torch.compile = [], lambda sweep, **given: compile_by(
        sweep, backend="inductor" if sweep.__name__ in translated else "aot_eager", **given)
    compiled_sweeps.cache_clear()
    for compile in (False, True):
        model = kind(16, 1, 2, generator=generator(0), compile=compile, **options).double()
        states, targets = torch.randn(2, 2, 5, 16, dtype=torch.float64, generator=generator(0))
        S1(2)(model, states, targets, generator=generator(0)).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert found[0].abs().max() > 1e-3
    assert (found[0] - found[1]).abs().max() < 1e-12, (found[0] - found[1]).abs().max()
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler, which torch.compile needs")
def test_compiled_sweeps_are_equal():
    """In a separate process, because run-time type checks and compilers do not work together.

    Only one sweep is translated to C++, which takes long; the others are only traced.
    """
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("adjoint_tangent for [10, 16] in") == 2


@pytest.mark.skipif(not can_be_fused(torch.device("cpu"), 8), reason="no triton that interprets its kernels")
@pytest.mark.parametrize("conditioning", MANUAL)
def test_fused_kernels_are_equal(conditioning):
    """In Triton's interpreter, on machines without a GPU."""
    found = []
    for gradient in ("fused", "handwritten"):
        model, (states, start) = model_of(gradient, conditioning, head_dim=8, depth=1), draw(2, 2, 5, 16)
        end = run(model.landscape(states), start.requires_grad_(), gradient_descent(model.step_size), 1,
                  create_graph=True, detach=False, final_energy=False)
        found.append({"energy": end.info.energy, **learned(model, end.state.y.sin().sum(), start)})
        assert model.uses_fused_kernels(torch.device("cpu")) == (gradient == "fused")
    assert_same(*found)
