"""Bytes and learnt pieces: any text comes back, letters never end it, bad files are refused."""

import json
import pickle
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_text import LINES

from ebwm.data.tokenizer import Tokenizer, load_tokenizer


@given(st.text())
def test_bytes_round_trip_any_text(body):
    tokenizer = Tokenizer()
    tokens = tokenizer.encode(body)
    assert tokenizer.decode(tokens) == tokenizer.decode([*tokens, tokenizer.end]) == body
    assert tokenizer.bytes[tokens].sum() == len(body.encode())
    assert not {tokenizer.end, tokenizer.pad} & {*tokens}


def test_bytes_that_are_no_text():
    tokenizer = Tokenizer()
    assert (tokenizer.vocabulary, tokenizer.end) == (257, 256)
    assert tokenizer.decode(torch.tensor([104, 255, 105])) == "h\ufffdi"
    assert tokenizer.encode("\ud800") == [*b"?"]


@pytest.fixture(scope="module")
def trained():
    return load_tokenizer("train:300", [LINES * 3])


@given(st.text())
def test_pieces_round_trip_any_text(trained, body):
    tokens = trained.encode(body)
    assert trained.decode(tokens) == trained.decode([*tokens, trained.end]) == body
    assert trained.bytes[tokens].sum() == len(body.encode())
    assert not {trained.end, trained.pad} & {*tokens}


def test_trained_pieces(trained):
    assert (trained.vocabulary, len(trained.bytes), trained.bytes[trained.end]) == (300, 300, 0)
    assert len(trained.encode(LINES)) < len(LINES) / 2
    assert load_tokenizer("train:300", [LINES * 3]).digest == trained.digest
    assert load_tokenizer("train:299", [LINES * 3]).digest != trained.digest


def test_letters_of_a_text_never_end_it(trained):
    tokens = trained.encode("one<|endoftext|>two")
    assert trained.end not in tokens and trained.decode(tokens) == "one<|endoftext|>two"
    copy = pickle.loads(pickle.dumps(trained))
    assert copy.encode("<|endoftext|>") == trained.encode("<|endoftext|>") and copy.digest == trained.digest


@pytest.mark.parametrize("spec", ["byte", "train:280"])
def test_a_saved_tokenizer_is_the_same(spec, tmp_path):
    tokenizer = load_tokenizer(spec, [LINES])
    tokenizer.save(tmp_path / "mine.json")
    loaded = load_tokenizer(tmp_path / "mine.json")
    assert loaded.digest == tokenizer.digest
    assert loaded.encode(LINES) == tokenizer.encode(LINES)
    assert torch.equal(loaded.bytes, tokenizer.bytes)


@pytest.mark.parametrize(("spec", "error", "message"), [
    ("train:256", ValueError, "V from 257"), ("train:many", ValueError, "it must be train:V"),
    ("train:400", ValueError, r"the texts give 2\d\d tokens; take train:2\d\d or less"),
    ("bytes", FileNotFoundError, "tokenizer='bytes' is no file"),
    ("mine/none.json", FileNotFoundError, "tokenizer='mine/none.json' is no file"),
])
def test_tokenizers_that_cannot_be(spec, error, message):
    with pytest.raises(error, match=message):
        load_tokenizer(spec, ["a small text of small words"])
    with pytest.raises(ValueError, match="needs texts"):
        load_tokenizer("train:300")


@pytest.mark.parametrize(("change", "message"), [
    (lambda card: "no json", "cannot be read"),
    (lambda card: json.dumps(card | {"decoder": {"type": "Fuse"}}), "is not byte-level"),
    (lambda card: json.dumps(card | {"added_tokens": []}), "has no special token that ends a text"),
])
def test_tokenizer_files_that_cannot_be_used(change, message, trained, tmp_path):
    (tmp_path / "odd.json").write_text(change(json.loads(trained._json())))
    with pytest.raises(ValueError, match=f"tokenizer='odd.json'.*{message}"):
        load_tokenizer(tmp_path / "odd.json")


def test_the_papers_tokenizer(real_data):
    tokenizer = load_tokenizer(real_data / "text" / "gpt_neox_20b_tokenizer.json")
    body = (real_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    assert (tokenizer.vocabulary, tokenizer.decode([tokenizer.end])) == (50277, "")
    assert tokenizer.model.id_to_token(tokenizer.end) == "<|endoftext|>"
    tokens = tokenizer.encode(body)
    assert tokenizer.decode(tokens) == body
    assert tokenizer.bytes[tokens].sum() == len(body.encode())
    for odd in ("  12   spaces            here\t\n\n", "Übergröße 漢字 🙂", "<|endoftext|><|padding|>"):
        tokens = tokenizer.encode(odd)
        assert tokenizer.decode(tokens) == unicodedata.normalize("NFC", odd)
        assert tokenizer.bytes[tokens].sum() == len(odd.encode())
        assert not {tokenizer.end, tokenizer.pad} & {*tokens}
