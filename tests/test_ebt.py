"""The EBT and the JointEBT: causality, contexts, sizes, initial weights and options."""

import pytest
import torch

from ebwm.blocks import SIZES, non_embedding_parameters
from ebwm.ebt import EBT, EBTOptions
from ebwm.joint import JointEBT
from ebwm.sampler import gradient_descent, run
from ebwm.settings import generator
from tests.helpers import close, draw, ebt


@pytest.mark.parametrize("part", [0, 1])
def test_energies_depend_on_no_later_state_or_action(part):
    model, candidates = ebt(depth=3, action_dim=3), draw(1, 6, 8, stream="candidates")
    context = draw(1, 6, 8), draw(1, 6, 3, stream="actions")
    energies = model.landscape(context)(candidates)
    for changed in range(6):
        other = [tensor.clone() for tensor in context]
        other[part][:, changed] += 1
        differs = (model.landscape(tuple(other))(candidates) - energies).abs() > 1e-12
        assert differs[0].tolist() == [position >= changed for position in range(6)]


@pytest.mark.parametrize("kind", ["causal", "joint"])
def test_the_context_is_encoded_once_for_all_steps_selections_and_samples(kind, monkeypatch):
    calls, joint = [], JointEBT(8, 2, 2, rows=4, state_dim=8, generator=generator(0)).double()
    model = ebt() if kind == "causal" else joint
    encode, y = model.encode_context, draw(2, 4, 8, stream="start")
    monkeypatch.setattr(model, "encode_context", lambda *given: calls.append(1) or encode(*given))
    landscape = model.landscape(draw(2, 4, 8))
    run(landscape, y, gradient_descent(0.1), 5)
    landscape.select(torch.tensor([1])).value_and_grad(y[1:] if kind == "joint" else y[:1, 1])
    landscape.expand(3).select(torch.tensor([4]))(y[:1] if kind == "joint" else y[:1, 0])
    assert len(calls) == 1


@pytest.mark.parametrize(("name", "millions"), [("xxs", 6.18), ("xs", 12.4), ("small", 48.8)])
def test_sizes_of_the_papers(name, millions):
    with torch.device("meta"):
        count = non_embedding_parameters(EBT.from_size(name))
    assert count / 1e6 == pytest.approx(millions, rel=0.02)
    assert count == pytest.approx(7 * SIZES[name].dim ** 2 * SIZES[name].depth, rel=0.01)


def test_directions_outside_the_width_have_no_energy(recwarn):
    """A warning says so; latent candidates have no such directions."""
    EBT(16, 1, 2, state_dim=32, candidates="latent")
    assert not recwarn.list
    with pytest.warns(UserWarning, match="16 directions"):
        model = ebt(16, state_dim=32)
    null = torch.linalg.svd(model.embed.weight)[2][16:]
    landscape, y = model.landscape(draw(1, 3, 32)), draw(1, 3, 32, stream="candidates")
    close(landscape(y + 5 * null[0]), landscape(y), atol=1e-10)


@pytest.mark.parametrize("make", [
    lambda seed: EBT(16, 1, 2, action_dim=3, generator=generator(seed)),
    lambda seed: JointEBT(16, 1, 2, state_dim=3, generator=generator(seed)),
])
def test_initial_weights_are_drawn_from_the_generator_only(make):
    before = torch.get_rng_state()
    one, two, other = (make(seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one if one[name].ndim > 1)


def test_single_options_replace_those_of_a_group():
    options = EBTOptions(candidates="latent", step_conditioning="adaln", conditioned_steps=5)
    model = EBT(16, 1, 2, state_dim=6, options=options, conditioned_steps=3)
    assert model.latent and model.conditioned_steps == 3 and not model.manual_gradient
    assert EBT(16, 1, 2, conditioned_steps=3).conditioned_steps == 1
    tokens = EBT(16, 1, 2, embedding_std=0.03, vocabulary=99, generator=generator(0)).tokens
    assert tokens.weight.detach().std().item() == pytest.approx(0.03, rel=0.1)
