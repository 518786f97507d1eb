"""Reports on runs: during a run, after a crash, for finished runs, beside other files."""

import json
import random
import shlex
from pathlib import Path

import pytest
import torch
from tiny_figure import refusal

from ebwm import settings
from ebwm.figures import curves
from ebwm.figures.style import style
from ebwm.files import write_json
from ebwm.training import history as runs
from ebwm.training import reports
from ebwm.training.checkpoint import CheckpointError, Checkpoints, held, locked
from ebwm.training.configuration import as_dict
from ebwm.training.folder import _wandb_id
from ebwm.training.presets import load_config
from ebwm.training.run import resume, train


def row(update, **values):
    return {"update": update, "loss": 1 / update, "grad_norm": 0.5, "seconds": 0.25, **values}


def lines(*rows):
    return "".join(json.dumps(entry) + "\n" for entry in rows)


@pytest.fixture
def write_run(tmp_path):
    """Write the folder of a run: log, events, and optionally a test loss."""
    def write(*rows, name="001", changes=(), events=(), test=None):
        folder = tmp_path / "runs" / name
        write_json(folder / "config.json", as_dict(load_config("smoke", changes)))
        (folder / "log.jsonl").write_text(lines(*rows))
        (folder / "events.jsonl").write_text(lines(*(dict(update=u, kind=k, what=w) for u, k, w in events)))
        if test is not None:
            write_json(folder / "result.json", {"test_loss": test})
        return folder
    return write


@pytest.fixture
def trained(project):
    """A finished run."""
    return train(load_config("smoke", ["run.logger=none"]), settings.load().runs, progress=False)


# The log


def test_a_history_drops_updates_before_a_rollback(write_run):
    folder = write_run(row(1), row(2), row(3, valid_loss=9.0), row(2, loss=5.0), row(3))
    assert runs.history(folder) == [row(1), row(2, loss=5.0), row(3)]
    assert runs.read(folder).last == row(3)


def test_a_truncated_log_keeps_its_complete_lines(write_run):
    folder = write_run(row(1), row(2, valid_loss=0.5), row(3))
    whole = (folder / "log.jsonl").read_bytes()
    for size in range(len(whole) + 1):
        (folder / "log.jsonl").write_bytes(whole[:size])
        left = runs.history(folder)
        assert len(left) - whole[:size].count(b"\n") in (0, 1)  # the last line may only lack its line break
        assert runs.read(folder).made == len(left)


@pytest.mark.parametrize("junk", ["\n", "{}\n", "[1]\n", '{"update": "two"}\n', "{\n", "\0\0\n"])
def test_lines_that_are_no_rows_are_dropped(write_run, junk):
    folder = write_run(row(1))
    with (folder / "log.jsonl").open("a") as file:
        file.write(junk + lines(row(2)))
    assert runs.history(folder) == [row(1), row(2)]


@pytest.mark.parametrize("seed", range(5))
def test_the_last_row_read_backwards_is_that_of_the_history(write_run, monkeypatch, seed):
    draw, rows, update = random.Random(seed), [], 0
    for _ in range(60):
        update = draw.randint(max(1, update - 5), update) if update and draw.random() < 0.1 else update + 1
        rows.append(row(update, **({"valid_loss": draw.random()} if draw.random() < 0.2 else {})))
    folder = write_run(*rows)
    kept = runs.history(folder)
    scored = [entry["valid_loss"] for entry in kept if "valid_loss" in entry]
    assert [entry["update"] for entry in kept] == list(range(1, update + 1))
    assert runs.read(folder).last == kept[-1] | {"valid_loss": scored[-1]}
    text = (folder / "log.jsonl").read_bytes()
    for block in (1, 7, len(text), 2 * len(text)):
        assert list(runs._backwards(folder / "log.jsonl", block)) == text.split(b"\n")[::-1]


# States


STOPPED, RESUMED = (2, "stopped", "SIGTERM"), (2, "resumed", "after update 2")


@pytest.mark.parametrize("made, events, test, state", [
    (3, [], 0.5, "finished"),
    (2, [STOPPED], None, "stopped"),
    (2, [STOPPED, RESUMED], None, "broken off"),
    (2, [STOPPED, RESUMED, (2, "alarm", "flat"), STOPPED], None, "stopped"),
    (2, [], None, "broken off"),
    (0, [], None, "broken off"),
    (3, [], None, "broken off"),
    (2, [], 0.5, "broken off"),  # its updates were raised, and it is resumed
])
def test_states(write_run, made, events, test, state):
    run = runs.read(write_run(*map(row, range(1, made + 1)), events=events, test=test))
    assert (run.made, run.total, run.state) == (made, 3, state)
    assert run.test_loss == (test if state == "finished" else None)


def test_a_run_is_running_as_long_as_its_lock_is_held(write_run, tmp_path):
    assert not held(tmp_path) and not [*tmp_path.iterdir()], "reading a lock does not create it"
    folder = write_run(row(1), events=[STOPPED])
    assert runs.read(folder).state == "stopped"
    with locked(folder):
        assert runs.read(folder).state == "running" and "in progress" in reports.show(folder)
        with pytest.raises(CheckpointError, match="another process is training here"), locked(folder):
            pass
    assert runs.read(folder).state == "stopped"


def test_a_writer_waits_for_a_reader_of_the_lock(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    with locked(tmp_path):
        pass
    reader, flock = (tmp_path / ".lock").open(), fcntl.flock
    flock(reader, fcntl.LOCK_SH)
    assert not held(tmp_path), "a reader is no writer"

    def try_once(file, how):
        try:
            flock(file, how)
        except OSError:
            reader.close()
            raise

    monkeypatch.setattr(fcntl, "flock", try_once)
    with locked(tmp_path):
        assert reader.closed


# Which run


def test_a_run_is_found_by_its_folder_or_its_name(write_run, tmp_path, monkeypatch):
    folder = write_run(row(1))
    monkeypatch.chdir(tmp_path)
    assert runs.find("001", tmp_path / "runs") == runs.find(str(folder), tmp_path / "elsewhere") == folder
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    assert runs.known(tmp_path / "runs") == [folder] and runs.known(tmp_path / "elsewhere") == []
    for word in ("notes", "002", ""):
        with pytest.raises(runs.UnknownRun, match=f"RUN='{word}'.*: 001"):
            runs.find(word, tmp_path / "runs")
    for number in range(2, 15):
        write_run(name=f"{number:03d}")
    with pytest.raises(runs.UnknownRun, match=r": \.\.\., 005, 006, .*, 014"):
        runs.find("015", tmp_path / "runs")


def test_runs_are_named_by_their_paths(write_run, tmp_path, monkeypatch):
    first, job, inner = (write_run(name=name) for name in ("002", "job-7/001", "002/deep"))
    assert runs.known(tmp_path / "runs") == [first, job]
    elsewhere = tmp_path / "elsewhere" / "001"
    monkeypatch.chdir(tmp_path)
    called = runs.names([first, job, elsewhere, Path("runs/002/deep")], tmp_path / "runs")
    assert called == {"002": first, "job-7/001": job, str(elsewhere): elsewhere,
                      "002/deep": Path("runs/002/deep")}
    assert runs.find("job-7/001", tmp_path / "runs") == job and inner.is_dir()


# Tables


def words(table):
    return [line.split() for line in table.splitlines()]


def test_runs_of_all_states_are_listed(write_run, tmp_path):
    folder = write_run(row(1), row(2, valid_loss=0.25), row(3), test=0.125)
    Checkpoints(folder / "checkpoints").save(3, {"model.a": torch.zeros(40, 50), "noise": torch.zeros(7)}, {})
    events = [(1, "skipped", "loss nan"), (1, "skipped", "loss nan"), (0, "rolled back", "lower"), STOPPED]
    write_run(row(1), name="002", changes=["model.kind=gru", "model.depth=2"], events=events)
    strange = '{"model": {"kind": "new", "steps": 4}, "optimiser": {"updates": "x"}}'
    for name, text in {"003": "{", "004": "[]", "005": strange}.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.json").write_text(text)
    there = runs.names(runs.known(tmp_path / "runs"), tmp_path / "runs")
    head, *rows = reports.listing(there).splitlines()
    assert head.split() == "run model recipe updates state loss valid test faults last written".split()
    assert rows[0].split()[:10] == "001 ebt 1x256, 2k s1 3/3 finished 0.3333 0.25 0.125".split()
    assert all(shown in rows[1] for shown in (" gru 2x256 ", " 1/3  stopped ", " 2 skipped, 1 rolled back "))
    assert [row.split()[:2] for row in rows[2:]] == [["003", "?"], ["004", "?"], ["005", "new"]]
    assert runs.read(there["005"]).values["walk.steps"] == 4, "an entry under its old name"


def test_the_report_on_a_finished_run(trained):
    text = reports.show(trained)
    heading, configuration, losses, pace, events, on = text.split("\n\n")
    assert heading.startswith(f"{trained}: finished, 3 of 3 updates, last written 20")
    assert heading.endswith("\nebt 1x256, 525k weights, recipe s1")
    shown = {key: (value, usual) for key, value, _, usual in words(configuration)[1:]}
    assert shown == {"model.depth": ("1", "4)"), "optimiser.batch": ("4", "32)"), "eval_every": ("3", "100)"),
                    "data.train_clips": ("64", "8192)"), "data.eval_clips": ("16", "512)"),
                    "optimiser.updates": ("3", "600)"), "optimiser.warmup": ("1", "50)"),
                    "run.logger": ("none", "tensorboard)")}
    result = json.loads((trained / "result.json").read_text())
    assert losses.splitlines()[0].split("  ")[-1] == "energy gap"
    assert [line[0] for line in words(losses)[1:3]] == ["1", "3"]
    assert f"\ntest loss {result['test_loss']:.4g}\ntrivial baselines: last state " in losses
    parts = " items/s, ", "peak memory ", "% of the measured peak", " in updates"
    assert all(part in pace for part in parts)
    assert events == "No events." and on.endswith(f"ebwm.training.learner.load_learner({str(trained)!r})")


def test_the_report_on_an_interrupted_run_gives_events_and_the_next_command(write_run):
    skipped = [(update, "skipped", f"loss nan at {update}") for update in range(20)]
    events = [*skipped, STOPPED, RESUMED]
    folder = write_run(*map(row, range(1, 31)), name="my run", changes=["optimiser.updates=50"], events=events)
    *_, losses, _, events, on = reports.show(folder).split("\n\n")
    assert [int(line[0]) for line in words(losses)[1:]] == [1, 4, 7, 11, 14, 17, 20, 24, 27, 30]
    assert events.startswith("Events: 20 skipped, 1 stopped, 1 resumed\n  ... 12 earlier\n  update 12")
    assert events.splitlines()[-1].split() == ["update", "2", "resumed", "after", "update", "2"]
    assert on.endswith(f"ebwm train {shlex.quote(str(folder / 'config.json'))}")
    Checkpoints(folder / "checkpoints").save(30, {"model.a": torch.zeros(4)}, {})
    assert reports.show(folder).endswith(f"ebwm train --resume {shlex.quote(str(folder))}")


def test_comparison_of_runs(write_run):
    first = write_run(row(1), row(2, valid_loss=0.5), row(3, valid_loss=0.75), test=0.6)
    second = write_run(row(1, loss=4.0), row(2, loss=8.0, valid_loss=float("nan")), name="002",
                   changes=["model.kind=transformer", "data.folder=clips"])
    differing, outcomes, valid = reports.compare({"001": first, "002": second}).split("\n\n")
    kinds, folders = ["model.kind", "ebt", "transformer"], ["data.folder", "none", "clips"]
    assert words(differing) == [["configuration", "001", "002"], folders, kinds]
    assert words(outcomes)[1:] == [
        ["001", "3/3", "finished", "0.6111", "0.5", "2", "0.75", "0.6", "-"],
        ["002", "2/3", "broken", "off", "6", "-", "-", "nan", "-", "-"]]
    assert words(valid) == [["valid", "at", "update", "001", "002"], ["2", "0.5", "nan"]]
    assert "No updates yet.\n\nNo events." in reports.show(write_run(name="005"))
    third = write_run(row(1), name="003")
    assert reports.compare({"a": first, "b": third}).endswith("No update has a validation loss in all runs.")
    same = reports.compare({"a": first, "b": write_run(name="004")})
    assert same.startswith("The configurations are the same.")


# The plot


def test_the_plot_has_a_panel_for_each_quantity_and_a_line_for_each_run():
    ebt = [row(update, step_size=10.0, energy_gap=-1.0) for update in range(1, 4)]
    baseline = [row(update, valid_loss=100.0 ** update) for update in range(1, 4)]
    with style():
        plot = curves.draw({"ours": ebt, "theirs": baseline})
    assert {ax.get_title(loc="left") for ax in plot.axes} == {title for title, _ in curves.PANELS.values()}
    assert all(ax.get_xlabel() == "update" and ax.get_ylabel() for ax in plot.axes)
    assert [text.get_text() for text in plot.legends[0].get_texts()] == ["ours", "theirs"]
    scales = {ax.get_title(loc="left"): ax.get_yscale() for ax in plot.axes}
    assert scales["Validation loss"] == "log" and scales["Energy gap"] == scales["Step size"] == "linear"
    loss = plot.axes[0].lines
    assert [line.get_ydata().tolist() for line in loss] == [[1, 1 / 2, 1 / 3]] * 2


def test_many_updates_are_averaged_and_non_finite_values_are_dropped():
    rows = [row(update, loss=float(update)) for update in range(1, 1001)] + [row(1001, loss=float("nan"))]
    x, y, low, high = curves._thinned(rows, "loss")
    assert len(x) == curves.POINTS and x[0] == y[0] == 3 and x[-1] == 998
    assert (low[0], high[0]) == (2, 4)
    assert [len(values) for values in curves._thinned(rows, "energy_gap")] == [0, 0, 0, 0]


@pytest.mark.parametrize("count", range(1, 6))
def test_any_number_of_quantities_has_a_layout(count):
    row = {"update": 1} | dict.fromkeys([*curves.PANELS][:count], 2.0)
    assert len(curves.draw({"a": [row]}).axes) == count


def test_plots_are_written_atomically_or_refused(tmp_path):
    curves.save({str(number): [row(1), row(2)] for number in range(9)}, tmp_path / "deep" / "curves.svg")
    assert "<svg" in (tmp_path / "deep" / "curves.svg").read_text()
    assert "a, b" in refusal(curves.save, {"a": [], "b": []}, tmp_path / "none.png")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


# Files of training


def test_a_run_that_is_resumed_with_changes_is_the_changed_run(trained):
    resume(trained, ["optimiser.updates=4"], progress=False, changed=True)
    run = runs.read(trained)
    assert (run.made, run.total, run.state) == (4, 4, "finished")
    assert resume(trained, progress=False) == trained


def test_each_run_has_a_unique_identifier_for_weights_and_biases(write_run):
    first, second = write_run(name="001"), write_run(name="a/001")
    ids = [_wandb_id(folder) for folder in (first, second, first)]
    assert ids[0] == ids[2] != ids[1] and all(ids)


# Damaged files

UNREADABLE = {"deep": b"[" * 100_000, "utf-16": "{}".encode("utf-16"), "list": b"[1, 2]", "cut": b'{"model": '}
WRONG = {"kinds": b'{"model": 3, "data": {"kind": ["x"]}, "optimiser": {"updates": "x"}}',
         "results": b'{"test_loss": "x", "baselines": [1], "summary": 3, "update": 1, "kind": [], "loss": "x"}'}


@pytest.mark.parametrize("file", ["config.json", "result.json", "log.jsonl", "events.jsonl"])
@pytest.mark.parametrize("content", (UNREADABLE | WRONG).values(), ids=UNREADABLE | WRONG)
def test_a_damaged_file_is_reported_and_hides_no_other_run(write_run, file, content):
    folders = {name: write_run(row(1), name=name, test=2.0) for name in ("good", "bad")}
    (folders["bad"] / file).write_bytes(content + b"\n")
    good, bad = reports.listing(folders).splitlines()[1:]
    assert "broken off" in good
    assert ("unreadable" in bad) == (file == "config.json" and content in UNREADABLE.values())
    assert reports.compare(folders) and str(folders["bad"]) in reports.show(folders["bad"])


def test_a_result_that_is_not_better_than_a_trivial_baseline_says_so(write_run):
    folder = write_run(row(1), changes=["optimiser.updates=1"])
    for loss, worse in ((0.1, False), (0.3, True), (float("nan"), True)):
        write_json(folder / "result.json", {"test_loss": loss, "baselines": {"last state": 0.2, "mean state": 0.4}})
        assert ("Not better than the trivial baseline 'last state'" in reports.show(folder)) == worse
