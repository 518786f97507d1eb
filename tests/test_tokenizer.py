"""Bytes and byte-pair encodings: lossless, safe ends, unusable files refused."""

import json
import pickle
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_text import LINES

from ebwm.data.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizers():
    return {"byte": Tokenizer(), "trained": load_tokenizer("train:300", [LINES * 3])}


@pytest.mark.parametrize("kind", ["byte", "trained"])
@given(body=st.text())
def test_any_text_survives_encoding(kind, tokenizers, body):
    tokenizer = tokenizers[kind]
    tokens = tokenizer.encode(body)
    assert tokenizer.decode(tokens) == tokenizer.decode([*tokens, tokenizer.end]) == body
    assert tokenizer.bytes[tokens].sum() == len(body.encode())
    assert not {tokenizer.end, tokenizer.pad} & {*tokens}


def test_invalid_text_and_bytes_are_replaced():
    tokenizer = Tokenizer()
    assert (tokenizer.vocabulary, tokenizer.end) == (257, 256)
    assert tokenizer.decode(torch.tensor([104, 255, 105])) == "h\ufffdi"
    assert tokenizer.encode("\ud800") == [*b"?"]


def test_a_trained_tokenizer_is_shorter_and_reproducible(tokenizers):
    trained = tokenizers["trained"]
    assert (trained.vocabulary, len(trained.bytes), trained.bytes[trained.end]) == (300, 300, 0)
    assert len(trained.encode(LINES)) < len(LINES) / 2
    assert load_tokenizer("train:300", [LINES * 3]).digest == trained.digest
    assert load_tokenizer("train:299", [LINES * 3]).digest != trained.digest


def test_characters_of_a_text_never_end_it(tokenizers):
    trained = tokenizers["trained"]
    tokens = trained.encode("one<|endoftext|>two")
    assert trained.end not in tokens and trained.decode(tokens) == "one<|endoftext|>two"
    copy = pickle.loads(pickle.dumps(trained))
    assert copy.encode("<|endoftext|>") == trained.encode("<|endoftext|>") and copy.digest == trained.digest


@pytest.mark.parametrize("kind", ["byte", "trained"])
def test_a_saved_tokenizer_is_the_same(kind, tokenizers, tmp_path):
    tokenizer = tokenizers[kind]
    tokenizer.save(tmp_path / "saved.json")
    loaded = load_tokenizer(tmp_path / "saved.json")
    assert loaded.digest == tokenizer.digest and loaded.encode(LINES) == tokenizer.encode(LINES)
    assert torch.equal(loaded.bytes, tokenizer.bytes)


@pytest.mark.parametrize("change", [
    lambda card: "no json",
    lambda card: json.dumps(card | {"decoder": {"type": "Fuse"}}),
    lambda card: json.dumps(card | {"added_tokens": []}),
])
def test_unusable_tokenizer_files_are_refused(change, tokenizers, tmp_path):
    (tmp_path / "odd.json").write_text(change(json.loads(tokenizers["trained"]._json())))
    with pytest.raises(ValueError, match=r"tokenizer='odd.json'"):
        load_tokenizer(tmp_path / "odd.json")


def test_the_papers_tokenizer(real_data):
    tokenizer = load_tokenizer(real_data / "text" / "gpt_neox_20b_tokenizer.json")
    body = (real_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    assert (tokenizer.vocabulary, tokenizer.decode([tokenizer.end])) == (50277, "")
    assert tokenizer.model.id_to_token(tokenizer.end) == "<|endoftext|>"
    for text in (body, "  12   spaces            here\t\n\n", "Größe 漢字 🙂", "<|endoftext|><|padding|>"):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == unicodedata.normalize("NFC", text)
        assert tokenizer.bytes[tokens].sum() == len(text.encode())
        assert not {tokenizer.end, tokenizer.pad} & {*tokens}
