"""Weights of the official code: import and export bit for bit, strict loading, the same function."""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from benchmarks import official as theirs
from ebwm.ebt import EBT
from ebwm.interop import NOISE, from_official, misfits, to_official
from ebwm.objective import S1
from ebwm.sampler import evaluate
from ebwm.settings import generator

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
    model = make(step, states).to(dtype)
    official = to_official(model)
    back = from_official(official, heads=2)
    assert same(back.state_dict(), model.state_dict()) and same(to_official(back), official)
    conditioning = ("step_conditioning", "conditioned_steps", "manual_gradient")
    for name in ("dim", "heads", "state_dim", "candidate_dim", *conditioning):
        assert getattr(back, name) == getattr(model, name), name


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


def test_weights_are_copies():
    model = make()
    official = to_official(model)
    back = from_official(official, heads=2)
    before = copy.deepcopy(official)
    with torch.no_grad():
        for p in [*model.parameters(), *back.parameters()]:
            p.add_(1)
    assert same(official, before) and all(t.is_contiguous() for t in official.values())


def test_step_size_and_noise_may_have_another_type_than_the_weights():
    official = to_official(make().bfloat16()) | {"alpha": torch.tensor(30_000.1), NOISE: torch.tensor(0.1)}
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match=f"{NOISE}=0.1"):
        back = from_official(official, heads=2)
    assert torch.equal(before, torch.get_rng_state())
    assert back.dtype == torch.bfloat16 and back.step_size.dtype == torch.float32
    assert same(to_official(back), official | {NOISE: torch.tensor(0.0)})


def test_other_arguments_reach_the_model():
    back = from_official(to_official(make()), heads=2, gradient="eager", recompute=True)
    assert not back.manual_gradient and back.recompute


def without(name):
    return lambda weights: {n: t for n, t in weights.items() if n != name}


def with_(**more):
    return lambda weights: weights | {name.replace("__", "."): t for name, t in more.items()}


def changed(change, part):
    return lambda weights: {n: change(t) if part in n else t for n, t in weights.items()}


@pytest.mark.parametrize(("edit", "parts"), [
    (with_(transformer__norm__bias=torch.ones(16)), ["unexpected: transformer.norm.bias"]),
    (without("transformer.layers.1.attention.wk.weight"), ["missing: transformer.layers.1.attention.wk"]),
    (changed(lambda t: t[:4], "1.attention.wv"), ["1.attention.wv.weight [4, 16] instead of [16, 16]"]),
    (lambda w: with_(a=torch.ones(1))(without("alpha")(w)), ["unexpected: a; missing: alpha"]),
    (changed(lambda t: t.repeat(2, 1), "feed_forward"), ["w1.weight [32, 16] instead", "ffn_dim"]),
    (with_(**{f"x{i}": torch.ones(1) for i in range(18)}), ["x0, x1", "12 more"]),
    (with_(output__weight=torch.ones(16, 16)), ["output.weight", "Transformer++"]),
    (without("transformer.norm.weight"), ["weights='alpha, ", "transformer.norm.weight"]),
    (lambda w: {}, ["weights=''"]),
    (with_(alpha=3), ["weights['alpha']='int'"]),
    (with_(alpha=torch.tensor(5e-5)), ["alpha=5e-05"]),
    (with_(alpha=torch.tensor(float("nan"))), ["alpha=nan"]),
    (changed(lambda t: t.half(), "wq"), ["weights='torch.float16, torch.float32'"]),
    (changed(lambda t: t.long(), ""), ["weights='torch.int64'"]),
    (lambda w: w | {f"model.{n}": t for n, t in w.items()}, ["prefix"]),
    (lambda w: {"state_dict": w, "hyper_parameters": {"ebt_act_func": "gelu"}}, ["ebt_act_func='gelu'"]),
    (lambda w: {"state_dict": list(w)}, ["weights='list'"]),
])
def test_weights_that_do_not_fit_are_named(edit, parts):
    with pytest.raises(ValueError) as caught:
        from_official(edit(to_official(make())), heads=2)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_all_differences_are_listed():
    model, official = make("none", "projection"), to_official(make("context_token", "identity"))
    assert misfits(to_official(model), model) == []
    assert misfits(official, model) == [
        "unexpected: transformer.time_embeddings.weight",
        "missing: encoder_down_projection.weight, encoder_down_projection.bias",
    ]


def test_heads_come_from_the_sizes_of_the_papers():
    tiny = to_official(make("none", dim=128, depth=2, heads=2))
    assert from_official(tiny).heads == 2 and from_official(tiny, heads=4).heads == 4


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


# ---- side by side with the official code, in float64 ----

DIM, DEPTH, HEADS, LENGTH, LANDSCAPES = 32, 2, 4, 6, 3
KINDS = [(kind, gradient) for kind, step in STEPS.items() for gradient in ("eager", "handwritten")
         if gradient == "eager" or step != "adaln"]


@pytest.fixture(scope="module")
def official():
    """The models of the checkout given by OFFICIAL_EBT; without it the test is skipped."""
    if not os.environ.get("OFFICIAL_EBT"):
        pytest.skip("OFFICIAL_EBT is not set: no checkout of the official code to compare with")
    return theirs.load()


def shaken(model):
    """The model with all weights perturbed, so that no special value hides a difference."""
    draws = generator(0, "shaken")
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim:
                p.add_(0.3 * torch.randn(p.shape, dtype=p.dtype, generator=draws))
    return model


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request):
    return request.param


@pytest.fixture(params=STATES)
def pair(request, official, kind):
    """An official model, ours with its weights, a batch, and initial candidates."""
    name, gradient = kind
    shape = dict(dim=DIM, depth=DEPTH, heads=HEADS, length=LENGTH, steps=LANDSCAPES, kind=name,
                 dtype=torch.float64, mcmc_step_size=1.2)
    draws = generator(0, "batch")
    if request.param == "text":
        model = theirs.text(official, 20, **shape)
        batch, width = torch.randint(20, (3, LENGTH + 1), generator=draws), 20
    else:
        width = {"identity": DIM, "projection": 24}[request.param]
        model = theirs.video(official, encoder_dim=width, **shape)
        batch = torch.randn(3, LENGTH + 1, width, dtype=torch.float64, generator=draws)
    model = shaken(model)
    start = torch.randn(3, LENGTH, width, dtype=torch.float64, generator=draws)
    return model, from_official(model.state_dict(), heads=HEADS, gradient=gradient), batch, start


def close(ours, expected, what, tolerance=1e-12):
    """Equal to the tolerance times the largest value, or to the tolerance where that is below 1."""
    atol = tolerance * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(ours, expected, rtol=0, atol=atol, msg=lambda text: f"{what}: {text}")


def candidates_of(model, y):
    """Candidates of our landscape: the official text model converts logits to probabilities first."""
    return y if model.tokens is None else y.softmax(-1)


def test_energies_and_inner_gradients_are_the_official_ones(pair):
    expected, model, batch, start = pair
    assert same(to_official(model), dict(expected.state_dict()))
    landscape = model.landscape(batch[:, :-1])
    for step in range(LANDSCAPES):
        energies, gradient = theirs.inner_gradient(expected, batch[:, :-1], start, step)
        state = evaluate(landscape.at_step(step), candidates_of(model, start))
        close(landscape.at_step(step)(candidates_of(model, start)), energies, f"energies of step {step}")
        close(state.energy, energies, f"energies of step {step}, with the gradient")
        close(state.grad, gradient, f"gradient of step {step}")


def s1_loss(model, states, targets, start):
    """Our S1 training step; for tokens step by step, with the update in the space of probabilities."""
    if model.tokens is None:
        return S1(LANDSCAPES)(model, states, targets, start=start)
    landscape, loss, y = model.landscape(states), 0.0, start
    for step in range(LANDSCAPES):
        p = y.detach().softmax(-1)
        y = p - model.step_size * evaluate(landscape.at_step(step), p, create_graph=True).grad
        loss = loss + F.cross_entropy(y.flatten(0, 1), targets.flatten(), ignore_index=0) / LANDSCAPES
    return loss


def gradients(model):
    """The gradients of our parameters, by their official names."""
    filled = copy.deepcopy(model)
    with torch.no_grad():
        for p, q in zip(filled.parameters(), model.parameters(), strict=True):
            p.copy_(q.grad)
    return to_official(filled)


def test_a_training_step_is_the_official_one(pair, kind):
    expected, model, batch, start = pair
    tolerance = 1e-11 if model.tokens is not None and kind[0] == "adaln" else 1e-12
    loss = s1_loss(model, batch[:, :-1], batch[:, 1:], start)
    right = theirs.training_step(expected, batch, start)
    close(loss, right, "loss")
    loss.backward()
    right.backward()
    ours = gradients(model)
    found = {name: p.grad for name, p in expected.named_parameters() if p.grad is not None}
    assert ours.keys() - found.keys() == {"langevin_dynamics_noise_std"}
    for name, gradient in found.items():
        close(ours[name], gradient, name, tolerance)
        assert gradient.abs().max() > 1e-9, name


@pytest.mark.parametrize("pair", ["identity", "projection"], indirect=True)
def test_the_gradient_of_the_context_is_the_official_one(pair):
    """The official code encodes images without gradients, but its models pass gradients on to states."""
    expected, model, batch, start = pair
    states, official_states = (batch[:, :-1].clone().requires_grad_() for _ in range(2))
    s1_loss(model, states, batch[:, 1:], start).backward()
    with theirs.exact(expected), theirs.starting_from(expected, start):
        predictions = expected(official_states, learning=True)[0]
    sum(F.smooth_l1_loss(y, batch[:, 1:]) / LANDSCAPES for y in predictions).backward()
    assert official_states.grad.abs().max() > 1e-9
    close(states.grad, official_states.grad, "context")
