"""The official models with stand-ins for their imports: a made-up checkout, and the real one if given."""

import sys
from types import ModuleType

import pytest
import torch

from benchmarks import official as ours
from tests.helpers import draw, draw_tokens

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


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('no')"])
def test_stand_ins_are_present_during_the_import_only(tmp_path, monkeypatch, ending):
    """Modules, paths and files are as before, also after a failed import; a model has settings and a device."""
    files = {"__init__": "", "base": BASE, "nlp/__init__": "", "nlp/star": STAR,
             "bad": f"import pytorch_lightning\n{ending}"}
    (tmp_path / "model" / "nlp").mkdir(parents=True)
    for name, source in files.items():
        (tmp_path / "model" / f"{name}.py").write_text(source)
    real = {name: ModuleType(name) for name in ("torchvision", "torchvision.ops", "model", "model.base")}
    for name, module in real.items():
        monkeypatch.setitem(sys.modules, name, module)
    state = lambda: (dict(sys.modules), list(sys.path), sorted(tmp_path.rglob("*")), sys.dont_write_bytecode)
    before = state()
    if ending:
        with pytest.raises(RuntimeError, match="no"):
            ours.import_modules(tmp_path, ("nlp.star", "bad"))
    else:
        found = ours.import_modules(tmp_path, ("nlp.star", "bad"))
        assert found.keys() == {"model", "model.base", "model.nlp", "model.nlp.star", "model.bad"}
        stand_in, nothing_written = found["model.nlp.star"].seen
        assert stand_in is not real["torchvision"] and nothing_written
        model = found["model.base"].Small({"tokenizer": 12})
        model.hparams.steps = 2
        assert model.tokens == 12 and model.device == torch.device("cpu") and isinstance(model, torch.nn.Module)
        assert model.hparams["steps"] == 2 and not hasattr(model.hparams, "other")
    assert state() == before and all(sys.modules[name] is module for name, module in real.items())


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
    start, prompt = draw(2, 7, 20), draw_tokens(20, 2, 4)
    model = ours.text(official, 20, 32, 2, 2, 8, dtype=torch.float64, mcmc_step_size=1.0)
    all_at_once = ours.generate(model, prompt, 4, start)
    halfway = ours.generate(model, prompt, 2, start)
    assert torch.equal(all_at_once, ours.generate(model, halfway, 2, start))
    assert torch.equal(all_at_once[:, :4], prompt) and all_at_once.shape == (2, 8)
    for arguments, message in (((5, start), "new=5"), ((4,), "start=None")):
        with pytest.raises(ValueError, match=message):
            ours.generate(model, prompt, *arguments)


def test_baselines_train_and_generate(official):
    video = ours.video_baseline(official, 32, 2, 2, 5, 24)
    text = ours.text_baseline(official, 20, 32, 2, 2, 8)
    for model, batch in ((video, draw(2, 6, 24).float()), (text, draw_tokens(20, 2, 9))):
        ours.training_step(model, batch).backward()
        assert all(p.grad is not None for p in model.parameters())
    assert ours.generate(text, draw_tokens(20, 2, 4), 4).shape == (2, 8)
    with pytest.raises(ValueError, match="start"):
        ours.training_step(text, draw_tokens(20, 2, 9), draw(2, 8, 20))


def test_seeds_fix_the_weights_and_not_the_global_generator(official):
    state = torch.random.get_rng_state()
    models = [ours.video(official, 32, 1, 2, 4, seed=seed) for seed in (0, 0, 1)]
    a, b, c = (model.transformer.final_layer.weight for model in models)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state)
