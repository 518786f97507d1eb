"""Texts of the documentation of Python and of packages, of files and of the Hugging Face Hub."""

import ast
import gzip
import re
import socket
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from sizes import ROOT
from tiny_text import LINES, texts_of

from ebwm import settings
from ebwm.data import documents as sources
from ebwm.data.cache import SPLITS
from ebwm.data.documents import documents
from ebwm.data.text import _Corpus, text_corpus
from ebwm.data.tokenizer import load_tokenizer

PACKAGES_DIGEST = "c882def38abead55b5da382fd4ffe594ee8568c534a818247ec5e53776d593fc"  # of the corpus


def test_the_python_corpus_has_topics_and_docstrings_without_repeated_paragraphs():
    from pydoc_data.topics import topics

    names = dict(documents("python"))
    assert {name.removeprefix("topics/") for name in names if name.startswith("topics/")} == {*topics}
    assert ast.get_docstring(ast.parse(Path(ast.__file__).read_bytes())) in names["ast.py"]
    assert not any({"tests", "site-packages", "idlelib"} & {*name.split("/")} for name in names)
    library = [name for name in names if not name.startswith("topics/")]
    assert library == sorted(library) and sum(map(len, names.values())) > 1_000_000


def test_a_repeated_long_paragraph_is_used_once(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    long = "A paragraph of more than eighty characters that one module has copied from another one."
    (tmp_path / "a.py").write_text(f'"""One."""\ndef f():\n    "{long}"\n')
    body = f'class A:\n    """One.\n\n      {long}\n\n    Three."""\n    x = "\\d"\n'
    (tmp_path / "b.py").write_text(body)
    (tmp_path / "tests" / "c.py").write_text('"""Four."""')
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path / "cache"))
    found = dict(sources._python_texts())
    assert {name: body for name, body in found.items() if not name.startswith("topics/")} == {
        "a.py": f"One.\n\n{long}", "b.py": "One.\n\nThree."}


# Documentation of packages


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package with these files in an empty folder, as the only one that is wanted."""
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "site")

    def install(version, **files):
        info = tmp_path / "site" / "tinydocs-1.dist-info"
        texts = {f"tinydocs/{name.replace('__', '/')}.py": text for name, text in files.items()}
        texts |= {f"{info.name}/METADATA": f"Metadata-Version: 2.1\nName: tinydocs\nVersion: {version}\n"}
        texts |= {f"{info.name}/RECORD": "".join(f"{name},,\n" for name in texts)}
        for name, text in texts.items():
            (info.parent / name).parent.mkdir(parents=True, exist_ok=True)
            (info.parent / name).write_text(text)
        sources._package_files.cache_clear()

    monkeypatch.setattr(sources, "PACKAGES", {"tinydocs": "1.0"})
    yield install
    sources._package_files.cache_clear()


def test_the_documentation_of_a_package(installed):
    long = "A paragraph of more than eighty characters that a compiled function has as its documentation."
    other = "Another paragraph of more than eighty characters, which {is} documented by a call of a method."
    added = f'add_newdoc("f", """\n    {long}\n    """)\nx._add_docstr(f, """{other}""".format(a=1))'
    installed("1.0+cpu", b=f'"""Two."""\n{added}', a=f'"""One, \\ud800."""\nprint("{long}")', c=f'"""{long}"""',
              d="def f[", tests__e='"""Never."""', _vendor__g='"""Never."""')
    expected = [("tinydocs/a.py", "One, ?."), ("tinydocs/b.py", f"Two.\n\n{long}\n\n{other}")]
    assert [*documents("packages")] == [*documents("packages")] == expected
    assert [*sources.files_of("packages")] == [f"tinydocs/{name}.py" for name in "abcd"]


def test_a_changed_package_is_read_again(installed):
    installed("1.0", a='"""One."""')
    assert [*documents("packages")] == [("tinydocs/a.py", "One.")]
    installed("1.0", a='"""Two, longer."""')
    assert [*documents("packages")] == [("tinydocs/a.py", "Two, longer.")]


def test_texts_are_found_again_once_the_rules_change(installed, monkeypatch):
    installed("1.0", a='"""One."""')
    assert [*documents("packages")] == [("tinydocs/a.py", "One.")]
    monkeypatch.setattr(sources, "_once", lambda text, seen: text.upper())
    assert [*documents("packages")] == [("tinydocs/a.py", "ONE.")]


def test_a_package_of_another_version_or_none_is_named_with_the_command(installed, monkeypatch):
    monkeypatch.setitem(sources.PACKAGES, "none-such", "2")
    installed("0.9", a='"""One."""')
    line = (r"^source='packages': needs tinydocs 1\.0 \(0\.9 is installed\), none-such 2 \(none is installed\); "
            r"pip install tinydocs==1\.0 none-such==2\Z")
    with pytest.raises(ValueError, match=line):
        documents("packages")


def test_the_packages_are_needed_by_the_library_and_pinned():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert {name: pins.get(name, pins.get(name.capitalize())) for name in sources.PACKAGES} == sources.PACKAGES
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed, left = set(), [*project["dependencies"]]
    while left:
        name = re.match(r"[\w.-]+", left.pop())[0].lower().replace("_", "-")
        if name not in needed and sources._version_of(name) != "none":
            left += [line for line in metadata.requires(name) or () if ";" not in line]
        needed.add(name)
    assert {*sources.PACKAGES} <= needed


@pytest.mark.slow
def test_the_text_of_the_packages_is_the_recorded_one_and_its_splits_share_no_long_paragraph(tmp_path, monkeypatch):
    monkeypatch.setenv("EBWM_CACHE", str(settings.load(ROOT).cache))
    try:
        test = text_corpus("packages", "test", cache=tmp_path)
    except ValueError as error:
        pytest.skip(str(error))
    assert test.corpus_digest == PACKAGES_DIGEST
    assert PACKAGES_DIGEST[:12] in (ROOT / "data/README.md").read_text(encoding="utf-8")
    long = {split: set() for split in SPLITS}
    for split, text in _Corpus("packages", None, None, 0.05, 0).texts():
        long[split] |= {words for part in text.split("\n\n") if len(words := " ".join(part.split())) >= sources.LONG}
    assert all(len(found) > 1000 for found in long.values())
    assert sum(map(len, long.values())) == len(set().union(*long.values()))


# Files and the Hub


def test_files_of_all_formats(tmp_path):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden.txt").write_text("never")
    (tmp_path / "picture.png").write_bytes(b"\xff")
    (tmp_path / "a.txt").write_bytes("\ufeffzwölf\r\nBoxkämpfer".encode())
    (tmp_path / "b" / "c.md").write_text("# Title")
    (tmp_path / "d.ndjson").write_text('{"text": "one"}\n\n"two"\n{"text": ""}\n{"text": null}\n')
    (tmp_path / "e.json").write_text('\n[{"text": "three"},\n "four"]')
    (tmp_path / "h.json").write_text('{\n  "text": "seven"\n}\n')
    (tmp_path / "i.json").write_text('{ "text": "eight",\n  "id": 1 }\n')
    with gzip.open(tmp_path / "f.jsonl.gz", "wt") as file:
        file.write('{"text": "half \\ud800 character"}\n')
    parquet.write_table(pyarrow.table({"text": ["five", "six"], "number": [1, 2]}), tmp_path / "g.parquet")
    with pytest.warns(UserWarning, match=r"left out: 1 \.png"):
        texts = [*documents(tmp_path)]
    assert texts == [
        ("a.txt", "zwölf\r\nBoxkämpfer"), ("b/c.md", "# Title"), ("d.ndjson:1", "one"), ("d.ndjson:3", "two"),
        ("e.json:1", "three"), ("e.json:2", "four"), ("f.jsonl.gz:1", "half ? character"),
        ("g.parquet:1", "five"), ("g.parquet:2", "six"), ("h.json:1", "seven"), ("i.json:1", "eight")]


@pytest.mark.parametrize("name, content, place", [
    ("a.txt", b"caf\xe9", "byte 3 is 0xe9"), ("a.txt", b"one\ntwo\n\xff", "byte 8 is 0xff"),
    ("a.jsonl", b'{"text": "a"}\n{"text": ', "a.jsonl:2"), ("a.jsonl", b'{"text": 3}', "a.jsonl:1"),
    ("a.jsonl", b'{"question": "a", "answer": "b"}', "'question', 'answer'"),
    ("a.json", b'[{"text": "a"},]', "a.json"), ("a.parquet", b"text", "a.parquet"),
    ("a.txt.gz", gzip.compress(b"text", mtime=0)[:-9], "a.txt.gz"), ("a.txt.gz", b"text", "a.txt.gz"),
    ("a.jsonl.gz", gzip.compress(b"text" * 99, mtime=0)[:12] + b"text", "a.jsonl.gz")])
def test_a_damaged_file_is_named_with_the_place(tmp_path, name, content, place):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^[^\n]*{place}[^\n]*\Z"):
        [*documents(tmp_path)]


def refuse(error):
    def refuse(*_, **__):
        raise error("no route\nmany more lines")
    return refuse


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stand-ins for the network; files of the Hub lie in `tmp_path`; the value lists all calls."""
    calls, rows = [], [{"text": f"web {n}", "raw_content": f"page {n}"} for n in range(40)]

    def load_dataset(path, name=None, **settings):
        calls.append((path, name, settings))
        return iter(rows)

    connect = lambda address, timeout: calls.append(address) or SimpleNamespace(close=lambda: None)
    download = lambda repository, file, **_: str(tmp_path / file)
    stand_in = ModuleType("stand_in")
    stand_in.load_dataset, stand_in.hf_hub_download = load_dataset, download
    for name in ("datasets", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr(socket, "create_connection", connect)
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    sources.reach_hub.cache_clear()
    yield calls
    sources.reach_hub.cache_clear()


@pytest.mark.parametrize("source, path, name, revision", [
    ("fineweb", "HuggingFaceFW/fineweb", "sample-100BT", None), ("owner/name", "owner/name", None, None),
    ("owner/na.me:config-1@abc123", "owner/na.me", "config-1", "abc123")])
def test_names_of_the_hub(hub, source, path, name, revision):
    assert next(documents(source)) == ("0", "web 0")
    request = (path, name, dict(split="train", streaming=True, revision=revision))
    assert hub == [("huggingface.co", 443), request]
    [*documents(source, key="raw_content")]
    assert hub.count(("huggingface.co", 443)) == 1
    with pytest.raises(ValueError, match=r"key='body': .*'text', 'raw_content'"):
        next(documents(source, key="body"))


def test_redpajama_is_downloaded_file_by_file(hub, tmp_path):
    base = "https://data.together.xyz/redpajama-data-v2/v1.0.0/documents"
    (tmp_path / "_CC_SNAPSHOT_IDS").write_text("2014-15\n2023-14\n")
    (tmp_path / "urls").mkdir()
    (tmp_path / "urls" / "missing-documents.txt").write_text(f"{base}/2014-15/0001/en_head.json.gz\n")
    found = [body for _, body in documents("redpajama")]
    files = [call[2]["data_files"] for call in hub if call[0] == "json"]
    assert files[:2] == [f"{base}/2014-15/000{n}/en_head.json.gz" for n in (0, 2)]
    assert len(files) == len({*files}) == 5 * 2 * 2 * 10 - 1
    assert files[-1] == f"{base}/2023-14/0009/it_middle.json.gz" and found[0] == "page 0"


def test_without_a_network_the_error_comes_at_once_with_a_remedy(hub, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", refuse(OSError))
    with pytest.raises(OSError, match=r"HF_ENDPOINT=.*HF_HUB_OFFLINE=1"):
        next(documents("fineweb"))
    monkeypatch.setattr(sources, "within", lambda seconds, ask, late: late)
    with pytest.raises(OSError, match=r"HF_ENDPOINT=.*no answer"):
        next(documents("fineweb"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert next(documents("fineweb")) == ("0", "web 0")
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", refuse(RuntimeError))
    with pytest.raises(OSError, match=r"^source='owner/name': .*no route\).*$"):
        next(documents("owner/name"))


def test_a_cached_corpus_needs_no_network(hub, tmp_path, monkeypatch):
    first = text_corpus("owner/name", length=16, documents=30, cache=tmp_path)
    assert len(hub) == 2 and texts_of(first)[0] == "web 0"
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", None)
    assert text_corpus("owner/name", length=16, documents=30, cache=tmp_path).digest == first.digest


def test_a_tokenizer_of_the_hub(hub, tmp_path):
    load_tokenizer("train:260", [LINES]).save(tmp_path / "tokenizer.json")
    found = load_tokenizer("EleutherAI/gpt-neox-20b")
    assert (found.name, found.vocabulary) == ("EleutherAI/gpt-neox-20b", 260)
