"""What `ebwm generate` prints, and what it refuses."""

import json
import re
import shutil

import pytest

from ebwm import cli, writing
from ebwm.generation import gathered, generate_tokens
from ebwm.training import trainer as training

SHAPE = ["data.kind=text", "data.length=16", "data.eval_windows=4", "data.held_out=0.2", "model.dim=16",
         "model.heads=2", "model.step_size=2", "run.logger=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two finished runs on a few lines, named by their kinds."""
    root = tmp_path_factory.mktemp("writing")
    texts = [f"line {number} of a text" for number in range(60)]
    (root / "lines.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache", "runs"):
            patch.setenv(f"EBWM_{name.upper()}", str(root / name))
        patch.setenv("EBWM_DEVICE", "cpu")
        for kind in ("ebt", "transformer"):
            entries = [*SHAPE, f"data.source={root / 'lines.jsonl'}", f"model.kind={kind}"]
            done = training.train(training.load_config("smoke", entries), root / "runs", progress=False)
            done.rename(root / "runs" / kind)
    return root / "runs"


@pytest.fixture
def told(folder, monkeypatch, capsys):
    def call(*words):
        monkeypatch.setenv("EBWM_RUNS", str(folder))
        code = cli.main(["generate", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.removeprefix("ebwm: ")
    return call


@pytest.mark.parametrize("kind", ["ebt", "transformer"])
def test_a_text_is_printed_with_what_follows_it(told, folder, kind):
    code, out, err = told("line 1", "--model", kind, "--tokens", "9", "--temperature", "0")
    language = training.load_language(folder / kind)
    prompt = writing.begun(language, ["line 1"])
    tokens = gathered(generate_tokens(language.model, prompt, 9, end={language.tokenizer.end}, window=16,
                                      **language.thinking())).tokens[0].tolist()
    assert (code, err) == (0, "")
    assert out == "line 1" + language.tokenizer.decode(tokens) + "\n"


def test_texts_side_by_side_are_as_alone(told):
    words = ["--model", "ebt", "--tokens", "12", "--seed", "5"]
    both = told("line", "a longer text", *words)[1]
    alone = [told(text, *words)[1] for text in ("line", "a longer text")]
    assert both == f"== 1\n{alone[0]}== 2\n{alone[1]}"


def test_several_from_one_differ_by_their_seeds(told):
    words = ["--model", "ebt", "--tokens", "12", "--temperature", "1", "--top-p", "1"]
    three = told("line", *words, "--times", "3", "--seed", "4")[1]
    alone = [told("line", *words, "--seed", str(seed))[1] for seed in (4, 5, 6)]
    assert three == "".join(f"== {number}\n{text}" for number, text in enumerate(alone, 1))
    assert len({*alone}) == 3


def test_tokens_are_shown_with_bits_energy_and_steps(told):
    words = ["line", "--tokens", "5", "--show"]
    code, out, err = told(*words, "--model", "ebt", "--steps", "6", "--samples", "2")
    head, *rows = out.splitlines()
    assert (code, err) == (0, "") and head.split() == "token bits energy steps energies asked for".split()
    row = re.compile(r"\S.* +(\d+\.\d\d) +(-?\d+\.\d{4}) +(\d+) +(\d+)")
    cells = [row.fullmatch(line).groups() for line in rows[:5]]
    assert [cell[2:] for cell in cells] == [("6", "14")] * 5
    passed = told(*words, "--model", "transformer")[1].splitlines()[1:]
    assert all(row.split()[-3:] == ["-", "0", "0"] for row in passed[:5])


def test_an_adaptive_walk_stops_sooner(told):
    words = ["line", "--model", "ebt", "--tokens", "6", "--show", "--steps", "30"]
    steps = lambda out: [int(row.split()[-2]) for row in out.splitlines()[1:7]]
    assert steps(told(*words)[1]) == [30] * 6
    assert max(steps(told(*words, "--adaptive", "1000")[1])) == 2


def test_a_text_ends_at_a_token_of_its_own(told, folder):
    language = training.load_language(folder / "ebt")
    whole = told("line", "--model", "ebt", "--tokens", "40", "--temperature", "1", "--top-p", "1")[1]
    new = whole.removeprefix("line").rstrip("\n")
    letter = next(letter for letter in new if letter.isascii())
    stopped = told("line", "--model", "ebt", "--tokens", "40", "--temperature", "1", "--top-p", "1",
                   "--stop", letter)[1]
    assert stopped == "line" + new[:new.index(letter)] + "\n"
    assert language.tokenizer.end in writing.ends_of(language, [letter])


def test_without_a_text_a_document_begins(told):
    code, out, _ = told("--model", "ebt", "--tokens", "4", "--show")
    assert code == 0 and len(out.splitlines()) >= 2


@pytest.mark.parametrize("words, message", [
    (["--model", "none"], "model 'none' is neither a finished run's name nor a folder with model.safe"),
    (["--stop", "ab"], "--stop 'ab' is 2 tokens of this model ('a', 'b'); give one that is a single token"),
    (["--temperature", "-1"], "temperature is -1.0; it must be 0 or more"),
    (["--top-p", "2"], "top_p is 2.0; it must be above 0 and at most 1"),
    (["--tokens", "0"], "argument --tokens: '0' is no whole number above 0"),
    (["--adaptive", "0"], "--adaptive is 0.0; it must be a change of energy above 0"),
    (["--model", "transformer", "--steps", "3"], "--steps: a transformer predicts in one pass and"),
    (["--model", "transformer", "--adaptive", "1", "--samples", "2"], "--samples, --adaptive: a transformer"),
])
def test_what_cannot_be_written_is_told_in_one_line(told, words, message):
    code, out, err = told("line", *(words if "--model" in words else ["--model", "ebt", *words]))
    assert (code, out) == (2, "") and err.startswith(message) and err.count("\n") == 1


def test_a_run_on_clips_has_no_text(runs):
    clips = training.train(training.load_config("smoke", ["run.logger=none"]), runs, progress=False)
    with pytest.raises(training.ConfigError, match="holds no model of text: it was trained on clips"):
        training.load_language(clips)


def test_a_model_of_text_needs_its_tokenizer(folder, tmp_path):
    shutil.copytree(folder / "ebt", tmp_path / "ebt")
    (tmp_path / "ebt" / "tokenizer.json").unlink()
    with pytest.raises(training.ConfigError, match="holds a model of text, but no tokenizer"):
        training.load_language(tmp_path / "ebt")
