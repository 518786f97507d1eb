"""The shipped language models: they load, generate text, and score as on their cards."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import ship_text
from ebwm import cli
from ebwm.data.text import text_corpus
from ebwm.training.checkpoint import load_tensors
from ebwm.training.configuration import differences
from ebwm.training.presets import load_config

SHIPPED = Path(__file__).parent.parent / "data" / "checkpoints"
MIB = 2**20


def card_of(preset):
    return json.loads((SHIPPED / preset / "card.json").read_text())


def card_of_this_text(preset):
    """A card whose scores can be computed here; skips if Python's documentation differs."""
    card = card_of(preset)
    if card["corpus_digest"] != text_corpus("python", "test").corpus_digest:
        pytest.skip(f"this Python's documentation is another text than Python {card['python']}'s")
    return card


@pytest.mark.parametrize("preset", ship_text.SHIPPED)
class TestShipped:
    def test_it_is_small_complete_and_finite(self, preset):
        files = {path.name: path.stat().st_size for path in (SHIPPED / preset).iterdir()}
        assert {*files} == {"model.safetensors", "config.json", "tokenizer.json", "log.jsonl", "card.json"}
        assert sum(files.values()) < 4 * MIB
        tensors, _ = load_tensors(SHIPPED / preset / "model.safetensors")
        assert all(value.dtype == torch.float16 and value.isfinite().all() for value in tensors.values())

    def test_it_is_the_preset_at_seed_0(self, preset):
        config = load_config(str(SHIPPED / preset / "config.json"))
        wanted = load_config(preset, ["seed=0", "run.logger=none"])
        assert not differences(config, wanted)

    def test_its_log_and_card_are_of_the_preset(self, preset):
        rows = [json.loads(line) for line in (SHIPPED / preset / "log.jsonl").read_text().splitlines()]
        config = load_config(preset)
        assert rows[-1]["update"] == config.optimiser.updates
        assert card_of(preset)["preset"] == preset and {*card_of(preset)["seeds"]} == {"0", "1", "2"}

    def test_it_scores_as_on_its_card(self, preset):
        card = card_of_this_text(preset)
        score = ship_text.scored(SHIPPED / preset)
        assert score["bits_per_byte"] == pytest.approx(card["seeds"]["0"]["bits_per_byte"], rel=1e-3)

    def test_it_generates_text(self, preset, capsys):
        words = ["Return a new", "--tokens", "12", "--temperature", "0"]
        chosen = [] if preset == "text" else ["--model", preset]
        assert cli.main(["generate", *words, *chosen]) == 0
        written = capsys.readouterr().out
        assert written.startswith("Return a new") and len(written) > len("Return a new") + 12


def test_the_ebt_beats_both_5_gram_models_at_every_seed():
    card = card_of("text")
    bar = min(card["ngram_bits_per_byte"].values())
    assert all(score["bits_per_byte"] < bar for score in card["seeds"].values())


def test_the_5_gram_models_score_as_on_the_card():
    card = card_of_this_text("text")
    assert ship_text.by_ngrams() == pytest.approx(card["ngram_bits_per_byte"], rel=1e-9)


