"""Weights of the official code: import and export bit for bit, strict loading, the same function."""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from benchmarks import official as theirs
from ebwm.ebt import EBT
from ebwm.interop import NOISE, from_official, to_official
from ebwm.objective import S1
from ebwm.sampler import evaluate
from ebwm.settings import generator
from tests.helpers import assert_same, softmax

STEPS = {"default": "none", "time_embed": "context_token", "adaln": "adaln", "adaln_zero": "adaln"}
STATES = {
    "identity": {"embed": "identity"},
    "projection": {"embed": "affine", "state_dim": 12},
    "text": {"vocabulary": 20},
}


def make(step_conditioning="context_token", states="identity", dim=16, depth=2, heads=2, **settings):
    settings = {"conditioned_steps": 3, "step_size": 2.0, **STATES[states], **settings}
    return EBT(dim, depth, heads, step_conditioning=step_conditioning, generator=generator(0, "weights"), **settings)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("step", sorted(set(STEPS.values())))
def test_export_and_import_change_no_bit(step, states, dtype):
    """And give copies."""
    model = make(step, states).to(dtype)
    official = to_official(model)
    back, before = from_official(official, heads=2), copy.deepcopy(official)
    assert same(back.state_dict(), model.state_dict()) and same(to_official(back), official)
    conditioning = ("step_conditioning", "conditioned_steps", "manual_gradient")
    for name in ("dim", "heads", "state_dim", "candidate_dim", *conditioning):
        assert getattr(back, name) == getattr(model, name), name
    with torch.no_grad():
        for p in [*model.parameters(), *back.parameters()]:
            p.add_(1)
    assert same(official, before) and all(t.is_contiguous() for t in official.values())


def test_names_are_those_of_the_official_code():
    model = make("adaln", "text", depth=1)
    official, block = to_official(model), model.blocks[0]
    layer, shapes = "transformer.layers.0.", {name: tuple(t.shape) for name, t in official.items()}
    assert shapes == {
        "alpha": (), "langevin_dynamics_noise_std": (), "embeddings.weight": (20, 16),
        "vocab_to_embed.weight": (16, 20), "transformer.norm.weight": (16,),
        "transformer.time_embeddings.weight": (3, 16), "transformer.final_layer.linear.weight": (1, 16),
        "transformer.final_layer.adaLN_modulation.1.weight": (32, 16),
        "transformer.final_layer.adaLN_modulation.1.bias": (32,),
        **{f"{layer}attention.{name}.weight": (16, 16) for name in ("wq", "wk", "wv", "wo")},
        **{f"{layer}feed_forward.{name}.weight": (16, 16) for name in ("w1", "w2", "w3")},
        f"{layer}attention_norm.weight": (16,), f"{layer}ffn_norm.weight": (16,),
        f"{layer}adaLN_modulation.1.weight": (96, 16), f"{layer}adaLN_modulation.1.bias": (96,),
    }
    stacked = {"attention": (block.qkv, ("wq", "wk", "wv")),
               "feed_forward": (block.feed_forward.gate_up, ("w1", "w3"))}  # the gate first
    for half, (linear, names) in stacked.items():
        parts = torch.cat([official[f"{layer}{half}.{name}.weight"] for name in names])
        assert torch.equal(parts, linear.weight)


def test_step_size_and_noise_may_have_another_type_than_the_weights():
    official = to_official(make().bfloat16()) | {"alpha": torch.tensor(30_000.1), NOISE: torch.tensor(0.1)}
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match=f"{NOISE}=0.1"):
        back = from_official(official, heads=2)
    assert torch.equal(before, torch.get_rng_state())
    assert back.dtype == torch.bfloat16 and back.step_size.dtype == torch.float32
    assert same(to_official(back), official | {NOISE: torch.tensor(0.0)})


def test_heads_come_from_the_sizes_of_the_papers_and_other_arguments_reach_the_model():
    tiny = to_official(make("none", dim=128, depth=2, heads=2))
    back = from_official(tiny, heads=4, gradient="eager", recompute=True)
    assert from_official(tiny).heads == 2 and back.heads == 4
    assert not back.manual_gradient and back.recompute


# Files


def lightning(model, prefix="model."):
    weights = {prefix + name: tensor for name, tensor in to_official(model).items()}
    return {"epoch": 3, "state_dict": weights | {f"{prefix}image_encoder.conv.weight": torch.ones(3)},
            "hyper_parameters": {"multiheaded_attention_heads": 4, "ebt_act_func": "silu", "run_name": "x"},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 1e-3}]}]}


@pytest.mark.parametrize("prefix", ["", "model.", "model._orig_mod.", "_orig_mod."])
def test_a_lightning_checkpoint_is_unwrapped(tmp_path, prefix):
    model = make("adaln", "projection", heads=4)
    torch.save(lightning(model, prefix), tmp_path / "last.ckpt")
    back = from_official(tmp_path / "last.ckpt")
    assert same(back.state_dict(), model.state_dict()) and back.heads == 4
    assert same(from_official(lightning(model, prefix)).state_dict(), model.state_dict())
    with pytest.raises(ValueError, match=r"heads=2: .* 4"):
        from_official(tmp_path / "last.ckpt", heads=2)


def test_a_state_dict_and_safetensors_are_read(tmp_path):
    model = make("none", "text")
    torch.save(to_official(model), tmp_path / "weights.pt")
    save_file(to_official(model), tmp_path / "weights.safetensors")
    for name in ("weights.pt", "weights.safetensors"):
        assert same(from_official(str(tmp_path / name), heads=2).state_dict(), model.state_dict())


class Payload:
    """Runs a command when an unrestricted reader unpickles it."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def test_a_pickle_with_a_program_is_refused(tmp_path):
    made, path = tmp_path / "made", tmp_path / "last.ckpt"
    torch.save({"state_dict": to_official(make()), "hyper_parameters": Payload(made)}, path)
    with pytest.raises(ValueError, match=r"mkdir.* nothing in it was run"):
        from_official(path, heads=2)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()


@pytest.mark.parametrize(("name", "content"), [
    ("empty.ckpt", b""), ("text.ckpt", b"hello world"), ("zip.ckpt", b"PK\x03\x04" + bytes(90)),
    ("text.safetensors", b"hello"), ("absent.ckpt", None),
])
def test_files_without_weights_are_refused(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"weights='{name}'"):
        from_official(name)


# Side by side with the official code, in float64

LENGTH, LANDSCAPES = 6, 3
KINDS = [(kind, gradient) for kind, step in STEPS.items() for gradient in ("eager", "handwritten")
         if gradient == "eager" or step != "adaln"]


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request):
    return request.param


@pytest.fixture(params=STATES)
def pair(request, official, kind):
    """An official model with perturbed weights, ours with the same, a batch, and initial candidates."""
    shape = dict(dim=32, depth=2, heads=4, length=LENGTH, steps=LANDSCAPES, kind=kind[0], dtype=torch.float64,
                 mcmc_step_size=1.2)
    width, noise = {"identity": 32, "projection": 24, "text": 20}[request.param], generator(0, "batch")
    normal = lambda *size, noise=noise: torch.randn(size, dtype=torch.float64, generator=noise)
    if request.param == "text":
        model, batch = theirs.text(official, width, **shape), torch.randint(20, (3, LENGTH + 1), generator=noise)
    else:
        model, batch = theirs.video(official, encoder_dim=width, **shape), normal(3, LENGTH + 1, width)
    start, shaken = normal(3, LENGTH, width), generator(0, "shaken")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * normal(*p.shape, noise=shaken) if p.ndim else 0)
    return model, from_official(model.state_dict(), heads=4, gradient=kind[1]), batch, start


def test_energies_and_inner_gradients_are_the_official_ones(pair):
    expected, model, batch, start = pair
    assert same(to_official(model), dict(expected.state_dict()))
    y = start if model.tokens is None else softmax(start)  # the official text model starts from logits
    for step in range(LANDSCAPES):
        energies, gradient = theirs.inner_gradient(expected, batch[:, :-1], start, step)
        landscape = model.landscape(batch[:, :-1]).at_step(step)
        state = evaluate(landscape, y)
        assert_same({"energy": state.energy, "gradient": state.grad}, {"energy": energies, "gradient": gradient}, 1e-12)


def test_a_training_step_is_the_official_one(pair, kind):
    """The loss and every gradient, with padding."""
    expected, model, batch, start = pair
    tokens = model.tokens is not None
    tolerance = 1e-11 if tokens and kind[0] == "adaln" else 1e-12
    loss = S1(LANDSCAPES)(model, batch[:, :-1], batch[:, 1:], start=start, ignore_index=0 if tokens else None)
    right = theirs.training_step(expected, batch, start)
    loss.backward()
    right.backward()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.grad)
    ours, found = to_official(model), {n: p.grad for n, p in expected.named_parameters() if p.grad is not None}
    assert ours.keys() - found.keys() == {NOISE} and all(gradient.abs().max() > 1e-9 for gradient in found.values())
    ours = {name: ours[name] for name in found}
    assert_same(ours | {"loss": loss.detach()}, found | {"loss": right.detach()}, tolerance)


@pytest.mark.parametrize("pair", ["identity", "projection"], indirect=True)
def test_the_gradient_of_the_context_is_the_official_one(pair):
    """The official code encodes images without gradients, but its models pass gradients on to states."""
    expected, model, batch, start = pair
    states, official_states = (batch[:, :-1].clone().requires_grad_() for _ in range(2))
    S1(LANDSCAPES)(model, states, batch[:, 1:], start=start).backward()
    with theirs.exact(expected), theirs.starting_from(expected, start):
        predictions = expected(official_states, learning=True)[0]
    sum(F.smooth_l1_loss(y, batch[:, 1:]) / LANDSCAPES for y in predictions).backward()
    assert official_states.grad.abs().max() > 1e-9
    assert_same({"context": states.grad}, {"context": official_states.grad}, 1e-12)
