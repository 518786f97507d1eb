"""The output of `ebwm generate`, and its refusals."""

import math
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny_text import write_lines

from ebwm import cli, writing
from ebwm.generation import Generated, gathered, generate_tokens
from ebwm.training.configuration import ConfigError
from ebwm.training.presets import load_config
from ebwm.training.run import train

SHAPE = ["data.kind=text", "data.length=16", "data.eval_windows=4", "data.held_out=0.2", "model.dim=16",
         "model.heads=2", "walk.step_size=2", "run.logger=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two finished runs on a few lines, named by their kinds."""
    root = tmp_path_factory.mktemp("writing")
    source = write_lines(root / "lines.jsonl", [f"line {number} of a text" for number in range(60)])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CACHE": root / "cache", "RUNS": root / "runs", "DEVICE": "cpu"}.items():
            patch.setenv(f"EBWM_{name}", str(value))
        for kind in ("ebt", "transformer"):
            config = load_config("smoke", [*SHAPE, f"data.source={source}", f"model.kind={kind}"])
            train(config, root / "runs", progress=False).rename(root / "runs" / kind)
    return root / "runs"


@pytest.fixture
def call(folder, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setenv("EBWM_RUNS", str(folder))
        code = cli.main(["generate", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.removeprefix("ebwm: ")
    return run


@pytest.mark.parametrize("kind", ["ebt", "transformer"])
def test_a_text_is_printed_with_its_continuation(call, folder, kind):
    code, out, err = call("line 1", "--model", kind, "--tokens", "9", "--temperature", "0")
    language = writing.load_language(folder / kind)
    prompt = writing.prompts_of(language, ["line 1"])
    tokens = gathered(generate_tokens(language.model, prompt, 9, end={language.tokenizer.end}, window=16,
                                      **language.walk())).tokens[0].tolist()
    assert (code, err) == (0, "")
    assert out == "line 1" + language.tokenizer.decode(tokens) + "\n"


def same_but_for_rounding(first, second):
    """Whether two texts are the same, but for the last digit of their decimal numbers."""
    decimal = re.compile(r"-?\d+\.\d+")
    numbers = [[float(number) for number in decimal.findall(text)] for text in (first, second)]
    return decimal.sub("", first) == decimal.sub("", second) and numbers[0] == pytest.approx(numbers[1], abs=1.01e-4)


def test_several_texts_are_continued_as_single_ones_and_one_text_with_consecutive_seeds(call):
    words = ["--model", "ebt", "--tokens", "12", "--temperature", "1", "--top-p", "1"]
    numbered = lambda texts: "".join(f"== {number}\n{text}" for number, text in enumerate(texts, 1))
    character = call("line", *words)[1].removeprefix("line").strip()[0]
    for option in ([], ["--show"], ["--show", "--stop", character]):
        alone = [call(text, *words, *option)[1] for text in ("line", "a longer text")]
        together = call("line", "a longer text", *words, *option)[1]
        assert same_but_for_rounding(together, numbered(alone).replace("\n\n", "\n"))
    alone = [call("line", *words, "--seed", str(seed))[1] for seed in (4, 5, 6)]
    assert call("line", *words, "--times", "3", "--seed", "4")[1] == numbered(alone) and len({*alone}) == 3


def test_tokens_are_shown_with_bits_energy_and_steps_which_adaptive_sampling_reduces(call):
    words = ["line", "--tokens", "5", "--show"]
    code, out, err = call(*words, "--model", "ebt", "--steps", "6", "--samples", "2")
    head, *rows = out.splitlines()
    assert (code, err) == (0, "") and head.split() == "token bits energy steps energy evaluations".split()
    row = re.compile(r"\S.* +(\d+\.\d\d) +(-?\d+\.\d{4}) +(\d+) +(\d+)")
    assert [row.fullmatch(line).groups()[2:] for line in rows[:5]] == [("6", "14")] * 5
    _, *rows = call(*words, "--model", "transformer")[1].splitlines()
    assert all(row.split()[-3:] == ["-", "0", "0"] for row in rows[:5])
    for option, most in ((["--steps", "30"], 30), (["--steps", "30", "--adaptive", "1000"], 2)):
        _, *rows = call(*words, "--model", "ebt", *option)[1].splitlines()
        assert max(int(row.split()[-2]) for row in rows[:5]) == most


def test_a_text_ends_at_a_stop_token(call, folder):
    words = ["line", "--model", "ebt", "--tokens", "40", "--temperature", "1", "--top-p", "1"]
    new = call(*words)[1].removeprefix("line").rstrip("\n")
    character = next(character for character in new if character.isascii())
    assert call(*words, "--stop", character)[1] == "line" + new[:new.index(character)] + "\n"
    language = writing.load_language(folder / "ebt")
    assert writing.end_tokens(language, [character]) == {ord(character), language.tokenizer.end}
    row = Generated(*map(torch.tensor, ([language.tokenizer.end], [-2 * math.log(2)], [1.5], [3], [4], [True])))
    assert writing.row_of(language, row).split() == ["(end)", "2.00", "1.5000", "3", "4"]


def test_models_are_found_as_folders_shipped_models_or_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("here", "shipped/small", "runs/001"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").touch()
    find = lambda name: writing.find_model(name, Path("runs"), Path("shipped"))
    assert [*map(find, ("here", "small", "001"))] == [Path("here"), Path("shipped/small"), Path("runs/001")]


def test_without_a_text_a_new_one_is_generated(call):
    code, out, _ = call("--model", "ebt", "--tokens", "4", "--show")
    assert code == 0 and len(out.splitlines()) >= 2


@pytest.mark.parametrize("words", [
    ["--model", "none"], ["--stop", "ab"], ["--temperature", "-1"], ["--top-p", "2"], ["--tokens", "0"],
    ["--adaptive", "0"], ["--model", "transformer", "--steps", "3"],
    ["--model", "transformer", "--samples", "2"]])
def test_options_are_refused_in_one_line(call, words):
    code, out, err = call("line", "--model", "ebt", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words[-2].strip("-").replace("-", "_") in err.replace("-", "_")


def test_a_tokenizer_whose_package_is_missing_names_it(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    code, out, err = call("text", "--model", "text")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("'tokenizers' cannot be imported") and err.endswith("pip install 'ebwm[text]'\n")


def test_a_run_on_clips_and_a_model_without_its_tokenizer_are_refused(folder, runs, tmp_path):
    clips = train(load_config("smoke", ["run.logger=none"]), runs, progress=False)
    alone = shutil.copytree(folder / "ebt", tmp_path / "ebt")
    (alone / "tokenizer.json").unlink()
    for model, message in ((clips, "trained on clips"), (alone, "tokenizer")):
        with pytest.raises(ConfigError, match=message):
            writing.load_language(model)
