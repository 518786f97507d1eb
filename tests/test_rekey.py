"""Records carried over a change of code, in a small repository: jobs run in this process, in one test in others."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from script_job import leave_cell, script_of
from test_bare import SITE
from tiny_figure import FAN_PARAMETERS, NOTEBOOKS, YAML, code, refusal, rewrite, write_manifest, write_notebook

from ebwm import cli, figures
from ebwm.figures import rekey as engine
from ebwm.figures.carried import carried
from ebwm.figures.errors import NotebookError
from ebwm.figures.identical import identical
from ebwm.figures.inputs import PACKAGE
from ebwm.figures.job import run_job
from ebwm.figures.manifest import JOB, MANIFEST, load_manifest, read_manifest
from ebwm.figures.plan import jobs_of
from ebwm.figures.report import ledger
from ebwm.figures.summary import summary
from ebwm.files import sha256, write_json

pd = pytest.importorskip("pandas")
TINY, FIGURE = "figures/tiny/manifest.json", NOTEBOOKS[0]
HARMLESS, EFFECT = ("rate**update", "pow(rate, update)"), ("rate**update", "rate*update")


def git(project, *words):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout.strip()


def commit(project):
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "change")
    return git(project, "rev-parse", "HEAD")


def put_on_record(project, id="tiny"):
    """Put a figure on record at scale cpu, with the inputs that the runner would give it; returns the commit."""
    (job,) = jobs_of(figures.plan(id, "cpu"))
    folder = Path(job.folder)
    write_json(folder / JOB, {"key": job.key, "inputs": job.inputs, "asked": job.parameters})
    defaults = figures.parameter_defaults(Path(job.notebook))
    record = figures.Record(id, defaults | job.parameters | {"out": str(folder)})
    record.data("losses", pd.DataFrame({"loss": [0.5, 0.25]}))
    record.close(least=0.25)
    figures.promote(id, "cpu")
    return commit(project)


def inputs_here(tree, scales):
    """The inputs of figures at a commit, determined in this process."""
    with contextlib.chdir(tree.root), mock.patch("sys.argv", ["-c", json.dumps(scales)]):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(engine.INPUTS, {})
    return json.loads(out.getvalue())


@pytest.fixture
def repository(project, monkeypatch):
    """The small project in git, with data and a pin. Returns its folder."""
    monkeypatch.setattr(engine, "_inputs", inputs_here)
    (project / ".gitignore").write_text("figures/*/runs/\nfigures/.batch*\nebwm/\n")
    (project / "points.csv").write_text("1\n")
    (project / "constraints.txt").write_text("pandas==1\n")
    rewrite(project / YAML, "rate: 1", "rate: 2.0")
    rewrite(project / YAML, "headline:", "data: [points.csv]\n    headline:")
    git(project, "init", "--quiet")
    commit(project)
    return project


@pytest.fixture
def in_process(monkeypatch):
    """Cells of figures run in this process, also those of smoke runs."""
    def smoke(tree, ids, cores):
        with contextlib.chdir(tree.root):
            try:
                for job in (job for id in ids for job in jobs_of(figures.plan(id, "smoke"))):
                    run_job(job)
            except NotebookError as error:
                return [str(error)]
        return []

    monkeypatch.setattr("ebwm.figures.job._papermill", lambda job, folder, *_: exec(script_of(job, folder), {}))
    monkeypatch.setattr(engine, "_run_smoke", smoke)


def fresh(id="tiny"):
    """Whether the record of a figure is complete and up to date."""
    (row,) = figures.check([id])
    return not (row.wrong or row.stale)


def contents(project):
    return {path: path.read_bytes() for path in (project / "figures/tiny").iterdir() if path.is_file()}


def test_a_harmless_change_of_code_is_carried_and_written_down(repository, in_process, capsys):
    first = put_on_record(repository)
    before = load_manifest(repository / "figures/tiny")
    files = contents(repository)
    assert fresh() and engine.rekey([], first) == []
    rewrite(repository / FIGURE, *HARMLESS)
    assert not fresh()
    second = commit(repository)
    assert cli.main(["figures", "rekey", "--since", first]) == 0
    counts = "1 table, 2 results, 1 picture"
    said = f"tiny: carried from {first[:7]} to {second[:7]}; the same at scale smoke: {counts}\n"
    assert capsys.readouterr().out == said
    after = read_manifest(repository / "figures/tiny")
    (entry,) = after["carried"]
    assert entry["date"].endswith("+00:00")
    compared = {"scale": "smoke", "tables": 1, "results": 2, "pictures": 1, "not_compared": 0}
    assert {name: value for name, value in entry.items() if name != "date"} == {
        "from": first, "to": second, "key": before["key"], "changed": ["notebook"], "compared": compared}
    new = {name for name in after if after[name] != before.get(name)}
    assert new == {"carried", "inputs", "key", "seal"}
    assert fresh() and after["key"] == jobs_of(figures.plan("tiny", "cpu"))[-1].key
    assert [path for path, content in contents(repository).items() if content != files[path]] == [repository / TINY]
    assert cli.main(["figures", "check", "tiny"]) == 0
    text = f"carried over a change of code, last to {second[:7]}"
    assert capsys.readouterr().out == f"tiny: on record at scale cpu, complete, {text}\n"
    outcome = figures.Outcome(fresh={"tiny": repository / "figures/tiny/runs/cpu"})
    said = " ".join(summary([figures.plan("tiny", "cpu")], outcome).split())
    assert f"Agrees with the record, {text}, (arrays: 1 exact)" in said
    assert f"{text}, `ebwm figures run tiny" in " ".join(ledger().split())
    assert git(repository, "worktree", "list").count("\n") == 0

    commit(repository)
    rewrite(repository / FIGURE, HARMLESS[1], HARMLESS[0])
    third = commit(repository)
    assert "not up to date" in engine.rekey(["tiny"], first)[0].refused
    assert engine.rekey(["tiny"], second)[0].refused == "" and fresh()
    again = load_manifest(repository / "figures/tiny")
    assert again["inputs"] == before["inputs"] and again["carried"][0] == after["carried"][0]
    assert carried(again) == f"carried over 2 changes of code, last to {third[:7]}"


def test_a_change_that_moves_a_number_is_refused_with_the_column(repository, in_process, capsys):
    first = put_on_record(repository)
    rewrite(repository / FIGURE, *EFFECT)
    commit(repository)
    files = contents(repository)
    assert cli.main(["figures", "rekey", "tiny", "--since", first]) == 1
    assert capsys.readouterr().out == (
        "tiny: refused: the change of code has an effect at scale smoke: column losses.loss differs by 0.25 of its "
        "largest value; run it again: ebwm figures run tiny --scale cpu\n")
    rewrite(repository / FIGURE, EFFECT[1], "1 / 0")
    commit(repository)
    (row,) = engine.rekey(["tiny"], first)
    assert row.refused.startswith("its smoke run at the present commit failed: figure 'tiny' failed: ")
    assert contents(repository) == files and git(repository, "worktree", "list").count("\n") == 0


def test_sigterm_leaves_no_files_of_commits(repository, monkeypatch):
    first = put_on_record(repository)
    rewrite(repository / FIGURE, *HARMLESS)
    commit(repository)
    monkeypatch.setattr(engine, "_inputs", lambda tree, scales: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        engine.rekey(["tiny"], first)
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.fixture
def no_runs(monkeypatch):
    """Fail if a smoke run is started."""
    monkeypatch.setattr(engine, "_run_smoke", lambda *arguments: pytest.fail("a run was started"))


def test_other_changes_than_of_code_need_a_new_run(repository, no_runs):
    """Of the version of a package, of data, of parameters, and the import of a package that had no pin."""
    first = put_on_record(repository)
    for path, old, new in (("constraints.txt", "pandas==1", "pandas==2\nscipy==1"), ("points.csv", "1", "2"),
                           ("settings.ini", "threads = 1", "threads = 1\nseeds = 4 5"),
                           (FIGURE, "import sys", "import sys, scipy"), (FIGURE, *HARMLESS)):
        rewrite(repository / path, old, new)
    commit(repository)
    files = contents(repository)
    (row,) = engine.rekey([], first)
    names = "package pandas, package scipy, data points.csv, parameter seeds"
    assert row.refused == f"not only code has changed: {names}; run it again: ebwm figures run tiny --scale cpu"
    assert contents(repository) == files and not fresh()


def test_the_import_of_another_package_with_the_same_pin_is_a_change_of_code(repository, monkeypatch):
    (repository / "constraints.txt").write_text("pandas==1\nscipy==1\n")
    commit(repository)
    first, runs = put_on_record(repository), []
    monkeypatch.setattr(engine, "_run_smoke", lambda tree, ids, cores: runs.append(ids) or [])
    rewrite(repository / FIGURE, "import sys", "import sys, scipy")
    commit(repository)
    (row,) = engine.rekey([], first)
    assert runs == [["tiny"], ["tiny"]] and "its smoke run at" in row.refused


def test_records_that_cannot_be_carried_are_refused(repository, no_runs):
    first = put_on_record(repository)
    rewrite(repository / FIGURE, *HARMLESS)
    assert "uncommitted changes (nbs/figures/tiny.ipynb); commit them" in refusal(engine.rekey, ["tiny"], first)
    second = commit(repository)
    (repository / "new.py").touch()
    assert "uncommitted changes (new.py)" in refusal(engine.rekey, ["tiny"], first)
    (repository / "new.py").unlink()
    assert "--since='nowhere': must be a commit" in refusal(engine.rekey, ["tiny"], "nowhere")
    assert "did you mean 'tiny'" in refusal(engine.rekey, ["tinny"], first)
    reasons = [row.refused for row in engine.rekey(["fan", "tiny"], "HEAD")]
    assert reasons == ["HEAD is the present commit; name an earlier one"] * 2
    rewrite(repository / FIGURE, HARMLESS[1], "rate ** (update)")
    commit(repository)
    fan, tiny = engine.rekey(["fan", "tiny"], second)
    assert fan.refused == "nothing is on record"
    assert tiny.refused.startswith(f"its record is not up to date at {second}: notebook; ")
    manifest = load_manifest(repository / "figures/tiny")
    write_manifest(repository / "figures/fan", inputs=None)
    rewrite(repository / TINY, '"least": 0.25', '"least": 0.5')
    fan, tiny = engine.rekey(["fan", "tiny"], first)
    assert "its inputs are unknown" in fan.refused and "was changed after it was written" in tiny.refused
    inputs = manifest["inputs"] | {"device": "cuda"}
    write_manifest(repository / "figures/tiny", **manifest | {"inputs": inputs})
    assert "is not up to date" in engine.rekey(["tiny"], first)[0].refused


PARTS = """
import pandas as pd
from ebwm.figures.record import Record

record = Record("fan", globals())

def losses(seed, size):
    with open("figures/.batch_calls", "a") as log:
        log.write("called\\n")
    return {"losses": pd.DataFrame({"loss": [(seed + 1) / size**power]})}

made = record.each(losses, seed=seeds, size=sizes)
"""
JOIN = """
import matplotlib.pyplot as plt

def draw():
    fig, ax = plt.subplots(figsize=(1, 1))
    ax.set_axis_off()
    ax.plot(made["losses"].loss, linewidth=1)
    return fig

record.data("means", made["losses"].groupby("size", as_index=False).loss.mean())
record.picture("losses", draw)
record.close(least=made["losses"].loss.min())
"""


def test_results_and_pictures_are_made_again_from_the_tables_of_the_parts(repository, in_process, capsys):
    """No part is computed again; a change that moves a table of the parts is refused."""
    rewrite(repository / YAML, "[0, 1]}\n    minutes: {smoke: 0.1}\n", "[0]}\n    minutes: {smoke: 0.1}\n")
    fan, place = repository / NOTEBOOKS[1], repository / "figures/fan"
    write_notebook(fan, code(FAN_PARAMETERS, "parameters", id="p"), code(PARTS, "parts", id="a"), code(JOIN, id="j"))
    commit(repository)
    for job in jobs_of(figures.plan("fan", "cpu")):
        run_job(job)
    figures.promote("fan", "cpu")
    first, calls = commit(repository), (repository / "figures/.batch_calls").read_text()
    old = read_manifest(place)
    assert old["part_tables"] == {"losses.parquet": ["seed", "size"]}
    rewrite(fan, "linewidth=1", "linewidth=5")
    rewrite(fan, "loss.mean()", "loss.max()")
    rewrite(fan, "least=made", "largest=made")
    commit(repository)
    assert cli.main(["figures", "rekey", "fan", "--since", first, "--join"]) == 0
    assert capsys.readouterr().out.endswith("the same at scale smoke: 1 table; joined again, with other results\n")
    new = read_manifest(place)
    assert fresh("fan") and new["carried"][-1]["joined"] and new["git"] == old["git"]
    assert new["data"]["losses.parquet"] == old["data"]["losses.parquet"] and new["parts"] == old["parts"]
    means = pd.read_parquet(place / "means.parquet").set_index("size").loss
    assert new["results"] == {"largest": 1 / 16} and means.to_dict() == {8: 3 / 8, 16: 3 / 16}
    assert all(new["pictures"][name] != digest for name, digest in old["pictures"].items())
    assert {path.name for path in place.iterdir() if path.is_file()} == {*new["data"], *new["pictures"], MANIFEST}
    assert (repository / "figures/.batch_calls").read_text() == calls == "called\n" * 6

    files = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    third = commit(repository)
    rewrite(fan, "(seed + 1)", "(seed + 2)")
    commit(repository)
    (row,) = engine.rekey(["fan"], third, joined=True)
    assert row.refused.startswith("the change of code has an effect at scale smoke: column losses.loss differs by ")
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.slow
def test_the_command_runs_the_modules_of_each_commit(repository):
    """In processes, without Jupyter: a change of a size is none for a figure that uses another size."""
    for path, size in zip(NOTEBOOKS, ("small", "xl"), strict=True):
        parameters = json.loads((repository / path).read_text())["cells"][0]
        used = code(f"from ebwm.sizes import size_named\n{leave_cell(f'size_named({size!r}).dim')}", id="u")
        write_notebook(repository / path, parameters, used)
    rewrite(repository / YAML, "    each: [seeds, sizes]\n", "")
    shutil.copytree(PACKAGE, repository / "ebwm", ignore=shutil.ignore_patterns("__pycache__"))
    rewrite(repository / ".gitignore", "ebwm/\n", "__pycache__/\n")
    (repository / "sitecustomize.py").write_text(SITE)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-m", "ebwm", "figures"]
    call = lambda *words: subprocess.run([*command, *words], env=environment, capture_output=True, text=True)
    commit(repository)
    put_on_record(repository, "fan")
    first, before = put_on_record(repository), (repository / TINY).read_bytes()
    rewrite(repository / "ebwm/sizes.py", '"small": Size(12, 768, 12)', '"small": Size(12, 780, 12)')
    commit(repository)
    done = call("rekey", "--since", first, "--cores", "2")
    tiny, fan = done.stdout.splitlines()
    assert done.returncode == 1 and (repository / TINY).read_bytes() == before, done.stderr
    assert tiny.startswith("tiny: refused: ") and "results.values differs: 768 before, 780 now" in tiny
    assert fan.startswith("fan: carried from ")
    stale, fresh = call("check").stdout.split("fan: ")
    assert "stale: changed since the run: module ebwm.sizes" in stale and "stale" not in fresh


# The comparison


def run_of(folder, results=None, picture=b"1", **changes):
    """A run with one table, and with one picture."""
    folder.mkdir()
    columns = {"loss": [0.0, 1.0], "seconds": [1.0, 2.0], "name": ["a", "b"]} | changes
    pd.DataFrame(columns).to_parquet(folder / "costs.parquet", index=False)
    (folder / "costs.png").write_bytes(picture)
    data, pictures = ({name: sha256(folder / name)} for name in ("costs.parquet", "costs.png"))
    write_manifest(folder, results=results or {}, data=data, pictures=pictures)
    return folder


TIMED = {"*": 0.1, "*seconds": "any"}


def compared(folder, tolerances=TIMED, times=(), drawing=True, before=None, **changes):
    return identical(run_of(folder / "a", **before or {}), run_of(folder / "b", **changes), tolerances, times, drawing)


@pytest.mark.parametrize(("changes", "message"), [
    ({"loss": [0.0, 1.01]}, "column costs.loss differs by 0.01 of its largest value"),
    ({"name": ["a", "c"]}, "column costs.name differs in 1 of 2 rows"),
    ({"loss": [0.0, 1.0, 1.0], "seconds": [1.0] * 3, "name": ["a"] * 3}, "column costs.loss has 2 rows before, 3 now"),
    ({"loss": [-0.0, 1.0]}, "table costs differs in columns, types or signs of zeros"),
    ({"loss": pd.array([0, 1], "float32")}, "table costs differs in columns, types"),
    ({"more": [1, 2]}, "column costs.more has no rows before, 2 now"),
    ({"more_seconds": [1, 2]}, "table costs differs in columns"),
    ({"results": {"a": {"b": 1}}}, "results.a.b differs: none before, 1 now"),
    ({"picture": b"2"}, "picture costs.png differs"),
])
def test_the_first_difference_is_named(tmp_path, changes, message):
    assert refusal(compared, tmp_path, **changes).startswith(message)


def test_only_measured_times_may_differ(tmp_path):
    results = lambda t: {"seconds": {"a": t}, "milliseconds": t, "loss": 3, "list": [float("nan")],
                         "runs": [{"seconds": t, "loss": 1}]}
    same = compared(tmp_path, before={"results": results(1)}, results=results(2), seconds=[3.0, 4.0])
    assert same == {"tables": 1, "results": 3, "pictures": 1, "not_compared": 4}
    assert refusal(identical, tmp_path / "a", tmp_path / "b", {"*": 0.1}).startswith("column costs.seconds differs")
    assert refusal(identical, tmp_path / "a", run_of(tmp_path / "c", loss=[1.0, 2.0]), {"*": "any"}).startswith(
        "column costs.loss differs"), "an array that varies between machines does not vary here"


def test_the_registry_may_name_other_times(tmp_path):
    same = compared(tmp_path, times=["costs.loss", "results.ratio"], loss=[1.0, 2.0], results={"ratio": {"a": 1}},
                    before={"results": {"ratio": {"a": 2}}})
    assert same["not_compared"] == 3 and same["results"] == 0


def test_a_picture_of_seconds_may_differ_unless_code_that_draws_is_another(tmp_path):
    assert compared(tmp_path, drawing=False, picture=b"2")["pictures"] == 0
    for tolerances, drawing in ((TIMED, True), ({}, False)):
        message = refusal(identical, tmp_path / "a", tmp_path / "b", tolerances, drawing=drawing)
        assert message == "picture costs.png differs"


def test_runs_with_other_parameters_are_not_compared(tmp_path):
    write_manifest(tmp_path / "a", seeds=[0])
    write_manifest(tmp_path / "b", seeds=[1])
    assert refusal(identical, tmp_path / "a", tmp_path / "b", {}) == "the entry 'seeds' of the manifests differs"
