"""Corpora, tokenizers, shards that survive faults, windows that count every token once, perplexity."""

import ast
import gzip
import json
import math
import multiprocessing
import pickle
import socket
import sys
import unicodedata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebwm import documents as sources
from ebwm import text
from ebwm import tokenizer as tokenizer_module
from ebwm.documents import documents
from ebwm.objective import cross_entropy
from ebwm.settings import generator
from ebwm.text import SPLITS, TextDataset, perplexity, text_corpus
from ebwm.tokenizer import Tokenizer, load_tokenizer

LINES = "the quick brown fox jumps over the lazy dog\npack my box with five dozen liquor jugs\n"


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def corpus(tmp_path):
    """A file of sixty texts."""
    return write_lines(tmp_path / "texts.jsonl", [f"{n}: {LINES * (n % 7)}" for n in range(60)])


def texts_of(dataset: TextDataset) -> list[str]:
    """The texts of a stream, decoded."""
    tokens, found = dataset.stream.read(0, len(dataset.stream)), [[]]
    for token in tokens.tolist():
        if token == dataset.tokenizer.end:
            found.append([])
        else:
            found[-1].append(token)
    assert found.pop() == []
    return [dataset.tokenizer.decode(row) for row in found]


# Sources


def test_python_carries_a_corpus_without_repeated_docstrings():
    names = dict(documents("python"))
    from pydoc_data.topics import topics

    assert {name.removeprefix("topics/") for name in names if name.startswith("topics/")} == {*topics}
    assert ast.get_docstring(ast.parse(Path(ast.__file__).read_bytes())) in names["ast.py"]
    assert not any({"tests", "site-packages", "idlelib"} & {*name.split("/")} for name in names)
    library = [name for name in names if not name.startswith("topics/")]
    assert library == sorted(library) and sum(map(len, names.values())) > 1_000_000


def test_a_longer_paragraph_that_stands_twice_counts_once(tmp_path, monkeypatch):
    """However it is indented; short ones, such as "Example:", may stand anywhere."""
    (tmp_path / "tests").mkdir()
    long = "A paragraph of more than eighty letters, which one module has copied from another one."
    (tmp_path / "a.py").write_text(f'"""One."""\ndef f():\n    "{long}"\n')
    body = f'class A:\n    """One.\n\n      {long}\n\n    Three."""\n    x = "\\d"\n'
    (tmp_path / "b.py").write_text(body)
    (tmp_path / "tests" / "c.py").write_text('"""Four."""')
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    found = sources._python_texts.__wrapped__()
    assert {name: body for name, body in found.items() if not name.startswith("topics/")} == {
        "a.py": f"One.\n\n{long}", "b.py": "One.\n\nThree."}


def test_no_longer_paragraph_of_the_embedded_corpus_stands_twice():
    paragraphs = [" ".join(part.split()) for _, body in documents("python") for part in body.split("\n\n")]
    longer = [part for part in paragraphs if len(part) >= sources.LONG]
    assert len(longer) == len({*longer}) > 1000


def test_files_of_all_formats(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden.txt").write_text("never")
    (tmp_path / "picture.png").write_bytes(b"\xff")
    (tmp_path / "a.txt").write_bytes("\ufeffzwölf\r\nBoxkämpfer".encode())
    (tmp_path / "b" / "c.md").write_text("# Title")
    (tmp_path / "d.ndjson").write_text('{"text": "one"}\n\n"two"\n{"text": ""}\n{"text": null}\n')
    (tmp_path / "e.json").write_text('\n[{"text": "three"},\n "four"]')
    with gzip.open(tmp_path / "f.jsonl.gz", "wt") as file:
        file.write('{"text": "half \\ud800 letter"}\n')
    assert [*documents(tmp_path)] == [
        ("a.txt", "zwölf\r\nBoxkämpfer"), ("b/c.md", "# Title"), ("d.ndjson:1", "one"), ("d.ndjson:3", "two"),
        ("e.json:1", "three"), ("e.json:2", "four"), ("f.jsonl.gz:1", "half ? letter")]


def test_rows_of_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"text": ["one", "two"], "number": [1, 2]}), tmp_path / "a.parquet")
    assert [body for _, body in documents(tmp_path)] == ["one", "two"]
    with pytest.raises(ValueError, match=r"key='body' is not in a.parquet:1; it has 'text', 'number'"):
        next(documents(tmp_path, key="body"))


@pytest.mark.parametrize(("name", "content", "error", "message"), [
    ("a.txt", b"caf\xe9", ValueError, "a.txt is not UTF-8: byte 3 is 0xe9; convert it, as by iconv"),
    ("a.txt", b"one\ntwo\n\xff", ValueError, "byte 8 is 0xff"),
    ("a.txt", "x".encode("utf-16"), ValueError, "byte 0 is 0xff"),
    ("a.jsonl", b'{"text": "a"}\n{"text": ', ValueError, "a.jsonl, line 2, cannot be read as JSON"),
    ("a.jsonl", b'{"question": "a", "answer": "b"}', ValueError, "it has 'question', 'answer'"),
    ("a.jsonl", b'{"text": 3}', ValueError, "a.jsonl:1 holds int where text should be; choose another key"),
    ("a.json", b'[{"text": "a"},]', ValueError, "a.json cannot be read as JSON"),
    ("a.txt.gz", gzip.compress(b"text", mtime=0)[:-9], ValueError, "a.txt.gz cannot be decomp.*fetch"),
    ("a.txt.gz", b"text", ValueError, "a.txt.gz cannot be decompressed"),
    ("a.jsonl.gz", gzip.compress(b"text" * 99, mtime=0)[:12] + b"text", ValueError,
     "a.jsonl.gz cannot be de"),
    ("a.parquet", b"text", ValueError, "a.parquet cannot be read as Parquet .*fetch it again"),
])
def test_a_bad_file_is_named_with_place_and_remedy(tmp_path, name, content, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        [*documents(tmp_path)]


def test_sources_without_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no file, no folder and no name of a data set"):
        documents(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="is no file"):
        documents("texts/none.txt")
    with pytest.raises(FileNotFoundError, match=r"holds no text; looked for .txt"):
        documents(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="holds no text: nothing in it has a character"):
        text_corpus(tmp_path, cache=tmp_path / "cache")


# The hub


def module(**members) -> ModuleType:
    made = ModuleType("stand_in")
    vars(made).update(members)
    return made


@pytest.fixture
def hub(monkeypatch):
    """Stand-ins for the network; `calls` says what was asked for."""
    calls, rows = [], [{"text": f"web {n}", "raw_content": f"page {n}"} for n in range(40)]

    def load_dataset(path, name=None, **settings):
        calls.append((path, name, settings))
        return iter(rows)

    def connect(address, timeout):
        calls.append(address)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setitem(sys.modules, "datasets", module(load_dataset=load_dataset))
    monkeypatch.setattr(socket, "create_connection", connect)
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    sources.reach_hub.cache_clear()
    yield calls
    sources.reach_hub.cache_clear()


@pytest.mark.parametrize(("source", "path", "name", "revision"), [
    ("fineweb", "HuggingFaceFW/fineweb", "sample-100BT", None),
    ("owner/name", "owner/name", None, None),
    ("owner/na.me:config-1@abc123", "owner/na.me", "config-1", "abc123"),
])
def test_names_of_the_hub(hub, source, path, name, revision):
    assert next(documents(source)) == ("0", "web 0")
    asked = (path, name, dict(split="train", streaming=True, revision=revision))
    assert hub == [("huggingface.co", 443), asked]
    [*documents(source, key="raw_content")]
    assert hub.count(("huggingface.co", 443)) == 1


def test_a_wrong_column_of_the_hub_is_answered_by_those_there_are(hub):
    with pytest.raises(ValueError, match=r"key='body' is not in row 0 of owner/name; it has 'text', 'raw_c"):
        next(documents("owner/name", key="body"))


def test_redpajama_is_fetched_file_by_file(hub, tmp_path, monkeypatch):
    base = "https://data.together.xyz/redpajama-data-v2/v1.0.0/documents"
    (tmp_path / "_CC_SNAPSHOT_IDS").write_text("2014-15\n2023-14\n")
    (tmp_path / "urls").mkdir()
    (tmp_path / "urls" / "missing-documents.txt").write_text(f"{base}/2014-15/0001/en_head.json.gz\n")
    fetch = lambda repository, file, repo_type: str(tmp_path / file)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module(hf_hub_download=fetch))
    found = [body for _, body in documents("redpajama")]
    files = [call[2]["data_files"] for call in hub if call[0] == "json"]
    assert files[:2] == [f"{base}/2014-15/000{n}/en_head.json.gz" for n in (0, 2)]
    assert len(files) == len({*files}) == 5 * 2 * 2 * 10 - 1
    assert files[-1] == f"{base}/2023-14/0009/it_middle.json.gz" and found[0] == "page 0"


def test_without_a_network_the_remedy_comes_at_once(hub, monkeypatch):
    def refuse(address, timeout):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(OSError, match=r"cannot be reached \(Name or service not known\).*HF_HUB_OFFLINE=1"):
        next(documents("fineweb"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert next(documents("fineweb")) == ("0", "web 0")


def test_what_is_kept_needs_no_network(hub, tmp_path, monkeypatch):
    first = text_corpus("owner/name", length=16, documents=30, cache=tmp_path)
    assert len(hub) == 2 and texts_of(first)[0] == "web 0"
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", None)
    assert text_corpus("owner/name", length=16, documents=30, cache=tmp_path).digest == first.digest


def test_what_the_hub_answers_becomes_one_line(hub, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Dataset scripts are no longer supported\nmore")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", refuse)
    with pytest.raises(OSError, match=r"'owner/name' cannot be loaded \(Dataset scripts are no .*ed\);"):
        next(documents("owner/name"))


def test_a_tokenizer_of_the_hub(hub, tmp_path, monkeypatch):
    load_tokenizer("train:260", [LINES]).save(tmp_path / "tokenizer.json")
    fetch = lambda repository, file: str(tmp_path / file)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module(hf_hub_download=fetch))
    found = load_tokenizer("EleutherAI/gpt-neox-20b")
    assert (found.name, found.vocabulary) == ("EleutherAI/gpt-neox-20b", 260)


# Tokenizers


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
    seen, train = [], tokenizer_module._trained

    def watch(spec, texts):
        seen.append([*texts])
        return train(spec, seen[-1])

    monkeypatch.setattr(tokenizer_module, "_trained", watch)
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
