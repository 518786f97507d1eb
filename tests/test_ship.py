"""Training and shipping of the small language models, at a tiny size."""

import json

import pytest
import torch
from tiny_run import log_of, tiny_text

from benchmarks import ship_text
from ebwm import writing
from ebwm.data.tasks import load_data
from ebwm.data.text import text_corpus
from ebwm.saving import load_tensors
from ebwm.training.learner import load_learner, position_losses
from ebwm.training.presets import load_config
from ebwm.training.run import train


@pytest.fixture
def shop(runs, monkeypatch):
    """Tiny presets on a small corpus, fewer seeds, temporary folders; the folder of shipped models."""
    monkeypatch.setenv("EBWM_DATA", str(runs.parent / "data"))
    shape = [*tiny_text(runs.parent), "data.tokenizer=train:280", "optimiser.updates=4", "eval_every=2"]
    kinds = {preset: [*shape, f"model.kind={kind}"] for preset, kind in ship_text.SHIPPED.items()}

    def tiny(source, overrides=()):
        return load_config("smoke" if source in kinds else source, [*kinds.get(source, ()), *overrides])

    def corpus(source, split, **options):
        return text_corpus(str(runs.parent / "lines.jsonl"), split, held_out=0.2, length=12, **options)

    monkeypatch.setattr(ship_text, "load_config", tiny)
    monkeypatch.setattr(ship_text, "text_corpus", corpus)
    monkeypatch.setattr(ship_text, "SEEDS", (0, 1))
    monkeypatch.setattr(ship_text, "EVERY", 3)
    monkeypatch.setattr("sys.argv", ["ship_text"])
    monkeypatch.setattr(ship_text, "INCLUDED", runs.parent / "models")
    return ship_text.INCLUDED


def test_a_model_worse_than_the_5_gram_models_is_not_shipped(shop):
    with pytest.raises(SystemExit, match="5-gram"):
        ship_text.main()
    assert not shop.exists()


def test_seed_0_is_shipped_with_tokenizer_configuration_log_and_card(shop, runs, monkeypatch):
    monkeypatch.setattr(ship_text, "by_ngrams", lambda: {"bytes": 99.0, "tokens": 99.0})
    ship_text.main()
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/model.safetensors")}
    assert len(before) == 4
    ship_text.main()
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/model.safetensors")} == before
    for preset, kind in ship_text.SHIPPED.items():
        language = writing.load_language(shop / preset)
        card = json.loads((shop / preset / "card.json").read_text())
        assert (language.config.model.kind, language.config.seed) == (kind, 0)
        weights = load_tensors(shop / preset / "model.safetensors")[0]
        assert {value.dtype for value in weights.values()} == {torch.float16}
        assert {*card["seeds"]} == {"0", "1"}
        assert card["ngram_bits_per_byte"] == {"bytes": 99.0, "tokens": 99.0}
        data, learner = load_data(language.config.data)["test"], load_learner(shop / preset)
        losses = position_losses(learner, data.whole(), 0)
        assert losses.isnan().sum() == (data.whole()[:, 1:] == data.ignore).sum() > 0
        assert float(losses.double().nanmean().exp()) == pytest.approx(card["seeds"]["0"]["value"], rel=1e-5)
        assert [row["update"] for row in log_of(shop / preset)] == [2, 3, 4]


def test_a_run_of_another_corpus_or_version_is_not_reused(shop, runs):
    first = train(ship_text.load_config("text", ["seed=0", "run.logger=none"]), runs, progress=False)
    digest = json.loads((first / "result.json").read_text())["data_digests"]["corpus"]
    (runs / "000").mkdir()
    (runs / "000" / "config.json").write_text(json.dumps({"nothing": 1}))
    assert ship_text.finished("text", 0, runs, digest) == first
    assert ship_text.finished("text", 0, runs, "another") not in (first, runs / "000")
