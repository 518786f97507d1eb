"""The figure engine: inputs, jobs and batches. Jobs run as scripts (script_job.py), one in a kernel."""

import ast
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from script_job import leave_cell, run_script
from tiny_figure import NOTEBOOKS, YAML, code, rewrite, write_manifest, write_notebook

from ebwm import cli, figures
from ebwm.figures import NotebookError, Record
from ebwm.figures.batch import stale
from ebwm.figures.inputs import PACKAGE, bare, changed, modules, packages
from ebwm.figures.job import _alive, _run, main, run_job, up_to_date
from ebwm.figures.notebook import cells_of, code_of
from ebwm.figures.plan import as_json, jobs_of
from ebwm.figures.progress import Progress, duration, last_line, share_done, time_left
from ebwm.files import sha256, write_json

pd = pytest.importorskip("pandas")
ROOT = Path(__file__).parents[1]
ENDED = 999999999  # a pid that no process has


# Inputs


LAZY = 'EXPORTS = {  # imported on first use\n    "EBT": "ebwm.high",\n    "A": "ebwm.room.a",\n}\n'
SOURCES = {
    "__init__": LAZY, "low": "import torch", "high": "def f():\n    from .low import x", "other": "",
    "room/__init__": "from ebwm.room.a import A", "room/a": "A = 1", "room/b": "from . import a",
    "called": 'require("PIL.Image", "video")\ndef f(x):\n    import_module(f"lightning_fabric.{x}")\nrequire(x)',
    "kinds": 'ROOMS = {"one": ("a", "A"), "two": ("no", "B")}\ndef f(x):\n import_module(f"ebwm.room.{ROOMS[x][0]}")',
    "settings": 'class AConfig:\n    task: str = "ebwm.room.b:B"\nclass BConfig:\n    task: str = ""',
    "plain/__init__": "", "plain/c": "from .. import low",
    "plain/lazy/__init__": 'EXPORTS = {"d": "ebwm.plain.c"}',
}


@pytest.mark.parametrize("cells, names", [
    (["%matplotlib inline\nfrom ebwm import high, __version__"], "high low"),
    (["import ebwm.other\n!ls", "import numpy"], "other"),
    (["from ebwm.room import b"], "room.a room.b"),
    (["from ebwm.room import A"], "room room.a"),
    (["from ebwm import EBT"], "high low"),
    (["import ebwm as e", "e.A"], "room.a"),
    (["import ebwm\n\nebwm.EBT(ebwm.other.x)"], "high low other"),
    (["from ebwm import *"], "high low room.a"),
    (["from ebwm.plain import c"], "low plain.c"),
    (["import ebwm.plain.c as c"], "low plain.c"),
    (["from ebwm import plain"], "plain"),
    (["from ebwm.plain.lazy import d"], "low plain.c plain.lazy"),
    (["ebwm = 1\nebwm.EBT"], ""),
    (["from ebwm.kinds import f"], "kinds room.a"),
    (["from ebwm.settings import AConfig"], "room.a room.b settings"),
    (["from ebwm.settings import BConfig"], "settings"),
])
def test_the_modules_of_a_notebook_are_those_it_imports_directly_or_indirectly(tmp_path, cells, names):
    package = package_of_sources(tmp_path)
    assert list(modules(cells, package)) == [f"ebwm.{name}" for name in names.split()]


def package_of_sources(root):
    for name, source in SOURCES.items():
        path = root / f"ebwm/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root / "ebwm"


@pytest.mark.parametrize("cells, versions", [
    (["from ebwm import high"], {"torch": "2.1"}),
    (["%matplotlib inline\nimport json, sklearn.datasets"], {"scikit-learn": None}),
    (["def f():\n    from skimage.data import cat", "import ebwm.called"],
     {"lightning-fabric": "0.1rc1", "pillow": "9", "scikit-image": None}),
])
def test_the_packages_of_a_notebook_are_those_it_imports_directly_or_indirectly(tmp_path, cells, versions):
    (tmp_path / "constraints.txt").write_text("torch==2.1\nother==1\nLightning_Fabric==0.1rc1\n")
    (tmp_path / "constraints-optional.txt").write_text("# More.\npillow==9")
    package = package_of_sources(tmp_path)
    assert packages(cells, modules(cells, package), tmp_path, package) == versions


BARE = [
    ("x = 1  # one\n\n\n# two\ny = 2   \n", "x = 1\ny = 2"),
    ('"""About."""\n\ndef f(a,  # one\n      b):\n    """Both.\n\n    More."""\n    return a',
     "def f(a,\n      b):\n    return a"),
    ('class A:\n    "é"  # as it is\n    x = "# no comment"  # but this', 'class A:\n    x = "# no comment"'),
    ('class A:\n    def f(): "é"\n', "class A:\n    def f(): ..."),
    ('x = """a  \n\n# no comment\n"""\n\ny = f"""\n\n{x}  \n"""  # one',
     'x = """a  \n\n# no comment\n"""\ny = f"""\n\n{x}  \n"""'),
    ("%matplotlib inline\n\nx = 1  # one", "%matplotlib inline\n\nx = 1  # one"),
    ("", ""),
]


@pytest.mark.parametrize(("source", "left"), BARE)
def test_comments_docstrings_and_empty_lines_are_not_inputs(source, left):
    assert bare(source) == left
    assert bare(left) == left
    assert bare(f'"shown"\n{source}', cell=True).startswith('"shown"'), "a cell displays a leading string"


def undocumented(source):
    """The syntax of a source without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            alone = len(node.body) == 1 and not isinstance(node, ast.Module)
            node.body[:1] = [ast.Expr(ast.Constant(...))] if alone else []
    return ast.dump(tree)


def test_bare_source_of_the_package_is_the_same_code():
    sources = [path.read_text() for path in PACKAGE.rglob("*.py")]
    assert len(sources) > 50 and any(bare(source) != source for source in sources)
    assert all(ast.dump(ast.parse(bare(source))) == undocumented(source) for source in sources)


def test_figures_depend_on_records_and_style_but_not_on_the_engine():
    engine = {f"ebwm.{name}" for name in ("figures", "figures.plan", "figures.job", "figures.batch")}
    notebooks = (ROOT / "nbs/figures").glob("*.ipynb")
    used = {path.stem: set(modules(code_of(cells_of(path)))) for path in notebooks}
    assert len(used) > 10 and "ebwm.objective" in modules(["from ebwm import S1"])
    assert [id for id, names in used.items() if names & engine or "ebwm.figures.record" not in names] == []


def test_figures_depend_on_what_is_imported_by_name():
    used = lambda id: modules(code_of(cells_of(ROOT / f"nbs/figures/{id}.ipynb")))
    robots = {f"ebwm.policy.{name}" for name in ("arms", "metaworld", "reach", "robosuite")}
    assert used("policy_steps").keys() >= robots
    assert "ebwm.data.states" in used("step_size") and "ebwm.data.images" in used("cifar10")
    assert not {"ebwm.data.states", "ebwm.data.images", "ebwm.policy.reach"} & used("next_frame").keys()


def test_every_package_that_a_figure_imports_is_pinned():
    code = [source for path in (ROOT / "nbs/figures").glob("*.ipynb") for source in code_of(cells_of(path))]
    versions = packages(code, modules(code), ROOT)
    assert "torch" in versions and [name for name, version in versions.items() if not version] == []


def only_job(id="tiny", **overrides):
    return jobs_of(figures.plan(id, overrides=overrides))[-1]


def test_a_change_of_an_input_makes_a_run_stale(project):
    """Of the code that runs, the data, the parameters and the imported packages; not of outputs, texts and limits."""
    registry, notebook, picture, points, clip, lock = (project / name for name in (
        YAML, NOTEBOOKS[0], "figures/tiny/runs/smoke/a.png", "points.csv", "clips/a.txt", "constraints.txt"))
    for path in (picture, points, clip, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    lock.write_text("torch==1")
    rewrite(registry, "headline:", "data: [points.csv]\n    headline:")
    job = lambda: only_job(clips_dir="clips")
    assert not up_to_date(job())
    write_manifest(picture.parent, key=job().key, pictures={picture.name: sha256(picture)})
    text = json.dumps({"cell_type": "markdown", "id": "m", "metadata": {}, "source": "New."})
    neutral = [(notebook, '"outputs": []', '"outputs": [1]'), (notebook, '"cells": [', f'"cells": [{text},'),
               (registry, "A tiny figure", "A small figure"), (registry, "smoke: 0.1, cpu: 3", "smoke: 9"),
               (project / "settings.ini", "threads = 1", "threads = 2"), (lock, "==1", "==1\nflask==1")]
    for path, old, new in neutral:
        rewrite(path, old, new)
    assert up_to_date(job())
    first, modified = job().inputs, clip.stat().st_mtime_ns
    changes = [(notebook, "rate**update", "rate*update", ["notebook"]), (points, "1", "2", ["data points.csv"]),
               (notebook, "import sys", "import sys, ebwm.sizes", ["notebook", "module ebwm.sizes"]),
               (lock, "torch==1", "torch==2", ["package torch"]), (clip, "1", "2", [f"data {clip.parent}"]),
               (registry, "updates: 4", "updates: 5", ["parameter updates"]),
               (registry, "smoke: [0, 1]", "smoke: [0, 2]", ["parameter seeds"])]
    for path, old, new, names in changes:
        rewrite(path, old, new)
        assert not up_to_date(job()) and changed(first, job().inputs) == names
        rewrite(path, new, old)
        os.utime(clip, ns=(modified, modified))
        assert up_to_date(job())
    picture.write_bytes(b"other")
    assert not up_to_date(job())


# One job


def failure(job, **changes):
    """The message of a job that fails."""
    with pytest.raises(NotebookError) as caught:
        run_job(dataclasses.replace(job, **changes))
    return str(caught.value)


def write_tiny(project, *sources):
    """Replace the cells of `tiny` after its parameters."""
    path = project / NOTEBOOKS[0]
    parameters = json.loads(path.read_text())["cells"][0]
    write_notebook(path, parameters, *(code(source, id=f"s{i}") for i, source in enumerate(sources)))


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel_and_leaves_a_record_or_its_traceback(project, capfd, monkeypatch):
    """Also when the kernel first exits at its start."""
    startup, mark = project / "ipython/profile_default/startup/00.py", project / "exit"
    startup.parent.mkdir(parents=True)
    startup.write_text(f"import os\nif os.path.exists({str(mark)!r}):\n    os.remove({str(mark)!r})\n    os._exit(1)")
    mark.touch()
    monkeypatch.setenv("IPYTHONDIR", str(project / "ipython"))
    job = only_job(updates=3)
    folder = run_job(job)
    assert folder == project / "figures/tiny/runs/smoke" and up_to_date(job) and not up_to_date(only_job())
    expected = ["losses.parquet", "losses.png", "manifest.json", "tiny.ipynb"]
    assert sorted(p.name for p in folder.iterdir()) == expected
    manifest = json.loads((folder / "manifest.json").read_text())
    requested = {"scale": "smoke", "seeds": [0, 1], "updates": 3, "rate": 1}
    effective = {**requested, "folder": None, "clips_dir": None, "fast": False}
    assert manifest["parameters"] == {"asked": requested, "effective": effective}
    assert manifest["seeds"] == [0, 1] and manifest["threads"] == 1 and manifest["git"] is None
    assert manifest["results"] == {"executable": sys.executable, "least": 1}
    assert manifest["key"] == job.key and "ebwm.figures.record" in manifest["inputs"]["modules"]
    assert len(pd.read_parquet(folder / "losses.parquet")) == 6
    shown = capfd.readouterr().err
    assert "retrying once" in shown and "walking: 100%" in shown and "WARNING" not in shown

    write_tiny(project, "raise ValueError('the walk diverged\\nat step 3')")
    message = failure(only_job())
    assert message == ("figure 'tiny' failed: ValueError: the walk diverged; "
                       "the partial notebook is figures/tiny/runs/smoke.failed/tiny.ipynb")
    assert "diverged" in (project / "figures/tiny/runs/smoke.failed/tiny.ipynb").read_text()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert sorted(p.name for p in folder.parent.iterdir()) == ["smoke", "smoke.failed"]


@pytest.mark.slow
def test_a_job_beyond_its_memory_or_without_progress_is_killed_with_its_children(project, monkeypatch):
    monkeypatch.setattr("ebwm.figures.job._papermill", run_script)
    hoard = "x = bytearray(600 * 2**20); x[::4096] = b'x' * len(x[::4096]); import time; time.sleep(60)"
    write_tiny(project, f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {hoard!r}])")
    message = failure(only_job(), memory=0.5)
    assert re.search(r"it used 0\.\d GiB of memory and exceeded its limit of 0\.5", message)
    slow = "import time\nfor n in range(9):\n    print(f'update {n}', flush=True)\n    time.sleep(0.5 if n < 5 else 60)"
    write_tiny(project, slow)
    message = failure(only_job(), timeout=0.03)
    assert "it made no progress for 0.03 minutes, its limit" in message and "at 'update 5'" in message
    assert not scripts_of(project)


@pytest.fixture
def kernel(monkeypatch):
    """Replace the execution of a notebook by a function of the job and the folder."""
    place = "ebwm.figures.job._papermill"
    return lambda act: monkeypatch.setattr(place, lambda job, folder, *_: act(job, folder))


def leaves(**changes):
    """A notebook that leaves a record with some parameters changed."""
    return lambda job, folder: write_manifest(folder, parameters={"effective": job.parameters | changes})


@pytest.mark.parametrize("act, message", [
    (lambda job, folder: None, "the notebook wrote no manifest.json"),
    (lambda job, folder: write_manifest(folder, parameters={"effective": {"scale": "smoke"}}),
     "did not record its parameter"),
    (lambda job, folder: (folder / "manifest.json").write_text("{"), "manifest.json is not a valid manifest"),
    (leaves(updates=1), "ran with updates=1 instead of 4"),
    (lambda job, folder: (leaves()(job, folder), rewrite(Path("constraints.txt"), "2", "3")),
     "package torch changed during the run"),
])
def test_an_incomplete_record_other_parameters_or_changed_code_are_refused(project, kernel, act, message):
    (project / "constraints.txt").write_text("torch==2")
    kernel(act)
    assert message in failure(only_job()) and not (project / "figures/tiny/runs/smoke").exists()


@pytest.mark.parametrize("exits, executed, fails", [(1, None, False), (2, None, True), (1, 3, True)])
def test_a_kernel_that_exits_before_a_cell_is_restarted_once(project, kernel, exits, executed, fails):
    starts = []

    def start(job, folder):
        starts.append(job)
        write_notebook(folder / "tiny.ipynb", code("x = 1") | {"execution_count": executed})
        if len(starts) <= exits:
            raise RuntimeError("Kernel died")
        leaves()(job, folder)

    kernel(start)
    assert "Kernel died" in failure(only_job()) if fails else run_job(only_job()).is_dir()
    assert len(starts) == (1 if executed else 2)


def test_an_interrupted_job_stores_its_partial_result(project, kernel):
    """An earlier result that was being replaced when its process was killed comes back."""
    def interrupt(job, folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    runs = project / "figures/tiny/runs"
    left = f".smoke@{socket.gethostname()}@{ENDED}"
    for name in (left, f"{left}.earlier"):
        (runs / name / name.strip(".")).mkdir(parents=True)
    kernel(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job(only_job())
    assert sorted(path.name for path in runs.iterdir()) == ["smoke", "smoke.failed"]
    assert (runs / "smoke.failed/half").exists() and (runs / "smoke" / f"{left}.earlier".strip(".")).is_dir()


def batch_of(process, **changes):
    """The description of a batch of this process."""
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time(), **changes}


def test_a_job_detects_the_end_of_its_batch():
    me = psutil.Process()
    mine = lambda **changes: _alive(batch_of(me, **changes))
    assert _alive(None) and mine() and mine(host="elsewhere", pid=ENDED)
    assert mine(started=me.create_time() + 30), "the clock may be adjusted"
    assert not mine(started=me.create_time() - 86400), "another process has this pid"
    assert not mine(pid=ENDED)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    batch = batch_of(psutil.Process(child.pid))
    assert _alive(batch)
    child.kill()
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    assert not _alive(batch)
    child.communicate()
    assert not _alive(batch)


RUNNING, FAILED = {"state": "running", "started": 0.0}, {"state": "failed", "message": "no"}


@pytest.mark.parametrize("rank, error, ended, before, code, after", [
    (None, None, False, {}, 0, {"state": "made"}),
    (None, NotebookError("no"), False, {}, 1, FAILED),
    (None, KeyboardInterrupt(), False, {}, 130, {"state": "failed", "message": "figure 'tiny' was interrupted"}),
    (None, AssertionError(), True, {}, 1, {"state": "failed", "message": "figure 'tiny' failed: its batch has ended"}),
    ("1", None, False, RUNNING, 0, RUNNING),
    ("1", NotebookError("no"), False, RUNNING, 1, FAILED),
    ("1", KeyboardInterrupt(), False, FAILED, 130, FAILED),
])
def test_the_status_of_a_job(project, monkeypatch, rank, error, ended, before, code, after):
    """Under torchrun, the first failure of the ranks is reported."""
    def run(job, batch):
        if error:
            raise error

    for name, stand_in in {"ebwm.figures.job._logged": contextlib.nullcontext, "ebwm.figures.job.run_job": run,
                           "signal.signal": lambda *arguments: None}.items():
        monkeypatch.setattr(name, stand_in)
    if rank:
        monkeypatch.setenv("RANK", rank)
    path, status = project / "batch/jobs/tiny.json", project / "batch/status/tiny.json"
    batch = batch_of(psutil.Process(), **{"pid": ENDED} if ended else {})
    write_json(path, {"job": as_json(only_job()), "batch": batch})
    write_json(status, before)
    assert (main([str(path)]), json.loads(status.read_text())) == (code, after)


def test_a_join_gives_what_one_process_gives_and_checks_the_order_of_its_parts(project):
    work = lambda seed, size: {"losses": pd.DataFrame({"loss": [seed + 1 / size, 0.0]})}

    def record(name, job, **names):
        write_json(project / name / "job.json", job)
        values = {"scale": "smoke", "seeds": [0], "power": 1.0, "out": str(project / name)}
        return Record("fan", values | names)

    for size, peak in ((8, None), (16, 1e7)):
        record(f"part{size}", {"part": True}, sizes=[size]).each(work, seed=[0], size=[size])
        manifest = json.loads((project / f"part{size}/manifest.json").read_text())
        write_manifest(project / f"part{size}", **manifest | {"seconds": 60.0, "peak_memory_mib": peak})
    parts = {"each": ["seeds", "sizes"], "parts": [str(project / "part8"), str(project / "part16")]}
    whole = record("whole", parts, sizes=[8, 16])
    joined = whole.each(pytest.fail, seed=[0], size=[8, 16])["losses"]
    alone = record("alone", {}, sizes=[8, 16]).each(work, seed=[0], size=[8, 16])["losses"]
    pd.testing.assert_frame_equal(joined, alone)
    assert joined.to_dict("list") == {"seed": [0] * 4, "size": [8, 8, 16, 16], "loss": [1 / 8, 0, 1 / 16, 0]}
    manifest = whole.close()
    assert [part["part"] for part in manifest["parts"]] == ["part8", "part16"]
    assert 120 <= manifest["seconds"] < 180 and manifest["peak_memory_mib"] == 1e7
    parts["parts"].reverse()
    with pytest.raises(figures.FigureError, match="is not the part for"):
        record("whole", parts, sizes=[8, 16]).each(pytest.fail, seed=[0], size=[8, 16])


# Batches, through the command line


@pytest.fixture
def ebwm_command(project):
    """Start `ebwm figures` in the small project; jobs run as scripts."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, str(ROOT / "tests/script_job.py"), "figures"]
    return lambda *words, **more: subprocess.Popen([*command, *words], env=environment, **pipes, **more)


def finished(process):
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def jobs_of_log(err):
    """The jobs of a batch, and their final states."""
    return dict(re.findall(r"^([\w.+-]+): (made|failed), ", err, re.M))


def write_fan(project, work="", sizes="[8]"):
    """Make `fan` a script with two cells, the first of which is that of the parts."""
    path = project / "nbs/figures/fan.ipynb"
    cells = json.loads(path.read_text())["cells"][:1]
    rewrite_sizes = cells[0]["source"].replace("sizes = [8, 16]", f"sizes = {sizes}")
    part = code(f"import os, time\n{work}\n{leave_cell('[seeds, sizes]')}", "parts", id="a")
    write_notebook(path, cells[0] | {"source": rewrite_sizes}, part, code(leave_cell("'joined'"), id="j"))


@pytest.mark.slow
def test_jobs_run_in_parallel_and_only_failed_or_changed_ones_run_again(project, ebwm_command, monkeypatch, capsys):
    write_fan(project, "if (seeds, sizes) == ([1], [8]) and os.path.exists('fail'): os._exit(9)")
    write_tiny(project, leave_cell())
    (project / "fail").touch()
    status, out, err = finished(ebwm_command("run", "fan", "tiny"))
    parts = ["fan.seeds-0_sizes-8", "fan.seeds-1_sizes-8"]
    assert status == 1 and jobs_of_log(err) == {parts[0]: "made", parts[1]: "failed", "tiny": "made"}
    assert f"figure {parts[1]!r} failed: RuntimeError: exit code 9" in err
    assert f"figure 'fan' was not run: it needs {parts[1]}" in err
    assert out.startswith("tiny: made: ") and "fan" not in out
    folder = project / "figures/fan/runs/smoke.parts"
    assert (folder / "seeds-1_sizes-8.failed").is_dir()
    (project / "fail").unlink()
    monkeypatch.setattr("ebwm.figures.job._papermill", run_script)
    todo = stale(jobs_of(figures.plan("fan")))
    assert [run_job(job).name for job in todo] == ["seeds-1_sizes-8", "smoke"] and not list(folder.glob("*.failed"))
    assert cli.main(["figures", "run", "fan", "tiny"]) == 0
    out, err = capsys.readouterr()
    assert "fan: up to date: " in out and "tiny: up to date: " in out and jobs_of_log(err) == {}

    waiting = lambda **overrides: [job.name for job in stale(jobs_of(figures.plan("fan", overrides=overrides)))]
    assert waiting(sizes=[8, 32]) == ["fan.seeds-0_sizes-32", "fan.seeds-1_sizes-32", "fan"]
    assert waiting(power=2.0) == [*parts, "fan"]
    notebook, changes = project / NOTEBOOKS[1], {"'joined'": "'united'", "[seeds, sizes]": "[sizes, seeds]"}
    for (old, new), names in zip(changes.items(), ([], parts), strict=True):
        rewrite(notebook, old, new)
        assert waiting() == [*names, "fan"]
        rewrite(notebook, new, old)
    shutil.rmtree(folder)
    assert waiting() == [], "a figure that is up to date needs no parts"


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def scripts_of(project):
    """The processes of scripts that work in the project."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            ours = process.pid != os.getpid() and "-c" in (process.info["cmdline"] or [])
            if ours and Path(process.cwd()) == project:
                found.append(process)
    return found


@pytest.mark.slow
def test_a_batch_that_is_ended_leaves_no_process_starts_no_job_and_resumes(project, ebwm_command, capsys):
    """Also one that ignores interrupts, as background jobs of a shell and `nohup` do; no other batch runs beside it."""
    rewrite(project / YAML, "[0, 1]}\n    minutes: {smoke: 0.1}\n", "[0, 1, 2]}\n    minutes: {smoke: 0.1}\n")
    parts, slow = project / "figures/fan/runs/smoke.parts", project / "slow"
    made = lambda: {path: path.stat().st_mtime_ns for path in parts.glob("seeds-*/manifest.json")}
    write_fan(project, f"""
if os.path.exists('slow') and any(name[0] != '.' for name in os.listdir({str(parts)!r})):
    open(f'slow{{seeds[0]}}', 'w').close()
    time.sleep(300)  # all but the first part
""")
    slow.touch()
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = ebwm_command("run", "fan", "--cores", "1", preexec_fn=ignore)
    wait_for(lambda: made() and scripts_of(project), 90)

    assert cli.main(["figures", "run", "tiny"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"another batch is running in figures (process {process.pid} on" in err.splitlines()[-1]
    assert process.poll() is None and len(scripts_of(project)) == 1

    process.send_signal(signal.SIGTERM)
    assert finished(process)[0] == 130
    wait_for(lambda: not scripts_of(project), 15)
    assert len(list(project.glob("slow?"))) == 1, "the third part does not start"
    process, first = ebwm_command("run", "fan", "--cores", "3"), made()
    wait_for(lambda: len(scripts_of(project)) == 2, 90)
    process.kill()
    assert finished(process)[0] == -9
    wait_for(lambda: not scripts_of(project), 15)
    slow.unlink()
    status, _, err = finished(ebwm_command("run", "fan"))
    (done,) = first
    left = {f"fan.seeds-{seed}_sizes-8" for seed in range(3)} - {f"fan.{done.parent.name}"}
    assert status == 0 and jobs_of_log(err) == dict.fromkeys([*left, "fan"], "made")
    assert "3 of 3 jobs" in err and "about" in err and made()[done] == first[done]


@pytest.mark.slow
def test_torchrun_inside_a_job(project, monkeypatch):
    """The record of rank 0 counts once all ranks have succeeded."""
    runs, path = project / "figures/tiny/runs", project / "batch/jobs/tiny.json"
    monkeypatch.setattr("ebwm.figures.job.RUNNER", (str(ROOT / "tests/script_job.py"),))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    rewrite(project / YAML, "headline: true", "headline: true\n    processes: {smoke: 2}")

    def launch():
        job = only_job()
        write_json(path, {"job": as_json(job), "batch": None})
        write_json(project / "batch/status/tiny.json", RUNNING)
        _run(job, None, path)

    write_tiny(project, """
import os, pathlib, socket, time
rank, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), 60).close()
pathlib.Path(f"rank{rank}").touch()
while not all(pathlib.Path(f"rank{other}").exists() for other in range(size)):
    time.sleep(0.05)  # all ranks run at the same time
""", leave_cell("[rank, size]"))
    launch()
    before = (runs / "smoke/manifest.json").read_bytes()
    assert json.loads(before)["results"]["values"] == [0, 2] and [path.name for path in runs.iterdir()] == ["smoke"]

    lost = "import os, time\nif os.environ['RANK'] == '1':\n    time.sleep(1)\n    raise ValueError('lost')"
    write_tiny(project, leave_cell(), lost)
    with pytest.raises(NotebookError, match="torchrun ended with exit code 1"):
        launch()
    assert json.loads((project / "batch/status/tiny.json").read_text())["state"] == "failed"
    assert (runs / "smoke/manifest.json").read_bytes() == before
    assert (runs / "smoke.failed.1").is_dir() and not list(runs.glob(".*"))


def test_a_scheduler_that_does_not_start_is_reported_with_its_log(project):
    (project / "profile").mkdir()
    (project / "profile/config.yaml").write_text("executor: nonesuch\n")
    outcome = figures.make([figures.plan("tiny")], profile=project / "profile", report=pytest.fail)
    message = outcome.failed.pop("tiny")
    assert message.startswith("figure 'tiny' was not run: ") and not outcome.failed and not outcome.made
    assert "nonesuch" in message and message.endswith("; see figures/.batch/logs/snakemake.log")
    assert "nonesuch" in (project / "figures/.batch/logs/snakemake.log").read_text()
    assert sorted(p.name for p in (project / "figures/.batch").iterdir()) == ["logs"]
    assert not (project / "figures/.batch.json").exists()


# Progress


def test_each_finished_job_is_reported_once_with_the_remaining_time(tmp_path):
    jobs = [figures.Job(name, "f", "", "", "", {}, {}) for name in ("a", "b", "c")]
    lines, since, made = [], lambda seconds: {"state": "running", "started": time.time() - seconds}, {"state": "made"}
    (tmp_path / "status").mkdir()
    with Progress(tmp_path, jobs, 1, lines.append) as progress:
        progress.update()
        for name, status in (("a", since(30)), ("a", made), ("a", made), ("b", since(120)), ("b", made),
                             ("c", {"state": "failed", "message": "no"})):
            write_json(tmp_path / f"status/{name}.json", status)
            progress.update()
    assert lines == ["a: made, 30 s; 1 of 3 jobs, about 60 s left",
                     "b: made, 2 min; 2 of 3 jobs, about 75 s left", "c: failed, 0 s; 3 of 3 jobs"]


def test_without_a_terminal_running_jobs_are_reported_again_and_again(tmp_path, monkeypatch):
    for name in ("status", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "status/a.json").write_text(json.dumps({"state": "running", "started": time.time() - 30}))
    (tmp_path / "logs/a.log").write_text("seed 0: 10%\rseed 0: 20%")
    lines = []
    with Progress(tmp_path, [figures.Job("a", "f", "", "", "", {}, {})], 1, lines.append) as progress:
        progress.update()
        assert lines == []
        monkeypatch.setattr("ebwm.figures.progress.HEARTBEAT", 0)
        progress.update()
        progress.update()
    assert lines == ["a: seed 0: 20%; 1 running, about 30 s left"] * 2


def test_the_remaining_time_follows_measured_times():
    jobs = [figures.Job(f"j{i}", "f", "", "", "", {}, {}, minutes=1, threads=1) for i in range(4)]
    assert time_left(jobs, {}, 2, 0) == 120
    done = {"j0": {"state": "made", "seconds": 120.0}, "j1": {"state": "running", "started": 0.0}}
    assert time_left(jobs, done, 1, 60.0) == 60 + 120 + 120
    assert time_left(jobs, done, 4, 60.0) == 120
    assert time_left(jobs[:1], done, 1, 0.0) == 0
    quarter = {"j0": {"state": "running", "started": 0.0, "share": share_done("seed 0:  25%|## | 5/20")}}
    assert time_left(jobs, quarter, 1, 120.0) == 360 + 3 * 480
    assert share_done("loss fell by 40%") == 0


def test_the_last_line_of_a_log_and_durations(tmp_path):
    path = tmp_path / "a.log"
    assert last_line(path) == ""
    path.write_bytes(b"x" * 10_000 + b"\nfirst\n 10%\r 20% done\r\n\n")
    assert last_line(path) == "20% done"
    assert [duration(s) for s in (0.4, 89, 150, 4000, 9000)] == ["0 s", "89 s", "2 min", "67 min", "2.5 h"]
