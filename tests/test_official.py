"""The official models imported with stand-ins: from a made-up checkout always, from the real one if given."""

import os
import sys
from types import ModuleType

import pytest
import torch

from benchmarks import official as ours
from ebwm.ebt import EBT
from ebwm.objective import S1
from ebwm.sampler import evaluate
from ebwm.settings import generator

BASE = """
import sys
import pytorch_lightning as L
import torchvision.models as models
from torchvision.utils import make_grid
from transformers import AutoTokenizer

class Small(L.LightningModule):
    def __init__(self, hparams):
        super().__init__()
        self.hparams.update(hparams)
        self.tokens = len(AutoTokenizer.from_pretrained(self.hparams.tokenizer, clean_up=False))
"""
STAR = "from model.base import *\nseen = sys.modules['torchvision'], sys.dont_write_bytecode"


@pytest.fixture
def checkout(tmp_path):
    """A folder with a package `model` of two modules."""
    (tmp_path / "model" / "nlp").mkdir(parents=True)
    files = {"__init__": "", "base": BASE, "nlp/__init__": "", "nlp/star": STAR}
    for name, source in files.items():
        (tmp_path / "model" / f"{name}.py").write_text(source)
    return tmp_path


def test_stand_ins_are_there_during_the_import_only(checkout, monkeypatch):
    real = {name: ModuleType(name) for name in ("torchvision", "torchvision.ops", "model", "model.base")}
    for name, module in real.items():
        monkeypatch.setitem(sys.modules, name, module)
    before, path = dict(sys.modules), list(sys.path)
    found = ours.import_modules(checkout, ("nlp.star",))
    assert found.keys() == {"model", "model.base", "model.nlp", "model.nlp.star"}
    assert found["model.nlp.star"].seen[0] is not real["torchvision"]
    assert sys.modules == before and sys.path == path
    assert all(sys.modules[name] is module for name, module in real.items())


def test_nothing_is_written_to_the_checkout(checkout):
    before, setting = sorted(checkout.rglob("*")), sys.dont_write_bytecode
    assert ours.import_modules(checkout, ("nlp.star",))["model.nlp.star"].seen[1]
    assert sorted(checkout.rglob("*")) == before and sys.dont_write_bytecode is setting


def test_all_is_put_back_when_an_import_fails(checkout):
    (checkout / "model" / "bad.py").write_text("import pytorch_lightning\nraise RuntimeError('no')")
    before, path = dict(sys.modules), list(sys.path)
    with pytest.raises(RuntimeError, match="no"):
        ours.import_modules(checkout, ("base", "bad"))
    assert sys.modules == before and sys.path == path


def test_stand_ins_do_what_models_need(checkout):
    base = ours.import_modules(checkout, ("base",))["model.base"]
    model = base.Small({"tokenizer": 12})
    assert model.tokens == 12 and model.device == torch.device("cpu") and isinstance(model, torch.nn.Module)
    model.hparams.steps = 2
    assert model.hparams["steps"] == 2 and "steps" in model.hparams and not hasattr(model.hparams, "other")
    model.w = torch.nn.Parameter(torch.zeros(1, device="meta"))
    assert model.device.type == "meta"


def test_load_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.delenv("OFFICIAL_EBT", raising=False)
    with pytest.raises(ValueError, match=r"OFFICIAL_EBT isn't set: give the path of a checkout of github"):
        ours.load()
    with pytest.raises(ValueError, match=r"isn't a checkout of .*: it has no model/nlp/ebt.py"):
        ours.load(tmp_path)
    monkeypatch.setenv("OFFICIAL_EBT", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"absent isn't a checkout"):
        ours.load()


def test_unknown_settings_are_refused():
    fake = ours.Official(*[torch.nn.Module] * 4, {})
    with pytest.raises(ValueError, match=r"trunkate isn't a flag of the official models; the flags are"):
        ours.video(fake, 8, 1, 1, 4, trunkate=True)
    with pytest.raises(ValueError, match=r"kind is 'time'; it must be one of default, time_embed"):
        ours.text(fake, 9, 8, 1, 1, 4, kind="time")


@pytest.fixture(scope="module")
def official():
    """The models of the checkout that OFFICIAL_EBT names; without it the test is skipped."""
    if not os.environ.get("OFFICIAL_EBT"):
        pytest.skip("OFFICIAL_EBT is not set: no checkout of the official code to compare with")
    return ours.load()


def tokens(*shape):
    return torch.randint(1, 20, shape, generator=generator(0, "tokens"))


@pytest.mark.parametrize("kind", ours.KINDS)
@pytest.mark.parametrize("encoder_dim", [None, 24])
def test_video_models_train(official, kind, encoder_dim, draw):
    width = encoder_dim or 32
    states, start = draw(2, 6, width), draw(2, 5, width, stream="candidates")
    models = [ours.video(official, 32, 2, 2, 5, 2, kind, encoder_dim, dtype, mcmc_step_size=1.0)
              for dtype in (torch.float32, torch.float64)]
    losses = [ours.training_step(m, states.to(m.alpha), start.to(m.alpha)) for m in models]
    assert losses[0].dtype == torch.float32 and losses[1].dtype == torch.float64
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    losses[1].backward()
    without = [name for name, p in models[1].named_parameters() if p.grad is None]
    assert without == ["langevin_dynamics_noise_std"] and not start.requires_grad


@pytest.mark.parametrize("kind", ours.KINDS)
def test_text_models_train(official, kind, draw):
    start = draw(2, 5, 20)
    model = ours.text(official, 20, 32, 2, 2, 5, 2, kind, torch.float64, mcmc_step_size=1.0)
    ours.training_step(model, tokens(2, 6), start).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["langevin_dynamics_noise_std"] and model.embeddings.weight.grad.isfinite().all()


def test_s2_settings_change_the_loss(official, draw):
    states, start = draw(2, 6, 32), draw(2, 5, 32, stream="candidates")
    model = ours.video(official, 32, 2, 2, 5, dtype=torch.float64, mcmc_step_size=1.0)
    mean = ours.training_step(model, states, start)
    flags = {"no_mcmc_detach": True, "truncate_mcmc": True, "mcmc_step_size_learnable": False}
    model = ours.video(official, 32, 2, 2, 5, dtype=torch.float64, mcmc_step_size=1.0, **flags)
    last = ours.training_step(model, states, start)
    last.backward()
    assert last.item() != pytest.approx(mean.item(), abs=1e-6) and model.alpha.grad is None


def test_inner_gradient_is_that_of_its_step(official, draw):
    states, start = draw(2, 5, 32), draw(2, 5, 32, stream="candidates")
    model = ours.video(official, 32, 2, 2, 5, 1, dtype=torch.float64, mcmc_step_size=0.5)
    energies, gradient = ours.inner_gradient(model, states, start)
    assert energies.shape == (2, 5) and not gradient.requires_grad and model.hparams.mcmc_num_steps == 1
    batch = torch.cat([states, start[:, -1:]], 1)
    loss = torch.nn.functional.smooth_l1_loss(start - 0.5 * gradient, batch[:, 1:])
    assert ours.training_step(model, batch, start).item() == pytest.approx(loss.item(), abs=1e-14)
    steps = ours.video(official, 32, 2, 2, 5, 2, dtype=torch.float64)
    first, second = (ours.inner_gradient(steps, states, start, step)[0] for step in (0, 1))
    assert (first - second).abs().max() > 1e-3


def test_generation_goes_token_by_token(official, draw):
    start, prompt = draw(2, 7, 20), tokens(2, 4)
    model = ours.text(official, 20, 32, 2, 2, 8, dtype=torch.float64, mcmc_step_size=1.0)
    all_at_once = ours.generate(model, prompt, 4, start)
    halfway = ours.generate(model, prompt, 2, start)
    assert torch.equal(all_at_once, ours.generate(model, halfway, 2, start))
    assert torch.equal(all_at_once[:, :4], prompt) and all_at_once.shape == (2, 8)
    with pytest.raises(ValueError, match=r"new is 5: with the prompt that makes 9 tokens, above 8"):
        ours.generate(model, prompt, 5, start)
    with pytest.raises(ValueError, match=r"start is None: an EBT needs initial candidates"):
        ours.generate(model, prompt, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_baselines_train_and_generate(official, dtype, draw):
    video = ours.video_baseline(official, 32, 2, 2, 5, 24, dtype)
    text = ours.text_baseline(official, 20, 32, 2, 2, 8, dtype)
    for model, batch in ((video, draw(2, 6, 24).to(dtype)), (text, tokens(2, 9))):
        loss = ours.training_step(model, batch)
        loss.backward()
        assert loss.dtype == dtype and all(p.grad is not None for p in model.parameters())
    assert ours.generate(text, tokens(2, 4), 4).shape == (2, 8)
    with pytest.raises(ValueError, match=r"start is \[2, 8, 20\]: a baseline has no candidates"):
        ours.training_step(text, tokens(2, 9), draw(2, 8, 20))


def test_seeds_fix_the_weights_and_leave_the_global_stream(official):
    state = torch.random.get_rng_state()
    models = [ours.video(official, 32, 1, 2, 4, seed=seed) for seed in (0, 0, 1)]
    a, b, c = (model.transformer.final_layer.weight for model in models)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_float_rounds_again_outside_exact(official):
    model = ours.video(official, 32, 1, 2, 4, dtype=torch.float64)
    table = model.transformer.freqs_cis
    with ours.exact(model):
        assert torch.zeros(1, dtype=torch.float64).float().dtype == torch.float64
        assert model.transformer.freqs_cis.dtype == torch.complex128
    assert torch.zeros(1, dtype=torch.float64).float().dtype == torch.float32
    assert model.transformer.freqs_cis is table
    with ours.exact(model.float()):
        assert torch.zeros(1, dtype=torch.float64).float().dtype == torch.float32


def weights_of(model):
    """The weights of an official model of kind "default" without projection, by the names that ours has."""
    body = model.transformer
    found = {"embed.weight": torch.eye(body.params.dim), "head.weight": body.final_layer.weight,
             "norm.weight": body.norm.weight, "step_size": model.alpha}
    for i, layer in enumerate(body.layers):
        a, f = layer.attention, layer.feed_forward
        found |= {f"blocks.{i}.{name}.weight": weight for name, weight in {
            "attention_norm": layer.attention_norm.weight, "feed_forward_norm": layer.ffn_norm.weight,
            "qkv": torch.cat([a.wq.weight, a.wk.weight, a.wv.weight]), "out": a.wo.weight,
            "feed_forward.gate_up": torch.cat([f.w1.weight, f.w3.weight]), "feed_forward.down": f.w2.weight,
        }.items()}
    return found


@pytest.fixture
def pair(official):
    """An official video model and ours, of the same weights in float64."""
    theirs = ours.video(official, 32, 2, 2, 6, kind="default", dtype=torch.float64, mcmc_step_size=2.0)
    same = EBT(32, 2, 2).double()
    same.load_state_dict(weights_of(theirs))
    return theirs, same


def test_our_energies_and_gradients_are_theirs(pair, draw):
    theirs, same = pair
    states, candidates = draw(3, 6, 32), draw(3, 6, 32, stream="candidates")
    energies, gradient = ours.inner_gradient(theirs, states, candidates)
    mine = evaluate(same.landscape(states), candidates)
    torch.testing.assert_close(mine.energy, energies, rtol=0, atol=1e-12)
    torch.testing.assert_close(mine.grad, gradient, rtol=0, atol=1e-12)


def test_our_s1_loss_and_its_gradients_are_theirs(pair, draw):
    theirs, same = pair
    batch = draw(3, 7, 32)
    theirs_loss = ours.training_step(theirs, batch, batch[:, :-1])
    mine_loss = S1(2, start="last")(same, batch[:, :-1], batch[:, 1:])
    torch.testing.assert_close(mine_loss, theirs_loss, rtol=0, atol=1e-12)
    theirs_loss.backward()
    mine_loss.backward()
    expected, own = theirs.transformer, same.blocks
    torch.testing.assert_close(same.step_size.grad, theirs.alpha.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(same.head.weight.grad, expected.final_layer.weight.grad, rtol=0, atol=1e-12)
    for block, layer in zip(own, expected.layers, strict=True):
        split = [getattr(layer.attention, name).weight.grad for name in ("wq", "wk", "wv")]
        torch.testing.assert_close(block.qkv.weight.grad, torch.cat(split), rtol=0, atol=1e-12)
        down = layer.feed_forward.w2.weight.grad
        torch.testing.assert_close(block.feed_forward.down.weight.grad, down, rtol=0, atol=1e-12)
