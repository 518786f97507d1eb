"""The training step for tokens: loss and gradients equal those of autograd, in bounded memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ebwm.evaluation import cost
from ebwm.gradient.vocabulary import UPDATES
from ebwm.objective import S1
from ebwm.sampler import STARTS, nesterov
from ebwm.settings import generator
from tests.helpers import MANUAL, assert_same, close, draw, draw_tokens, ebt, learned

by_update = pytest.mark.parametrize("update", UPDATES)


def tiny(vocabulary=11, step_size=3.0, **settings):
    return ebt(12, vocabulary=vocabulary, step_size=step_size, **settings)


def batch(shape, vocabulary=11):
    """Context, next tokens and initial logits."""
    tokens = draw_tokens(vocabulary, shape[0], shape[1] + 1)
    return tokens[:, :-1], tokens[:, 1:], draw(*shape, vocabulary, stream="start")


def learn(model, data, recipe, ignore_index=None):
    """The loss and the gradient of every parameter."""
    states, targets, start = data
    return learned(model, recipe(model, states, targets, start=start, ignore_index=ignore_index))


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    update=st.sampled_from(UPDATES),
    conditioning=st.sampled_from(MANUAL),
    steps=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6)),
    rows=st.sampled_from([1, 3, 5, 7, None]),
    ignore_index=st.sampled_from([None, 3]),
    stream=st.booleans(),
)
def test_loss_and_gradients_equal_autograd(update, conditioning, steps, shape, rows, ignore_index, stream):
    """Those of the eager gradient, and of the manual gradient without chunks; in validation the loss too."""
    states, targets, start = batch(shape)
    targets = targets.where(torch.arange(targets.numel()).view(shape) > 0, 5)
    settings = dict(step_conditioning=conditioning, conditioned_steps=max(steps - 1, 1))
    data, eager = (states, targets, start), tiny(gradient="eager", **settings)
    chunked = S1(steps, update=update, rows=rows)
    found = learn(tiny(**settings), data, chunked, ignore_index)
    with torch.no_grad():
        validated = chunked(tiny(**settings), states, targets, start=start, ignore_index=ignore_index)
    assert not validated.requires_grad
    close(validated, found["loss"], atol=1e-14)
    assert_same(found, learn(eager, data, S1(steps, update=update, stream=stream), ignore_index))
    whole = S1(steps, update=update, stream=False)
    assert_same(found, learn(tiny(**settings), data, whole, ignore_index))


@pytest.mark.parametrize("change", [
    {"noise": 0.5}, {"clamp": 1e-3}, {"step_size": 1.0}, {"kernel": nesterov}, {"guard": True, "step_size": 1e4}])
def test_settings_of_the_walk_count_with_and_without_streaming(change):
    states, targets, start = batch((2, 3))
    losses = [S1(2, stream=stream, **more)(tiny(), states, targets, start=start, generator=generator(0)).item()
              for stream in (True, False) for more in (change, {})]
    assert losses[0] == pytest.approx(losses[2], rel=1e-12) and losses[0] != pytest.approx(losses[1], rel=1e-6)


@by_update
def test_the_number_of_products_of_the_size_of_the_vocabulary(update):
    """3 n + 2 for the update of the code, 5 n for that of the paper."""
    def linear(vocabulary, steps):
        model, data = tiny(vocabulary), batch((2, 4), vocabulary)
        return cost.flops(lambda: learn(model, data, S1(steps, update=update, rows=3))).linear

    found = [(linear(200, steps) - linear(100, steps)) / (2 * 8 * 12 * 100) for steps in (1, 2, 3)]
    assert found == {"code": [5, 8, 11], "paper": [5, 10, 15]}[update]


class Largest(TorchDispatchMode):
    """Records the largest number of entries of a new tensor."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        for tensor in found if isinstance(found, tuple) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return found


@by_update
@pytest.mark.parametrize("start", STARTS)
def test_no_tensor_is_larger_than_a_chunk(update, start):
    """The largest tensor grows with `rows`, and not with the batch."""
    def largest(sequences, **settings):
        model, (states, targets, _) = tiny(500), batch((sequences, 8), 500)
        with Largest() as found:
            S1(2, start=start, update=update, **settings)(
                model, states, targets, generator=generator(0)).backward()
        return found.most

    assert largest(6, rows=20) == largest(12, rows=20) == 16 * 500
    assert largest(12, stream=False) >= 12 * 8 * 500


@by_update
def test_lower_precision_stays_close(update):
    """Float32 to 1e-4; under bf16 autocast as close as the form without chunks, whose products round too."""
    states, targets, start = batch((3, 6), 40)
    exact = learn(tiny(40, 1.0), (states, targets, start), S1(2, update=update))
    model, data = tiny(40, 1.0).float(), (states, targets, start.float())
    single = learn(model, data, S1(2, update=update, rows=5))
    with torch.autocast("cpu", torch.bfloat16):
        low = learn(model, data, S1(2, update=update, rows=5))
        whole = learn(model, data, S1(2, update=update, stream=False))
    for name, expected in exact.items():
        single_off, low_off, whole_off = (
            float((found[name] - expected).norm() / expected.norm()) for found in (single, low, whole))
        assert low[name].dtype == torch.float32
        assert single_off < 1e-4 < low_off < max(1.5 * whole_off, 1e-3), name


def test_a_parametrised_embedding_is_trained():
    found = []
    for gradient in ("auto", "eager"):
        model, (states, targets, start) = tiny(gradient=gradient), batch((2, 4))
        torch.nn.utils.parametrizations.weight_norm(model.embed)
        S1(2)(model, states, targets, start=start).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if name.startswith("embed")})
    assert len(found[0]) == 2
    assert_same(*found)


def test_frozen_parameters_have_no_gradient():
    """A fixed step size and fixed layers do not change the other gradients."""
    data, fixed = batch((2, 4)), tiny()
    for p in (fixed.step_size, *fixed.blocks.parameters()):
        p.requires_grad_(False)
    expected = learn(tiny(), data, S1(2))
    S1(2)(fixed, *data[:2], start=data[2]).backward()
    found = {name: p.grad for name, p in fixed.named_parameters() if p.grad is not None}
    assert expected.keys() - found.keys() == {
        "loss", "step_size", *(name for name in expected if name.startswith("blocks"))}
    assert_same(found, {name: expected[name] for name in found})
