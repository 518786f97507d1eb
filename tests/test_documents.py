"""Texts of Python itself, of files and of the hub; what is wrong with them is told with a remedy."""

import ast
import gzip
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tiny_text import LINES, texts_of

from ebwm.data import documents as sources
from ebwm.data.documents import documents
from ebwm.data.text import text_corpus
from ebwm.data.tokenizer import load_tokenizer


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
