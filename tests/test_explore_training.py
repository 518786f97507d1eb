"""The training explorer: curves of logs that grow, smoothing, refusals, widgets and live reading."""

import asyncio
import json
import math

import numpy as np
import pytest

from ebwm.explore.runs import MAX_POINTS, QUANTITIES, compute, smoothed, summary_lines, warning
from ebwm.explore.training import TrainingExplorer, TrainingSettings
from ebwm.files import write_json
from ebwm.training.configuration import as_dict
from ebwm.training.history import LogReader, history
from ebwm.training.presets import load_config
from ebwm.usage import UsageError


def row(update, **values):
    return {"update": update, "batch": update, "loss": 1 / update, "step_size": 2.0, **values}


def lines(rows):
    return "".join(json.dumps(entry) + "\n" for entry in rows)


@pytest.fixture
def runs(tmp_path):
    """Two runs: one that is written, and one with a fault and a validation loss."""
    for name, rows in (("001", [row(1), row(2)]),
                       ("002", [row(1), row(2, loss=math.nan, energy_gap=0.5), row(3, valid_loss=0.4)])):
        write_json(tmp_path / name / "config.json", as_dict(load_config("smoke")))
        (tmp_path / name / "log.jsonl").write_text(lines(rows))
    (tmp_path / "002/events.jsonl").write_text(lines([dict(update=2, batch=2, kind="skipped", what="loss nan")]))
    return tmp_path


@pytest.fixture
def explorer(runs):
    for package in ("ipywidgets", "anywidget", "plotly"):
        pytest.importorskip(package)
    return TrainingExplorer(TrainingSettings(str(runs)))


def append(folder, text):
    with (folder / "log.jsonl").open("a") as log:
        log.write(text)


def updates(result, label="loss", run=0):
    return result.runs[run].curves[label].updates


# Curves


def test_curves_are_those_of_the_log(runs):
    found = compute(TrainingSettings(str(runs)))
    assert found.known == ("001", "002") and found.available == ("loss", "energy gap", "step size") == found.shown
    loss, gap = (found.runs[1].curves[label] for label in ("loss", "energy gap"))
    assert loss.updates == [1, 2, 3] and loss.values == [1.0, None, 1 / 3] and loss.smooth == loss.values
    assert gap.updates == [2] and gap.values == [0.5] and found.runs[1].valid.values == [0.4]
    assert warning(found) == "002, update 2: skipped, loss nan"
    assert summary_lines(found)["002\N{NO-BREAK SPACE}loss"] == "training 0.333, valid 0.4"
    assert compute(TrainingSettings(str(runs))) == found
    assert compute(TrainingSettings(str(runs), runs=("001",), shown=("learning rate",))).shown == ()


@pytest.mark.parametrize("count", [1, MAX_POINTS, MAX_POINTS + 1, 10 * MAX_POINTS - 1])
def test_a_long_curve_keeps_its_last_point_and_is_smoothed_before_it_is_thinned(runs, count):
    values = np.random.default_rng(0).normal(size=count)
    (runs / "001/log.jsonl").write_text(lines(row(number + 1, loss=value) for number, value in enumerate(values)))
    curve = compute(TrainingSettings(str(runs), smoothing=0.9)).runs[0].curves["loss"]
    assert curve.updates[-1] == count and len(curve.updates) <= MAX_POINTS
    assert curve.smooth == pytest.approx([smoothed(values, 0.9)[update - 1] for update in curve.updates])


def test_smoothing_is_a_mean_with_falling_weights():
    values = np.array([4.0, np.nan, 1.0, 2.0])
    weights = 0.5 ** np.arange(3)[::-1]
    assert smoothed(values, 0.5)[3] == pytest.approx(weights @ values[[0, 2, 3]] / weights.sum())
    assert np.isnan(smoothed(values, 0.5)[1]) and np.array_equal(smoothed(values, 0.0), values, equal_nan=True)


# Logs that grow


@pytest.mark.parametrize("text, made", [
    ('{"update": 3, "lo', 2), (lines([row(3)]).strip(), 3), (lines([row(3), row(4)]), 4), (lines([row(2)]), 2),
    ("junk\n" + lines([row(3)]) + '{"upd', 3), (lines([row(1)]), 1),
], ids=["half a line", "no line break", "two lines", "rolled back", "junk", "from the start"])
def test_a_log_that_grows_is_read_as_a_whole_log_would_be(runs, text, made):
    """A rollback appends earlier updates again; the last line can be incomplete while it is written."""
    settings = TrainingSettings(str(runs), runs=("001",))
    assert updates(compute(settings)) == [1, 2]
    append(runs / "001", text)
    found = compute(settings)
    assert updates(found)[-1] == made and updates(found) == [one["update"] for one in history(runs / "001")]
    append(runs / "001", "\n" + lines([row(made + 1)]))
    assert updates(compute(settings)) == [*range(1, made + 2)]


def test_a_log_that_was_written_anew_or_deleted_is_noticed(runs):
    reader, log = LogReader(runs / "001"), runs / "001/log.jsonl"
    assert reader.read() == (False, [row(1), row(2)]) and reader.read() == (False, [])
    log.write_text(lines([row(1, loss=5.0), row(2), row(3)]))
    assert reader.read() == (True, [row(1, loss=5.0), row(2), row(3)])
    log.unlink()
    assert reader.read() == (True, []) and reader.read() == (False, [])


# Refusals


@pytest.mark.parametrize("changes, line", [
    ({"folder": "nowhere"}, "folder='nowhere': must be a folder of runs; train a run: ebwm train"),
    ({"runs": ("003",)}, "RUN='003': must be the folder of a run, or a run in"),
    ({"smoothing": 1.0}, "smoothing=1: must be from 0 to 0.99"),
    ({"shown": tuple(QUANTITIES)}, "len(shown)=10: must be at most 6"),
])
def test_settings_that_are_refused(runs, changes, line):
    with pytest.raises(ValueError) as error:
        compute(TrainingSettings(**{"folder": str(runs)} | changes))
    assert str(error.value).startswith(line)
    assert isinstance(error.value, UsageError) == bool(changes.keys() & {"folder", "runs"})


def test_a_folder_without_runs_is_named_with_the_remedy(tmp_path):
    found = compute(TrainingSettings(str(tmp_path)))
    assert found.runs == found.shown == () and summary_lines(found) == {}
    assert warning(found) == f"folder={str(tmp_path)!r}: has no runs yet; train one: ebwm train"


# Widgets


def test_controls_change_settings_and_figures_and_settings_are_saved(explorer, runs):
    assert explorer.controls["runs"].value == ("001", "002") and "skipped" in explorer.message.value
    displays = lambda: [box.layout.display for box in explorer._boxes.values()]
    assert displays() == ["flex"] * 3 + ["none"] * 3
    for name, value in {"runs": ("001",), "shown": ("loss",), "smoothing": 0.5, "log": True}.items():
        explorer.controls[name].value = value
        assert getattr(explorer.settings, name) == value and explorer.message.value == ""
    shown = explorer.figure("figure 1")
    assert displays() == ["flex"] + ["none"] * 5 and shown.layout.yaxis.type == "log"
    assert list(shown.data[1].y) == explorer.result.runs[0].curves["loss"].smooth
    other = TrainingExplorer(TrainingSettings(str(runs)), "dark")
    other.show_json(explorer.to_json())
    assert other.settings == explorer.settings == TrainingSettings(str(runs), ("001",), ("loss",), 0.5, True)
    explorer.controls["folder"].value = str(runs / "nowhere")
    assert "must be a folder of runs" in explorer.message.value and explorer.settings.folder == str(runs)


def test_a_live_explorer_follows_a_log_until_it_is_switched_off(explorer, runs):
    async def watched():
        explorer.watch(0.01)
        append(runs / "001", lines([row(3)]) + '{"update": 4')
        while updates(explorer.result)[-1] < 3:
            await asyncio.sleep(0.01)
        task, explorer.live.value = explorer._watching, False
        await asyncio.gather(task, return_exceptions=True)
        return task
    assert asyncio.run(asyncio.wait_for(watched(), 60)).cancelled()
    assert explorer.figure("figure 1").data[1].x == (1, 2, 3) and explorer.settings == TrainingSettings(str(runs))
    append(runs / "001", ', "loss": 0.1}\n')
    assert updates(explorer.result)[-1] == 3
    explorer.refresh()
    assert updates(explorer.result)[-1] == 4
