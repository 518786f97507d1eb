"""Bytes and byte-pair encodings: lossless, safe ends, unusable files refused."""

import json
import pickle
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_text import LINES

from ebwm.data import tokenizer as tokenizer_module
from ebwm.data.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def trained():
    return load_tokenizer("train:300", [LINES * 3])


def assert_lossless(tokenizer, text, decoded):
    """Tokens decode to a text, have its bytes, and are neither `end` nor `pad`."""
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == tokenizer.decode([*tokens, tokenizer.end]) == decoded
    assert tokenizer.bytes[tokens].sum() == len(text.encode())
    assert not {tokenizer.end, tokenizer.pad} & {*tokens}


@given(text=st.text())
def test_any_text_survives_encoding(trained, text):
    for tokenizer in (Tokenizer(), trained):
        assert_lossless(tokenizer, text, text)


def test_invalid_text_and_bytes_are_replaced():
    tokenizer = Tokenizer()
    assert (tokenizer.vocabulary, tokenizer.end) == (257, 256)
    assert tokenizer.decode(torch.tensor([104, 255, 105])) == "h\ufffdi"
    assert tokenizer.encode("\ud800") == [*b"?"]


def test_a_trained_tokenizer_is_shorter_and_reproducible(trained):
    assert (trained.vocabulary, len(trained.bytes), trained.bytes[trained.end]) == (300, 300, 0)
    assert len(trained.encode(LINES)) < len(LINES) / 2
    assert load_tokenizer("train:300", [LINES * 3]).digest == trained.digest
    assert load_tokenizer("train:299", [LINES * 3]).digest != trained.digest


@pytest.mark.parametrize("text, parts", [("a b\n" * 3000, 1), ("x" * 10_000, 3), ("a " + " " * 4096 + "b", 2), ("", 1)])
def test_long_words_are_cut_for_training_and_nothing_else_is(text, parts):
    found = list(tokenizer_module._cut(text))
    assert "".join(found) == text and len(found) == parts


def test_a_saved_or_copied_tokenizer_is_the_same_and_characters_of_a_text_never_end_it(trained, tmp_path):
    for tokenizer in (Tokenizer(), trained):
        tokenizer.save(tmp_path / "saved.json")
        for same in (load_tokenizer(tmp_path / "saved.json"), pickle.loads(pickle.dumps(tokenizer))):
            assert same.digest == tokenizer.digest and torch.equal(same.bytes, tokenizer.bytes)
            assert_lossless(same, "one<|endoftext|>two", "one<|endoftext|>two")


@pytest.mark.parametrize("change", [
    lambda card: "no json",
    lambda card: json.dumps(card | {"decoder": {"type": "Fuse"}}),
    lambda card: json.dumps(card | {"added_tokens": []}),
])
def test_unusable_tokenizer_files_are_refused(change, trained, tmp_path):
    (tmp_path / "odd.json").write_text(change(json.loads(trained._json())))
    with pytest.raises(ValueError, match=r"tokenizer='odd.json'"):
        load_tokenizer(tmp_path / "odd.json")


def test_the_papers_tokenizer(real_data):
    tokenizer = load_tokenizer(real_data / "text" / "gpt_neox_20b_tokenizer.json")
    body = (real_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    assert (tokenizer.vocabulary, tokenizer.decode([tokenizer.end])) == (50277, "")
    assert tokenizer.model.id_to_token(tokenizer.end) == "<|endoftext|>"
    for text in (body, "  12   spaces            here\t\n\n", "Größe 漢字 🙂", "<|endoftext|><|padding|>"):
        assert_lossless(tokenizer, text, unicodedata.normalize("NFC", text))
