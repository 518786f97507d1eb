"""Splits, shards that survive interruptions, windows that count every token once, perplexity."""

import math
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_text import LINES, texts_of, write_lines

from ebwm.data import text
from ebwm.data import tokenizer as tokenizers
from ebwm.data.cache import SPLITS
from ebwm.data.text import TextDataset, perplexity, text_corpus
from ebwm.data.tokenizer import Tokenizer


@pytest.fixture
def corpus(tmp_path):
    """A file of sixty texts."""
    return write_lines(tmp_path / "texts.jsonl", [f"{n}: {LINES * (n % 7)}" for n in range(60)])


def test_no_text_is_in_two_splits(tmp_path):
    source = write_lines(tmp_path / "texts.jsonl", [f"text {n % 300}" for n in range(900)])
    found = [texts_of(text_corpus(source, split, length=8, held_out=0.2, cache=tmp_path)) for split in SPLITS]
    different = [{*part} for part in found]
    assert sum(map(len, found)) == 900
    assert sum(map(len, different)) == len(set.union(*different)) == 300
    assert all(40 < len(part) < 80 for part in different[1:])


def test_a_larger_share_includes_a_smaller_one_and_a_seed_changes_both():
    bodies = [f"text {n}" for n in range(2000)]
    small, large, other = ([text._split_of(body, share, seed) == "valid" for body in bodies]
                           for share, seed in ((0.05, 0), (0.1, 0), (0.05, 1)))
    assert all(b for a, b in zip(small, large, strict=True) if a) and small != other
    assert 60 < sum(small) < 140 and 150 < sum(large) < 250


def test_one_document_is_cut_by_position(tmp_path):
    body = "".join(f"{n:05d}\n" for n in range(5000))
    (tmp_path / "one.txt").write_text(body)
    make = lambda split: text_corpus(tmp_path / "one.txt", split, length=64, cache=tmp_path)
    (train,), (valid,), (test,) = (texts_of(make(split)) for split in SPLITS)
    assert train + valid + test == body and [*map(len, (train, valid, test))] == [27000, 1500, 1500]


def test_an_interrupted_corpus_resumes_after_its_last_shard(corpus, tmp_path, monkeypatch):
    encoded, encode, stop = [], Tokenizer.encode_batch, iter([KeyboardInterrupt])

    def interrupted(self, rows):
        if len(encoded) > 20 and (error := next(stop, None)):
            raise error
        encoded.extend(rows)
        return encode(self, rows)

    monkeypatch.setattr(text, "SHARD", 8)
    whole = text_corpus(corpus, length=16, cache=tmp_path / "a")
    monkeypatch.setattr(Tokenizer, "encode_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        text_corpus(corpus, length=16, cache=tmp_path / "b")
    done = 8 * len([*(tmp_path / "b").rglob("0*.json")])
    encoded.clear()
    again = text_corpus(corpus, length=16, cache=tmp_path / "b")
    assert len(encoded) == 60 - done and 0 < done < 60 and again.digest == whole.digest
    contents = [{p.name: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()} for name in "ab"]
    assert contents[0] == contents[1]
    encoded.clear()
    assert text_corpus(corpus, "valid", length=16, cache=tmp_path / "b").tokens and encoded == []


def test_two_processes_at_once(corpus, tmp_path):
    make = partial(text_corpus, corpus, length=16, tokenizer="train:280")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        whole = pool.submit(make, cache=tmp_path / "b").result().digest  # has imported all it needs
        other = pool.submit(make, cache=tmp_path / "a")
        assert make(cache=tmp_path / "a").digest == other.result().digest == whole


def test_a_tokenizer_is_trained_once_and_on_the_training_split_only(corpus, tmp_path, monkeypatch):
    seen, train = [], tokenizers._trained
    watch = lambda spec, texts: seen.append([*texts]) or train(spec, seen[-1])
    monkeypatch.setattr(tokenizers, "_trained", watch)
    first, second = (text_corpus(corpus, length=16, tokenizer="train:280", held_out=0.2, cache=tmp_path)
                     for _ in range(2))
    assert seen == [texts_of(first)] and len(seen[0]) < 60
    assert first.tokenizer.digest == second.tokenizer.digest and first.tokenizer.name == "train:280"
    monkeypatch.setattr(text, "TRAINING_CHARACTERS", 100)
    texts = text._training_texts([("train", "a" * 60), ("valid", "b"), ("train", "c" * 60), ("train", "d")])
    assert "".join(texts) == "a" * 60 + "c" * 40


@given(st.text(alphabet="ab\n", max_size=40), st.integers(1, 9))
def test_long_texts_are_cut_at_lines_without_loss(body, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE", piece)
        patch.setattr(text, "BATCH", 3)
        *others, last = text._pieces(body)
        assert "".join(part for part, _ in others) + last[0] == body
        assert last[1] and all(not ends and (part.endswith("\n") or "\n" not in part) for part, ends in others)
        assert text._tokens([body, body], Tokenizer()).tolist() == [*body.encode(), 256] * 2
        patch.setattr(Tokenizer, "vocabulary", 2**16 + 1)
        assert text._tokens(["a"], Tokenizer()).dtype == np.uint32


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(bodies=st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=12), length=st.integers(1, 20),
       shard=st.integers(1, 5))
def test_every_token_is_a_target_exactly_once(bodies, length, shard, tmp_path_factory):
    folder, stream = tmp_path_factory.mktemp("windows"), [t for body in bodies for t in [*body.encode(), 256]]
    source = write_lines(folder / "texts.jsonl", bodies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "SHARD", shard)
        if len(stream) < length + 1:
            with pytest.raises(ValueError, match="source="):
                text_corpus(source, length=length, held_out=0, cache=folder)
            return
        dataset = text_corpus(source, length=length, held_out=0, cache=folder)
    windows = dataset.whole()
    targets = windows[:, 1:]
    assert targets[targets != dataset.ignore].tolist() == stream[1:]
    assert windows[0, 0] == stream[0] and torch.equal(windows[1:, 0], windows[:-1, -1])
    assert texts_of(dataset) == bodies
    assert torch.equal(windows, torch.stack([dataset[n] for n in range(len(dataset))]))
    assert len(windows) == math.ceil((len(stream) - 1) / length) and windows.max() < dataset.vocabulary


def test_one_window_per_document(tmp_path):
    source = write_lines(tmp_path / "texts.jsonl", ["a", "bc", "defgh", "ijklmnop"])
    dataset = text_corpus(source, packing="documents", length=4, held_out=0, cache=tmp_path)
    assert dataset.ignore == dataset.tokenizer.end
    assert [dataset.tokenizer.decode(window) for window in dataset.whole()] == ["bc", "defgh", "ijklm"]
    assert dataset[0].tolist() == [*b"bc", 256, 256, 256] and torch.equal(dataset[-1], dataset.whole()[-1])


def test_windows_are_read_from_the_disk_and_not_copied(corpus, tmp_path):
    dataset = text_corpus(corpus, length=16, cache=tmp_path)
    assert (len(dataset.whole(3)), len(dataset.whole(10**9))) == (3, len(dataset))
    assert isinstance(text._mapped(dataset.stream.parts[0][0]), np.memmap)
    copy = pickle.dumps(dataset)
    assert len(copy) < len(dataset.stream) / 4 and pickle.loads(copy).digest == dataset.digest


def test_digests_distinguish_data_sets(corpus, tmp_path):
    make = lambda **changes: text_corpus(corpus, cache=tmp_path, **dict(length=16) | changes)
    first, *others = (make(**changes) for changes in [
        {}, {"split": "valid"}, {"seed": 1}, {"length": 8}, {"tokenizer": "train:280"}, {"packing": "documents"},
        {"documents": 50}])
    changed = type("Changed", (Tokenizer,), {"_json": lambda self: "another tokenizer with the same tokens"})()
    digests = [other.digest for other in (*others, TextDataset(first.stream, changed, 16))]
    assert make().digest == first.digest and len({first.digest, *digests}) == 8
    assert {other.corpus_digest for other in others[:-1]} == {first.corpus_digest} != {others[-1].corpus_digest}
    write_lines(corpus, [f"{n}, changed" for n in range(60)])
    assert make().corpus_digest != first.corpus_digest and "changed" in texts_of(make())[0]


def test_perplexity_of_known_losses():
    assert perplexity(torch.full((4, 5), math.log(6.0)).double()).value == pytest.approx(6.0)
    losses = torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    found = perplexity(losses, torch.tensor([[1, 3], [2, 99]]))
    error, bits_error = math.hypot(3 - 2 * 2, 3 - 2 * 1), math.hypot(3 - 4, 3 - 2)  # of the sums of windows
    assert found == pytest.approx((math.exp(2), math.exp(2) * error * 2**0.5 / 3, 1 / math.log(2),
                                   bits_error * 2**0.5 / 6 / math.log(2), 3))
    assert perplexity(losses).bits_per_byte is None
    assert perplexity(torch.full((2, 3), 800.0)).value == math.inf
    one = perplexity(torch.tensor([[1.0, 3.0]]), torch.tensor([[1, 0]]))
    assert (one.value, one.tokens) == (pytest.approx(math.exp(2.0)), 2) and math.isnan(one.error)

@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_documents_are_cut_by_position_if_their_hashes_leave_a_split_small(tmp_path, count):
    bodies = [f"{n} " * 400 for n in range(count)]
    source = write_lines(tmp_path / "few.jsonl", bodies)
    for seed in range(4):
        make = lambda split, seed=seed: text_corpus(source, split, length=16, seed=seed, cache=tmp_path)
        parts = [texts_of(make(split)) for split in SPLITS]
        assert sorted(map("".join, zip(*parts, strict=True))) == sorted(bodies)
        assert [len(part[0]) for part in parts] == [720, 40, 40]


def test_a_held_out_split_may_be_shorter_than_a_window(tmp_path):
    (tmp_path / "short.txt").write_text("0123456789" * 10)
    valid = text_corpus(tmp_path / "short.txt", "valid", length=32, cache=tmp_path)
    assert valid.whole().shape == (1, 33) and texts_of(valid) == ["01234"]
