"""Records by hand, putting them on record, checking and comparing them, and the table."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_figure import PARAMETERS, refusal, rewrite, write_manifest

from ebwm import figures
from ebwm.figures import Outcome, Record
from ebwm.figures.ledger import _compared, _difference
from ebwm.figures.style import colour, spread

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib").use("agg")
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs/figures").glob("*.ipynb"))
PICTURES = ["losses.png", "losses.svg", "losses-dark.png", "losses-dark.svg"]


# Records


def draw():
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots()
    spread(ax, [0, 1, 2], [[3, 2, 1], [3, 1, 1]], colour("ebt"), "EBT")
    ax.legend()
    return fig


def names(**changed):
    """The notebook's globals: its parameters' defaults, but for some."""
    values = {}
    exec(PARAMETERS, {}, values)
    return {name: value for name, value in values.items() if name != "__annotations__"} | changed


def record(scale="smoke", value=1.0, pictures=("losses",), out=None):
    seeds, updates = {"smoke": ([0, 1], 4), "cpu": ([0, 1, 2], 2)}[scale]
    rate = 1 if scale == "smoke" else 0.5
    made = Record("tiny", names(scale=scale, seeds=seeds, updates=updates, rate=rate, out=out))
    for name in pictures:
        made.data(name, pd.DataFrame({"loss": [value]}))
        made.picture(name, draw)
    made.close(best=torch.tensor(0.5))
    return made.folder


def test_record_by_hand_lies_in_the_folder_of_the_scale(project, monkeypatch):
    monkeypatch.chdir(project / "nbs/figures")
    folder = record("cpu")
    assert folder == project / "figures/tiny/runs/cpu"
    manifest = json.loads((folder / "manifest.json").read_text())
    effective = {name: value for name, value in names(scale="cpu").items() if name != "out"}
    assert manifest["parameters"] == {"asked": None, "effective": effective}
    assert manifest["results"] == {"best": 0.5} and sorted(manifest["pictures"]) == sorted(PICTURES)
    assert manifest["key"] is None and manifest["inputs"] is None and manifest["parts"] == []
    assert manifest["versions"]["torch"] == torch.__version__ and manifest["peak_memory_mib"] > 50
    assert manifest["finished"].endswith("+00:00") and manifest["device"] == "cpu"


def test_pictures_are_the_same_bytes_again_and_differ_by_theme(project):
    first, second = record(out="a"), record(out="b")
    contents = [(first / name).read_bytes() for name in PICTURES]
    assert contents == [(second / name).read_bytes() for name in PICTURES]
    assert len(set(contents)) == 4
    assert not [p for p in first.iterdir() if p.name.startswith(".")]


def test_record_refuses_names_and_scales(project):
    made = Record("tiny", names(scale="smoke"))
    assert "file name 'a/b'" in refusal(made.data, "a/b", pd.DataFrame({"a": [1]}))
    assert "unknown scale 'big'" in refusal(Record, "tiny", names(scale="big"))
    assert "unknown figure 'tinny'; did you mean 'tiny'?" in refusal(Record, "tinny", names())
    assert "its parameter 'scale' has no value" in refusal(Record, "tiny", {})


def test_manifest_tells_the_commit_and_whether_the_code_differs(project):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    state = json.loads((record() / "manifest.json").read_text())["git"]
    assert re.fullmatch("[0-9a-f]{40}", state["commit"]) and state["dirty"] is False
    rewrite(project / "settings.ini", "threads = 1", "threads = 2")
    assert json.loads((record() / "manifest.json").read_text())["git"]["dirty"] is True


# Putting on record


def test_promote_replaces_smaller_but_never_larger_scales(project):
    record("smoke", pictures=("losses", "extra"))
    figures.promote("tiny", "smoke")
    assert (project / "figures/tiny/extra-dark.png").is_file()
    run = record("cpu", value=2.0)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    files = figures.promote("tiny", "cpu")
    names = ["losses.parquet", "manifest.json", *PICTURES]
    assert sorted(p.name for p in files) == sorted(names)
    assert sorted(p.name for p in (project / "figures/tiny").iterdir()) == sorted([*names, "runs"])
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    message = refusal(figures.promote, "tiny", "smoke")
    assert message.startswith("'tiny' is on record at scale 'cpu'; a run at the smaller scale 'smoke' does")
    assert pd.read_parquet(project / "figures/tiny/losses.parquet")["loss"][0] == 2.0


def test_promote_refuses_runs_that_are_absent_or_changed(project):
    assert "has no run at scale 'smoke'; make one: ebwm figures run tiny" in refusal(figures.promote, "tiny")
    folder = record()
    (folder / "losses.parquet").write_bytes(b"other")
    assert "losses.parquet is not the file that its manifest names" in refusal(figures.promote, "tiny")
    folder = record()
    (folder / "losses-dark.svg").unlink()
    assert "losses-dark.svg is missing" in refusal(figures.promote, "tiny")
    assert [p.name for p in (project / "figures/tiny").iterdir()] == ["runs"]


def test_promote_refuses_runs_with_other_parameters(project):
    folder = record()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parameters"]["effective"]["updates"] = 99
    write_manifest(folder, **manifest)
    message = refusal(figures.promote, "tiny")
    assert message == "figure 'tiny' was run with updates = 99, the registry has 4; run it again without -p"


@pytest.mark.parametrize("content, fits", [
    ("{", True), ('{"scale": "cpu"}', False), ('{"scale": "big"}', True)])
def test_a_damaged_record_is_replaced_but_not_by_a_smaller_scale(project, content, fits):
    record()
    (project / "figures/tiny/manifest.json").write_text(content)
    if fits:
        assert figures.promote("tiny") and checked().wrong == ()
    else:
        assert "is on record at scale 'cpu'" in refusal(figures.promote, "tiny")


def test_promote_refuses_runs_from_uncommitted_changes(project):
    folder = record()
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, **manifest | {"git": {"commit": "0" * 40, "dirty": True}})
    message = refusal(figures.promote, "tiny")
    assert message == "figure 'tiny' was run from uncommitted changes; commit them and run it again"
    write_manifest(folder, **manifest | {"git": {"commit": "0" * 40, "dirty": False}})
    assert figures.promote("tiny")


def test_style_does_not_depend_on_a_persons_own(project):
    import matplotlib

    first = record(out="a")
    with matplotlib.rc_context({"lines.linestyle": ":", "font.size": 30, "axes.grid": False}):
        second = record(out="b")
    assert (first / "losses.png").read_bytes() == (second / "losses.png").read_bytes()


# Checking what is on record


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


def test_a_whole_record_is_neither_wrong_nor_stale(project):
    assert [row.scale for row in figures.check()] == ["", ""]
    promoted()
    assert checked() == ("tiny", "smoke", (), ())
    assert "unknown figure 'tinny'" in refusal(figures.check, ["tinny"])


@pytest.mark.parametrize("name", ["losses.parquet", "losses-dark.svg"])
def test_a_changed_or_missing_file_is_wrong(project, name):
    path = promoted() / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert checked().wrong == (f"figures/tiny/{name} is not the file that its manifest names",)
    path.unlink()
    assert checked().wrong == (f"figures/tiny/{name} is missing",)


def test_one_changed_number_in_the_data_is_wrong(project):
    path = promoted() / "losses.parquet"
    pd.read_parquet(path).assign(loss=1.0000001).to_parquet(path, index=False)
    assert checked().wrong


def test_a_changed_result_is_wrong(project):
    path = promoted() / "manifest.json"
    rewrite(path, '"best": 0.5', '"best": 0.4')
    assert checked().wrong == ("figures/tiny/manifest.json was changed after it was written",)
    assert "on record, but damaged: ebwm figures check" in " ".join(figures.table().split())


def test_parameters_that_change_on_the_way_are_refused(project):
    given = names(scale="smoke")
    made = Record("tiny", given)
    given["updates"] = 7
    assert "its parameter 'updates' was 2 and then 7" in refusal(made.close)


def test_files_that_no_manifest_names_are_wrong(project):
    folder = promoted()
    (folder / "other.png").touch()
    assert checked().wrong == ("other.png is not in the manifest",)
    (folder / "manifest.json").write_text("{")
    assert checked().wrong == ("figures/tiny/manifest.json cannot be read as a manifest",)
    (folder / "manifest.json").unlink()
    assert checked().wrong[0] == "losses-dark.png lies there without a manifest"


@pytest.mark.parametrize("path, old, new, told", [
    ("nbs/figures/tiny.ipynb", "walking", "strolling", "notebook"),
    ("figures/figures.yaml", "updates: 4", "updates: 5", "parameter updates"),
    ("constraints.txt", "1", "2", "lock"),
])
def test_what_has_changed_since_is_listed(project, path, old, new, told):
    (project / "constraints.txt").write_text("torch==1")
    promoted()
    rewrite(project / path, old, new)
    assert checked() == ("tiny", "smoke", (), (told,))


@pytest.mark.parametrize("kind, name, told", [
    ("modules", "ebwm.settings", "module ebwm.settings"), ("modules", "ebwm.gone", "module ebwm.gone"),
    ("data", "points.csv", "data points.csv"),
])
def test_a_record_from_other_modules_or_data_is_stale_and_whole(project, kind, name, told):
    path = promoted() / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["inputs"][kind][name] = "0" * 64
    write_manifest(path.parent, **manifest)
    assert checked() == ("tiny", "smoke", (), (told,))


def test_a_record_of_a_notebook_that_cannot_run_is_stale(project):
    promoted()
    rewrite(project / "nbs/figures/tiny.ipynb", '"parameters"', '"parametres"')
    assert checked().stale == ("tiny.ipynb has no cells tagged 'parameters'; it needs exactly one",)


def test_a_run_that_is_replaced_while_it_is_promoted_is_refused(project, monkeypatch):
    record()

    def copy(source, target):
        target.write_bytes(source.read_bytes() + b"!" * (source.suffix == ".parquet"))

    monkeypatch.setattr(shutil, "copyfile", copy)
    assert "losses.parquet is not the file that its manifest names" in refusal(figures.promote, "tiny")
    assert [p.name for p in (project / "figures/tiny").iterdir()] == ["runs"]


def test_a_record_made_by_hand_is_stale(project):
    record()
    figures.promote("tiny")
    assert checked().stale == ("it was made by hand: what it was made from isn't known",)


# Comparing two runs


def run_folder(folder, **columns):
    made = Record("tiny", names(scale="smoke", out=str(folder)))
    made.data("losses", pd.DataFrame(columns))
    made.close()
    return folder


def compared(project, old, new, **tolerances):
    folders = run_folder(project / "a", **old), run_folder(project / "b", **new)
    rows = figures.ledger.compare(*folders, tolerances)
    return {row.array: row.verdict for row in rows}


def test_arrays_are_exact_within_tolerance_or_drifted(project):
    old = dict(seed=[0, 1], loss=[1.0, 2.0], energy=[1.0, -4.0], seconds=[3.0, 4.0], name=["a", "b"])
    new = old | dict(loss=[1.0, 2.1], energy=[1.0, -4.5], seconds=[9.0, 9.0], name=["a", "c"])
    tolerances = {"*": 0.0, "losses.*": 0.1, "*.seconds": "any", "losses.energy": 0.1}
    assert compared(project, old, new, **tolerances) == {
        "losses.seed": "exact", "losses.loss": "within tolerance", "losses.energy": "drifted",
        "losses.seconds": "not compared", "losses.name": "drifted"}


def test_arrays_of_other_shapes_are_drifted(project):
    pixels = [[1.0, 2.0], [3.0, 4.0]]
    old, new = dict(loss=[1.0, 2.0], pixels=pixels), dict(more=[1.0, 2.0], pixels=[[1.0], [3.0, 4.0]])
    drifted = dict.fromkeys(["losses.loss", "losses.pixels", "losses.more"], "drifted")
    assert compared(project, old, new) == drifted
    assert compared(project, dict(pixels=pixels), dict(pixels=pixels)) == {"losses.pixels": "exact"}


def test_missing_values_are_compared_too(project):
    old = dict(loss=[1.0, float("nan")], other=[1.0, float("nan")])
    new = dict(loss=[1.0, float("nan")], other=[1.0, 5.0])
    verdicts = compared(project, old, new, **{"*": 0.5})
    assert verdicts == {"losses.loss": "exact", "losses.other": "drifted"}


def test_replay_runs_what_was_recorded_and_compares_it(project, monkeypatch):
    folder = promoted()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parameters"]["effective"]["updates"] = 9
    write_manifest(folder, **manifest | {"threads": 3})
    failed = {}

    def make(plans, **options):
        (again,) = plans
        assert again.folder == folder / "runs/smoke.replay" and options == {"force": True}
        assert again.parameters["updates"] == 9 and figures.jobs_of(again)[-1].threads == 3
        record(out=str(again.folder), value=1.25)
        return Outcome(failed=failed)

    monkeypatch.setattr("ebwm.figures.ledger.make", make)
    assert figures.replay("tiny") == [("losses.loss", "drifted", 0.25, 0.0)]
    failed["tiny"] = "figure 'tiny' failed: ValueError: no"
    with pytest.raises(figures.NotebookError, match="ValueError: no"):
        figures.replay("tiny")


inf, nan = float("inf"), float("nan")


@pytest.mark.parametrize("old, new, verdict", [
    ([1.0, inf, -inf], [1.0, inf, -inf], "exact"),
    ([1.0, inf], [1.05, inf], "within tolerance"),
    ([1.0, inf], [1.0, -inf], "drifted"),
    ([1.0, inf], [1.0, nan], "drifted"),
    ([0.0, 0.0], [0.0, 0.1], "within tolerance"),
    (["a", None], ["a", None], "exact"),
    (["a", None], ["a", "b"], "drifted"),
    ([1.0, 2.0], ["1", "2"], "drifted"),
    ([1.0, 2.0], [None, None], "drifted"),
    ([True, False], [True, True], "drifted"),
    ([1, 2], [1.0, 2.0], "exact"),
    ([[1.0, 2.0], [3.0]], [[1.0], [2.0, 3.0]], "drifted"),
    ([[1.0, 2.0], [3.0]], [[1.0, 2.1], [3.0]], "within tolerance"),
    ([[[1.0], [2.0]], [[3.0]]], [[[1.0], [2.0]], [[3.0]]], "exact"),
    ([[[1.0], [2.0]], [[3.0]]], [[[1.0, 2.0]], [[3.0]]], "drifted"),
    ([[[1.0], [2.0]], [[3.0]]], [[[1.0], [9.0]], [[3.0]]], "drifted"),
    ([None, [1.0]], [None, [1.0]], "exact"),
    ([None, [1.0]], [[1.0], [1.0]], "drifted"),
])
def test_columns_of_any_kind_are_compared(project, old, new, verdict):
    assert compared(project, dict(a=old), dict(a=new), **{"*": 0.1}) == {"losses.a": verdict}


def test_without_a_tolerance_the_least_difference_is_drift():
    old, new = np.array([2**60, 0]), np.array([2**60 + 1, 0])
    assert _difference(old.astype(float), new.astype(float)) == 0.0
    assert _compared("a.b", old, new, {}).verdict == "drifted"
    assert _compared("a.b", old, new, {"a.*": 1e-12}).verdict == "drifted", "whole numbers have no tolerance"


numbers = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=20).map(np.array)


@given(numbers, st.floats(1e-6, 0.5))
def test_the_tolerance_is_a_share_of_the_largest_value(values, share):
    scale = np.abs(values).max() or 1.0
    moved = values.copy()
    moved[0] += share * scale
    found = _difference(values, moved)
    assert found == pytest.approx(share, rel=1e-6, abs=1e-9)
    same = np.array_equal(values, moved)
    judge = lambda allowed: _compared("a.b", values, moved, {"a.*": allowed * share}).verdict
    assert judge(1.01) == ("exact" if same else "within tolerance")
    assert judge(0.98) == ("exact" if same else "drifted")


# The table


def test_table_tells_made_from_unmade(project):
    rewrite(project / "figures/figures.yaml", "planned:\n", "planned:\n" + "".join(
        f"  - {{id: planned_figure_{i}, title: t, paper: p}}\n" for i in range(12)))
    text = figures.table(Outcome(made={"tiny": project / "figures/tiny/runs/smoke"}, failed={"fan": "no"}))
    assert text.splitlines()[:5] == [
        "tiny  made    figures/tiny/runs/smoke", "    A tiny figure", "fan   failed  ebwm figures run fan",
        "    A figure over seeds and sizes (no run at scale smoke; nothing on record)", ""]
    assert "planned: planned_figure_0," in text and max(map(len, text.splitlines())) <= 100
    assert "3 min         ebwm figures run tiny --scale cpu" in figures.table(scale="cpu")
    assert "time unknown  ebwm figures run fan --scale cpu" in figures.table(scale="cpu")
    fresh = figures.table(Outcome(fresh={"tiny": project / "figures/tiny/runs/smoke"}))
    assert fresh.startswith("tiny  up to date  figures/tiny/runs/smoke\n")


def test_table_tells_what_is_on_record_and_what_is_old(project):
    promoted()
    assert "(run at scale smoke: other parameters or older code; on record at scale smoke)" in figures.table()
    rewrite(project / "nbs/figures/tiny.ipynb", "walking", "strolling")
    assert "on record at scale smoke, stale)" in " ".join(figures.table().split())


# The notebooks' tags


def clean(notebook, folder, remove=""):
    """A copy of a notebook after nbdev-clean, under this repository's configuration less one line of it."""
    pytest.importorskip("nbdev")
    (folder / "nbs").mkdir()
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    if remove:
        rewrite(folder / "pyproject.toml", remove, "")
    copy = Path(shutil.copy(notebook, folder / "nbs"))
    call = "from nbdev.clean import nbdev_clean; nbdev_clean()"
    subprocess.run([sys.executable, "-c", call, "--fname", copy], cwd=folder, check=True, capture_output=True)
    return copy


@pytest.mark.parametrize("name", ["tiny", *(n.stem for n in NOTEBOOKS)])
def test_notebooks_keep_their_parameters_tag_after_cleaning(project, tmp_path_factory, name):
    notebook = {n.stem: n for n in NOTEBOOKS}.get(name, project / "nbs/figures/tiny.ipynb")
    copy = clean(notebook, tmp_path_factory.mktemp("clean"))
    assert figures.parameter_defaults(copy) == figures.parameter_defaults(notebook)


def test_cleaning_without_our_configuration_would_strip_the_tag(project, tmp_path_factory):
    folder, line = tmp_path_factory.mktemp("clean"), 'allowed_cell_metadata_keys = ["tags"]'
    copy = clean(project / "nbs/figures/tiny.ipynb", folder, remove=line)
    assert "no cells tagged 'parameters'" in refusal(figures.parameter_defaults, copy)


