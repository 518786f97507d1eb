"""Reports on runs: during a run, after a crash, for finished runs, beside other files."""

import json
import random
import shlex
import threading
from pathlib import Path

import pytest
import torch
from tiny_figure import refusal

from ebwm.figures import curves
from ebwm.figures.style import style
from ebwm.files import write_json
from ebwm.training import checkpoint, reports
from ebwm.training import history as runs
from ebwm.training.checkpoint import Checkpoints, held, locked
from ebwm.training.configuration import as_dict
from ebwm.training.folder import _wandb_id
from ebwm.training.presets import load_config
from ebwm.training.run import train


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


# The log


@pytest.mark.parametrize("junk", ["\n", "{}\n", "[1]\n", '{"update": "two"}\n', "{\n", "\0\0\n"])
def test_lines_that_are_no_rows_are_dropped(write_run, junk):
    """Also a last line that is incomplete, or only lacks its line break."""
    folder = write_run(row(1))
    for last, made in (('{"update": 4, "lo', 3), (lines(row(4)).strip(), 4)):
        (folder / "log.jsonl").write_text(lines(row(1), row(2)) + junk + lines(row(3)) + last)
        assert runs.history(folder) == [row(number) for number in range(1, made + 1)]
        assert runs.read(folder).made == made


@pytest.mark.parametrize("seed", range(5))
def test_a_history_drops_updates_before_a_rollback_also_if_read_backwards(write_run, seed):
    draw, rows, update = random.Random(seed), [], 0
    for _ in range(60):
        update = draw.randint(max(1, update - 5), update) if update and draw.random() < 0.1 else update + 1
        rows.append(row(update, loss=draw.random(), **({"valid_loss": draw.random()} if draw.random() < 0.2 else {})))
    folder, kept = write_run(*rows), {}
    for entry in rows:
        kept = {number: old for number, old in kept.items() if number < entry["update"]} | {entry["update"]: entry}
    assert runs.history(folder) == [*kept.values()] and [*kept] == [*range(1, update + 1)]
    scored = [entry["valid_loss"] for entry in kept.values() if "valid_loss" in entry]
    assert runs.read(folder).last == kept[update] | {"valid_loss": scored[-1]}
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
    assert runs.read(folder).state == "stopped"


def test_a_writer_waits_for_a_reader_of_the_lock(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(checkpoint, "LOCK_TIMEOUT", 5)
    reader = (tmp_path / ".lock").open("w")
    fcntl.flock(reader, fcntl.LOCK_SH)
    assert not held(tmp_path), "a reader is no writer"
    threading.Timer(0.1, reader.close).start()
    with locked(tmp_path):
        assert reader.closed


# Which run


def test_a_run_is_found_by_its_folder_or_its_name(write_run, tmp_path, monkeypatch):
    first, job, inner = (write_run(name=name) for name in ("002", "job-7/001", "002/deep"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    assert runs.known(tmp_path / "runs") == [first, job] and runs.known(tmp_path / "elsewhere") == []
    for word, path in {"002": first, "job-7/001": job, "002/deep": inner}.items():
        assert runs.find(word, tmp_path / "runs") == runs.find(str(path), tmp_path / "elsewhere") == path
    outside = tmp_path / "elsewhere" / "001"
    called = runs.names([first, job, outside, Path("runs/002/deep")], tmp_path / "runs")
    assert called == {"002": first, "job-7/001": job, str(outside): outside, "002/deep": Path("runs/002/deep")}
    for number in range(3, 15):
        write_run(name=f"{number:03d}")
    for word in ("notes", "015", ""):
        with pytest.raises(runs.UnknownRun, match=rf"RUN='{word}'.*: \.\.\., 006, 007, .*, 014, job-7/001"):
            runs.find(word, tmp_path / "runs")


# Tables


def words(table):
    return [line.split() for line in table.splitlines()]


def test_runs_of_all_states_are_listed(write_run, tmp_path):
    folder = write_run(row(1), row(2, valid_loss=0.25), row(3), test=0.125)
    Checkpoints(folder / "checkpoints").save(3, {"model.a": torch.zeros(40, 50), "noise": torch.zeros(7)}, {})
    events = [(1, "skipped", "loss nan"), (1, "skipped", "loss nan"), (0, "rolled back", "lower"), STOPPED]
    write_run(row(1), name="002", changes=["model.kind=gru", "model.depth=2"], events=events)
    strange = write_run(name="003")
    (strange / "config.json").write_text('{"model": {"kind": "new", "steps": 4}, "optimiser": {"updates": "x"}}')
    there = runs.names(runs.known(tmp_path / "runs"), tmp_path / "runs")
    _, *rows = reports.listing(there).splitlines()
    assert rows[0].split()[:11] == "001 clips ebt 1x256, 2k s1 3/3 finished 0.3333 0.25 0.125".split()
    assert all(shown in rows[1] for shown in (" gru 2x256 ", " 1/3  stopped ", " 2 skipped, 1 rolled back "))
    assert rows[2].split()[:3] == ["003", "?", "new"]
    assert runs.read(strange).values["walk.steps"] == 4, "an entry under its old name"


def test_the_report_on_a_finished_run(project):
    trained = train(load_config("smoke", ["run.logger=none"]), progress=False)
    heading, configuration, losses, pace, events, on = reports.show(trained).split("\n\n")
    assert f"{trained}: finished, 3 of 3 updates" in heading and "525k weights, recipe s1" in heading
    assert configuration.startswith("Configuration, where it differs from the preset smoke:")
    shown = {key: (value, usual) for key, value, usual in words(configuration)[1:]}
    assert shown["run.logger"] == ("none", "(tensorboard)") and not {"model.dim", "optimiser.updates"} & shown.keys()
    result = json.loads((trained / "result.json").read_text())
    assert [line[0] for line in words(losses)[1:3]] == ["1", "3"]
    assert f"\ntest loss {result['test_loss']:.4g}\ntrivial baselines: last state " in losses
    assert all(part in pace for part in (" items/s, ", "peak memory ", "% of the measured peak", " in updates"))
    assert events == "No events." and on.endswith(f"ebwm.training.learner.load_run({str(trained)!r})")


def test_the_report_on_an_interrupted_run_gives_events_and_the_next_command(write_run):
    skipped = [(update, "skipped", f"loss nan at {update}") for update in range(20)]
    events = [*skipped, STOPPED, RESUMED]
    folder = write_run(*map(row, range(1, 31)), name="my run", changes=["optimiser.updates=50"], events=events)
    *_, losses, _, events, on = reports.show(folder).split("\n\n")
    assert [int(line[0]) for line in words(losses)[1:-1]] == [1, 4, 7, 11, 14, 17, 20, 24, 27, 30]
    assert losses.endswith("\n20 more rows are in log.jsonl.")
    assert events.startswith("Events: 20 skipped, 1 stopped, 1 resumed\n  ... 12 earlier\n  update 12")
    assert on.endswith(f"ebwm train {shlex.quote(str(folder / 'config.json'))}")
    Checkpoints(folder / "checkpoints").save(30, {"model.a": torch.zeros(4)}, {})
    assert reports.show(folder).endswith(f"ebwm train --resume {shlex.quote(str(folder))}")


def test_comparison_of_runs(write_run):
    first = write_run(row(1), row(2, valid_loss=0.5), row(3, valid_loss=0.75), test=0.6)
    second = write_run(row(1, loss=4.0), row(2, loss=8.0, valid_loss=float("nan")), name="002",
                   changes=["model.kind=transformer", "data.folder=clips"])
    differing, outcomes, valid = reports.compare({"001": first, "002": second}).split("\n\n")
    assert runs.read(first).loss == "SmoothL1"
    assert runs.read(write_run(name="004", changes=["data.kind=text"])).loss == "cross-entropy, nats per token"
    assert words(differing)[1:] == [["data.folder", "none", "clips"], ["model.kind", "ebt", "transformer"]]
    assert words(outcomes)[1:] == [
        ["001", "3/3", "finished", "0.6111", "0.5", "2", "0.75", "0.6", "-"],
        ["002", "2/3", "broken", "off", "6", "-", "-", "nan", "-", "-"]]
    assert words(valid)[1:] == [["2", "0.5", "nan"]]
    empty = reports.compare({"a": first, "b": write_run(name="003")})
    assert "The configurations are the same." in empty and "No update has a validation loss in all runs." in empty
    assert "No updates yet.\n\nNo events." in reports.show(write_run(name="003"))


# The plot


def test_the_plot_has_a_panel_for_each_quantity_and_a_line_for_each_run():
    ebt = [row(update, step_size=10.0, energy_gap=-1.0) for update in range(1, 4)]
    baseline = [row(update, valid_loss=100.0 ** update) for update in range(1, 4)]
    with style():
        plot = curves.draw({"ours": ebt, "theirs": baseline}, "nats per token")
    assert [ax.get_ylabel() for ax in plot.axes[:2]] == ["nats per token, of a batch", "nats per token"]
    scales = {ax.get_title(loc="left"): ax.get_yscale() for ax in plot.axes}
    assert scales.keys() == {title for title, _ in curves.PANELS.values()}
    assert scales["Validation loss"] == "log" and scales["Energy gap"] == scales["Step size"] == "linear"
    assert [text.get_text() for text in plot.legends[0].get_texts()] == ["ours", "theirs"]
    assert [line.get_ydata().tolist() for line in plot.axes[0].lines] == [[1, 1 / 2, 1 / 3]] * 2
    for count in range(1, 5):
        logged = {"update": 1} | dict.fromkeys([*curves.PANELS][:count], 2.0)
        assert len(curves.draw({str(number): [logged] for number in range(9)}).axes) == count
    assert "a, b" in refusal(curves.draw, {"a": [], "b": []})


def test_many_updates_are_averaged_and_non_finite_values_are_dropped():
    rows = [row(update, loss=float(update)) for update in range(1, 1001)] + [row(1001, loss=float("nan"))]
    x, y, low, high = curves._thinned(rows, "loss")
    assert len(x) == curves.POINTS and (x[0], y[0], x[-1], low[0], high[0]) == (3, 3, 998, 2, 4)
    assert [len(values) for values in curves._thinned(rows, "energy_gap")] == [0, 0, 0, 0]


def test_each_run_has_a_unique_identifier_for_weights_and_biases(write_run):
    first, second = write_run(name="001"), write_run(name="a/001")
    ids = [_wandb_id(folder) for folder in (first, second, first)]
    assert ids[0] == ids[2] != ids[1] and all(ids)


# Damaged files

UNREADABLE = {"deep": b"[" * 100_000, "utf-16": "{}".encode("utf-16"), "list": b"[1, 2]", "cut": b'{"model": '}
WRONG = {"kinds": b'{"model": 3, "data": {"kind": ["x"]}, "optimiser": {"updates": "x"}}',
         "huge": b'{"update": 1, "batch": 1, "loss": %s, "valid_loss": 1e308, "test_loss": %s}' % ((b"9" * 400,) * 2),
         "surrogates": b'{"update": 1, "kind": "\\ud800", "what": "\\ud800", "baselines": {"\\ud800": 1}}',
         "results": b'{"test_loss": "x", "baselines": [1], "summary": 3, "update": 1, "kind": [], "loss": "x"}'}


@pytest.mark.parametrize("file", ["config.json", "result.json", "log.jsonl", "events.jsonl"])
@pytest.mark.parametrize("content", (UNREADABLE | WRONG).values(), ids=UNREADABLE | WRONG)
def test_a_damaged_file_is_reported_and_hides_no_other_run(write_run, file, content):
    folders = {name: write_run(row(1), name=name, test=2.0) for name in ("good", "bad")}
    (folders["bad"] / file).write_bytes(content + b"\n")
    good, bad = reports.listing(folders).splitlines()[1:]
    assert "broken off" in good
    assert ("unreadable" in bad) == (file == "config.json" and content in UNREADABLE.values())
    shown = reports.compare(folders) + reports.show(folders["bad"])
    assert str(folders["bad"]) in shown and shown.encode("utf-8")
    assert curves.draw({name: runs.history(path) for name, path in folders.items()})


def test_a_result_that_is_not_better_than_a_trivial_baseline_says_so(write_run):
    folder = write_run(row(1), changes=["optimiser.updates=1"])
    for loss, worse in ((0.1, False), (0.3, True), (float("nan"), True)):
        write_json(folder / "result.json", {"test_loss": loss, "baselines": {"last state": 0.2, "mean state": 0.4}})
        assert ("Not better than the trivial baseline 'last state'" in reports.show(folder)) == worse
