"""The checks: differences are found, groups are expanded, and the first failure ends the sequence."""

import json

import check
import language
import pytest


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


def stubs(monkeypatch, **results: bool) -> list[str]:
    """Checks with known results; the list gets the names of those that ran."""
    ran = []

    def stub(name: str, result: bool):
        def run() -> bool:
            """A stub."""
            ran.append(name)
            return result
        return run

    monkeypatch.setattr(check, "CHECKS", {name: stub(name, result) for name, result in results.items()})
    monkeypatch.setattr(check, "GROUPS", {"test": list(results)})
    return ran


def test_the_first_failure_ends_the_sequence(monkeypatch, capsys):
    ran = stubs(monkeypatch, one=True, two=False, three=True)
    assert check.main([]) == 1
    assert ran == ["one", "two"]
    assert "== two: FAILED" in capsys.readouterr().out.splitlines()[-1]


def test_an_unknown_check_is_refused_before_any_runs(monkeypatch, capsys):
    ran = stubs(monkeypatch, one=True)
    assert check.main(["one", "nope"]) == 2
    assert ran == [] and capsys.readouterr().err.startswith("check='nope': must be one of ")


def test_groups_are_expanded(monkeypatch):
    assert all(name in check.CHECKS for names in check.GROUPS.values() for name in names)
    ran = stubs(monkeypatch, one=True, two=True, three=True)
    monkeypatch.setattr(check, "GROUPS", {"test": ("one", "three")})
    assert check.main(["two", "test"]) == 0 and check.main([]) == 0
    assert ran == ["two", "one", "three", "one", "three"]


def test_phrases_to_avoid_are_found_in_docstrings_comments_messages_and_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language, "ROOT", tmp_path)
    monkeypatch.setattr(language, "PENDING", tmp_path / "language.txt")
    monkeypatch.setattr(language, "SOURCES", ("*.py", "*.ipynb", "*.md"))
    source = '"""It goes on."""\nx = 1  # at rest\ny = f"{x} of all chance"\nfloors = "floors"\n'
    (tmp_path / "a.py").write_text(source)
    cells = [{"cell_type": "markdown", "source": ["Who is\n", "begun?"]},
             {"cell_type": "code", "source": "%ls\n1 # told"}]
    (tmp_path / "b.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "c.md").write_text("The lower-case letters above floors 1 to 4.")
    assert {name: len(lines) for name, lines in language.offenders().items()} == {"a.py": 3, "b.ipynb": 2}
    (tmp_path / "language.txt").write_text("a.py\nc.md\n")
    assert not language.check()
    printed = capsys.readouterr().out
    assert "b.ipynb:0: 'begun'; better: started" in printed and "c.md is converted" in printed
    assert "a.py" not in printed
