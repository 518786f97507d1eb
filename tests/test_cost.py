"""What is counted is what the formulas say, to the last multiplication; evaluations, bytes and seconds."""

import subprocess
import sys

import pytest
import torch

from ebwm.baselines import Transformer
from ebwm.blocks import non_embedding_parameters
from ebwm.ebt import EBT
from ebwm.energy import DoubleWell, Landscape
from ebwm.evaluation import cost
from ebwm.evaluation.cost import (
    Counted,
    FlopCount,
    Meter,
    Shape,
    dense_training,
    ebt_prediction,
    ebt_training,
    flops,
    paper_training,
    peak_gpu_memory,
    peak_memory,
    seconds,
    transformer_prediction,
    transformer_training,
)
from ebwm.objective import S1, smooth_l1
from ebwm.sampler import gradient_descent, init_candidates, langevin, run
from ebwm.settings import SettingsError, generator
from ebwm.thinking import predict
from ebwm.walk import Walk
from tests.dense import DenseLandscape

HEADS = 2
SHAPES = [Shape(16, 1, 1, 3), Shape(32, 3, 2, 8)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Dense(EBT):
    """An EBT whose landscapes use the dense reference."""

    def landscape(self, states):
        return DenseLandscape(self, states)


def data(shape, state_dim=None):
    size = (2, shape.batch, shape.length, state_dim or shape.dim)
    return torch.randn(size, generator=generator(0, "data"))


def maps(shape, squares):
    """FLOPs of passes through dim squared weights outside of the layers."""
    return 2 * shape.batch * shape.length * squares * shape.dim**2


def plus(formula, linear):
    return FlopCount(formula.linear + linear, formula.attention)


def walk(model, states, targets, differentiated, steps, detach=True):
    """A training step by hand: plain steps, then some whose gradient is differentiated."""
    landscape, kernel = model.landscape(states), gradient_descent(model.step_size)
    y = init_candidates("noise", states, generator(0, "noise"))
    if steps > differentiated:
        y = run(landscape, y, kernel, steps - differentiated, final_energy=False).state.y
    end = run(landscape, y, kernel, differentiated, create_graph=True, detach=detach, final_energy=False)
    smooth_l1(end.state.y, targets).backward()


@shapes
def test_the_transformers_flops(shape):
    states, targets = data(shape)
    model = Transformer(shape.dim, shape.depth, HEADS)
    assert flops(lambda: model(states)) == plus(transformer_prediction(shape), maps(shape, 2))
    step = flops(lambda: smooth_l1(model(states), targets).backward())
    assert step == plus(transformer_training(shape), maps(shape, 2 + 3))


@shapes
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_ebts_flops(shape, steps):
    states, targets = data(shape)
    model = EBT(shape.dim, shape.depth, HEADS)
    step = lambda: S1(steps)(model, states, targets, generator=generator(0)).backward()
    assert flops(step) == plus(ebt_training(shape, steps), maps(shape, 5 * steps + 2))


@shapes
def test_the_flops_of_the_dense_reference(shape):
    states, targets = data(shape)
    model = Dense(shape.dim, shape.depth, HEADS)
    step = lambda: S1(2)(model, states, targets, generator=generator(0)).backward()
    assert flops(step) == plus(dense_training(shape, 2), maps(shape, 2 * (6 + 2)))


@shapes
def test_the_flops_of_a_walk_cut_short(shape):
    """Truncation, as in S2: two steps are walked, and one is differentiated."""
    states, targets = data(shape)
    model = EBT(shape.dim, shape.depth, HEADS)
    counted = flops(lambda: walk(model, states, targets, differentiated=1, steps=3))
    outside = maps(shape, 2 * 2 + 5 + 2)
    assert counted == plus(ebt_training(shape, 3, differentiated=1), outside)


def test_training_through_the_whole_walk_costs_what_detached_steps_do():
    shape = SHAPES[1]
    states, targets = data(shape)
    model = EBT(shape.dim, shape.depth, HEADS)
    counted = flops(lambda: walk(model, states, targets, differentiated=3, steps=3, detach=False))
    assert counted.attention == ebt_training(shape, 3).attention
    assert ebt_training(shape, 3).linear < counted.linear < 1.1 * ebt_training(shape, 3).linear


def test_the_flops_of_latent_candidates():
    """Latents need no embedding; each end is decoded, and the states are encoded once for the start."""
    shape = SHAPES[1]
    states, targets = data(shape, state_dim=48)
    model = EBT(shape.dim, shape.depth, HEADS, state_dim=48, candidates="latent")
    step = lambda: S1(2)(model, states, targets, generator=generator(0)).backward()
    rows = shape.batch * shape.length
    outside = 2 * rows * shape.dim * ((2 + 1) * 48 + 2 * 3 * 48)
    assert flops(step) == plus(ebt_training(shape, 2), outside)


@shapes
@pytest.mark.parametrize("steps, samples", [(1, 1), (3, 2)])
def test_the_flops_of_a_prediction(shape, steps, samples):
    states, _ = data(shape)
    model = EBT(shape.dim, shape.depth, HEADS)
    counted = flops(lambda: predict(model, states, steps, samples=samples, generator=generator(0)))
    passes = samples * (2 * steps + 1)
    assert counted == plus(ebt_prediction(shape, steps, samples), maps(shape, passes + 1))


def test_ratios_are_those_that_are_claimed():
    """2n + 1 and (2n + 7) / 3, but for 4/7 of a layer that the context leaves out; 4n; the paper's 20 N."""
    shape = Shape(384, 6, 16, 16)
    plain, left_out = transformer_training(shape).linear, 4 / (7 * shape.depth)
    for n in (1, 2, 5):
        assert ebt_training(shape, n).linear / plain == pytest.approx(2 * n + 1 - left_out)
        assert ebt_training(shape, n, 1).linear / plain == pytest.approx((2 * n + 7) / 3 - left_out)
        assert dense_training(shape, n).linear == 4 * n * plain
        assert paper_training(100, 10, n) / paper_training(100, 10) == pytest.approx(n * 10 / 3)


def test_six_flops_a_weight_and_row_are_the_papers_count():
    model = Transformer(32, 3, HEADS)
    norms = sum(p.numel() for p in model.blocks.parameters() if p.ndim == 1)
    weights = non_embedding_parameters(model) - norms
    assert transformer_training(SHAPES[1]).linear == paper_training(weights, 2 * 8)


def test_products_are_counted_by_hand():
    a, b, w = torch.ones(4, 8, 16), torch.ones(4, 16, 8), torch.ones(5, 16)
    assert flops(lambda: torch.nn.functional.linear(a, w)) == FlopCount(2 * 4 * 8 * 16 * 5, 0)
    assert flops(lambda: torch.nn.functional.linear(a, w, torch.ones(5))) == FlopCount(2 * 4 * 8 * 16 * 5, 0)
    assert flops(lambda: a @ b) == FlopCount(0, 2 * 4 * 8 * 16 * 8)
    image, kernel = torch.ones(1, 3, 8, 8), torch.ones(2, 3, 3, 3)
    assert flops(lambda: torch.nn.functional.conv2d(image, kernel)) == FlopCount(2 * 2 * 36 * 27, 0)
    assert flops(lambda: a + 1) == FlopCount(0, 0)
    assert flops(lambda: a @ b).total == 2 * 4 * 8 * 16 * 8


def test_fused_attention_is_counted_forward_and_backward():
    q = torch.ones(2, 2, 8, 16, requires_grad=True)
    attend = lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    product = 2 * 2 * 2 * 8 * 8 * 16
    assert flops(attend) == FlopCount(0, 2 * product)
    assert flops(lambda: attend().sum().backward()) == FlopCount(0, 7 * product)


@pytest.mark.parametrize("kernel", [gradient_descent(0.01), langevin(0.01)], ids=["descent", "langevin"])
def test_evaluations_are_those_that_the_sampler_says(kernel):
    well = Counted(DoubleWell())
    result = run(well, torch.zeros(3, 5, 2), kernel, 4, generator=generator(0), final_energy=False)
    assert (well.calls, well.evaluations) == (4, int(result.info.evaluations.sum()))


def test_counting_changes_nothing_and_covers_steps_selections_and_samples():
    class Stepwise(Landscape):
        def __init__(self, step=0):
            self.step = step

        def at_step(self, step):
            return self if step == self.step else Stepwise(step)

        def energy(self, y):
            return y.square().sum(-1) * (self.step + 1)

    start, kernel = torch.ones(3, 2), gradient_descent(0.1)
    counted = Counted(Stepwise())
    found = run(counted, start, kernel, 3).state
    assert found.y.equal(run(Stepwise(), start, kernel, 3).state.y)
    assert (counted.calls, counted.evaluations) == (4, 12)
    counted.select(torch.tensor([1]))(start[:1])
    counted.expand(2)(torch.ones(2, 3, 2))
    assert (counted.calls, counted.evaluations) == (6, 12 + 1 + 6)


@pytest.mark.parametrize("settings", [{}, {"vocabulary": 11}], ids=str)
def test_predictions_report_the_counted_evaluations(settings):
    model = EBT(16, 2, HEADS, **settings)
    made, landscape = [], model.landscape
    model.landscape = lambda states: made.append(Counted(landscape(states))) or made[-1]
    states = torch.ones(1, 3, dtype=torch.long) if settings else data(SHAPES[0])[0]
    prediction = predict(model, states, steps=3, samples=2, generator=generator(0))
    assert made[0].evaluations == prediction.evaluations.sum()


def test_a_meter_measures_each_item_and_step():
    model, states = EBT(16, 2, HEADS), data(SHAPES[0])[0]
    landscape, start = model.landscape(states), torch.zeros_like(states)
    meter = Meter(landscape, start)
    result = Walk(4).run(model, landscape, start, callback=meter)
    assert meter.flops.shape == meter.seconds.shape == result.info.energy.shape == (4, 1, 3)
    assert torch.equal(meter.flops, meter.per_evaluation * result.info.evaluations.double())
    assert meter.per_evaluation * 3 == flops(lambda: landscape.value_and_grad(start)).total
    assert (meter.seconds > 0).all()


def test_functions_take_turns_and_ratios_are_within_rounds(monkeypatch):
    """Each call moves the clock on: `a` takes its round's time, `b` twice that; the first round is lost."""
    now, calls, rounds = [0.0], [], [1000.0, 1.0, 8.0, 2.0]

    def work(name, factor):
        now[0] += factor * rounds[len(calls) // 2]
        calls.append(name)

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    found = seconds({"a": lambda: work("a", 1), "b": lambda: work("b", 2)}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert found == {"a": (2, 1, 8, 1), "b": (4, 2, 16, 2)}


@pytest.mark.skipif(peak_memory() is None, reason="this system doesn't say")
def test_the_mark_of_memory_is_of_this_process_alone():
    """A small process started by a large one doesn't inherit the large one's mark."""
    program = "from ebwm.evaluation.cost import peak_memory; print(peak_memory())"
    held = torch.ones(2**27)
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert held.nbytes == 2**29
    assert 10 < int(child.stdout) < peak_memory() - 256


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpus_memory_is_that_of_the_function():
    assert 64 <= peak_gpu_memory(lambda: torch.ones(64, 2**18, device="cuda")) < 128


def test_the_processor_has_a_name():
    assert cost.cpu_model().strip()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ebt_training(SHAPES[0], 0), "steps is 0; it must be 1 or more"),
        (lambda: ebt_training(SHAPES[0], 2, 3), "differentiated is 3; it must be from 1 to steps, 2"),
        (lambda: ebt_training(SHAPES[0], 2, 0), "differentiated is 0; it must be from 1 to steps, 2"),
        (lambda: ebt_prediction(SHAPES[0], 2, 0), "samples is 0; it must be 1 or more"),
        (lambda: dense_training(SHAPES[0], -1), "steps is -1; it must be 1 or more"),
        (lambda: paper_training(10, -1), "parameters, tokens, steps are 10, -1, 0; none may be below 0"),
        (lambda: seconds({}), "rounds is 7 for 0 functions; both must be 1 or more"),
        (lambda: seconds({"a": list}, rounds=0), "rounds is 0 for 1 functions; both must be 1 or more"),
        (lambda: peak_gpu_memory(list, "cpu"), "device is 'cpu'; only a GPU's memory can be measured"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_named():
    with pytest.raises(SettingsError, match="finds no GPU"):
        peak_gpu_memory(list)
