"""Question sets in all formats, unusable files, texts as windows."""

import json
import re
from types import SimpleNamespace

import pytest

from ebwm.data import questions as module
from ebwm.data.questions import downstream, text_windows

BIGBENCH = {"inputs": "1 + 1 Answer:", "targets": ["2"]}


@pytest.fixture
def write(tmp_path):
    """Write text, bytes or JSON to a file and return its path."""

    def write(content):
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (tmp_path / "rows.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / "rows.json"

    return write


NO_ANSWER = {"question": "Why?", "answers": [], "is_impossible": True}


def squad(*questions):
    """A file in the format in which SQuAD is published."""
    paragraph = {"context": "It was in 2020.", "qas": questions}
    return {"version": "v2.0", "data": [{"title": "A year", "paragraphs": [paragraph]}]}


@pytest.mark.parametrize("name, row, text", [
    ("gsm8k", {"question": "How many?", "answer": "1+1\n#### 2"}, "Question: How many?\nAnswer: 1+1\n#### 2"),
    ("squad", {"context": "C.", "question": "Q?", "answers": {"text": ["a", "b"], "answer_start": [0, 1]}},
     "Question: C.\nQ?\nAnswer: a"),
    ("elementary_math_qa", BIGBENCH, "Question: 1 + 1\nAnswer: 2"),
    ("dyck_languages", {"input": "Input: ( [", "target": "] )"}, "Question: Input: ( [\nAnswer: ] )"),
])
def test_rows_become_the_texts_of_the_papers_code(name, row, text, write, monkeypatch):
    lines = json.dumps(row) + "\n" + json.dumps(row)
    for content in ([row], {"examples": [row]}, {"data": [row]}, row, lines):
        assert {*downstream(name, write(content))} == {text}
    called = []
    load = lambda *place, **named: called.append((*place, named)) or [row, row, row]
    monkeypatch.setattr(module, "require", lambda package, extra: SimpleNamespace(load_dataset=load))
    assert downstream(name, limit=2, revision="main") == [text, text]
    known = module.DOWNSTREAM[name]
    assert called == [(known.path, known.config, {"split": known.split, "revision": "main"})]


def test_unanswerable_questions_of_squad_are_left_out(write):
    answers = [{"text": "in 2020", "answer_start": 3}, {"text": "2020", "answer_start": 6}]
    file = write(squad(NO_ANSWER, {"question": "When?", "answers": answers, "is_impossible": False}))
    assert downstream("squad", file) == ["Question: It was in 2020.\nWhen?\nAnswer: in 2020"]


def test_json_lines_may_have_blank_lines_a_byte_order_mark_and_unusual_line_ends(write):
    lines = "".join(json.dumps({"question": f"{i}\u2028?", "answer": "y"}, ensure_ascii=False) + "\r\n\n"
                    for i in range(3))
    texts = downstream("gsm8k", write(b"\xef\xbb\xbf" + lines.encode()))
    assert texts == [f"Question: {i}\u2028?\nAnswer: y" for i in range(3)]


@pytest.mark.parametrize("name, content, part", [
    ("gsm8k", [{"question": "a", "answer": "b"}, {"question": "a"}], "item 2 .*'answer'.* question"),
    ("squad", [{"question": "a", "context": "b"}], "item 1 .*'answers'.* question, context"),
    ("squad", [{"question": "a", "context": "b", "answers": ["c"]}], "item 1 .*list"),
    ("squad", squad({"question": "a"}), "'answers'.* question"), ("squad", squad(NO_ANSWER), "no question"),
    ("dyck_languages", [{"question": "a"}], "item 1 .*'inputs'.* question"),
    ("dyck_languages", [{"input": "a", "target": []}], "item 1 .*text"),
    ("dyck_languages", [{"input": None, "target": "a"}], "item 1 .*text"),
    ("gsm8k", "5", "item 1 .*int"), ("gsm8k", ["a text"], "item 1 .*str"),
    ("gsm8k", [{"question": "a", "answer": 3}], "item 1 .*text"), ("gsm8k", b"caf\xe9", "byte 3"),
    ("gsm8k", " \n", "empty"), ("gsm8k", "question,answer\n", "line 1"), ("gsm8k", [], "no question"),
    ("gsm8k", '{"question": "a", "answer": "b"}\n{"question"\n', "line 2")])
def test_unusable_files_are_refused_with_the_place(name, content, part, write):
    with pytest.raises(ValueError, match=f"source=.*{part}") as caught:
        downstream(name, write(content))
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_refused_in_one_line(monkeypatch):
    def load(*place, **named):
        raise ConnectionError("no route\nmany more lines")

    monkeypatch.setattr(module, "require", lambda package, extra: SimpleNamespace(load_dataset=load))
    with pytest.raises(OSError, match=r"source='rajpurkar/squad_v2': .*no route") as caught:
        downstream("squad")
    assert "\n" not in str(caught.value)


def test_real_grade_school_questions(real_data):
    texts = downstream("gsm8k", real_data / "text" / "gsm8k_test.jsonl")
    assert len(texts) == 1319 and texts == downstream("gsm8k", real_data / "text" / "gsm8k_test.jsonl", 5000)
    assert all(re.fullmatch(r"Question: .+\nAnswer: .+\n#### [-0-9.,]+", text, re.DOTALL) for text in texts)


@pytest.mark.parametrize("lead, rows", [
    (False, [[97, 98, 99, 100], [97, 0, 0, 0], [97, 98, 99, 100], [0, 0, 0, 0]]),
    (True, [[0, 97, 98, 99], [0, 97, 0, 0], [0, 97, 98, 99], [0, 0, 0, 0]])])
def test_a_text_is_one_window(lead, rows):
    assert text_windows(["abcd", "a", "abcdef", ""], str.encode, 0, 3, lead).tolist() == rows
    assert text_windows([], str.encode, 0, 3, lead).shape == (0, 4)
