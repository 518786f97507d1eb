"""The checks: differences are found, groups are expanded, and the first failure ends the sequence."""

import json

import check
import language
import pytest
import torch
from jaxtyping import TypeCheckError
from shapes import LATER

from ebwm.gradient.sweeps import normalise


@pytest.fixture
def folders(tmp_path, monkeypatch):
    here, other = tmp_path / "here", tmp_path / "other"
    for folder in (here, other):
        folder.mkdir()
        (folder / "same.py").write_text("x = 1\n")
    monkeypatch.setattr(check, "ROOT", here)
    return here, other


def test_files_that_differ_are_named_with_the_remedy(folders, capsys):
    here, other = folders
    assert check.same(other, "*.py", "do this") and capsys.readouterr().out == ""
    (here / "a.py").write_text("x = 1\n")
    (other / "b.py").write_text("x = 1\n")
    (other / "same.py").write_text("x = 2\n")
    assert not check.same(other, "*.py", "do this")
    names = ("a.py", "b.py", "same.py")
    assert capsys.readouterr().out.splitlines() == [f"{name} is not up to date: do this" for name in names]


@pytest.mark.parametrize("words, code, expected, printed", [
    (["two", "test"], 0, ["two", "one", "three"], "== 3 checks good"), ([], 0, ["one", "three"], "== 2 checks good"),
    (["one", "bad", "two"], 1, ["one", "bad"], "== bad: FAILED"), (["one", "nope"], 2, [], "check='nope'")])
def test_groups_are_expanded_and_a_failure_ends_the_sequence(words, code, expected, printed, monkeypatch, capsys):
    assert all(name in check.CHECKS for steps in check.GROUPS.values() for step in steps for name in step)
    ran, results = [], {"one": True, "two": True, "three": True, "bad": False}
    stubs = {name: lambda name=name: ran.append(name) or results[name] for name in results}
    monkeypatch.setattr(check, "CHECKS", stubs)
    monkeypatch.setattr(check, "GROUPS", {"test": (("one",), ("three",))})
    assert check.main(words) == code and ran == expected
    assert "".join(capsys.readouterr()).splitlines()[-1].startswith(printed)


@pytest.mark.parametrize("here, other", [(True, 0), (True, 1), (False, 0)])
def test_checks_run_together_fail_if_one_fails_and_all_show_their_output(here, other, tmp_path, monkeypatch, capsys):
    (script := tmp_path / "check.py").write_text(f"import sys\nprint('ran', sys.argv[1])\nsys.exit({other})\n")
    monkeypatch.setattr(check, "__file__", str(script))
    monkeypatch.setattr(check, "CHECKS", {"one": lambda: here})
    assert check.run_together(("one", "two")) == (here and not other)
    assert capsys.readouterr().out.splitlines()[-1] == "ran two"


def test_shapes_are_checked_at_some_calls():
    refused = 0
    for _ in range(LATER):
        try:
            normalise(torch.ones(3))
        except TypeCheckError as error:
            refused += "normalise" in str(error)
    assert refused


def test_phrases_to_avoid_are_found_in_docstrings_comments_messages_and_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language, "ROOT", tmp_path)
    monkeypatch.setattr(language, "SOURCES", ("*.py", "*.ipynb", "*.md"))
    (tmp_path / "c.md").write_text("The lower-case letters above floors 1 to 4.")
    assert language.check() and capsys.readouterr().out == ""
    source = '"""It goes on."""\nx = 1  # at rest\ny = f"{x} of all chance"\nfloors = "floors"\n'
    (tmp_path / "a.py").write_text(source)
    cells = [{"cell_type": "markdown", "source": ["Who is\n", "begun?"]},
             {"cell_type": "code", "source": "%ls\n1 # told"}]
    (tmp_path / "b.ipynb").write_text(json.dumps({"cells": cells}))
    assert not language.check()
    printed = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in printed] == ["a."] * 3 + ["b."] * 2
    assert "b.ipynb:0: 'begun'; better: started" in printed
