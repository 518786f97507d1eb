"""The figure engine: inputs, jobs and batches. Jobs run as scripts (script_job.py), one in a kernel."""

import ast
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from script_job import leave_cell, run_script
from tiny_figure import code, rewrite, write_manifest, write_notebook

from ebwm import figures
from ebwm.figures import NotebookError, Record
from ebwm.figures.batch import stale
from ebwm.figures.inputs import PACKAGE, bare, changed, modules
from ebwm.figures.job import _alive, main, run_job, up_to_date
from ebwm.figures.notebook import cells_of, code_of
from ebwm.figures.plan import as_json, jobs_of
from ebwm.figures.progress import Progress, duration, last_line, time_left
from ebwm.files import sha256, write_json, write_whole

pd = pytest.importorskip("pandas")
ROOT = Path(__file__).parents[1]
PICTURES = ["losses.png", "losses.svg", "losses-dark.png", "losses-dark.svg"]


# Inputs


LAZY = 'EXPORTS = {  # imported on first use\n    "EBT": "ebwm.high",\n    "A": "ebwm.room.a",\n}\n'
SOURCES = {
    "__init__": LAZY, "low": "import torch", "high": "def f():\n    from .low import x", "other": "",
    "room/__init__": "from ebwm.room.a import A", "room/a": "A = 1", "room/b": "from . import a",
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
])
def test_the_modules_of_a_notebook_are_those_it_imports_directly_or_indirectly(tmp_path, cells, names):
    package = tmp_path / "ebwm"
    for name, source in SOURCES.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(source)
    assert list(modules(cells, package)) == [f"ebwm.{name}" for name in names.split()]


def test_the_exports_of_this_package_count_as_their_modules():
    assert "ebwm.objective" in modules(["from ebwm import S1"])
    assert "ebwm.figures.record" in modules(["from ebwm.figures import Record"])


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
    assert len(used) > 10
    assert [id for id, names in used.items() if names & engine or "ebwm.figures.record" not in names] == []


def only_job(id="tiny", **overrides):
    return jobs_of(figures.plan(id, overrides=overrides))[-1]


def test_a_change_of_an_input_makes_a_run_stale(project):
    """Of the code that runs, the data, the parameters and the lock; not of outputs, texts and limits."""
    registry, notebook = project / "figures/figures.yaml", project / "nbs/figures/tiny.ipynb"
    points, clip, lock = (project / name for name in ("points.csv", "clips/a.txt", "constraints.txt"))
    clip.parent.mkdir()
    for path in (points, clip, lock):
        path.write_text("1")
    rewrite(registry, "headline:", "data: [points.csv]\n    headline:")
    job = lambda: only_job(clips_dir="clips")
    assert not up_to_date(job())
    picture = project / "figures/tiny/runs/smoke/a.png"
    write_whole(picture, lambda draft: draft.write_bytes(b"drawn"))
    write_manifest(picture.parent, key=job().key, pictures={picture.name: sha256(picture)})
    cells = json.loads(notebook.read_text())["cells"]
    cells[1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "seen"}]
    write_notebook(notebook, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "New."}, *cells)
    rewrite(registry, "A tiny figure", "A small figure")
    rewrite(registry, "{smoke: 0.1, cpu: 3}", "{smoke: 9}")
    rewrite(project / "settings.ini", "threads = 1", "threads = 2")
    assert up_to_date(job())
    first, modified = job().inputs, clip.stat().st_mtime_ns
    changes = [(notebook, "rate**update", "rate*update", "notebook"), (points, "1", "2", "data points.csv"),
               (lock, "1", "2", "lock"), (clip, "1", "2", f"data {clip.parent}"),
               (registry, "updates: 4", "updates: 5", "parameter updates"),
               (registry, "smoke: [0, 1]", "smoke: [0, 2]", "parameter seeds")]
    for path, old, new, name in changes:
        rewrite(path, old, new)
        assert not up_to_date(job()) and changed(first, job().inputs) == [name]
        rewrite(path, new, old)
        os.utime(clip, ns=(modified, modified))
        assert up_to_date(job())
    rewrite(notebook, "import sys", "import sys, ebwm.writing")
    assert {"notebook", "module ebwm.writing"} <= {*changed(first, job().inputs)}
    rewrite(notebook, "import sys, ebwm.writing", "import sys")
    picture.write_bytes(b"other")
    assert not up_to_date(job())


def test_a_figure_that_is_up_to_date_needs_no_parts(project, monkeypatch):
    jobs = jobs_of(figures.plan("fan"))
    whole, fresh = {jobs[-1].name}, set()
    monkeypatch.setattr("ebwm.figures.batch.up_to_date", lambda job: job.name in fresh)
    assert stale(jobs) == jobs
    fresh |= {jobs[0].name, jobs[2].name}
    assert stale(jobs) == [jobs[1], jobs[3], jobs[4]]
    fresh |= {job.name for job in jobs} - whole
    assert stale(jobs) == jobs[-1:]
    fresh = whole
    assert stale(jobs) == []


# One job


def failure(job, **changes):
    """The message of a job that fails."""
    with pytest.raises(NotebookError) as caught:
        run_job(dataclasses.replace(job, **changes))
    return str(caught.value)


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
    expected = ["losses.parquet", "manifest.json", "tiny.ipynb", *PICTURES]
    assert sorted(p.name for p in folder.iterdir()) == sorted(expected)
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

    message = failure(only_job(folder="nowhere"))
    assert message == ("figure 'tiny' failed: ValueError: the walk diverged; "
                       "the partial notebook is figures/tiny/runs/smoke.failed/tiny.ipynb")
    assert "diverged" in (project / "figures/tiny/runs/smoke.failed/tiny.ipynb").read_text()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert sorted(p.name for p in folder.parent.iterdir()) == ["smoke", "smoke.failed"]


@pytest.fixture
def scripts(project, monkeypatch):
    """Replace the cells of `tiny` after its parameters; jobs of this process run as scripts."""
    monkeypatch.setattr("ebwm.figures.job._papermill", run_script)

    def write(*cells, id="tiny"):
        path = project / f"nbs/figures/{id}.ipynb"
        first = json.loads(path.read_text())["cells"][0]
        write_notebook(path, first, *(code(source, id=f"s{i}") for i, source in enumerate(cells)))
        return only_job(id)

    return write


def test_a_run_with_other_parameters_or_changed_code_is_refused(project, scripts):
    (project / "constraints.txt").write_text("torch==2")
    assert "ran with updates=1 instead of 4" in failure(scripts("updates = 1", leave_cell()))
    change = "open('constraints.txt', 'w').write('torch==3')"
    assert "lock changed during the run" in failure(scripts(change, leave_cell()))
    assert not (project / "figures/tiny/runs/smoke").exists()
    assert run_job(scripts(leave_cell())).is_dir()


def test_a_job_beyond_its_memory_or_without_progress_is_killed_with_its_children(project, scripts):
    child = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', {!r}])"
    hoard = "x = bytearray(600 * 2**20); x[::4096] = b'x' * len(x[::4096]); import time; time.sleep(60)"
    message = failure(scripts(child.format(hoard)), memory=0.5)
    assert re.search(r"it used 0\.\d GiB of memory and exceeded its limit of 0\.5", message)
    slow = "import time\nfor n in range(9):\n    print(f'update {n}', flush=True)\n    time.sleep(0.5 if n < 5 else 60)"
    message = failure(scripts(slow), timeout=0.03)
    assert "it made no progress for 0.03 minutes, its limit" in message and "at 'update 5'" in message
    assert not scripts_of(project)


@pytest.fixture
def kernel(monkeypatch):
    """Replace the execution of a notebook by a function of the job and the folder."""
    place = "ebwm.figures.job._papermill"
    return lambda act: monkeypatch.setattr(place, lambda job, folder, *_: act(job, folder))


def test_an_incomplete_record_is_an_error(project, kernel):
    kernel(lambda job, folder: None)
    assert "the notebook wrote no manifest.json" in failure(only_job())
    kernel(lambda job, folder: write_manifest(folder, parameters={"effective": {"scale": "smoke"}}))
    assert "did not record its parameter" in failure(only_job())
    kernel(lambda job, folder: (folder / "manifest.json").write_text("{"))
    assert "manifest.json is not a valid manifest" in failure(only_job())


@pytest.mark.parametrize("exits, executed, fails", [(1, None, False), (2, None, True), (1, 3, True)])
def test_a_kernel_that_exits_before_a_cell_is_restarted_once(project, kernel, exits, executed, fails):
    starts = []

    def start(job, folder):
        starts.append(job)
        write_notebook(folder / "tiny.ipynb", code("x = 1") | {"execution_count": executed})
        if len(starts) <= exits:
            raise RuntimeError("Kernel died")
        write_manifest(folder, parameters={"effective": job.parameters})

    kernel(start)
    assert "Kernel died" in failure(only_job()) if fails else run_job(only_job()).is_dir()
    assert len(starts) == (1 if executed else 2)


def test_an_interrupted_job_stores_its_partial_result(project, kernel):
    """An earlier result that was being replaced when its process was killed comes back."""
    def interrupt(job, folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    runs = project / "figures/tiny/runs"
    left = f".smoke@{socket.gethostname()}@999999999"
    for name in (left, f"{left}.earlier"):
        (runs / name / name.strip(".")).mkdir(parents=True)
    kernel(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job(only_job())
    assert sorted(path.name for path in runs.iterdir()) == ["smoke", "smoke.failed"]
    assert (runs / "smoke.failed/half").exists()
    assert [path.name for path in (runs / "smoke").iterdir()] == [f"{left}.earlier".strip(".")]


def batch_of(process, **changes):
    """The description of a batch of this process."""
    found = {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}
    return {**found, **changes}


def test_a_job_detects_the_end_of_its_batch():
    me = psutil.Process()
    assert _alive(None) and _alive(batch_of(me)) and _alive(batch_of(me, host="elsewhere", pid=999999999))
    assert _alive(batch_of(me, started=me.create_time() + 30)), "the clock may be adjusted"
    assert not _alive(batch_of(me, started=me.create_time() - 86400)), "another process has this pid"
    assert not _alive(batch_of(me, pid=999999999))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    batch = batch_of(psutil.Process(child.pid))
    assert _alive(batch)
    child.kill()
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    assert not _alive(batch)
    child.communicate()
    assert not _alive(batch)


@pytest.fixture
def job_process(project, monkeypatch):
    """Run the main function of a job with a stand-in for the notebook; its exit code and last status."""
    def call(error, batch=None, already=None):
        def run(job, batch):
            if error:
                raise error

        path, status = project / "batch/jobs/tiny.json", project / "batch/status/tiny.json"
        write_json(path, {"job": as_json(only_job()), "batch": batch})
        write_json(status, already or {})
        monkeypatch.setattr("ebwm.figures.job._logged", contextlib.nullcontext)
        monkeypatch.setattr("ebwm.figures.job.run_job", run)
        monkeypatch.setattr("signal.signal", lambda *arguments: None)
        return main([str(path)]), json.loads(status.read_text())

    return call


RUNNING, FAILED = {"state": "running", "started": 0.0}, {"state": "failed", "message": "no"}


@pytest.mark.parametrize("rank, error, before, code, after", [
    (None, None, {}, 0, {"state": "made"}),
    (None, NotebookError("no"), {}, 1, FAILED),
    (None, KeyboardInterrupt(), {}, 130, {"state": "failed", "message": "figure 'tiny' was interrupted"}),
    ("1", None, RUNNING, 0, RUNNING),
    ("1", NotebookError("no"), RUNNING, 1, FAILED),
    ("1", KeyboardInterrupt(), FAILED, 130, FAILED),
])
def test_the_status_of_a_job(job_process, monkeypatch, rank, error, before, code, after):
    """Under torchrun, the first failure of the ranks is reported."""
    if rank:
        monkeypatch.setenv("RANK", rank)
    assert job_process(error, already=before) == (code, after)


def test_a_job_does_not_start_after_the_end_of_its_batch(job_process):
    status, orphan = job_process(AssertionError(), batch_of(psutil.Process(), pid=999999999))
    assert status == 1 and orphan["message"] == "figure 'tiny' failed: its batch has ended"


def test_a_join_gives_what_one_process_gives_and_checks_the_order_of_its_parts(project):
    work = lambda seed, size: {"losses": pd.DataFrame({"loss": [seed + 1 / size, 0.0]})}

    def record(name, job, **names):
        write_json(project / name / "job.json", job)
        values = {"scale": "smoke", "seeds": [0], "power": 1.0, "out": str(project / name)}
        return Record("fan", values | names)

    for size in (8, 16):
        record(f"part{size}", {"part": True}, sizes=[size]).each(work, seed=[0], size=[size])
        manifest = json.loads((project / f"part{size}/manifest.json").read_text())
        write_manifest(project / f"part{size}", **manifest | {"seconds": 60.0, "peak_memory_mib": 1e6 * size})
    parts = {"each": ["seeds", "sizes"], "parts": [str(project / "part8"), str(project / "part16")]}
    whole = record("whole", parts, sizes=[8, 16])
    joined = whole.each(pytest.fail, seed=[0], size=[8, 16])["losses"]
    alone = record("alone", {}, sizes=[8, 16]).each(work, seed=[0], size=[8, 16])["losses"]
    pd.testing.assert_frame_equal(joined, alone)
    expected = {"seed": [0] * 4, "size": [8, 8, 16, 16], "loss": [1 / 8, 0, 1 / 16, 0]}
    assert joined.to_dict("list") == expected
    manifest = whole.close()
    assert [part["part"] for part in manifest["parts"]] == ["part8", "part16"]
    assert manifest["seconds"] >= 120 and manifest["peak_memory_mib"] == 16e6
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


def test_jobs_run_in_parallel_and_only_failed_or_changed_ones_run_again(project, ebwm_command):
    failing = "if (seeds, sizes) == ([1], [8]) and os.path.exists('fail'): os._exit(9)"
    write_fan(project, failing)
    path = project / "nbs/figures/tiny.ipynb"
    write_notebook(path, json.loads(path.read_text())["cells"][0], code(leave_cell(), id="l"))
    (project / "fail").touch()
    status, out, err = finished(ebwm_command("run", "fan", "tiny"))
    expected = {"fan.seeds-0_sizes-8": "made", "fan.seeds-1_sizes-8": "failed", "tiny": "made"}
    assert status == 1 and jobs_of_log(err) == expected
    assert "figure 'fan.seeds-1_sizes-8' failed: RuntimeError: exit code 9" in err
    assert "figure 'fan' was not run: it needs fan.seeds-1_sizes-8" in err
    assert out.startswith("tiny: made: ") and "fan" not in out
    assert (project / "figures/fan/runs/smoke.parts/seeds-1_sizes-8.failed").is_dir()
    (project / "fail").unlink()
    status, out, err = finished(ebwm_command("run", "fan", "tiny"))
    assert status == 0 and jobs_of_log(err) == {"fan.seeds-1_sizes-8": "made", "fan": "made"}
    assert "2 of 2 jobs" in err and "about" in err and "tiny: up to date: " in out
    assert not list(project.glob("figures/fan/runs/**/*.failed"))

    planned = lambda **overrides: jobs_of(figures.plan("fan", overrides=overrides))
    waiting = lambda **overrides: [job.name for job in stale(planned(**overrides))]
    parts = ["fan.seeds-0_sizes-8", "fan.seeds-1_sizes-8"]
    assert waiting() == []
    assert waiting(sizes=[8, 32]) == ["fan.seeds-0_sizes-32", "fan.seeds-1_sizes-32", "fan"]
    assert waiting(power=2.0) == [*parts, "fan"]
    rewrite(project / "nbs/figures/fan.ipynb", "'joined'", "'united'")
    assert waiting() == ["fan"]
    rewrite(project / "nbs/figures/fan.ipynb", "[seeds, sizes]", "[sizes, seeds]")
    assert waiting() == [*parts, "fan"]


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
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_that_is_ended_leaves_no_process_and_resumes(project, ebwm_command, end):
    write_fan(project, "time.sleep(300 if seeds == [1] and os.path.exists('slow') else 0)")
    (project / "slow").touch()
    parts = project / "figures/fan/runs/smoke.parts"
    process = ebwm_command("run", "fan", "--cores", "3")
    wait_for(lambda: list(parts.glob("seeds-0_*/manifest.json")) and len(scripts_of(project)) == 1, 90)

    status, out, err = finished(ebwm_command("run", "tiny"))
    assert status == 2 and out == ""
    assert f"another batch is running in figures (process {process.pid} on" in err.splitlines()[-1]
    assert process.poll() is None and len(scripts_of(project)) == 1

    process.send_signal(end)
    assert finished(process)[0] == (130 if end == signal.SIGTERM else -9)
    wait_for(lambda: not scripts_of(project), 15)
    done = {path: path.stat().st_mtime_ns for path in parts.glob("seeds-0_*/manifest.json")}
    (project / "slow").unlink()
    status, _, err = finished(ebwm_command("run", "fan"))
    assert status == 0 and set(jobs_of_log(err)) == {"fan.seeds-1_sizes-8", "fan"}
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.slow
def test_a_batch_that_ignores_interrupts_starts_no_job_after_its_end(project, ebwm_command):
    """As background jobs of a shell and `nohup` do."""
    write_fan(project, "open(f'started{seeds[0]}', 'w').close(); time.sleep(300)")
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = ebwm_command("run", "fan", "--cores", "1", preexec_fn=ignore)
    wait_for(lambda: list(project.glob("started*")), 90)
    process.send_signal(signal.SIGTERM)
    assert finished(process)[0] == 130 and len(list(project.glob("started*"))) == 1



@pytest.mark.slow
def test_torchrun_inside_a_job(project, ebwm_command):
    reduce = """
import os, torch.distributed as distributed, torch
distributed.init_process_group("gloo")
total = torch.ones(1) * (1 + distributed.get_rank())
distributed.all_reduce(total)
distributed.destroy_process_group()
"""
    path, runs = project / "nbs/figures/tiny.ipynb", project / "figures/tiny/runs"
    first = json.loads(path.read_text())["cells"][0]
    write_notebook(path, first, code(reduce, id="r"), code(leave_cell("int(total)"), id="l"))
    rewrite(project / "figures/figures.yaml", "headline: true", "headline: true\n    processes: {smoke: 2}")
    status, _, err = finished(ebwm_command("run", "tiny"))
    assert status == 0, err
    assert json.loads((runs / "smoke/manifest.json").read_text())["results"]["values"] == 3
    assert [path.name for path in runs.iterdir()] == ["smoke"]

    lost = "import os, time\nif os.environ['RANK'] == '1':\n    time.sleep(1)\n    raise ValueError('lost')"
    write_notebook(path, first, code(leave_cell(), id="l"), code(lost, id="f"))
    before = (runs / "smoke/manifest.json").read_bytes()
    status, _, err = finished(ebwm_command("run", "tiny"))
    assert status == 1 and jobs_of_log(err) == {"tiny": "failed"} and "exit code 1" in err
    assert (runs / "smoke/manifest.json").read_bytes() == before
    assert (runs / "smoke.failed.1").is_dir() and not list(runs.glob(".*"))


def test_a_scheduler_that_does_not_start_is_reported_with_its_log(project):
    (project / "profile").mkdir()
    (project / "profile/config.yaml").write_text("executor: nonesuch\n")
    outcome = figures.make([figures.plan("tiny")], profile=project / "profile", report=pytest.fail)
    message = "figure 'tiny' was not run; see figures/.batch/logs/snakemake.log"
    assert outcome.failed == {"tiny": message} and not outcome.made
    assert "nonesuch" in (project / "figures/.batch/logs/snakemake.log").read_text()
    assert sorted(p.name for p in (project / "figures/.batch").iterdir()) == ["logs"]
    assert not (project / "figures/.batch.json").exists()


# Progress


def test_each_finished_job_is_reported_once_with_the_remaining_time(tmp_path):
    jobs = [figures.Job(name, "f", "", "", "", {}, {}) for name in ("a", "b", "c")]
    (tmp_path / "status").mkdir()
    write = lambda name, **status: (tmp_path / f"status/{name}.json").write_text(json.dumps(status))
    lines = []
    with Progress(tmp_path, jobs, 1, lines.append) as progress:
        progress.update()
        write("a", state="running", started=time.time() - 30)
        progress.update()
        assert lines == []
        for name, seconds in (("a", 30), ("b", 120)):
            write(name, state="running", started=time.time() - seconds)
            progress.update()
            write(name, state="made")
            progress.update()
            progress.update()
        write("c", state="failed", message="no")
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


def test_the_last_line_of_a_log_and_durations(tmp_path):
    path = tmp_path / "a.log"
    assert last_line(path) == ""
    path.write_bytes(b"x" * 10_000 + b"\nfirst\n 10%\r 20% done\r\n\n")
    assert last_line(path) == "20% done"
    assert [duration(s) for s in (0.4, 89, 150, 4000, 9000)] == ["0 s", "89 s", "2 min", "67 min", "2.5 h"]
