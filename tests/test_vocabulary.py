"""Training on tokens in chunks: the loss and every gradient of autograd's form, in bounded memory."""

import os
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import official
from ebwm.ebt import EBT
from ebwm.evaluation import cost
from ebwm.gradient.vocabulary import UPDATES, Chunk, chunks, counted, vocabulary_step, walk_of
from ebwm.interop import from_official
from ebwm.objective import S1, cross_entropy, reconstruct, smooth_l1
from ebwm.settings import generator

KINDS = ("none", "candidate_token", "context_token")
both_updates = pytest.mark.parametrize("update", UPDATES)


def tiny(vocabulary=11, **settings):
    settings = {"step_size": 3.0, "generator": generator(0, "weights")} | settings
    return EBT(12, 2, 2, vocabulary=vocabulary, **settings).double()


def batch(shape, vocabulary=11, dtype=torch.float64):
    """Context, next tokens and initial logits."""
    tokens = torch.randint(vocabulary, (shape[0], shape[1] + 1), generator=generator(0, "tokens"))
    start = torch.randn(*shape, vocabulary, dtype=dtype, generator=generator(0, "start"))
    return tokens[:, :-1], tokens[:, 1:], start


def learn(model, data, recipe, ignore=None):
    """The loss and the gradient of every parameter."""
    states, targets, start = data
    model.zero_grad()
    loss = reconstruct(model, states, targets, recipe, partial(cross_entropy, ignore=ignore), start=start)
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters()}}


def assert_same(found, expected, atol=1e-10):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=atol,
                                   msg=lambda m, n=name: f"{n}: {m}")


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    update=st.sampled_from(UPDATES),
    step=st.sampled_from(KINDS),
    steps=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6)),
    rows=st.sampled_from([1, 3, 5, 7, None]),
    ignore=st.sampled_from([None, 3]),
    stream=st.booleans(),
)
def test_it_equals_autograd(update, step, steps, shape, rows, ignore, stream):
    """Loss and all gradients to 1e-10: against the eager form, and the gradient by hand without chunks."""
    states, targets, start = batch(shape)
    targets = targets.where(torch.arange(targets.numel()).view(shape) > 0, 5)
    recipe = S1(steps, update=update, rows=rows)
    eager = S1(steps, update=update, stream=stream)
    data, model_steps = (states, targets, start), max(steps - 1, 1)
    found = learn(tiny(step=step, steps=model_steps), data, recipe, ignore)
    assert_same(found, learn(tiny(step=step, steps=model_steps, gradient="eager"), data, eager, ignore))
    unstreamed = S1(steps, update=update, stream=False)
    assert_same(found, learn(tiny(step=step, steps=model_steps), data, unstreamed, ignore))


def test_the_code_s_update_is_its_loop():
    """The authors' inner loop, in six lines."""
    model, (states, targets, y) = tiny(), batch((2, 4))
    found, losses = learn(model, (states, targets, y), S1(2, rows=3)), []
    model.zero_grad()
    for _ in range(2):
        p = y.detach().requires_grad_().softmax(-1)
        (grad,) = torch.autograd.grad(model.landscape(states)(p).sum(), p, create_graph=True)
        y = p - model.step_size * grad
        losses.append(torch.nn.functional.cross_entropy(y.flatten(0, 1), targets.flatten()))
    loss = sum(losses) / 2
    loss.backward()
    assert_same(found, {"loss": loss.detach(), **{n: p.grad for n, p in model.named_parameters()}}, 1e-12)


@pytest.fixture(scope="module")
def authors():
    """The models of the checkout that OFFICIAL_EBT names; without it the test is skipped."""
    if not os.environ.get("OFFICIAL_EBT"):
        pytest.skip("OFFICIAL_EBT is not set: no checkout of the official code to compare with")
    return official.load()


@pytest.mark.parametrize("kind", ["default", "time_embed"])
def test_a_step_is_the_authors_own(authors, kind):
    """Loss and every gradient of their text model, padding included."""
    theirs = official.text(authors, 23, 16, 2, 2, 6, 2, kind, torch.float64, mcmc_step_size=3.0)
    model = from_official(theirs.state_dict(), heads=2)
    states, targets, start = batch((3, 6), 23)
    targets[0, 3:] = 0
    loss = official.training_step(theirs, torch.cat([states[:, :1], targets], 1), start)
    loss.backward()
    states = torch.cat([states[:, :1], targets[:, :-1]], 1)
    found = learn(model, (states, targets, start), S1(2, rows=5), ignore=0)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
    gradients = from_official(theirs.state_dict(), heads=2)
    expected = {name: p.detach() for name, p in gradients.named_parameters()}
    assert_same(found, {"loss": loss.detach(), **expected})


@both_updates
def test_the_products_are_as_few_as_promised(update):
    """What grows with the vocabulary: 3 n + 2 products for the code's update, 5 n for the paper's."""
    def linear(vocabulary, steps):
        model, data = tiny(vocabulary), batch((2, 4), vocabulary)
        return cost.flops(lambda: learn(model, data, S1(steps, update=update, rows=3))).linear

    of_one = 2 * 8 * 12 * 100
    found = [(linear(200, steps) - linear(100, steps)) / of_one for steps in (1, 2, 3)]
    assert found == {"code": [5, 8, 11], "paper": [5, 10, 15]}[update]


class Largest(TorchDispatchMode):
    """Notes the most entries that any new tensor has."""

    most = 0

    def __torch_dispatch__(self, function, types, given=(), named=None):
        found = function(*given, **named or {})
        for tensor in found if isinstance(found, tuple) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return found


@both_updates
@pytest.mark.parametrize("start", ["noise", "last", "zeros"])
def test_no_tensor_is_larger_than_a_chunk(update, start):
    """With the start drawn too: the largest grows with the rows, and not with the batch."""
    vocabulary, rows = 500, 20
    for sequences in (6, 12):
        model, (states, targets, _) = tiny(vocabulary), batch((sequences, 8), vocabulary)
        recipe = S1(2, start, update=update, rows=rows)
        with Largest() as seen:
            reconstruct(model, states, targets, recipe, generator=generator(0)).backward()
        assert seen.most == 16 * vocabulary
    with Largest() as seen:
        reconstruct(model, states, targets, S1(2, start, stream=False), generator=generator(0)).backward()
    assert seen.most >= 12 * 8 * vocabulary


@both_updates
@pytest.mark.parametrize("step", KINDS)
def test_validation_needs_no_gradients(update, step):
    model, (states, targets, start) = tiny(step=step), batch((3, 4))
    recipe = S1(2, update=update, rows=5)
    trained = reconstruct(model, states, targets, recipe, start=start)
    with torch.no_grad():
        seen = reconstruct(model, states, targets, recipe, start=start)
    assert trained.requires_grad and not seen.requires_grad
    torch.testing.assert_close(trained, seen, rtol=0, atol=1e-14)


@both_updates
def test_starts_are_those_of_the_recipe(update):
    """In one chunk the same numbers are drawn as by the form without chunks; given starts are left alone."""
    states, targets, given = batch((2, 4))
    kept = given.clone()
    for start in ("noise", "last", "zeros"):
        one, other = (reconstruct(tiny(gradient=gradient), states, targets, S1(2, start, update=update),
                                  generator=generator(0)) for gradient in ("auto", "eager"))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    reconstruct(tiny(), states, targets, S1(2, update=update), start=given)
    assert torch.equal(given, kept)


@both_updates
def test_smaller_types_stay_close(update):
    """Float32 to 1e-4; under bf16 autocast as close as the form without chunks, whose products round too."""
    states, targets, start = batch((3, 6), 40)
    exact = learn(tiny(40, step_size=1.0), (states, targets, start), S1(2, update=update))
    model, data = tiny(40, step_size=1.0).float(), (states, targets, start.float())
    single = learn(model, data, S1(2, update=update, rows=5))
    with torch.autocast("cpu", torch.bfloat16):
        low = learn(model, data, S1(2, update=update, rows=5))
        other = learn(model, data, S1(2, update=update, stream=False))
    for name, expected in exact.items():
        off = lambda found, n=name, e=expected: float((found[n] - e).norm() / e.norm())
        single_off, low_off, other_off = off(single), off(low), off(other)
        assert low[name].dtype == torch.float32
        assert single_off < 1e-4 < low_off < max(1.5 * other_off, 1e-3), name


def test_frozen_parameters_are_left_alone():
    """Fixed step size and layers: no gradient for them, the same ones for the rest."""
    data, free, fixed = batch((2, 4)), tiny(), tiny()
    for p in (fixed.step_size, *fixed.blocks.parameters()):
        p.requires_grad_(False)
    expected, found = learn(free, data, S1(2)), learn(fixed, data, S1(2))
    frozen = {name for name, grad in found.items() if grad is None}
    assert frozen == {n for n, _ in fixed.named_parameters() if n == "step_size" or n.startswith("blocks")}
    rest = expected.keys() - frozen
    assert_same({name: found[name] for name in rest}, {name: expected[name] for name in rest})


def test_gradients_add_up_and_scale():
    data, model = batch((2, 4)), tiny()
    once = learn(model, data, S1(2))
    model.zero_grad()
    for factor in (2.0, 3.0):
        (factor * reconstruct(model, *data[:2], S1(2), start=data[2])).backward()
    assert_same({n: p.grad for n, p in model.named_parameters()},
                {n: 5 * once[n] for n, _ in model.named_parameters()})


def test_other_losses_take_the_other_way():
    """Any loss of logits and tokens will do; only the cross-entropy is done in chunks."""
    model, (states, targets, start) = tiny(), batch((2, 4))
    smoothed = partial(torch.nn.functional.cross_entropy, label_smoothing=0.1)
    given = lambda y, tokens: smoothed(y.flatten(0, 1), tokens.flatten())
    loss = reconstruct(model, states, targets, S1(1), given, start=start)
    loss.backward()
    assert loss != reconstruct(model, states, targets, S1(1), start=start)
    assert all(p.grad is not None for p in model.parameters())
    ours = reconstruct(model, states, targets, S1(1), cross_entropy, start=start)
    assert torch.equal(ours, reconstruct(model, states, targets, S1(1), start=start))


@pytest.mark.parametrize("shape", [(5, 7), (1, 1)])
@pytest.mark.parametrize("rows", [1, 3, 15, 99])
def test_chunks_cover_all_once(shape, rows):
    seen = torch.zeros(shape, dtype=torch.int64)
    parts = chunks(*shape, rows)
    sizes = [seen[part].numel() for part in parts]
    for part in parts:
        seen[part] += 1
    assert (seen == 1).all()
    assert sizes[0] == max(sizes) <= rows


def test_chunks_are_balanced():
    assert chunks(1, 10, 6) == [Chunk(slice(0, 1), slice(0, 5)), Chunk(slice(0, 1), slice(5, 10))]


def test_states_that_are_no_tokens_walk_plainly(make_model, draw):
    model, states = make_model(), draw(1, 3, 16)
    landscape = model.landscape(states)
    assert walk_of(model, landscape)[0] is landscape


def step_of(model, states, targets, **settings):
    return vocabulary_step(model.landscape(states), targets, lambda y, *chunk: y.zero_(), **settings)


STATES, TARGETS, START = batch((2, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: S1(update="other"), "update is 'other'; it must be one of code, paper"),
        (lambda m: S1(rows=0), "rows is 0; it must be 1 or more"),
        (lambda m: walk_of(m, m.landscape(STATES), "other"), "update is 'other'"),
        (lambda m: step_of(m, STATES, TARGETS, update="other"), "update is 'other'"),
        (lambda m: step_of(m, STATES, TARGETS, rows=-1), "rows is -1; it must be 1 or more"),
        (lambda m: step_of(m, STATES, TARGETS[:, 1:]), r"targets have shape \[2, 3\]; .* shape \[2, 4\]"),
        (lambda m: reconstruct(m, STATES, TARGETS, S1(), start=START[:1]), r"start have shape \[1, 4, 11\]"),
        (lambda m: reconstruct(m, STATES, TARGETS + 11, S1(), start=START), "tokens are from 0 to 10"),
        (lambda m: reconstruct(m, STATES, TARGETS, S1()), "generator is None; chance needs one"),
        (lambda m: counted(torch.zeros(2, dtype=torch.int64), 0, 11), "no token but 0, which is ignored"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny())


def test_smooth_l1_is_still_the_loss_of_states(make_model, draw):
    model, states, targets = make_model(), draw(2, 4, 16), draw(2, 4, 16, stream="targets")
    given = [{}, {"loss": smooth_l1}]
    one, other = (reconstruct(model, states, targets, S1(1, "zeros"), **loss) for loss in given)
    assert torch.equal(one, other)
