"""Splits, shards that survive faults, windows that count every token once, perplexity."""

import json
import math
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_text import LINES, texts_of, write_lines

from ebwm.data import text
from ebwm.data import tokenizer as tokenizers
from ebwm.data.documents import documents
from ebwm.data.text import SPLITS, perplexity, text_corpus
from ebwm.data.tokenizer import Tokenizer
from ebwm.objective import cross_entropy
from ebwm.settings import generator


@pytest.fixture
def corpus(tmp_path):
    """A file of sixty texts."""
    return write_lines(tmp_path / "texts.jsonl", [f"{n}: {LINES * (n % 7)}" for n in range(60)])


# Splits


def test_no_text_is_in_two_splits(tmp_path):
    source = write_lines(tmp_path / "texts.jsonl", [f"text {n % 300}" for n in range(900)])
    make = lambda split: text_corpus(source, split, length=8, held_out=0.2, cache=tmp_path)
    found = {split: texts_of(make(split)) for split in SPLITS}
    assert sum(map(len, found.values())) == 900
    assert sum(len({*part}) for part in found.values()) == len(set().union(*found.values())) == 300
    assert all(40 < len({*found[split]}) < 80 for split in ("valid", "test"))


def test_a_larger_share_keeps_what_was_held_out_and_a_seed_changes_it():
    bodies = [f"text {n}" for n in range(2000)]
    small, large, other = ([text._split_of(body, share, seed) == "valid" for body in bodies]
                           for share, seed in ((0.05, 0), (0.1, 0), (0.05, 1)))
    assert all(b for a, b in zip(small, large, strict=True) if a) and small != other
    assert 60 < sum(small) < 140 and 150 < sum(large) < 250


def test_one_document_is_cut_by_position(tmp_path):
    body = "".join(f"{n:05d}\n" for n in range(5000))
    source = tmp_path / "one.txt"
    source.write_text(body)
    parts = [texts_of(text_corpus(source, split, length=64, cache=tmp_path)) for split in SPLITS]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert "".join(part for part, in parts) == body and [len(part) for part, in parts] == [27000, 1500, 1500]


# Shards


@pytest.fixture
def small_shards(monkeypatch):
    """Eight documents in a shard; `encoded` says what was tokenised."""
    encoded, encode = [], Tokenizer.encode_batch
    monkeypatch.setattr(text, "SHARD", 8)
    watched = lambda self, rows: encoded.extend(rows) or encode(self, rows)
    monkeypatch.setattr(Tokenizer, "encode_batch", watched)
    return encoded


def shards_of(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.rglob("*") if path.is_file()}


def test_an_interrupted_corpus_goes_on_from_its_last_shard(corpus, small_shards, tmp_path, monkeypatch):
    whole = text_corpus(corpus, length=16, cache=tmp_path / "a")
    assert len(small_shards) == 60
    small_shards.clear()
    count, encode = iter(range(100)), Tokenizer.encode_batch

    def fail(self, rows):
        if next(count) == 10:
            raise KeyboardInterrupt
        return encode(self, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Tokenizer, "encode_batch", fail)
        text_corpus(corpus, length=16, cache=tmp_path / "b")
    done = sum(json.loads(path.read_text())["documents"] for path in (tmp_path / "b").rglob("0*.json"))
    assert 0 < done < 60
    small_shards.clear()
    again = text_corpus(corpus, length=16, cache=tmp_path / "b")
    assert len(small_shards) == 60 - done
    assert shards_of(tmp_path / "a") == shards_of(tmp_path / "b") and again.digest == whole.digest
    small_shards.clear()
    for split in SPLITS:
        text_corpus(corpus, split, length=16, cache=tmp_path / "b", held_out=0.05)
    assert small_shards == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [
    lambda folder: flip(folder / "00002.npy"),
    lambda folder: (folder / "00002.npy").write_bytes(b""),
    lambda folder: (folder / "00002.npy").unlink(),
    lambda folder: (folder / "00002.npy").write_bytes((folder / "00003.npy").read_bytes()),
    lambda folder: [(folder / f"00002{end}").write_bytes((folder / f"00003{end}").read_bytes())
                    for end in (".npy", ".json")],
])
def test_a_broken_or_foreign_shard_is_made_again(spoil, corpus, small_shards, tmp_path):
    whole = text_corpus(corpus, length=16, cache=tmp_path / "a")
    before, digest = shards_of(tmp_path / "a"), whole.digest
    small_shards.clear()
    spoil(next((tmp_path / "a").rglob("00002.npy")).parent)
    assert text_corpus(corpus, length=16, cache=tmp_path / "a").digest == digest
    assert len(small_shards) == 8 and shards_of(tmp_path / "a") == before


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"shards": [3]}', "first"])
def test_a_broken_card_of_the_corpus_is_written_anew(content, corpus, small_shards, tmp_path):
    digest = text_corpus(corpus, length=16, cache=tmp_path).digest
    small_shards.clear()
    card = next(tmp_path.rglob("corpus.json"))
    known = json.loads(card.read_text())
    fewer = dict(known, shards=known["shards"][:1])
    card.write_text(json.dumps(fewer) if content == "first" else content)
    assert text_corpus(corpus, length=16, cache=tmp_path).digest == digest and small_shards == []


def test_a_changed_source_is_tokenised_anew(corpus, tmp_path):
    before = text_corpus(corpus, length=16, cache=tmp_path)
    write_lines(corpus, [f"{n}, changed" for n in range(60)])
    after = text_corpus(corpus, length=16, cache=tmp_path)
    assert before.corpus_digest != after.corpus_digest and "changed" in texts_of(after)[0]


def digest_of(source: Path, cache: Path, spec: str, results) -> None:
    results.put(text_corpus(source, length=16, tokenizer=spec, cache=cache).digest)


@pytest.mark.parametrize("spec", ["byte", "train:280"])
def test_two_processes_at_once(spec, corpus, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    job = (corpus, tmp_path / "a", spec, results)
    workers = [context.Process(target=digest_of, args=job) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join()
    assert found == {text_corpus(corpus, length=16, tokenizer=spec, cache=tmp_path / "b").digest}


def test_a_trained_tokenizer_sees_the_training_split_alone(corpus, tmp_path, monkeypatch):
    seen, train = [], tokenizers._trained

    def watch(spec, texts):
        seen.append([*texts])
        return train(spec, seen[-1])

    monkeypatch.setattr(tokenizers, "_trained", watch)
    first, second = (text_corpus(corpus, length=16, tokenizer="train:280", held_out=0.2, cache=tmp_path)
                     for _ in range(2))
    assert seen == [texts_of(first)] and len(seen[0]) < 60
    assert first.tokenizer.digest == second.tokenizer.digest and first.tokenizer.name == "train:280"
    monkeypatch.setattr(text, "LESSONS", 100)
    lessons = text._lessons([("train", "a" * 60), ("valid", "b"), ("train", "c" * 60), ("train", "d")])
    assert "".join(lessons) == "a" * 60 + "c" * 40


def test_a_large_vocabulary_takes_four_bytes(corpus, tmp_path, monkeypatch):
    text_corpus(corpus, length=16, cache=tmp_path)
    assert [np.load(path).dtype for path in tmp_path.rglob("*.npy")] == [np.dtype(np.uint16)]
    monkeypatch.setattr(Tokenizer, "vocabulary", 2**16 + 1)
    assert text._tokens(["a"], Tokenizer()).dtype == np.uint32


@given(st.text(alphabet="ab\n", max_size=40), st.integers(1, 9))
def test_long_texts_are_cut_at_lines_and_lose_nothing(body, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PIECE", piece)
        patch.setattr(text, "BATCH", 3)
        found = [*text._cuts(body)]
        assert "".join(part for part, _ in found) == body
        assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
        assert all(part.endswith("\n") or "\n" not in part for part, _ in found[:-1])
        assert text._tokens([body, body], Tokenizer()).tolist() == ([*body.encode(), 256] * 2)


# Windows


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(bodies=st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=12), length=st.integers(1, 20),
       shard=st.integers(1, 5))
def test_every_token_is_a_target_exactly_once(bodies, length, shard, tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    source = write_lines(folder / "texts.jsonl", bodies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "SHARD", shard)
        try:
            dataset = text_corpus(source, length=length, held_out=0, cache=folder)
        except ValueError as error:
            assert "a window needs" in str(error) and len("".join(bodies).encode()) + len(bodies) < length + 1
            return
    stream = [token for body in bodies for token in [*body.encode(), 256]]
    windows = dataset.whole()
    targets = windows[:, 1:]
    assert targets[targets != dataset.ignore].tolist() == stream[1:]
    assert windows[0, 0] == stream[0] and torch.equal(windows[1:, 0], windows[:-1, -1])
    assert texts_of(dataset) == bodies
    assert torch.equal(windows, torch.stack([dataset[n] for n in range(len(dataset))]))
    assert len(windows) == math.ceil((len(stream) - 1) / length) and windows.max() < dataset.vocabulary


def test_padded_targets_do_not_count_in_the_loss_and_real_ends_do(corpus, tmp_path):
    dataset = text_corpus(corpus, length=100, cache=tmp_path)
    last = dataset[len(dataset) - 1]
    targets = last[1:]
    padded = int((targets == dataset.ignore).sum())
    assert padded and targets[-padded - 1] == dataset.tokenizer.end
    logits = torch.randn(100, 257, generator=generator(0, "logits"))
    rows = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets, dataset.ignore), rows[:-padded].mean())


def test_one_window_a_document(tmp_path):
    bodies = ["a", "bc", "defgh", "ijklmnop"]
    source = write_lines(tmp_path / "texts.jsonl", bodies)
    dataset = text_corpus(source, packing="documents", length=4, held_out=0, cache=tmp_path)
    assert dataset.ignore == dataset.tokenizer.end
    assert [dataset.tokenizer.decode(window) for window in dataset.whole()] == ["bc", "defgh", "ijklm"]
    assert dataset[0].tolist() == [*b"bc", 256, 256, 256] and torch.equal(dataset[-1], dataset.whole()[-1])


def test_a_window_is_found_from_both_ends(corpus, tmp_path):
    dataset = text_corpus(corpus, length=16, cache=tmp_path)
    assert torch.equal(dataset[-1], dataset[len(dataset) - 1])
    assert len(dataset.whole(3)) == 3 and len([*dataset]) == len(dataset) == len(dataset.whole(10**9))
    assert dataset.tokens and dataset.state_dim == dataset.vocabulary == 257
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_digests_tell_data_sets_apart(corpus, tmp_path):
    make = lambda **changes: text_corpus(corpus, cache=tmp_path, **dict(length=16) | changes)
    digest = make().digest
    assert make().digest == digest
    others = [make(length=8), make(split="valid"), make(seed=1), make(tokenizer="train:280"),
              make(documents=50), make(packing="documents")]
    assert len({digest, *(other.digest for other in others)}) == 7
    assert make(seed=1).corpus_digest == make(length=8).corpus_digest != make(documents=50).corpus_digest


def test_tokens_stay_on_the_disk(corpus, tmp_path):
    dataset = text_corpus(corpus, length=16, cache=tmp_path)
    dataset.whole()
    assert isinstance(text._mapped(dataset.stream.parts[0][0]), np.memmap)
    copy = pickle.dumps(dataset)
    assert len(copy) < len(dataset.stream) / 4 and pickle.loads(copy).digest == dataset.digest
    batches = torch.utils.data.DataLoader(dataset, batch_size=4)
    assert torch.equal(torch.cat([*batches]), dataset.whole())


@pytest.mark.parametrize(("changes", "message"), [
    (dict(split="dev"), "split='dev': it must be one of train, valid, test"),
    (dict(packing="loose"), "packing='loose': it must be one of packed, documents"),
    (dict(length=0), "length=0: it must be 1 or more"),
    (dict(documents=0), "documents=0: it must be 1 or more, or None for all"),
    (dict(held_out=0.5), "held_out=0.5: it must be from 0 to below 0.5"),
    (dict(length=10**6), r"gives \d+ tokens of the train split, a window needs 1000001; give more text"),
    (dict(split="valid", held_out=0), "gives 0 tokens of the valid split"),
])
def test_what_cannot_be_had(changes, message, corpus, tmp_path):
    with pytest.raises(ValueError, match=message):
        text_corpus(corpus, **dict(length=16, cache=tmp_path) | changes)


def test_a_cache_that_cannot_be_written(corpus, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cache='.*file' cannot be written \(.*\); choose another folder"):
        text_corpus(corpus, length=16, cache=tmp_path / "file")


def test_the_embedded_corpus(tmp_path):
    found = {split: text_corpus(split=split, cache=tmp_path) for split in SPLITS}
    assert len({dataset.corpus_digest for dataset in found.values()}) == 1
    total = sum(len(body.encode()) + 1 for _, body in documents("python"))
    assert sum(len(dataset.stream) for dataset in found.values()) == total
    assert all(len(found[split].stream) > 0.01 * total for split in ("valid", "test"))


# Perplexity


def test_perplexity_of_a_fair_die_and_of_known_losses():
    assert perplexity(torch.full((4, 5), math.log(6.0)).double()).value == pytest.approx(6.0)
    losses = torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    found = perplexity(losses, torch.tensor([[1, 3], [2, 99]]))
    assert found.tokens == 3 and found.value == pytest.approx(math.exp(2.0))
    assert found.bits_per_byte == pytest.approx(6 / math.log(2) / 6)
    residuals = np.array([3 - 2 * 2, 3 - 2 * 1])
    assert found.error == pytest.approx(math.exp(2.0) * math.sqrt((residuals**2).sum() * 2) / 3)
    assert perplexity(losses).bits_per_byte is None


def test_the_standard_error_is_the_spread_of_repeated_sets():
    draws = generator(0, "losses")
    level = torch.randn(400, 50, 1, generator=draws, dtype=torch.float64) * 0.4 + 3
    losses = level + torch.randn(400, 50, 64, generator=draws, dtype=torch.float64)
    count = torch.randint(8, 65, (400, 50, 1), generator=draws)
    losses = losses.masked_fill(torch.arange(64) >= count, torch.nan)
    sizes = torch.randint(1, 6, (400, 50, 64), generator=draws)
    found = [perplexity(part, size) for part, size in zip(losses, sizes, strict=True)]
    for value, error in (("value", "error"), ("bits_per_byte", "bits_error")):
        spread = np.std([getattr(one, value) for one in found])
        assert np.mean([getattr(one, error) for one in found]) == pytest.approx(spread, rel=0.15)


def test_perplexity_of_one_window_and_of_none():
    one = perplexity(torch.tensor([[1.0, 3.0]]), torch.tensor([[1, 0]]))
    assert (one.value, one.tokens) == (pytest.approx(math.exp(2.0)), 2) and math.isnan(one.error)
    with pytest.raises(ValueError, match=r"losses of shape \(1, 2\) hold no number"):
        perplexity(torch.full((1, 2), torch.nan))
