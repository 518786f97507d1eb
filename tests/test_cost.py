"""Costs: counted FLOPs equal the formulas exactly; energy evaluations, memory and seconds."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention

from ebwm.baselines import Transformer
from ebwm.blocks import non_embedding_parameters
from ebwm.ebt import EBT
from ebwm.evaluation import cost
from ebwm.evaluation.cost import Counted, FlopCount, Meter, Shape, ebt_training, flops, transformer_training
from ebwm.objective import S1, S2, smooth_l1
from ebwm.sampler import hmc, run
from ebwm.settings import SettingsError, generator
from ebwm.thinking import predict
from tests.dense import DenseLandscape

SHAPES = [Shape(16, 1, 1, 3), Shape(32, 3, 2, 8)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Dense(EBT):
    """An EBT with the landscapes of the dense reference."""

    def landscape(self, states):
        return DenseLandscape(self, states)


def model_of(kind, shape, **settings):
    return kind(shape.dim, shape.depth, 2, **settings)


def data(shape, features=None):
    size = 2, shape.batch, shape.length, features or shape.dim
    return torch.randn(size, generator=generator(0, "data"))


def outside(shape, formula, squares):
    """A formula with the FLOPs of passes through dim squared weights outside of the layers."""
    rows = 2 * shape.batch * shape.length
    return FlopCount(formula.linear + rows * squares * shape.dim**2, formula.attention)


def training_step(model, batch, steps=2):
    return flops(lambda: S1(steps)(model, *batch, generator=generator(0)).backward())


def three_steps(model, batch, unroll=None):
    """FLOPs of a training step through walks of three steps."""
    recipe = S2(3, noise=0.0, spread=1.0, replay=0.0, unroll=unroll)
    return flops(lambda: recipe(model, *batch, generator=generator(0)).backward())


@shapes
def test_flops_of_the_transformer(shape):
    states, targets = data(shape)
    model = model_of(Transformer, shape)
    assert flops(lambda: model(states)) == outside(shape, cost.transformer_prediction(shape), 2)
    step = flops(lambda: smooth_l1(model(states), targets).backward())
    assert step == outside(shape, transformer_training(shape), 2 + 3)


@shapes
def test_flops_of_training_the_ebt(shape):
    batch, model = data(shape), model_of(EBT, shape)
    for steps in (1, 3):
        assert training_step(model, batch, steps) == outside(shape, ebt_training(shape, steps), 5 * steps + 2)
    truncated = outside(shape, ebt_training(shape, 3, differentiated=1), 2 * 2 + 5 + 2)
    assert three_steps(model, batch, unroll=1) == truncated
    dense = training_step(model_of(Dense, shape), batch)
    assert dense == outside(shape, cost.dense_training(shape, 2), 2 * (6 + 2))


def test_training_through_all_steps_costs_little_more_and_latents_need_no_embedding():
    shape = SHAPES[1]
    detached, through = ebt_training(shape, 3), three_steps(model_of(EBT, shape), data(shape))
    assert through.attention == detached.attention and detached.linear < through.linear < 1.1 * detached.linear
    latent = training_step(model_of(EBT, shape, state_dim=48, candidates="latent"), data(shape, 48))
    assert latent == outside(shape, ebt_training(shape, 2), ((2 + 1) + 2 * 3) * 48 / 32)  # encoded once, decoded twice


@shapes
@pytest.mark.parametrize("steps, samples", [(1, 1), (3, 2)])
def test_flops_of_a_prediction(shape, steps, samples):
    model, states = model_of(EBT, shape), data(shape)[0]
    counted = flops(lambda: predict(model, states, steps=steps, samples=samples, generator=generator(0)))
    assert counted == outside(shape, cost.ebt_prediction(shape, steps, samples), samples * (2 * steps + 1) + 1)


def test_ratios_to_the_transformer_are_the_documented_ones():
    """2n + 1 and (2n + 7) / 3, minus 4/7 of a layer that the context does not need; 4n; 20 N."""
    shape = Shape(384, 6, 16, 16)
    plain, omitted = transformer_training(shape).linear, 4 / (7 * shape.depth)
    for n in (1, 2, 5):
        assert ebt_training(shape, n).linear / plain == pytest.approx(2 * n + 1 - omitted)
        assert ebt_training(shape, n, 1).linear / plain == pytest.approx((2 * n + 7) / 3 - omitted)
        assert cost.dense_training(shape, n).linear == 4 * n * plain
        assert cost.paper_training(100, 10, n) / cost.paper_training(100, 10) == pytest.approx(n * 10 / 3)
    model = model_of(Transformer, SHAPES[1])
    norms = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 1)
    weights = non_embedding_parameters(model) - norms
    assert transformer_training(SHAPES[1]).linear == cost.paper_training(weights, 2 * 8)


A, B, Q = torch.ones(4, 8, 16), torch.ones(4, 16, 8), torch.ones(2, 2, 8, 16, requires_grad=True)
PRODUCT = 2 * 2 * 2 * 8 * 8 * 16


@pytest.mark.parametrize("function, count", [
    (lambda: linear(A, torch.ones(5, 16), torch.ones(5)), (2 * 4 * 8 * 16 * 5, 0)),
    (lambda: A @ B, (0, 2 * 4 * 8 * 16 * 8)), (lambda: A + 1, (0, 0)),
    (lambda: conv2d(torch.ones(1, 3, 8, 8), torch.ones(2, 3, 3, 3)), (2 * 2 * 36 * 27, 0)),
    (lambda: scaled_dot_product_attention(Q, Q, Q, is_causal=True), (0, 2 * PRODUCT)),
    (lambda: scaled_dot_product_attention(Q, Q, Q, is_causal=True).sum().backward(), (0, 7 * PRODUCT))])
def test_flops_of_single_operations(function, count):
    assert flops(function) == count and flops(function).total == sum(count)


def test_counted_evaluations_of_a_prediction_are_those_it_reports():
    model, made = model_of(EBT, SHAPES[0]), []
    landscape = model.landscape
    model.landscape = lambda states: made.append(Counted(landscape(states))) or made[-1]
    prediction = predict(model, data(SHAPES[0])[0], steps=3, samples=2, generator=generator(0))
    assert made[0].evaluations == prediction.evaluations.sum() and made[0].calls == 2 * (3 + 1)


def test_a_meter_measures_each_item_and_step():
    model, states = model_of(EBT, SHAPES[0]), data(SHAPES[0])[0]
    landscape, start = model.landscape(states), torch.zeros_like(states)
    meter = Meter(landscape, start)
    result = run(landscape, start, hmc(0.01, steps=3), 4, generator(0), callback=meter)
    assert result.info.evaluations.max() > 1
    assert meter.flops.shape == meter.seconds.shape == result.info.energy.shape == (4, 1, 3)
    assert torch.equal(meter.flops, meter.per_evaluation * result.info.evaluations.double())
    assert meter.per_evaluation * 3 == flops(lambda: landscape.value_and_grad(start)).total
    assert (meter.seconds > 0).all()


def test_functions_are_timed_in_turns_with_ratios_by_round(monkeypatch):
    """With a simulated clock; the first round is not counted."""
    now, calls, durations = [0.0], [], iter([1000.0, 2000.0, 1, 3, 8, 8, 2, 20])

    def work(name):
        now[0] += next(durations)
        calls.append(name)

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    found = cost.seconds({"a": lambda: work("a"), "b": lambda: work("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert found == {"a": (2, 1, 8, 1), "b": (8, 3, 20, 3)}
    assert cost.cpu_model().strip()


@pytest.mark.skipif(cost.peak_memory() is None, reason="the system does not report it")
def test_peak_memory_is_that_of_this_process():
    """A small process that was started by a large one does not inherit its maximum."""
    program = "from ebwm.evaluation.cost import peak_memory; print(peak_memory())"
    held = torch.ones(2**27)
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert held.nbytes == 2**29
    assert 10 < int(child.stdout) < cost.peak_memory() - 256


def test_peak_gpu_memory_is_that_of_the_function():
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="finds no GPU"):
            cost.peak_gpu_memory(list)
    else:
        assert 64 <= cost.peak_gpu_memory(lambda: torch.ones(64, 2**18, device="cuda")) < 128
