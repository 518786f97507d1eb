"""Records: writing, promotion, checks, comparison, and the table. Refusals are in refusals/figures.py."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from tiny_figure import NOTEBOOKS, YAML, defaults_of, refusal, rewrite, write_manifest

from ebwm import figures
from ebwm.figures import Outcome, Record
from ebwm.figures.comparison import compare
from ebwm.figures.style import colour, spread
from ebwm.figures.summary import summary
from ebwm.files import sha256

pd = pytest.importorskip("pandas")
PICTURES = ["losses.png", "losses.svg", "losses-dark.png", "losses-dark.svg"]


# Records


def spreads():
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots()
    spread(ax, [0, 1, 2], [[3, 2, 1], [3, 1, 1]], colour("ebt"), "EBT")
    ax.legend()
    return fig


def blank():
    return matplotlib.figure.Figure(figsize=(0.5, 0.5))


def record(scale="smoke", value=1.0, pictures=("losses",), out=None, best=0.5, draw=blank):
    seeds, updates = {"smoke": ([0, 1], 4), "cpu": ([0, 1, 2], 2)}[scale]
    rate = 1 if scale == "smoke" else 0.5
    made = Record("tiny", defaults_of(scale=scale, seeds=seeds, updates=updates, rate=rate, out=out))
    for name in pictures:
        made.data(name, pd.DataFrame({"loss": [value]}))
        made.picture(name, draw)
    made.close(best=torch.tensor(best))
    return made.folder


def test_a_record_without_the_runner_is_in_the_folder_of_the_scale(project, monkeypatch):
    monkeypatch.chdir(project / "nbs/figures")
    folder = record("cpu")
    assert folder == project / "figures/tiny/runs/cpu"
    manifest = json.loads((folder / "manifest.json").read_text())
    effective = {name: value for name, value in defaults_of(scale="cpu").items() if name != "out"}
    assert manifest["parameters"] == {"asked": None, "effective": effective}
    assert manifest["results"] == {"best": 0.5} and sorted(manifest["pictures"]) == sorted(PICTURES)
    assert manifest["key"] is None and manifest["inputs"] is None and manifest["parts"] == []
    assert manifest["versions"]["torch"] == torch.__version__ and manifest["peak_memory_mib"] > 50
    assert manifest["finished"].endswith("+00:00") and manifest["device"] == "cpu"


def test_pictures_are_reproducible_whatever_the_users_configuration_and_differ_by_theme(project):
    first = record("cpu", out="a", draw=spreads)
    with matplotlib.rc_context({"lines.linestyle": ":", "font.size": 30, "axes.grid": False}):
        second = record("cpu", out="b", draw=spreads)
    contents = [(first / name).read_bytes() for name in PICTURES]
    assert contents == [(second / name).read_bytes() for name in PICTURES]
    assert len(set(contents)) == 4
    assert not [p for p in first.iterdir() if p.name.startswith(".")]


def test_the_manifest_names_the_commit_and_uncommitted_changes(project):
    """Outputs of figures are no changes; a record of committed code can be promoted."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    state = json.loads((record() / "manifest.json").read_text())["git"]
    assert re.fullmatch("[0-9a-f]{40}", state["commit"]) and state["dirty"] is False
    assert figures.promote("tiny")
    assert json.loads((record() / "manifest.json").read_text())["git"] == state
    rewrite(project / "settings.ini", "threads = 1", "threads = 2")
    assert json.loads((record() / "manifest.json").read_text())["git"]["dirty"] is True


# Promotion


def test_promote_replaces_smaller_but_never_larger_scales(project):
    record("smoke", pictures=("losses", "extra"))
    small = figures.promote("tiny", "smoke")
    assert [p.name for p in small if p.suffix in (".png", ".svg")] == ["extra.png", "losses.png"]
    run = record("cpu", value=2.0)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    files = figures.promote("tiny", "cpu")
    names = ["losses.parquet", "manifest.json", *PICTURES]
    assert sorted(p.name for p in files) == sorted(names)
    assert sorted(p.name for p in (project / "figures/tiny").iterdir()) == sorted([*names, "runs"])
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    assert "on record at scale 'cpu'" in refusal(figures.promote, "tiny", "smoke")
    assert pd.read_parquet(project / "figures/tiny/losses.parquet")["loss"][0] == 2.0


def test_promote_refuses_changed_runs(project, monkeypatch):
    """Also a run that is replaced while it is copied."""
    (record() / "losses.parquet").write_bytes(b"other")
    assert "losses.parquet differs" in refusal(figures.promote, "tiny")
    (record() / "losses.png").unlink()
    assert "losses.png is missing" in refusal(figures.promote, "tiny")
    record()
    change = lambda source, target: target.write_bytes(source.read_bytes() + b"!" * (source.suffix == ".parquet"))
    monkeypatch.setattr(shutil, "copyfile", change)
    assert "losses.parquet differs" in refusal(figures.promote, "tiny")
    assert [p.name for p in (project / "figures/tiny").iterdir()] == ["runs"]


@pytest.mark.parametrize("content, fits", [
    ("{", True), ('{"scale": "cpu"}', False), ('{"scale": "big"}', True)])
def test_a_damaged_record_is_replaced_but_not_by_a_smaller_scale(project, content, fits):
    record()
    (project / "figures/tiny/manifest.json").write_text(content)
    if fits:
        assert figures.promote("tiny") and checked().wrong == ()
    else:
        assert "is on record at scale 'cpu'" in refusal(figures.promote, "tiny", "smoke")


QUESTION = "**Question.** What?\n\n**Answer.** "


def add_answer(project, **answer):
    """Give the figure `tiny` an answer, and its notebook an opening cell."""
    rewrite(project / YAML, "    headline: true\n", f"    headline: true\n    answer: {json.dumps(answer)}\n")
    opening = {"cell_type": "markdown", "id": "o", "metadata": {}, "source": QUESTION + "Unknown."}
    rewrite(project / NOTEBOOKS[0], '"cells": [', f'"cells": [{json.dumps(opening)},')
    return project / NOTEBOOKS[0]


def test_the_answer_is_written_by_promote_and_makes_no_figure_stale(project):
    path = add_answer(project, found="It is {best:.2f}.", detail="Twice {best:.1f}.", holds=["best > 0"])
    written = lambda: "".join(json.loads(path.read_text())["cells"][0]["source"])
    for best in (0.25, 0.5):
        promoted(best=best)
        assert written() == f"{QUESTION}It is {best:.2f}.\n\nTwice {best:.1f}."
        assert checked().wrong == checked().stale == ()
    rewrite(path, "It is 0.50", "It is 0.51")
    assert "the answer differs from the record" in checked().wrong[0]
    assert "'best > 0' does not hold on record" in refusal(promoted, best=-1.0)
    assert "does not hold on record" in checked().wrong[0]


# Checks


def promoted(**options):
    folder = record(**options)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"] = figures.jobs_of(figures.plan("tiny", manifest["scale"]))[-1].inputs
    write_manifest(folder, **manifest)
    figures.promote("tiny", manifest["scale"])
    return folder.parents[1]


def checked(id="tiny"):
    (found,) = figures.check([id])
    return found


def test_a_complete_record_is_neither_wrong_nor_stale(project, monkeypatch):
    """Also on a machine with another device."""
    assert [row.scale for row in figures.check()] == ["", ""]
    promoted()
    assert checked() == ("tiny", "smoke", (), (), "")
    monkeypatch.setattr("ebwm.settings.device_kind", lambda name: "cuda")
    assert checked() == ("tiny", "smoke", (), (), "")


@pytest.mark.parametrize("name, change, wrong", [
    ("losses.parquet", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
     "figures/tiny/losses.parquet differs from its digest in the manifest"),
    ("losses.png", Path.unlink, "figures/tiny/losses.png is missing"),
    ("other.png", Path.touch, "other.png is not in the manifest"),
    ("manifest.json", lambda path: rewrite(path, '"best": 0.5', '"best": 0.4'),
     "figures/tiny/manifest.json was changed after it was written"),
    ("manifest.json", lambda path: path.write_text("{"), "figures/tiny/manifest.json is not a valid manifest"),
    ("manifest.json", Path.unlink, "losses.parquet has no manifest"),
])
def test_a_changed_damaged_missing_or_additional_file_is_wrong(project, name, change, wrong):
    change(promoted() / name)
    assert checked().wrong[0] == wrong
    assert ("damaged: ebwm figures check" in spaced(figures.table())) == ("json" in wrong)


def test_changed_inputs_are_listed(project):
    """Of a record without the runner, they are unknown."""
    record()
    figures.promote("tiny")
    assert checked().stale == ("made without the runner: its inputs are unknown",)
    folder = promoted()
    rewrite(project / NOTEBOOKS[0], "walking", "strolling")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"]["modules"] |= {"ebwm.settings": "0" * 64, "ebwm.gone": "0" * 64}
    write_manifest(folder, **manifest)
    assert checked() == ("tiny", "smoke", (), ("notebook", "module ebwm.gone", "module ebwm.settings"), "")
    assert "on record at scale smoke, stale)" in spaced(figures.table())
    rewrite(project / NOTEBOOKS[0], '"parameters"', '"parametres"')
    assert "tagged 'parameters'" in checked().stale[0]


# Comparing two runs


def compared(folder, old, new, **tolerances):
    """The verdict on each column of two runs."""
    for name, columns in {"a": old, "b": new}.items():
        path = folder / name / "losses.parquet"
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(columns).to_parquet(path, index=False)
        write_manifest(folder / name, data={path.name: sha256(path)})
    return {row.array: row.verdict for row in compare(folder / "a", folder / "b", tolerances)}


def test_the_last_matching_tolerance_counts_and_missing_columns_are_drift(tmp_path):
    old = dict(seed=[0, 1], loss=[1.0, 2.0], energy=[1.0, -4.0], seconds=[3.0, 4.0], old=[1, 2])
    new = dict(seed=[0, 1], loss=[1.0, 2.1], energy=[1.0, -4.5], seconds=[9.0, 9.0], new=[1, 2])
    tolerances = {"*": 0.0, "losses.*": 0.1, "*.seconds": "any", "losses.energy": 0.1}
    assert compared(tmp_path, old, new, **tolerances) == {
        "losses.seed": "exact", "losses.loss": "within tolerance", "losses.energy": "drifted",
        "losses.seconds": "not compared", "losses.old": "drifted", "losses.new": "drifted"}


inf, nan = float("inf"), float("nan")


@pytest.mark.parametrize("old, new, verdict", [
    ([1.0, inf, -inf, nan], [1.0, inf, -inf, nan], "exact"),
    ([1.0, inf], [1.05, inf], "within tolerance"),
    ([1.0, inf], [1.0, -inf], "drifted"),
    ([1.0, inf], [1.0, nan], "drifted"),
    ([1.0, nan], [1.0, 5.0], "drifted"),
    ([1.0, 2.0], [1.0], "drifted"),
    ([0.0, 0.0], [0.0, 0.1], "within tolerance"),
    ([1.0, -100.0], [9.0, -100.0], "within tolerance"),  # relative to the largest recorded value
    ([1.0, -100.0], [12.0, -100.0], "drifted"),
    ([10.0], [11.05], "drifted"),
    ([1e300, 0.0], [1e300, 1e-300], "within tolerance"),
    ([2**60, 0], [2**60 + 1, 0], "drifted"),  # integers have no tolerance
    (["a", None], ["a", None], "exact"),
    (["a", None], ["a", "b"], "drifted"),
    ([1.0, 2.0], ["1", "2"], "drifted"),
    ([1.0, 2.0], [None, None], "drifted"),
    ([1, 2], [1.0, 2.0], "exact"),
    ([[1.0, 2.0], [3.0]], [[1.0], [2.0, 3.0]], "drifted"),
    ([[1.0, 2.0], [3.0]], [[1.0, 2.1], [3.0]], "within tolerance"),
    ([[[1.0], [2.0]], [[3.0]]], [[[1.0], [2.0]], [[3.0]]], "exact"),
    ([[[1.0], [2.0]], [[3.0]]], [[[1.0, 2.0]], [[3.0]]], "drifted"),
    ([None, [1.0]], [None, [1.0]], "exact"),
    ([None, [1.0]], [[1.0], [1.0]], "drifted"),
])
def test_columns_of_any_kind_are_compared(tmp_path, old, new, verdict):
    """Without a tolerance, any difference is drift."""
    assert compared(tmp_path, dict(a=old), dict(a=new), **{"*": 0.1}) == {"losses.a": verdict}
    strict = "exact" if verdict == "exact" else "drifted"
    assert compared(tmp_path, dict(a=old), dict(a=new)) == {"losses.a": strict}


def test_replay_runs_the_recorded_parameters_and_compares(project, monkeypatch):
    folder = promoted()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parameters"]["effective"]["updates"] = 9
    write_manifest(folder, **manifest | {"threads": 3})
    failed, threads = {}, 3

    def make(plans, **options):
        (again,) = plans
        assert again.folder == folder / "runs/smoke.replay" and options == {"force": True}
        assert again.parameters["updates"] == 9 and figures.jobs_of(again)[-1].threads == threads
        record(out=str(again.folder), value=1.25)
        return Outcome(failed=failed)

    monkeypatch.setattr("ebwm.figures.comparison.make", make)
    assert figures.replay("tiny") == [("losses.loss", "drifted", 0.25, 0.0)]
    threads = 2
    assert figures.replay("tiny", threads=2) == [("losses.loss", "drifted", 0.25, 0.0)]
    failed["tiny"] = "figure 'tiny' failed: ValueError: no"
    with pytest.raises(figures.NotebookError, match="ValueError: no"):
        figures.replay("tiny", threads=2)


# The table and the summary of a batch


def spaced(text):
    """A text on one line."""
    return " ".join(text.split())


def test_the_table_shows_times_commands_planned_figures_and_records(project):
    rewrite(project / YAML, "planned:\n", "planned:\n" + "".join(
        f"  - {{id: planned_figure_{i}, title: t, paper: p}}\n" for i in range(12)))
    text = figures.table()
    assert "fan   6 s  ebwm figures run fan\n    A figure over seeds and sizes (no run at scale smoke;" in text
    assert "planned: planned_figure_0," in text and max(map(len, text.splitlines())) <= 100
    assert "3 min         ebwm figures run tiny --scale cpu" in figures.table(scale="cpu")
    promoted()
    assert "(run at scale smoke: other parameters or older code; on record at scale smoke)" in figures.table()


def summarised(scale="cpu"):
    """The summary of a batch with the figure `tiny`, on one line."""
    plan = figures.plan("tiny", scale)
    return spaced(summary([plan], Outcome({"tiny": plan.folder})))


def test_the_summary_has_the_picture_the_answer_and_the_agreement_with_the_record(project):
    add_answer(project, found="The best is {best:.2f}.", holds=["best < 1"])
    record("smoke")
    assert summarised("smoke") == (
        "tiny: made: figures/tiny/runs/smoke/losses.png Scale smoke only shows that the figure can be made: its "
        "numbers mean nothing. Nothing is on record; record this run: ebwm figures promote tiny")
    promoted(scale="cpu")
    assert "The best is 0.50. Agrees with the record (arrays: 1 exact)." in summarised()
    record("cpu", value=1.5, best=2.0)
    assert ("The best is 2.00. But the recorded answer does not hold for this run: best < 1. Differs from the record "
            "(arrays: 1 drifted); most in losses.loss by 0.5 of its largest value.") in summarised()
    assert "Not comparable with the record, which is at scale cpu." in summarised("smoke")
    assert summary([figures.plan("tiny")], Outcome(failed={"tiny": "no"})) == ""
    made = Record("tiny", defaults_of(scale="cpu", seeds=[0, 1, 2], updates=3, rate=0.5))
    made.close(best=0.5)
    assert "which has other parameters: updates." in summarised()
    made = Record("tiny", defaults_of(scale="cpu", seeds=[0, 1, 2], updates=3, rate=0.5))
    made.close(worst=0.5)
    assert "The recorded answer names results that this run, with other parameters, does not have." in summarised()
