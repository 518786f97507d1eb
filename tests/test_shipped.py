"""The shipped language models: they load, generate text, and score as on their cards."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import ship_text
from ebwm import cli
from ebwm.data.text import text_corpus
from ebwm.saving import load_tensors
from ebwm.training.configuration import differences
from ebwm.training.presets import load_config

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "ebwm" / "models"
CARDS = {preset: json.loads((SHIPPED / preset / "card.json").read_text()) for preset in ship_text.SHIPPED}
presets = pytest.mark.parametrize("preset", CARDS)


@pytest.fixture
def corpus():
    """Skips if Python's documentation is another text than that of the cards."""
    card = CARDS["text"]
    if card["corpus_digest"] != text_corpus("python", "test").corpus_digest:
        pytest.skip(f"this Python's documentation is another text than Python {card['python']}'s")


@presets
def test_it_is_the_preset_at_seed_0_small_and_complete(preset):
    files = {path.name: path.stat().st_size for path in (SHIPPED / preset).iterdir()}
    assert {*files} == {"model.safetensors", "config.json", "tokenizer.json", "log.jsonl", "card.json"}
    assert sum(files.values()) < 4 * 2**20
    tensors, _ = load_tensors(SHIPPED / preset / "model.safetensors")
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in tensors.values())
    config, wanted = load_config(str(SHIPPED / preset / "config.json")), load_config(preset, ["run.logger=none"])
    assert not differences(config, wanted) and wanted.seed == 0
    last = (SHIPPED / preset / "log.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["update"] == wanted.optimiser.updates
    assert CARDS[preset]["preset"] == preset and {*CARDS[preset]["seeds"]} == {"0", "1", "2"}


@pytest.mark.slow
@presets
def test_it_scores_as_on_its_card(preset, corpus):
    score = ship_text.scored(SHIPPED / preset)
    assert score["bits_per_byte"] == pytest.approx(CARDS[preset]["seeds"]["0"]["bits_per_byte"], rel=1e-3)


@presets
def test_it_generates_text(preset, capsys):
    chosen = [] if preset == "text" else ["--model", preset]
    assert cli.main(["generate", "Return a new", "--tokens", "12", "--temperature", "0", *chosen]) == 0
    written = capsys.readouterr().out
    assert written.startswith("Return a new") and len(written) > len("Return a new") + 12


def test_the_5_gram_models_score_as_on_the_card(corpus):
    assert ship_text.by_ngrams() == pytest.approx(CARDS["text"]["ngram_bits_per_byte"], rel=1e-9)


def test_the_ebt_beats_both_5_gram_models_and_the_pages_have_the_scores_of_the_cards():
    ngrams = CARDS["text"]["ngram_bits_per_byte"]
    assert all(score["bits_per_byte"] < min(ngrams.values()) for score in CARDS["text"]["seeds"].values())
    guide, data = ((ROOT / name).read_text(encoding="utf-8") for name in ("nbs/guides/text.md", "data/README.md"))
    first = [CARDS[preset]["seeds"]["0"]["bits_per_byte"] for preset in ("text", "text_transformer")]
    assert all(f"{value:.2f}" in guide for value in (*first, min(ngrams.values())))
    for preset, card in CARDS.items():
        scores = " | ".join(f"{s['bits_per_byte']:.3f} ({s['value']:.1f})" for s in card["seeds"].values())
        assert [line for line in data.splitlines() if f"`{preset}`" in line and line.endswith(f"{scores} |")]
        assert card["corpus_digest"][:12] in data
    assert all(f"{value:.3f} |" in data for value in ngrams.values())
