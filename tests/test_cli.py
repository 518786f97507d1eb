"""The command line: exit codes, one-line messages, what is printed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import ebwm
from ebwm import cli, compat, figures, settings
from ebwm.figures import NotebookError
from ebwm.figures.ledger import Compared


@pytest.fixture
def told(capsys):
    """Call the command; its exit code, standard output, and standard error without the leading `ebwm: `."""
    def call(*words):
        code = cli.main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err.removeprefix("ebwm: ")
    return call


def stand_in(monkeypatch, make):
    """Make figures without notebooks: `make` takes the plans and the options, and returns an outcome."""
    monkeypatch.setattr(figures, "make", make)


@pytest.mark.parametrize("words, message", [
    ([], "name a command: one of figures, train, info"),
    (["figures"], "name a figures command: one of list, run, replay, check, promote, report"),
    (["figurs"], "unknown command 'figurs'; did you mean 'figures'? allowed: figures, info, train"),
    (["figures", "lst"], "unknown figures command 'lst'; did you mean 'list'?"),
    (["figures", "list", "--scale", "cpo"], "unknown scale 'cpo'; did you mean 'cpu'? allowed: cpu, gpu"),
    (["figures", "list", "--scal", "cpu"], "unrecognized arguments: --scal cpu (see ebwm --help)"),
    (["figures", "run"], "name a figure, or give --all or --headline; known: fan, tiny"),
    (["figures", "run", "tiny", "--all"], "name figures, or give --all or --headline, not both"),
    (["figures", "run", "tinny"], "unknown figure 'tinny'; did you mean 'tiny'?"),
    (["figures", "run", "tiny", "-p", "updates"], "-p 'updates' is not NAME=VALUE, as in -p updates=100"),
    (["figures", "run", "tiny", "-p", "updtes=3"], "unknown parameter 'updtes'; did you mean 'updates'?"),
    (["figures", "run", "tiny", "-p", "updates=many"], "'updates' is 'many'; it must be a whole number"),
    (["figures", "run", "tiny", "--cores", "0"], "argument --cores: '0' is no whole number above 0"),
    (["figures", "run", "tiny", "--profile", "nowhere"], "--profile 'nowhere' is no folder here; there is"),
    (["figures", "replay", "tiny"], "figure 'tiny' has nothing in figures/tiny to compare with"),
    (["figures", "check", "tinny"], "unknown figure 'tinny'; did you mean 'tiny'?"),
    (["figures", "promote"], "the following arguments are required: ID (see ebwm figures promote --help)"),
    (["figures", "promote", "tiny"], "figure 'tiny' has no run at scale 'smoke'"),
])
def test_what_is_refused_is_told_in_one_line(project, told, words, message):
    code, out, err = told(*words)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert [p.name for p in (project / "figures").iterdir()] == ["figures.yaml"]


def test_wrong_settings_and_missing_registry_are_told_in_one_line(project, told, monkeypatch):
    monkeypatch.setenv("EBWM_SCALE", "huge")
    code, _, err = told("figures", "list")
    assert code == 2 and "'huge'" in err and err.count("\n") == 1
    monkeypatch.delenv("EBWM_SCALE")
    (project / "figures/figures.yaml").unlink()
    code, _, err = told("figures", "list")
    assert code == 2 and "no figures.yaml" in err and err.count("\n") == 1


def test_missing_package_is_told_in_one_line_but_broken_ones_are_not(project, told, monkeypatch):
    def missing(*arguments):
        raise ImportError("'yaml' cannot be imported (no such module): pip install 'ebwm[figures]'")

    def broken(*arguments):
        raise ImportError("cannot import name 'a' from 'b'")

    monkeypatch.setattr("ebwm.figures.notebook.require", missing)
    assert told("figures", "list") == (2, "", "'yaml' cannot be imported (no such module): "
                                              "pip install 'ebwm[figures]'\n")
    monkeypatch.setattr("ebwm.figures.notebook.require", broken)
    with pytest.raises(ImportError, match="cannot import name"):
        told("figures", "list")


@pytest.mark.parametrize("text, value", [
    ("3", 3), ("0.5", 0.5), ("1e-3", 1e-3), ("[1, 2]", [1, 2]), ("0,1", (0, 1)), ("true", True),
    ("False", False), ("null", None),
    ("None", None), ("clips/a b", "clips/a b"), ("'3'", "3"), ("", ""), ("a=b", "a=b"),
])
def test_values_of_parameters(text, value):
    name, parsed = cli._assignment(f"x={text}")
    assert name == "x" and parsed == value and type(parsed) is type(value)


def test_run_prints_the_table_and_passes_parameters_on(project, told, monkeypatch):
    given = []

    def make(plans, *options):
        given.extend([plans, options])
        return figures.Outcome(made={plan.figure.id: plan.folder for plan in plans})

    stand_in(monkeypatch, make)
    words = ["--scale", "cpu", "tiny", "-p", "updates=5", "-p", "seeds=7,8", "--cores", "3", "--force"]
    code, out, err = told("figures", "run", *words)
    assert code == 0 and err == "tiny: A tiny figure (cpu)\n"
    assert out.startswith("tiny  made          figures/tiny/runs/cpu\n    A tiny figure\nfan ")
    assert given[0][0].parameters == {"scale": "cpu", "updates": 5, "seeds": [7, 8]}
    assert given[1] == (3, True, None)


@pytest.mark.parametrize("choice", ["--all", "--headline"])
def test_run_of_many_tells_which_failed(project, told, monkeypatch, choice):
    failed = {"tiny": "figure 'tiny' failed: ValueError: no"}
    stand_in(monkeypatch, lambda *given: figures.Outcome(failed=failed))
    code, out, err = told("figures", "run", choice)
    assert code == 1 and "ebwm: figure 'tiny' failed: ValueError: no\n" in err
    assert out.startswith("tiny  failed  ebwm figures run tiny\n")


def test_one_wrong_figure_stops_all_before_the_first(project, told, monkeypatch):
    stand_in(monkeypatch, lambda *given: pytest.fail("nothing may run"))
    assert told("figures", "run", "tiny", "later")[0] == 2


def test_interruption(project, told, monkeypatch):
    def interrupt(*given):
        raise KeyboardInterrupt

    stand_in(monkeypatch, interrupt)
    code, out, err = told("figures", "run", "tiny")
    assert code == 130 and err.endswith("ebwm: interrupted\n") and out == ""


def test_list_and_promote(project, told):
    code, out, _ = told("figures", "list", "--scale", "cpu")
    assert code == 0 and out.startswith("tiny  3 min         ebwm figures run tiny --scale cpu\n")
    asked = figures.plan("tiny").parameters
    defaults = figures.parameter_defaults(project / "nbs/figures/tiny.ipynb")
    figures.Record("tiny", defaults | asked).close()
    code, out, _ = told("figures", "promote", "tiny")
    assert code == 0 and out == f"tiny: 1 files on record in {project / 'figures/tiny'}\n"


def test_replay_tells_each_array_and_counts_them(project, told, monkeypatch):
    rows = [Compared("a.seed", "exact", 0.0, 0.0), Compared("a.loss", "within tolerance", 0.01, 0.1)]
    monkeypatch.setattr(figures, "replay", lambda id, scale: rows)
    lines = ["a.seed  exact", "a.loss  within tolerance; differs by 0.01, allowed 0.1", "",
             "tiny: 1 exact, 1 within tolerance"]
    assert told("figures", "replay", "tiny") == (0, "\n".join(lines) + "\n", "")
    rows.append(Compared("a.more", "drifted", None, 0.0))
    code, out, _ = told("figures", "replay", "tiny")
    assert code == 1 and out.endswith("a.more  drifted\n\ntiny: 1 exact, 1 within tolerance, 1 drifted\n")

    def fail(id, scale):
        raise NotebookError("figure 'tiny' failed: ValueError: no")

    monkeypatch.setattr(figures, "replay", fail)
    assert told("figures", "replay", "tiny") == (1, "", "figure 'tiny' failed: ValueError: no\n")


def test_check_and_report(project, told):
    assert told("figures", "check") == (0, "tiny: nothing on record\nfan: nothing on record\n", "")
    code, out, _ = told("figures", "report")
    assert code == 0 and out.startswith("# Claims of the papers\n\n1 claims: 1 not made.\n")
    assert told("figures", "report", "--out", "report.md") == (0, "the report is report.md\n", "")
    assert (project / "report.md").read_text() == out


class ConfigError(ValueError):
    """As in the module that trains."""


def training(train):
    """A stand-in for the module that trains."""
    def load_config(source, overrides):
        if source != "small":
            raise ConfigError(f"configuration {source!r} is neither a preset (small) nor a file")
        return {"source": source, "overrides": overrides}

    functions = dict(presets=lambda: ["small"], load_config=load_config, train=train)
    return SimpleNamespace(**functions, ConfigError=ConfigError)


def diverge(config):
    raise FloatingPointError("loss nan: not finite")


@pytest.mark.parametrize("words, code, out, err", [
    (["--list"], 0, "small\n", ""),
    (["small", "a.b=1", "c=x"], 0, "runs/001 {'source': 'small', 'overrides': ['a.b=1', 'c=x']}\n", ""),
    ([], 2, "", "name a configuration: a JSON file or one of small\n"),
    (["smal"], 2, "", "configuration 'smal' is neither a preset (small) nor a file\n"),
])
def test_train(monkeypatch, told, words, code, out, err):
    monkeypatch.setattr(ebwm, "training", training(lambda config: f"runs/001 {config}"), raising=False)
    assert told("train", *words) == (code, out, err)


def test_train_that_diverges_fails_in_one_line(monkeypatch, told):
    monkeypatch.setattr(ebwm, "training", training(diverge), raising=False)
    assert told("train", "small") == (1, "", "loss nan: not finite\n")


def test_a_mistake_inside_training_is_not_called_a_refusal(monkeypatch, told):
    def mistaken(config):
        raise ValueError("an array of the wrong shape")

    monkeypatch.setattr(ebwm, "training", training(mistaken), raising=False)
    with pytest.raises(ValueError, match="wrong shape"):
        told("train", "small")


def test_info(project, told, monkeypatch):
    monkeypatch.setenv("EBWM_SEEDS", "4 5")
    monkeypatch.setattr(compat, "installed", lambda package: package != "furo")
    code, out, err = told("info")
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    assert code == 0 and err == "" and rows["setting seeds"] == "4 5 (from EBWM_SEEDS)"
    assert rows["setting root"] == str(project) and rows["setting scale"] == "smoke"
    assert rows["extra docs"] == "lacks furo: pip install 'ebwm[docs]'"
    assert "papermill" in rows["extra figures"] and rows["device"] == "cpu in use"
    assert {"python", "chromium", "quarto", "GPUs", "processor"} <= rows.keys()
    assert set(settings.load().__dict__) == {n.split()[1] for n in rows if n.startswith("setting ")}


def test_version_and_module(project):
    environment = {**os.environ, "PYTHONPATH": str(Path(ebwm.__file__).parents[1])}

    def call(*words):
        command = [sys.executable, "-m", "ebwm", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    shown = call("--version")
    assert shown.stdout == f"ebwm {ebwm.__version__}\n" and shown.stderr == "" and shown.returncode == 0
    refused = call("figures", "run", "tinny")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr == "ebwm: unknown figure 'tinny'; did you mean 'tiny'? allowed: fan, tiny\n"
