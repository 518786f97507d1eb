"""The official models with stand-ins for their imports: a made-up checkout, and the real one if given."""

import sys
from types import ModuleType

import pytest
import torch

from benchmarks import official as ours
from ebwm.settings import generator
from tests.helpers import draw

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


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('no')"])
def test_stand_ins_are_present_during_the_import_only(checkout, monkeypatch, ending):
    """Modules, paths and files are as before, also after a failed import."""
    real = {name: ModuleType(name) for name in ("torchvision", "torchvision.ops", "model", "model.base")}
    for name, module in real.items():
        monkeypatch.setitem(sys.modules, name, module)
    (checkout / "model" / "bad.py").write_text(f"import pytorch_lightning\n{ending}")
    state = lambda: (dict(sys.modules), list(sys.path), sorted(checkout.rglob("*")), sys.dont_write_bytecode)
    before = state()
    if ending:
        with pytest.raises(RuntimeError, match="no"):
            ours.import_modules(checkout, ("nlp.star", "bad"))
    else:
        found = ours.import_modules(checkout, ("nlp.star", "bad"))
        assert found.keys() == {"model", "model.base", "model.nlp", "model.nlp.star", "model.bad"}
        stand_in, nothing_written = found["model.nlp.star"].seen
        assert stand_in is not real["torchvision"] and nothing_written
    assert state() == before and all(sys.modules[name] is module for name, module in real.items())


def test_stand_ins_support_the_models(checkout):
    base = ours.import_modules(checkout, ("base",))["model.base"]
    model = base.Small({"tokenizer": 12})
    assert model.tokens == 12 and model.device == torch.device("cpu") and isinstance(model, torch.nn.Module)
    model.hparams.steps = 2
    assert model.hparams["steps"] == 2 and "steps" in model.hparams and not hasattr(model.hparams, "other")
    model.w = torch.nn.Parameter(torch.zeros(1, device="meta"))
    assert model.device.type == "meta"


def test_load_refuses_other_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("OFFICIAL_EBT", raising=False)
    for path, message in ((None, "OFFICIAL_EBT"), (tmp_path, "has no model"), ("absent", "absent")):
        with pytest.raises(ValueError, match=message):
            ours.load(path)
    fake = ours.Official(*[torch.nn.Module] * 4, {})
    for settings in ({"trunkate": True}, {"kind": "time"}):
        with pytest.raises(ValueError, match=r"trunkate|time"):
            ours.video(fake, 8, 1, 1, 4, **settings)


def tokens(*shape):
    return torch.randint(1, 20, shape, generator=generator(0, "tokens"))


def test_s2_settings_change_the_loss(official):
    losses, batch = [], (draw(2, 6, 32), draw(2, 5, 32, stream="candidates"))
    for flags in ({}, {"no_mcmc_detach": True, "truncate_mcmc": True, "mcmc_step_size_learnable": False}):
        model = ours.video(official, 32, 2, 2, 5, dtype=torch.float64, mcmc_step_size=1.0, **flags)
        losses.append(ours.training_step(model, *batch))
    losses[1].backward()
    assert abs(losses[0] - losses[1]) > 1e-6 and model.alpha.grad is None


@pytest.mark.parametrize("kind", ours.KINDS)
def test_float32_models_train_as_in_float64(official, kind):
    """Gradients are compared with ours in test_interop.py."""
    states, start, losses = draw(2, 6, 24), draw(2, 5, 24, stream="candidates"), []
    for dtype in (torch.float32, torch.float64):
        model = ours.video(official, 32, 2, 2, 5, 2, kind, 24, dtype, mcmc_step_size=1.0)
        losses.append(ours.training_step(model, states.to(dtype), start.to(dtype)))
        assert losses[-1].dtype == dtype and not start.requires_grad
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_generation_appends_tokens_one_by_one(official):
    start, prompt = draw(2, 7, 20), tokens(2, 4)
    model = ours.text(official, 20, 32, 2, 2, 8, dtype=torch.float64, mcmc_step_size=1.0)
    all_at_once = ours.generate(model, prompt, 4, start)
    halfway = ours.generate(model, prompt, 2, start)
    assert torch.equal(all_at_once, ours.generate(model, halfway, 2, start))
    assert torch.equal(all_at_once[:, :4], prompt) and all_at_once.shape == (2, 8)
    for arguments, message in (((5, start), "new=5"), ((4,), "start=None")):
        with pytest.raises(ValueError, match=message):
            ours.generate(model, prompt, *arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_baselines_train_and_generate(official, dtype):
    video = ours.video_baseline(official, 32, 2, 2, 5, 24, dtype)
    text = ours.text_baseline(official, 20, 32, 2, 2, 8, dtype)
    for model, batch in ((video, draw(2, 6, 24).to(dtype)), (text, tokens(2, 9))):
        loss = ours.training_step(model, batch)
        loss.backward()
        assert loss.dtype == dtype and all(p.grad is not None for p in model.parameters())
    assert ours.generate(text, tokens(2, 4), 4).shape == (2, 8)
    with pytest.raises(ValueError, match="start"):
        ours.training_step(text, tokens(2, 9), draw(2, 8, 20))


def test_seeds_fix_the_weights_and_not_the_global_generator(official):
    state = torch.random.get_rng_state()
    models = [ours.video(official, 32, 1, 2, 4, seed=seed) for seed in (0, 0, 1)]
    a, b, c = (model.transformer.final_layer.weight for model in models)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_float_rounds_outside_exact(official):
    model = ours.video(official, 32, 1, 2, 4, dtype=torch.float64)
    table = model.transformer.freqs_cis
    with ours.exact(model):
        assert torch.zeros(1, dtype=torch.float64).float().dtype == torch.float64
        assert model.transformer.freqs_cis.dtype == torch.complex128
    assert torch.zeros(1, dtype=torch.float64).float().dtype == torch.float32
    assert model.transformer.freqs_cis is table
    with ours.exact(model.float()):
        assert torch.zeros(1, dtype=torch.float64).float().dtype == torch.float32
