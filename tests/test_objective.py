"""Learning through the sampler, and predicting with it."""

import pytest
import torch

from ebwm import thinking
from ebwm.objective import S1, Streamed, cross_entropy, known, reconstruct, smooth_l1
from ebwm.settings import generator
from ebwm.thinking import predict


def test_smooth_l1_has_beta_one():
    loss = smooth_l1(torch.tensor([0.5, 3.0]), torch.zeros(2))
    assert float(loss) == pytest.approx((0.5 * 0.25 + (3 - 0.5)) / 2)


@pytest.mark.parametrize("ignore", [None, 0])
def test_cross_entropy_is_the_mean_over_what_counts(draw, ignore):
    logits, tokens = draw(2, 3, 5), torch.tensor([[0, 1, 4], [2, 0, 3]])
    expected = [-logits[b, s].log_softmax(-1)[tokens[b, s]] for b in (0, 1) for s in (0, 1, 2)
                if ignore is None or tokens[b, s] != ignore]
    loss = cross_entropy(logits, tokens, ignore)
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=0, atol=1e-14)


def test_known_gradients_are_handed_over_once():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    inner = 2 * x
    value = 3 * known(torch.tensor(5.0), {inner: torch.tensor([1.0, 10.0]), x: torch.ones(2)})
    value.backward(retain_graph=True)
    assert value.item() == 15 and x.grad.tolist() == [9.0, 63.0]
    with pytest.raises(RuntimeError, match="backward has been called before"):
        value.backward()


def test_gradients_that_share_memory_add_up_apart():
    """The gradient of a sum is one tensor for both of its parts; each has to be added up by itself."""
    class Uncut:
        def __call__(self, candidates):
            return candidates.sum(-1)

        def cut(self):
            return self, [], []

    parts, streamed = [torch.zeros(3, requires_grad=True) for _ in range(2)], Streamed(Uncut())
    for _ in range(3):
        streamed.take((parts[0] + parts[1]).sum())
    streamed.give(torch.zeros(())).backward()
    assert all(part.grad.tolist() == [3.0, 3.0, 3.0] for part in parts)


def test_two_steps_are_the_recipe_written_out(make_model, draw):
    """Detached steps, the loss averaged over them: equal to the plain loop, gradients included."""
    model, states, targets = make_model(step_size=3.0), draw(2, 4, 16), draw(2, 4, 16, stream="targets")
    loss = reconstruct(model, states, targets, S1(steps=2), generator=generator(0, "noise"))
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    y, expected = torch.randn(2, 4, 16, dtype=torch.float64, generator=generator(0, "noise")), 0
    for _ in range(2):
        y = y.detach().requires_grad_()
        (grad,) = torch.autograd.grad(model.landscape(states)(y).sum(), y, create_graph=True)
        y = y - model.step_size * grad
        expected = expected + smooth_l1(y, targets) / 2
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-14)
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", ["noise", "last", "zeros"])
@pytest.mark.parametrize("candidates", ["state", "latent"])
def test_starts_and_candidates(make_model, draw, start, candidates):
    model = make_model(candidates=candidates, state_dim=12)
    states, targets = draw(2, 4, 12), draw(2, 4, 12, stream="targets")
    reconstruct(model, states, targets, S1(2, start), generator=generator(0)).backward()
    prediction = predict(model, states, start=start, generator=generator(0))
    assert prediction.value.shape == targets.shape
    assert not prediction.value.requires_grad


def test_more_samples_never_raise_the_energy(make_model, draw):
    model, states = make_model(step_size=2.0), draw(2, 5, 16)
    energies = [predict(model, states, 3, n, generator=generator(0, "starts")).energy for n in (1, 2, 6)]
    assert (energies[0] >= energies[1]).all() and (energies[1] >= energies[2]).all()


def test_the_energy_is_that_of_the_value(make_model, draw):
    model, states = make_model(step_size=2.0), draw(2, 5, 16)
    best = predict(model, states, steps=3, samples=4, generator=generator(0))
    torch.testing.assert_close(model.landscape(states)(best.value), best.energy, rtol=0, atol=1e-12)
    assert (best.evaluations == 4 * (3 + 1)).all()


def test_a_diverged_walk_is_not_chosen(make_model, draw, monkeypatch):
    """One start of four is so far away that its energy is not finite; the others decide."""
    model, states = make_model(step_size=2.0), draw(1, 3, 16)
    starts = iter([draw(1, 3, 16, stream=str(n)) for n in range(4)])
    far = lambda kind, recent, g: next(starts)
    monkeypatch.setattr(thinking, "initial", far)
    landscape, calls = model.landscape, []

    def broken(states):
        energy = landscape(states)
        return lambda y, step=0: energy(y) * (torch.nan if calls.append(1) or len(calls) <= 3 else 1)

    monkeypatch.setattr(model, "landscape", broken)
    prediction = predict(model, states, steps=2, samples=4)
    assert prediction.energy.isfinite().all() and prediction.value.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: S1(steps=0), "steps is 0; it must be 1 or more"),
        (lambda model: cross_entropy(torch.zeros(1, 3), torch.tensor([3])), "targets hold 3; tokens"),
        (lambda model: S1(start="random"), "start is 'random'; it must be one of noise, last, zeros"),
        (lambda model: predict(model, torch.ones(1, 2, 16).double(), samples=0), "samples is 0"),
        (lambda model: predict(model, torch.ones(1, 2, 16).double(), steps=0, start="zeros"), "steps is 0"),
    ],
)
def test_bad_input_is_named(make_model, call, message):
    with pytest.raises(ValueError, match=message):
        call(make_model())
