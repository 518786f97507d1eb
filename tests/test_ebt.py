"""The EBT: both forms of attention agree, nothing leaks, and second derivatives are right."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from ebwm.baselines import Transformer
from ebwm.blocks import SIZES, non_embedding_parameters
from ebwm.ebt import EBT, DenseLandscape, JointEBT
from ebwm.evaluation.cost import flops
from ebwm.objective import S1, reconstruct
from ebwm.sampler import gradient_descent, run
from ebwm.settings import generator


def learn(model, landscape, candidates, targets, steps):
    """Energies, candidates after a walk, and the gradients of a loss on it to weights and start."""
    model.zero_grad()
    start = candidates.clone().requires_grad_()
    walk = run(landscape, start, gradient_descent(model.step_size), steps, create_graph=True, detach=False)
    (walk.state.y - targets).square().mean().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    return {"energy": walk.info.energy, "y": walk.state.y.detach(), "start": start.grad, **grads}


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 7),
    heads=st.sampled_from([1, 2, 3]),
    depth=st.integers(1, 3),
    steps=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_two_streams_equal_the_dense_form(batch, length, heads, depth, steps, seed):
    """Energies, gradients to the candidates and, by the second-order loss, to every parameter: to 1e-10."""
    model = EBT(heads * 6, depth, heads, step_size=2.0, generator=generator(seed, "weights")).double()
    states, candidates, targets = torch.randn(
        3, batch, length, heads * 6, dtype=torch.float64, generator=generator(seed, "data")
    )
    two = learn(model, model.landscape(states), candidates, targets, steps)
    dense = learn(model, DenseLandscape(model, states), candidates, targets, steps)
    assert two.keys() == dense.keys()
    for name in two:
        torch.testing.assert_close(
            two[name], dense[name], rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_parameter_learns(make_model, draw):
    """A parameter without a gradient would break data-parallel training without a word."""
    model = make_model()
    loss = reconstruct(
        model, draw(2, 4, 16), draw(2, 4, 16, stream="targets"), S1(steps=1), generator=generator(0)
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("candidates", ["state", "latent"])
def test_gradcheck_and_gradgradcheck(make_model, draw, candidates):
    model = make_model(dim=4, depth=2, heads=1, candidates=candidates)
    states, y = draw(1, 3, 4), draw(1, 3, 4, stream="candidates").requires_grad_()
    weights = [p for name, p in model.named_parameters() if name in ("blocks.0.qkv.weight", "head.weight")]

    def energy(y, *weights):
        return model.landscape(states)(y)

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel of the context has no second derivative
        assert torch.autograd.gradcheck(energy, (y, *weights))
        assert torch.autograd.gradgradcheck(energy, (y, *weights))


def test_a_candidate_sees_neither_its_neighbours_nor_the_future(make_model, draw):
    model, states, candidates = make_model(depth=3), draw(1, 6, 16), draw(1, 6, 16, stream="candidates")
    energies = model.landscape(states)(candidates)
    for changed in range(6):
        other = candidates.clone()
        other[:, changed] += 1
        moved = model.landscape(states)(other) != energies
        assert moved[0].tolist() == [position == changed for position in range(6)]
        future = states.clone()
        future[:, changed] += 1
        moved = (model.landscape(future)(candidates) - energies).abs() > 1e-12
        assert moved[0].tolist() == [position >= changed for position in range(6)]


def test_single_items_have_the_energies_of_the_whole(make_model, draw):
    model, states, candidates = make_model(), draw(3, 5, 16), draw(3, 5, 16, stream="candidates")
    landscape = model.landscape(states)
    rows, positions = torch.tensor([2, 0, 0, 1]), torch.tensor([0, 4, 1, 3])
    items = landscape.at(rows, positions)
    expected = landscape(candidates)[rows, positions]
    torch.testing.assert_close(items(candidates[rows, positions]), expected, rtol=0, atol=1e-12)
    fewer = torch.tensor([3, 1])
    left = items.at(fewer)(candidates[rows[fewer], positions[fewer]])
    torch.testing.assert_close(left, expected[fewer], rtol=0, atol=1e-12)


def test_context_is_computed_once(make_model, draw, monkeypatch):
    model, calls = make_model(), []
    remember = model.remember
    monkeypatch.setattr(model, "remember", lambda *given: calls.append(1) or remember(*given))
    run(model.landscape(draw(2, 4, 16)), draw(2, 4, 16), gradient_descent(0.1), 5)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", [EBT, Transformer])
@pytest.mark.parametrize(("name", "millions"), [("xxs", 6.18), ("xs", 12.4), ("small", 48.8)])
def test_sizes_of_the_papers(kind, name, millions):
    with torch.device("meta"):
        model = kind.from_size(name)
    assert non_embedding_parameters(model) / 1e6 == pytest.approx(millions, rel=0.02)
    assert non_embedding_parameters(model) == pytest.approx(
        7 * SIZES[name].dim ** 2 * SIZES[name].depth, rel=0.01
    )


def test_transformer_is_causal(draw):
    model = Transformer(16, 2, 2, generator=generator(0)).double()
    states, later = draw(1, 6, 16), draw(1, 6, 16)
    later[:, 3:] += 1
    moved = (model(states) - model(later)).abs().amax(-1)[0] > 1e-12
    assert moved.tolist() == [False] * 3 + [True] * 3


def test_wide_states_warn_and_latent_candidates_do_not(recwarn):
    with pytest.warns(
        UserWarning, match="state_dim 32 is above dim 16: the energy is blind to 16 directions"
    ):
        EBT(16, 1, 2, state_dim=32)
    EBT(16, 1, 2, state_dim=32, candidates="latent")
    assert not recwarn.list


def test_blind_directions_are_blind(draw):
    """The warning tells the truth: a candidate moved inside the map's null space keeps its energy."""
    with pytest.warns(UserWarning, match="blind"):
        model = EBT(16, 1, 2, state_dim=32, generator=generator(0)).double()
    null = torch.linalg.svd(model.embed.weight)[2][16:]
    landscape, y = model.landscape(draw(1, 3, 32)), draw(1, 3, 32, stream="candidates")
    torch.testing.assert_close(landscape(y + 5 * null[0]), landscape(y), rtol=0, atol=1e-10)


def test_initialisation_is_of_the_generator_alone():
    before = torch.get_rng_state()
    one, two, other = (EBT(16, 1, 2, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def landscape():
    return EBT(16, 1, 2, generator=generator(0)).landscape(torch.ones(2, 3, 16))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EBT(16, 1, 3), "heads is 3: dim 16 / heads must be an even whole number"),
        (lambda: EBT(16, 1, 0), "heads is 0; it must be 1 or more"),
        (lambda: EBT(16, 0, 2), "depth is 0; it must be 1 or more"),
        (lambda: Transformer(0, 1, 2), "dim is 0; it must be 1 or more"),
        (lambda: EBT(16, 1, 2, step_size=-3.0), "step_size is -3.0; it must be a number above 0"),
        (lambda: landscape()(torch.ones(2, 1, 16)), r"candidates have shape \[2, 1, 16\]; they must be"),
        (lambda: landscape().at(torch.tensor([0]), torch.tensor([3])), r"positions are \[3\]; .* 0 to 2"),
        (
            lambda: EBT(16, 1, 2, candidates="pixels"),
            "candidates is 'pixels'; it must be one of state, latent",
        ),
        (lambda: EBT.from_size("xxxl"), "size is 'xxxl'; it must be one of 4xs"),
        (lambda: EBT(16, 1, 2).landscape(torch.ones(2, 3, 15)), r"states have shape \[2, 3, 15\]"),
        (lambda: EBT(16, 1, 2).landscape(torch.ones(3, 16)), r"states have shape \[3, 16\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_some_joint_candidates_use_the_context_that_is_there():
    model = JointEBT(12, 2, 2, rows=3, state_dim=5, step="adaln", generator=generator(0)).double()
    draw = lambda *shape: torch.randn(shape, dtype=torch.float64, generator=generator(1))
    states, candidates = draw(4, 2, 5), draw(4, 3, 12)
    whole = model.landscape(states).at_step(1)
    rows, fewer = torch.tensor([3, 0, 2]), torch.tensor([2, 0])
    whole(candidates)
    made = []
    counted = flops(lambda: made.append(whole.at(rows).at(fewer)))
    assert counted.total == 0
    torch.testing.assert_close(whole.at(rows)(candidates[rows]), whole(candidates)[rows])
    torch.testing.assert_close(made[0](candidates[rows[fewer]]), whole(candidates)[rows[fewer]])
    with pytest.raises(ValueError, match=r"must be \[3, 3, 12\]"):
        whole.at(rows)(candidates)
