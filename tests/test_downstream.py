"""Texts under shift: formats, refusals, and grammars against plain enumeration."""

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.data import downstream as module
from ebwm.data.downstream import (
    Dyck,
    Sums,
    arithmetic,
    completion,
    downstream,
    dyck_log_probability,
    dyck_words,
    question_text,
    shift_ratio,
    text_windows,
)

CLOSES = dict(zip("([{<", ")]}>", strict=True))
BIGBENCH = {"inputs": "1 + 1 Answer:", "targets": ["2"]}


def refusal(act, *arguments, kind=ValueError, **named) -> str:
    """The message of a refusal, which must be one line."""
    with pytest.raises(kind) as caught:
        act(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path."""

    def write(content: str | bytes | dict | list, name: str = "rows.json"):
        path = tmp_path / name
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def squad(**changed) -> dict:
    """A file in the layout in which SQuAD is published: a question with answers and one without."""
    answers = [{"text": "in 2020", "answer_start": 3}, {"text": "2020", "answer_start": 6}]
    asked = [{"question": "Why?", "answers": [], "is_impossible": True},
             {"question": "When?", "answers": answers, "is_impossible": False}]
    paragraph = {"context": "It was in 2020.", "qas": asked} | changed
    return {"version": "v2.0", "data": [{"title": "A year", "paragraphs": [paragraph]}]}


@pytest.mark.parametrize(("name", "row", "text"), [
    ("gsm8k", {"question": "How many?", "answer": "1+1\n#### 2"}, "Question: How many?\nAnswer: 1+1\n#### 2"),
    ("squad", {"context": "C.", "question": "Q?", "answers": {"text": ["a", "b"], "answer_start": [0, 1]}},
     "Question: C.\nQ?\nAnswer: a"),
    ("elementary_math_qa", BIGBENCH, "Question: 1 + 1\nAnswer: 2"),
    ("dyck_languages", {"input": "Input: ( [", "target": "] )"}, "Question: Input: ( [\nAnswer: ] )"),
])
def test_a_row_as_the_papers_code_scores_it(name, row, text, write, monkeypatch):
    lines = json.dumps(row) + "\n" + json.dumps(row)
    for content in ([row], {"examples": [row]}, {"data": [row]}, row, lines):
        assert {*downstream(name, write(content))} == {text}
    called = []
    load = lambda *place, **named: called.append((*place, named)) or [row, row, row]
    monkeypatch.setattr(module, "require", lambda package, extra: SimpleNamespace(load_dataset=load))
    assert downstream(name, limit=2, revision="main") == [text, text]
    hub = module.DOWNSTREAM[name]
    assert called == [(hub.path, hub.config, {"split": hub.split, "revision": "main"})]


def test_squads_own_layout_with_unanswerable_questions_left_out(write):
    assert downstream("squad", write(squad())) == ["Question: It was in 2020.\nWhen?\nAnswer: in 2020"]
    first = squad()["data"][0]["paragraphs"][0]["qas"][:1]
    assert "holds no question with an answer" in refusal(downstream, "squad", write(squad(qas=first)))


def test_json_lines_may_have_blank_lines_a_byte_order_mark_and_strange_line_ends(write):
    lines = "".join(json.dumps({"question": f"{i}\u2028?", "answer": "y"}, ensure_ascii=False) + "\r\n\n"
                    for i in range(3))
    texts = downstream("gsm8k", write(b"\xef\xbb\xbf" + lines.encode()))
    assert texts == [f"Question: {i}\u2028?\nAnswer: y" for i in range(3)]


@pytest.mark.parametrize(("name", "content", "part"), [
    ("gsm8k", [{"question": "a", "answer": "b"}, {"question": "a"}],
     "as gsm8k: item 2 lacks 'answer'; it has question"),
    ("squad", [{"question": "a", "context": "b"}], "item 1 lacks 'answers'; it has question, context"),
    ("squad", [{"question": "a", "context": "b", "answers": ["c"]}], "item 1 is no JSON object but list"),
    ("squad", squad(qas=[{"question": "a"}]), "a paragraph of it lacks 'answers'; it has question"),
    ("dyck_languages", [{"question": "a"}], "item 1 lacks 'inputs'; it has question"),
    ("gsm8k", "5", "item 1 is no JSON object but int"),
    ("gsm8k", ["a text"], "item 1 is no JSON object but str"),
    ("gsm8k", [{"question": "a", "answer": 3}], "item 1 has a question or an answer that is no text"),
    ("dyck_languages", [{"input": "a", "target": []}], "item 1 has a question or an answer that is no text"),
    ("gsm8k", b"caf\xe9", "isn't UTF-8 (byte 3); save it as UTF-8"),
    ("gsm8k", " \n", "is empty; it must hold JSON"),
    ("gsm8k", "question,answer\n", "isn't JSON: Expecting value in line 1"),
    ("gsm8k", '{"question": "a", "answer": "b"}\n{"question"\n', "isn't JSON lines: Expecting ':' delimiter"),
    ("gsm8k", [], "holds no question with an answer"),
])
def test_files_that_cannot_be_read_are_refused_in_one_line(name, content, part, write):
    message = refusal(downstream, name, path := write(content))
    assert message.startswith(f"source={str(path)!r}") and part in message


def test_arguments_are_refused_in_one_line(tmp_path):
    assert "name='gsm': it must be one of gsm8k, squad, elem" in refusal(downstream, "gsm")
    assert "limit=0: it must be 1 or more" in refusal(downstream, "gsm8k", limit=0)
    missing = refusal(downstream, "gsm8k", tmp_path / "none.json", kind=FileNotFoundError)
    assert "none.json' is no file; give a JSON file, or leave it out for the hub" in missing
    refusal(downstream, "gsm8k", tmp_path, kind=FileNotFoundError)


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def load(*place, **named):
        raise ConnectionError("no route\nmany more lines")

    monkeypatch.setattr(module, "require", lambda package, extra: SimpleNamespace(load_dataset=load))
    message = refusal(downstream, "squad", kind=OSError)
    assert message == ("'rajpurkar/squad_v2' cannot be loaded (no route); check the network, or give "
                       "source=, a JSON file")


def test_real_grade_school_questions(real_data):
    texts = downstream("gsm8k", real_data / "text" / "gsm8k_test.jsonl")
    assert len(texts) == 1319 and texts == downstream("gsm8k", real_data / "text" / "gsm8k_test.jsonl", 5000)
    assert all(re.fullmatch(r"Question: .+\nAnswer: .+\n#### [-0-9.,]+", text, re.DOTALL) for text in texts)


def test_real_dyck_words_are_words_of_the_grammar_and_ours_look_like_them(real_data):
    texts = downstream("dyck_languages", real_data / "text" / "bbh_dyck_languages.json")
    assert len(texts) == 250
    for text in texts:
        word = text.removeprefix("Question: " + module.DYCK_TASK).replace("\nAnswer:", "")
        symbols = word.split()
        found = dyck_log_probability(word, depth=len(symbols) // 2, length=len(symbols))
        assert depth_of(word) and -math.inf < found <= math.log(1 / 4) * len(symbols) / 2
    pattern = rf"Question: {module.DYCK_TASK}[][(){{}}<> ]+\nAnswer: [])}}> ]+"
    assert all(re.fullmatch(pattern, text) for text in texts + dyck_words(50, complete=True))


@pytest.mark.parametrize(("lead", "rows"), [
    (False, [[97, 98, 99, 100], [97, 0, 0, 0], [97, 98, 99, 100], [0, 0, 0, 0]]),
    (True, [[0, 97, 98, 99], [0, 97, 0, 0], [0, 97, 98, 99], [0, 0, 0, 0]]),
])
def test_a_text_is_one_window(lead, rows):
    texts = ["abcd", "a", "abcdef", ""]
    assert text_windows(texts, str.encode, 0, 3, lead).tolist() == rows
    assert text_windows([], str.encode, 0, 3, lead).shape == (0, 4)
    assert "length=0: it must be 1 or more" in refusal(text_windows, texts, str.encode, 0, 0)


def test_with_a_lead_the_losses_of_the_true_law_are_its_entropy():
    grammar = Dyck(pairs=2, depth=2, length=6)
    words = [grammar.text(0, rank) for rank in range(grammar.size(0))]
    encode = lambda word: ["([)]".index(symbol) for symbol in word.split()]
    windows = text_windows(words, encode, 4, 8, lead=True)
    losses = [-grammar.log_probabilities(word)[:-1].sum() for word in words]
    assert ((windows[:, 1:] != 4).sum(1) == 6).all()
    assert math.isclose(np.mean(losses), grammar.entropy)


# Grammars


def depth_of(word: str) -> int:
    """The depth of a balanced word, 0 for one that isn't balanced."""
    stack, deepest = [], 0
    for symbol in word.split(" "):
        if symbol in CLOSES:
            stack.append(CLOSES[symbol])
            deepest = max(deepest, len(stack))
        elif not stack or stack.pop() != symbol:
            return 0
    return 0 if stack else deepest


def all_words(pairs: int, length: int) -> list[str]:
    """Every balanced word of a length, by trying every sequence."""
    kinds = "([{<"[:pairs] + ")]}>"[:pairs]
    tried = (" ".join(symbols) for symbols in itertools.product(kinds, repeat=length))
    return [word for word in tried if depth_of(word)]


dyck_arguments = st.builds(
    lambda pairs, depth, more, quarters, along: (pairs, depth, 2 * (depth + 4 + more), quarters / 4, along),
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 8), st.integers(0, 16),
    st.sampled_from(["depth", "length"]))


@settings(deadline=None, max_examples=40)
@given(dyck_arguments, st.integers(0, 2**40))
def test_words_are_balanced_and_of_their_level(arguments, seed):
    grammar = Dyck(*arguments)
    levels = {math.floor(grammar.shift), math.ceil(grammar.shift)}
    for word in grammar.draw(3, seed):
        depth, length = depth_of(word), len(word.split())
        if grammar.along == "length":
            assert 1 <= depth <= grammar.depth and (length - grammar.length) / 2 in levels
        else:
            assert length == grammar.length and max(depth - grammar.depth, 0) in levels and depth
        each = grammar.log_probabilities(word)
        assert len(each) == length + 1 and each.max() <= 1e-9
        assert math.isclose(each.sum(), grammar.log_probability(word), rel_tol=1e-9)


@settings(deadline=None, max_examples=40)
@given(dyck_arguments, st.integers(0, 99))
def test_a_seed_gives_the_same_words_and_fewer_are_the_first_of_more(arguments, seed):
    grammar = Dyck(*arguments)
    words = grammar.draw(6, seed)
    assert grammar.draw(6, seed) == words and grammar.draw(2, seed) == words[:2]


@pytest.mark.parametrize("shift", [0, 0.5, 1, 1.25, 2])
@pytest.mark.parametrize(("pairs", "depth", "length", "along"), [
    (1, 2, 8, "depth"), (2, 1, 6, "depth"), (1, 2, 6, "length"), (2, 1, 4, "length"),
])
def test_probabilities_sum_to_one_over_all_words(pairs, depth, length, along, shift):
    grammar = Dyck(pairs, depth, length, shift, along)
    words = [word for size in range(2, 11 if pairs == 1 else 9, 2) for word in all_words(pairs, size)]
    found = np.array([grammar.log_probability(word) for word in words])
    assert np.isclose(np.exp(found).sum(), 1)
    inside = found[found > -np.inf]
    assert math.isclose(-(np.exp(inside) * inside).sum(), grammar.entropy)
    assert len(inside) == sum(grammar.size(level) for level in {math.floor(shift), math.ceil(shift)})


@pytest.mark.parametrize(("shift", "along"), [(0, "depth"), (1.5, "depth"), (0.5, "length")])
def test_symbol_probabilities_are_those_of_counting_words(shift, along):
    grammar = Dyck(pairs=2, depth=1, length=6, shift=shift, along=along)
    words = [word for size in (6, 8) for word in all_words(2, size)]
    chance = {word: math.exp(grammar.log_probability(word)) for word in words}
    begins = lambda symbols: sum(p for w, p in chance.items() if w.split()[:len(symbols)] == symbols)
    for word in (word for word in words if chance[word]):
        symbols = word.split()
        prefixes = [begins(symbols[:count]) for count in range(len(symbols) + 1)] + [chance[word]]
        assert np.allclose(np.exp(grammar.log_probabilities(word)), np.divide(prefixes[1:], prefixes[:-1]))


def test_every_rank_is_another_word():
    grammar = Dyck(pairs=2, depth=2, length=8)
    for level, depths in ((0, {1, 2}), (1, {3}), (2, {4})):
        words = [grammar.text(level, rank) for rank in range(grammar.size(level))]
        assert {*words} == {word for word in all_words(2, 8) if depth_of(word) in depths}
        assert len({*words}) == len(words)


def test_words_are_drawn_uniformly_and_levels_by_their_share():
    grammar = Dyck(pairs=1, depth=2, length=8, shift=0.25)
    drawn = Counter(grammar.draw(8000, seed=5))
    chances = {word: math.exp(grammar.log_probability(word)) for word in all_words(1, 8)}
    assert drawn.keys() == {word for word, chance in chances.items() if chance}
    chi_squared = sum((count - 8000 * chances[word])**2 / (8000 * chances[word])
                      for word, count in drawn.items())
    assert chi_squared < len(drawn) + 4 * math.sqrt(2 * len(drawn))


@pytest.mark.parametrize("word", [
    "", "( ]", "( (", ") (", "( ) ( )", "( a )", "( ( ( ) ) )", "( ( ( ( ) ) ) )", "{ } { } { }",
    "( ( ) ) ) )",
])
def test_what_is_no_word_of_the_grammar_is_impossible(word):
    grammar = Dyck(pairs=2, depth=2, length=6)
    assert grammar.log_probability(word) == -math.inf
    assert "isn't a word of Dyck(pairs=2" in refusal(grammar.log_probabilities, word)


@settings(deadline=None, max_examples=40)
@given(dyck_arguments, st.integers(0, 99))
def test_a_completion_is_its_word_cut_after_the_last_opening_parenthesis(arguments, seed):
    word = Dyck(*arguments).draw(1, seed)[0]
    question, answer = completion(word).removeprefix("Question: " + module.DYCK_TASK).split("\nAnswer: ")
    assert f"{question} {answer}" == word
    assert question[-1] in CLOSES and not {*answer} & {*CLOSES}


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 4), st.integers(2, 4), st.sampled_from(["+", "-", "+-"]), st.integers(0, 12),
       st.sampled_from(["digits", "terms"]), st.integers(0, 10**6))
def test_answers_are_right_and_sums_of_their_level(digits, terms, operations, quarters, along, seed):
    grammar = Sums(digits, terms, operations, quarters / 4, along)
    levels = {math.floor(grammar.shift), math.ceil(grammar.shift)}
    for text in grammar.draw(5, seed):
        asked, answer = re.fullmatch(r"Question: What is ([-+ 0-9]+)\?\nAnswer: (-?[0-9]+)", text).groups()
        assert eval(asked) == int(answer) and {*asked} & {*"+-"} <= {*operations}
        lengths = [len(number) for number in re.findall("[0-9]+", asked)]
        if along == "terms":
            assert len(lengths) - terms in levels and max(lengths) <= digits
        else:
            assert len(lengths) == terms and max(max(lengths) - digits, 0) in levels
            assert max(lengths) <= digits or min(lengths) == max(lengths)
        assert grammar.log_probability(text) > -math.inf
    assert grammar.draw(2, seed) == grammar.draw(5, seed)[:2]


@pytest.mark.parametrize(("shift", "along"), [(0, "digits"), (0.5, "digits"), (1, "digits"), (0.25, "terms")])
def test_sums_have_probabilities_that_sum_to_one(shift, along):
    grammar = Sums(digits=1, operations="+-", shift=shift, along=along)
    levels = {math.floor(shift), math.ceil(shift)}
    texts = [grammar.text(level, rank) for level in levels for rank in range(grammar.size(level))]
    found = np.array([grammar.log_probability(text) for text in texts])
    assert len({*texts}) == len(texts) and np.isclose(np.exp(found).sum(), 1)
    assert math.isclose(-(np.exp(found) * found).sum(), grammar.entropy)


@pytest.mark.parametrize("text", [
    question_text("What is 2 + 2?", "5"), question_text("What is 2 - 2?", "0"),
    question_text("What is 4?", "4"), question_text("What is 02 + 2?", "4"),
    question_text("What is 22 + 2?", "24"), question_text("What is 2 + 2 + 2?", "6"),
    question_text("What is 2 + 2?", "04"), "2 + 2 = 4", "",
])
def test_what_is_no_right_sum_of_the_grammar_is_impossible(text):
    assert Sums(digits=1).log_probability(text) == -math.inf
    assert Sums(digits=1).log_probability(question_text("What is 2 + 2?", "4")) == -math.log(100)


def test_without_a_shift_it_is_the_law_of_training():
    assert dyck_words(20, 3) == dyck_words(20, 3, shift=0.0, along="length") == Dyck().draw(20, 3)
    assert arithmetic(20, 3) == arithmetic(20, 3, shift=0.0, along="terms") == Sums().draw(20, 3)
    words = dyck_words(300, pairs=2, depth=2, length=10, shift=0.5)
    assert {depth_of(word) for word in words} == {1, 2, 3}
    assert abs(np.mean([depth_of(word) <= 2 for word in words]) - 0.5) < 0.12


@pytest.mark.parametrize(("texts", "digest"), [
    (lambda: dyck_words(50, 7, shift=1.5), "64fe9e905077"),
    (lambda: dyck_words(50, 7, pairs=3, depth=2, length=100, complete=True), "c213d869110b"),
    (lambda: arithmetic(50, 7, operations="+-", shift=0.5), "26762c8d6924"),
])
def test_the_same_bytes_on_every_machine(texts, digest):
    assert hashlib.sha256("\n".join(texts()).encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize(("make", "part"), [
    (lambda: Dyck(pairs=5), "pairs=5: it must be from 1 to 4"),
    (lambda: Dyck(length=7), "length=7: it must be an even number from 2"),
    (lambda: Dyck(depth=0), "depth=0: it must be 1 or more"),
    (lambda: Dyck(shift=-0.5), "shift=-0.5: it must be 0 or more"),
    (lambda: Dyck(shift=math.nan), "shift=nan: it must be 0 or more"),
    (lambda: Dyck(length=10, shift=1.5), "depth + shift = 6: it must be 5 or less, half of length=10"),
    (lambda: Dyck(along="width"), "along='width': it must be one of depth, length"),
    (lambda: Dyck().draw(0), "count=0: it must be 1 or more"),
    (lambda: Dyck().draw(1, -1), "seed=-1: it must be 0 or more"),
    (lambda: Sums(digits=0), "digits=0: it must be 1 or more"),
    (lambda: Sums(terms=1), "terms=1: it must be 2 or more"),
    (lambda: Sums(operations="*"), "operations='*': it must be one of +, -, +-"),
])
def test_grammars_that_cannot_be_are_refused(make, part):
    assert part in refusal(make)


# The axis of the shift


def test_the_ratio_of_perplexities_by_hand():
    nan = math.nan
    inside, outside = np.array([[1.0, 2.0], [3.0, nan]]), np.array([[4.0, 4.0, 1.0], [nan, nan, 3.0]])
    found = shift_ratio(inside, outside)
    assert found == shift_ratio(torch.from_numpy(inside), torch.from_numpy(outside))
    assert math.isclose(found.value, math.exp(3 - 2))
    one = ((3 - 2 * 2)**2 + (3 - 2)**2) / 3**2 * 2
    other = ((9 - 3 * 3)**2 + (3 - 3)**2) / 4**2 * 2
    assert math.isclose(found.error, found.value * math.sqrt(one + other))


def test_its_error_is_that_of_many_repetitions():
    draws = np.random.default_rng(0)

    def losses(windows: int, mean: float) -> np.ndarray:
        """Windows of one to eight tokens, whose losses have a part in common."""
        found = mean + 0.5 * draws.standard_normal((windows, 1)) + draws.standard_normal((windows, 8))
        return np.where(np.arange(8) < draws.integers(1, 9, (windows, 1)), found, np.nan)

    found = [shift_ratio(losses(60, 1.0), losses(40, 1.5)) for _ in range(400)]
    values, errors = np.array(found).T
    assert 0.85 < errors.mean() / values.std() < 1.15
    assert abs(values.mean() - math.exp(0.5)) < 0.1


def test_one_window_has_no_error():
    losses = np.array([[1.0, 2.0], [math.nan, math.nan]])
    assert "losses_out has losses in 1 windows" in refusal(shift_ratio, np.ones((2, 2)), losses)
