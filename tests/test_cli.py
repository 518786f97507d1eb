"""The command line: exit codes, messages and output. Refusals of figures are in refusals/figures.py."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import SHAPE, tiny_pairs, tiny_states
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

import ebwm
from ebwm import cli, compat, figures, settings
from ebwm.figures import NotebookError
from ebwm.figures.commands import _assignment
from ebwm.figures.comparison import Compared
from ebwm.figures.ledger import Checked
from ebwm.training import configuration, presets
from ebwm.training import run as running
from ebwm.training.checkpoint import CheckpointError
from ebwm.training.run import RunError


@pytest.fixture
def told(capsys):
    """Call the command; returns exit code, standard output, and standard error without `ebwm: `."""
    def call(*words):
        code = cli.main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err.removeprefix("ebwm: ")
    return call


@pytest.mark.parametrize("words, scale, message", [
    (["figures", "run", "tiny", "-p", "updtes=3"], "smoke", "did you mean 'updates'?"),
    (["figures", "list"], "huge", "scale='huge'"),
])
def test_a_refusal_is_one_line_and_writes_nothing(project, told, monkeypatch, words, scale, message):
    monkeypatch.setenv("EBWM_SCALE", scale)
    code, out, err = told(*words)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert [p.name for p in (project / "figures").iterdir()] == ["figures.yaml"]
    assert not (project / "runs").exists()


def raising(error):
    """A function that raises an error."""
    def call(*arguments, **options):
        raise error

    return call


def test_a_missing_package_is_reported_in_one_line_but_a_broken_one_is_not(project, told, monkeypatch):
    message = "'yaml' cannot be imported (no such module): pip install 'ebwm[figures]'"
    monkeypatch.setattr("ebwm.figures.notebook.require", raising(ImportError(message)))
    assert told("figures", "list") == (2, "", f"{message}\n")
    monkeypatch.setattr("ebwm.figures.notebook.require", raising(ImportError("cannot import name 'a' from 'b'")))
    with pytest.raises(ImportError, match="cannot import name"):
        told("figures", "list")


@pytest.mark.parametrize("text, value", [
    ("3", 3), ("0.5", 0.5), ("1e-3", 1e-3), ("[1, 2]", [1, 2]), ("0,1", (0, 1)), ("true", True),
    ("False", False), ("null", None),
    ("None", None), ("clips/a b", "clips/a b"), ("'3'", "3"), ("", ""), ("a=b", "a=b"),
])
def test_values_of_parameters(text, value):
    name, parsed = _assignment(f"x={text}")
    assert name == "x" and parsed == value and type(parsed) is type(value)


def test_run_passes_parameters_and_prints_a_summary(project, told, monkeypatch):
    """A figure that is named twice is made once."""
    given = []

    def make(plans, *options):
        given.extend([plans, options])
        return figures.Outcome(made={plan.figure.id: plan.folder for plan in plans})

    monkeypatch.setattr(figures, "make", make)
    words = ["--scale", "cpu", "tiny", "tiny", "-p", "updates=5", "-p", "seeds=7,8", "--cores", "3", "--force"]
    code, out, err = told("figures", "run", *words)
    assert code == 0 and err == "tiny: A tiny figure (cpu)\n"
    assert out.startswith("tiny: made: figures/tiny/runs/cpu-seeds=7_8-updates=5\n    ")
    assert given[0][0].parameters == {"scale": "cpu", "updates": 5, "seeds": [7, 8]}
    assert given[1] == (3, True, None, "")


@pytest.mark.parametrize("choice, chosen", [("--all", ["tiny", "fan"]), ("--headline", ["tiny"])])
def test_failures_of_a_batch_are_reported(project, told, monkeypatch, choice, chosen):
    failed = {"tiny": "figure 'tiny' failed: ValueError: no"}
    made = []
    monkeypatch.setattr(figures, "make", lambda plans, *given: made.extend(plans) or figures.Outcome(failed=failed))
    code, _, err = told("figures", "run", choice)
    assert [plan.figure.id for plan in made] == chosen
    assert code == 1 and err.endswith("ebwm: figure 'tiny' failed: ValueError: no\n")


def test_interruption(project, told, monkeypatch):
    monkeypatch.setattr(figures, "make", raising(KeyboardInterrupt()))
    code, out, err = told("figures", "run", "tiny")
    assert code == 130 and err.endswith("ebwm: interrupted\n") and out == ""


def test_list_and_promote(project, told):
    code, out, _ = told("figures", "list", "--scale", "cpu")
    assert code == 0 and out.startswith("tiny  3 min         ebwm figures run tiny --scale cpu\n")
    defaults = figures.parameter_defaults(project / "nbs/figures/tiny.ipynb")
    figures.Record("tiny", defaults | figures.plan("tiny").parameters).close()
    assert told("figures", "promote", "tiny")[:2] == (0, f"tiny: 1 files on record in {project / 'figures/tiny'}\n")


def test_replay_prints_each_array_and_counts_them(project, told, monkeypatch):
    rows = [Compared("a.loss", "within tolerance", 0.01, 0.1)]
    monkeypatch.setattr(figures, "replay", lambda id, scale, threads, cores: rows)
    first = "a.loss  within tolerance; differs by 0.01, allowed 0.1\n"
    assert told("figures", "replay", "tiny") == (0, f"{first}\ntiny: 1 within tolerance\n", "")
    rows.append(Compared("a.more", "drifted", None, 0.0))
    lines = f"{first}a.more  drifted\n\ntiny: 1 within tolerance, 1 drifted\n"
    assert told("figures", "replay", "tiny") == (1, lines, "")
    monkeypatch.setattr(figures, "replay", raising(NotebookError("figure 'tiny' failed: ValueError: no")))
    assert told("figures", "replay", "tiny") == (1, "", "figure 'tiny' failed: ValueError: no\n")


def test_check_and_report(project, told, monkeypatch):
    assert told("figures", "check") == (0, "tiny: nothing on record\nfan: nothing on record\n", "")
    code, out, _ = told("figures", "report")
    assert code == 0 and "\n1 claims about models. In our setting: 1 not measured." in out
    assert told("figures", "report", "--out", "report.md") == (0, "report written to report.md\n", "")
    assert (project / "report.md").read_text() == out
    names = ("figures/report.md", "nbs/guides/results.md", "nbs/guides/learned.md")
    assert told("figures", "report", "--write") == (0, "".join(f"{name} written\n" for name in names), "")
    assert (project / names[0]).read_text() == out and all((project / name).is_file() for name in names)
    rows = [Checked("tiny", "cpu", (), ("notebook", "package torch"))]
    monkeypatch.setattr(figures, "check", lambda ids: rows)
    stale = "tiny: on record at scale cpu, complete\n    stale: changed since the run: notebook, package torch\n"
    assert told("figures", "check") == (0, stale, "")
    rows.append(Checked("fan", "", ("a.png is missing",), ()))
    assert told("figures", "check") == (1, f"{stale}fan: WRONG\n    a.png is missing\n", "")


# Training and runs


def test_presets_are_listed_with_one_line_for_each_family(told):
    code, out, err = told("train", "--list")
    names = [line.split()[0] for line in out.splitlines() if line[0] != " "]
    alone = [name for name in presets.presets() if name.count("-") != 2]
    assert (code, err) == (0, "") and names == [*alone, "video-SIZE-RECIPE", "text-SIZE-RECIPE"]
    assert "smoke                   ebt 1x256 by s1, 3 updates of 4 clips, 16x16 pixels\n" in out
    words = set(re.findall(r"\w+", out[out.index("RECIPE: "):]))
    families = [name.split("-") for name in presets.presets() if name not in alone]
    assert {part for name in families for part in name[1:]} <= words
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", ["next_frame", "states", "pairs", "features-xxs", "game-xxs", "patches", "text"])
def test_a_printed_configuration_can_be_read_back(told, tmp_path, name):
    changed = ["seed=3", "run.logger=none", "recipe.most=none"]
    code, out, err = told("train", name, *changed, "--print-config")
    entries = [shlex.split(line, comments=True) for line in out.splitlines()]
    assert (code, err) == (0, "") and all(len(words) == 1 for words in entries)
    assert all(re.search("  # .", line) for line in out.splitlines()), "each entry is explained"
    assert presets.load_config("smoke", [entry for [entry] in entries]) == presets.load_config(name, changed)


def test_a_configuration_is_printed_of_a_new_run_only(told):
    assert told("train", "--print-config")[0] == 2
    assert "ebwm runs show" in told("train", "--resume", "001", "--print-config")[2]


def test_a_run_is_trained_and_resumed_by_its_name_with_other_entries(project, told):
    folder = project / "runs/001"
    code, out, err = told("train", "smoke", "run.logger=none", "run.save_every=1", "seed=3")
    assert (code, out) == (0, f"{folder}\n")
    assert "trivial baselines: last state" in err and err.endswith(f"More: ebwm runs show {folder}\n")
    assert presets.load_config(str(folder / "config.json")).seed == 3
    assert told("train", "--resume", "001", "run.keep=2", "--changed", "run.keep=1")[0] == 0, "entries on both sides"
    assert len(list((folder / "checkpoints").glob("*.safetensors"))) == 3
    refusals = {"optimiser.updates=5": "optimiser.updates: 3 is now 5", "data.folder=nowhere --changed": "nowhere"}
    for words, message in refusals.items():
        code, _, err = told("train", "--resume", "001", *words.split())
        assert code == 2 and err.count("\n") == 1 and message in err
    assert told("train", "--resume", "001", "--changed", "optimiser.updates=5")[0] == 0
    assert told("train", "--resume", "001")[:2] == (0, f"{folder}\n")
    assert " 5/5  finished " in told("runs", "list")[1]
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    code, _, err = told("train", "--resume", "001")
    assert code == 2 and "no checkpoint to resume from" in err and err.count("\n") == 1


@pytest.mark.parametrize("error, status", [
    (configuration.ConfigError, 2), (CheckpointError, 2), (RunError, 1), (FloatingPointError, 1), (ValueError, None)])
@pytest.mark.parametrize("words", [["smoke"], ["--resume", "."]])
def test_errors_of_training_are_printed_in_one_line(project, told, monkeypatch, words, error, status):
    """Except errors of the program, which are no refusals."""
    (project / "config.json").write_text("{}")
    for name in ("train", "resume"):
        monkeypatch.setattr(running, name, raising(error("something\nis wrong")))
    if status:
        assert told("train", *words) == (status, "", "something is wrong\n")
    else:
        with pytest.raises(error):
            told("train", *words)


@pytest.mark.parametrize("error", [
    MemoryError(), MemoryError("Unable to allocate 9 TiB"), RuntimeError("can't allocate memory:\nx")])
def test_too_little_memory_is_reported_in_one_line(project, told, monkeypatch, error):
    monkeypatch.setattr(running, "train", raising(error))
    code, out, err = told("train", "smoke")
    assert (code, out) == (1, "") and err.startswith("not enough memory (") and err.count("\n") == 1


@pytest.mark.parametrize("module", ["filelock", "tensorboard"])
def test_a_missing_package_is_reported_before_a_run_starts(project, told, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = told("train", "smoke", "run.logger=tensorboard")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(f"'{module}' cannot be imported") and err.endswith("pip install 'ebwm[training]'\n")
    assert not (project / "runs").exists()


@pytest.mark.parametrize("words", [["figures", "list"], ["bundle", "out.tar"]])
def test_figures_outside_a_checkout_ask_for_one_before_any_package(told, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for module in ("ebwm.figures.commands", "ebwm.figures.registry"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    expected = f"no figures.yaml in {tmp_path / 'figures'}; run this inside a checkout of ebwm\n"
    assert told(*words) == (2, "", expected)


@pytest.mark.parametrize("terminal, ci, shown", [
    (True, None, True), (True, "", True), (True, "true", False), (False, None, False)])
def test_a_progress_bar_is_shown_in_a_terminal_outside_ci(project, told, monkeypatch, terminal, ci, shown):
    """Else a line tells of each evaluation; the number of threads is that of the settings."""
    given, threads = {}, []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)

    def train(config, progress, callback):
        given["progress"] = progress
        for row in ({"update": 4, "loss": 0.5}, {"update": 5, "loss": 0.25, "valid_loss": 0.5}):
            assert not callback(row)
        return Path("001")

    monkeypatch.setattr(running, "train", train)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("CI", raising=False) if ci is None else monkeypatch.setenv("CI", ci)
    code, _, err = told("train", "smoke")
    assert code == 0 and given["progress"] == shown and threads == [1]
    assert ("update 5: loss 0.25, validation 0.5\n" in err) == (not shown) and "update 4" not in err


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_prints_and_torchrun_receives_the_errors_of_all(project, told, monkeypatch, rank):
    given = {"WORLD_SIZE": "2", "RANK": str(rank), "TORCHELASTIC_ERROR_FILE": str(project / "error.json")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(running, "train", lambda config, **options: Path("runs/001"))
    printed = ("", "") if rank else ("runs/001\n", "More: ebwm runs show runs/001\n")
    assert told("train", "smoke") == (0, *printed)
    assert not (project / "error.json").exists()
    code, out, err = told("train", "smoke", "seed=-1")
    assert (code, out, bool(err)) == (2, "", not rank) and ("seed=-1" in err) == (not rank)
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    assert "seed=-1" in told("train", "smoke", "seed=-1")[2], "without torchrun, each process reports its errors"
    failure = ProcessFailure(local_rank=rank, pid=1, exitcode=2, error_file=str(project / "error.json"))
    assert "seed=-1" in failure.message["message"] and failure.timestamp > 0


def test_runs_are_shown_and_compared(project, told):
    assert told("runs", "list")[1].startswith(f"no runs in {project / 'runs'}; ")
    for entry in ("seed=0", "model.kind=transformer"):
        assert told("train", "smoke", "run.logger=none", entry)[0] == 0
    shown = told("runs", "show", "002")
    assert shown[0] == 0 and shown[1].startswith(f"{project / 'runs/002'}: finished, 3 of 3 updates")
    code, out, err = told("runs", "compare", "001", "runs/002", "--out", "deep/curves.png")
    assert (code, err) == (0, "") and out.endswith("deep/curves.png\n")
    assert ["model.kind", "ebt", "transformer"] in [line.split() for line in out.splitlines()]
    assert (project / "deep/curves.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = told("runs", "compare", "001", "--out", "settings.ini/curves.png")
    assert (code, out) == (2, "") and "--out='settings.ini/curves.png'" in err


# What there is


def test_info(project, told, monkeypatch):
    monkeypatch.setenv("EBWM_SEEDS", "4 5")
    monkeypatch.setattr(compat, "installed", lambda package: package != "furo")
    code, out, err = told("info")
    rows = {name: value.strip() for name, value in (line.split("  ", 1) for line in out.splitlines())}
    assert code == 0 and err == "" and {"python", "chromium", "quarto", "GPUs", "processor"} <= rows.keys()
    assert {f"setting {name}" for name in vars(settings.load())} == {n for n in rows if n.startswith("setting ")}
    assert rows["setting seeds"] == "4 5 (from EBWM_SEEDS)" and rows["setting root"] == str(project)
    assert rows["extra docs"] == "lacks furo: pip install 'ebwm[docs]'" and "papermill" in rows["extra figures"]
    assert rows["device"] == "cpu in use"


def test_the_module_is_the_command_and_ignores_that_nobody_reads_its_output(project):
    environment = {**os.environ, "PYTHONPATH": str(Path(ebwm.__file__).parents[1])}

    def call(*words, stdout=subprocess.PIPE):
        command = [sys.executable, "-m", "ebwm", *words]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment)
        return done.returncode, done.stdout, done.stderr

    ends = os.pipe()
    os.close(ends[0])
    assert call("train", "--list", stdout=ends[1]) == (0, None, "")
    os.close(ends[1])
    message = "ebwm: figure='tinny': must be one of tiny, fan; did you mean 'tiny'?\n"
    assert call("figures", "run", "tinny") == (2, "", message)


def test_files_of_states_and_pairs_are_trained(project, told):
    np.save(project / "x.npy", tiny_states().numpy())
    context, target = map(np.asarray, tiny_pairs())
    np.savez(project / "pairs.npz", context=context, target=target)
    words = [*SHAPE, "optimiser.updates=2", "optimiser.batch=4", "eval_every=2"]
    for number, (preset, file) in enumerate((("states", "x.npy"), ("pairs", "pairs.npz")), 1):
        folder = project / f"runs/00{number}"
        assert told("train", preset, f"data.source={file}", *words)[:2] == (0, f"{folder}\n")
        assert told("train", "--resume", folder.name)[0] == 0
        assert "trivial baselines" in told("runs", "show", folder.name)[1]
    assert "joint_ebt" in told("runs", "list")[1]
