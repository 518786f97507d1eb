"""The cache of arrays: read back, made again after damage, resumed after interruptions."""

import json

import numpy as np
import pytest

from ebwm.data import cache as module
from ebwm.data.cache import cached_array, cached_arrays


@pytest.fixture
def made():
    """The chunks that were computed."""
    return []


@pytest.fixture
def store(tmp_path, made):
    """Store one array, or several, in a cache of the test."""

    def make(chunk):
        made.append(chunk)
        return np.full(1000, chunk, np.uint8), {"kind": "test"}

    def store(*chunks, folder=tmp_path):
        if len(chunks) == 1:
            return cached_array("one", {"chunk": chunks[0]}, lambda: make(chunks[0]), folder)
        return cached_arrays(folder, lambda: chunks, lambda chunk: {"chunk": chunk}, make)

    return store


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def other_type(path):
    np.save(path, np.load(path).view(np.int8)) if path.suffix == ".npy" else path.write_text("[3]")


def other_facts(path):
    card = path.with_suffix(".json")
    card.write_text(card.read_text().replace("test", "another"))


DAMAGES = [flip, other_type, other_facts, lambda path: path.unlink(), lambda path: path.write_bytes(b""),
           lambda path: path.write_bytes(path.read_bytes()[:-40])]


def test_an_array_is_computed_once_and_read_as_a_memory_map(store, made, tmp_path, monkeypatch):
    """By default in the cache folder of the settings."""
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path / "elsewhere"))
    first, second = store(7, folder=None), store(7, folder=None)
    assert made == [7] and isinstance(second[0], np.memmap)
    assert np.array_equal(first[0], second[0]) and first[1] == second[1] == {"kind": "test"}
    assert sorted(path.suffix for path in (tmp_path / "elsewhere").glob("one-*")) == [".json", ".npy"]


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_is_computed_again(suffix, damage, store, made, tmp_path):
    store(7)
    intact = contents(tmp_path)
    damage(*tmp_path.glob(f"*{suffix}"))
    array, facts = store(7)
    assert made == [7, 7] and contents(tmp_path) == intact
    assert (array == 7).all() and array.dtype == np.uint8 and facts == {"kind": "test"}


@pytest.mark.parametrize("suffixes", [[".npy"], [".json"], [".npy", ".json"]])
@pytest.mark.parametrize("damage", [*DAMAGES, lambda path: path.write_bytes(
    path.with_name(f"00003{path.suffix}").read_bytes())])  # that of another chunk
def test_of_several_arrays_only_the_damaged_one_is_computed_again(damage, suffixes, store, made, tmp_path):
    before, intact = store(*range(5)), contents(tmp_path)
    for suffix in suffixes:
        damage(tmp_path / f"00002{suffix}")
    assert store(*range(5)) == before and made == [0, 1, 2, 3, 4, 2]
    assert contents(tmp_path) == intact


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"facts": [3]}', "shorter"])
def test_a_damaged_index_is_written_again_without_computing(content, store, made, tmp_path):
    before, index = store(*range(5)), tmp_path / "index.json"
    known = json.loads(index.read_text())
    known["facts"]["arrays"].pop()
    index.write_text(json.dumps(known) if content == "shorter" else content)
    assert store(*range(5)) == before and len(made) == 5
    fail = lambda *_: pytest.fail("must come from the index")
    assert cached_arrays(tmp_path, fail, fail, fail) == before


@pytest.mark.parametrize("error, reason", [
    (OSError(28, "No space left on device"), "No space left"),
    (OSError("8 requested and 0 written"), "0 written; the disk may be full")])
def test_a_failed_write_leaves_nothing(store, tmp_path, monkeypatch, error, reason):
    def full(file, array, **_):
        file.write_bytes(b"some bytes")
        raise error

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(OSError, match=rf"cache=.*{reason}"):
        store(7)
    assert not list(tmp_path.iterdir())
