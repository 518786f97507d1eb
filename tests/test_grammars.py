"""Grammars against plain enumeration: balanced words, right sums, probabilities that sum to one."""

import hashlib
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebwm.data.grammars import DYCK_TASK, Dyck, Sums, arithmetic, completion, dyck_words
from ebwm.data.questions import downstream, question_text
from ebwm.evaluation.statistics import perplexity_ratio

CLOSES = dict(zip("([{<", ")]}>", strict=True))
QUESTION = re.compile(r"Question: What is ([-+ 0-9]+)\?\nAnswer: (-?[0-9]+)")


def depth_of(word: str) -> int:
    """The depth of a balanced word, 0 for any other."""
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


def levels_of(shift: float) -> set[int]:
    return {math.floor(shift), math.ceil(shift)}


dyck_arguments = st.builds(
    lambda pairs, depth, more, quarters, along: (pairs, depth, 2 * (depth + 4 + more), quarters / 4, along),
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 8), st.integers(0, 16),
    st.sampled_from(["depth", "length"]))


@settings(deadline=None, max_examples=40)
@given(dyck_arguments, st.integers(0, 2**40))
def test_words_are_balanced_reproducible_and_of_their_level(arguments, seed):
    grammar = Dyck(*arguments)
    words = grammar.draw(3, seed)
    assert grammar.draw(3, seed) == words and grammar.draw(2, seed) == words[:2]
    for word in words:
        depth, length = depth_of(word), len(word.split())
        if grammar.along == "length":
            assert 1 <= depth <= grammar.depth and (length - grammar.length) / 2 in levels_of(grammar.shift)
        else:
            assert length == grammar.length and depth
            assert max(depth - grammar.depth, 0) in levels_of(grammar.shift)
        each = grammar.log_probabilities(word)
        assert len(each) == length + 1 and each.max() <= 1e-9
        assert math.isclose(each.sum(), grammar.log_probability(word), rel_tol=1e-9)
        question, answer = completion(word).removeprefix("Question: " + DYCK_TASK).split("\nAnswer: ")
        assert f"{question} {answer}" == word and question[-1] in CLOSES and not {*answer} & {*CLOSES}


@pytest.mark.parametrize("shift", [0, 0.5, 1, 1.25])
@pytest.mark.parametrize("pairs, depth, length, along", [
    (1, 2, 8, "depth"), (2, 1, 6, "depth"), (1, 2, 6, "length"), (2, 1, 4, "length")])
def test_probabilities_sum_to_one_over_all_words(pairs, depth, length, along, shift):
    grammar = Dyck(pairs, depth, length, shift, along)
    words = [word for size in range(2, 11 if pairs == 1 else 9, 2) for word in all_words(pairs, size)]
    found = np.array([grammar.log_probability(word) for word in words])
    assert np.isclose(np.exp(found).sum(), 1)
    inside = found[found > -np.inf]
    assert math.isclose(-(np.exp(inside) * inside).sum(), grammar.entropy)
    assert len(inside) == sum(grammar.size(level) for level in levels_of(shift))


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


@pytest.mark.parametrize("pairs, depth, length", [(1, 2, 8), (2, 1, 6)])
def test_words_are_drawn_uniformly_and_levels_by_their_share(pairs, depth, length):
    grammar = Dyck(pairs, depth, length, shift=0.25)
    drawn = Counter(grammar.draw(8000, seed=5))
    chances = {word: math.exp(grammar.log_probability(word)) for word in all_words(pairs, length)}
    assert drawn.keys() == {word for word, chance in chances.items() if chance}
    chi_squared = sum((count - 8000 * chances[word])**2 / (8000 * chances[word])
                      for word, count in drawn.items())
    assert chi_squared < len(drawn) + 4 * math.sqrt(2 * len(drawn))


@pytest.mark.parametrize("word", [
    "", "( ]", "( (", ") (", "( ) ( )", "( a )", "( ( ( ) ) )", "( ( ( ( ) ) ) )", "{ } { } { }", "( ( ) ) ) )"])
def test_other_words_are_impossible(word):
    grammar = Dyck(pairs=2, depth=2, length=6)
    assert grammar.log_probability(word) == -math.inf
    with pytest.raises(ValueError, match="word="):
        grammar.log_probabilities(word)


def test_real_dyck_words_belong_to_the_grammar(real_data):
    texts = downstream("dyck_languages", real_data / "text" / "bbh_dyck_languages.json")
    words = [text.removeprefix("Question: " + DYCK_TASK).replace("\nAnswer:", "") for text in texts]
    assert len(texts) == 250
    for word, length in ((word, len(word.split())) for word in words):
        assert Dyck(depth=length // 2, length=length).log_probability(word) > -math.inf and depth_of(word)
    pattern = rf"Question: {DYCK_TASK}[][(){{}}<> ]+\nAnswer: [])}}> ]+"
    assert all(re.fullmatch(pattern, text) for text in texts + dyck_words(50, complete=True))


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 4), st.integers(2, 4), st.sampled_from(["+", "-", "+-"]), st.integers(0, 12),
       st.sampled_from(["digits", "terms"]), st.integers(0, 10**6))
def test_answers_are_right_and_sums_of_their_level(digits, terms, operations, quarters, along, seed):
    grammar = Sums(digits, terms, operations, quarters / 4, along)
    levels = levels_of(grammar.shift)
    for text in grammar.draw(5, seed):
        asked, answer = QUESTION.fullmatch(text).groups()
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
    texts = [grammar.text(level, rank) for level in levels_of(shift) for rank in range(grammar.size(level))]
    found = np.array([grammar.log_probability(text) for text in texts])
    assert len({*texts}) == len(texts) and np.isclose(np.exp(found).sum(), 1)
    assert math.isclose(-(np.exp(found) * found).sum(), grammar.entropy)


@pytest.mark.parametrize("asked, answer, value", [
    ("2 + 2", "4", -math.log(100)), ("2 + 2", "5", -math.inf), ("2 - 2", "0", -math.inf), ("4", "4", -math.inf),
    ("02 + 2", "4", -math.inf), ("22 + 2", "24", -math.inf), ("2 + 2 + 2", "6", -math.inf),
    ("2 + 2", "04", -math.inf), ("", "", -math.inf)])
def test_other_sums_are_impossible(asked, answer, value):
    assert Sums(digits=1).log_probability(question_text(f"What is {asked}?", answer)) == value


def test_bytes_are_the_same_on_every_machine():
    found = [dyck_words(50, 7, shift=1.5), dyck_words(50, 7, pairs=3, depth=2, length=100, complete=True),
             arithmetic(50, 7, operations="+-", shift=0.5)]
    digests = [hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12] for texts in found]
    assert digests == ["64fe9e905077", "c213d869110b", "26762c8d6924"]


def test_the_ratio_of_perplexities_by_hand():
    nan = math.nan
    outside = np.array([[4.0, 4.0, 1.0], [nan, nan, 3.0], [nan] * 3])
    found = perplexity_ratio(np.array([[1.0, 2.0], [3.0, nan]]), outside)
    assert math.isclose(found.value, math.exp(3 - 2))
    one = ((3 - 2 * 2)**2 + (3 - 2)**2) / 3**2 * 2
    other = ((9 - 3 * 3)**2 + (3 - 3)**2) / 4**2 * 2
    assert math.isclose(found.error, found.value * math.sqrt(one + other))
