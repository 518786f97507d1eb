"""The engine at work: keys, jobs, batches, and what it does when something goes wrong, on real kernels."""

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
from tiny_figure import code, refusal, rewrite, write_manifest, write_notebook, write_project

import ebwm
from ebwm import figures
from ebwm.figures import NotebookError, Record
from ebwm.figures.batch import stale
from ebwm.figures.inputs import PACKAGE, bare, changed, digest_of_folder, inputs, key_of, modules
from ebwm.figures.job import _alive, main, run_job, up_to_date
from ebwm.figures.notebook import cells_of, code_of
from ebwm.figures.plan import as_json, jobs_of
from ebwm.figures.progress import Progress, duration, last_line, time_left

pd = pytest.importorskip("pandas")
ROOT = Path(__file__).parents[1]
PICTURES = ["losses.png", "losses.svg", "losses-dark.png", "losses-dark.svg"]


# What a run is made from


def test_a_notebooks_modules_are_those_it_imports_directly_or_through_others(tmp_path):
    package = tmp_path / "ebwm"
    sources = {
        "__init__": "", "low": "import torch", "high": "def f():\n    from .low import x",
        "other": "", "room/__init__": "from ebwm.room.a import A", "room/a": "A = 1",
        "room/b": "from . import a",
    }
    for name, source in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(source)
    found = lambda *sources: list(modules(sources, package))
    assert found("%matplotlib inline\nfrom ebwm import high, __version__") == ["ebwm.high", "ebwm.low"]
    assert found("import ebwm.other\n!ls", "import numpy") == ["ebwm.other"]
    assert found("from ebwm.room import b") == ["ebwm.room.a", "ebwm.room.b"]
    assert found("from ebwm.room import A") == ["ebwm.room", "ebwm.room.a"]


def test_the_key_names_every_input(tmp_path):
    for name in ("constraints.txt", "points.csv"):
        (tmp_path / name).write_text("1")
    (tmp_path / "clips").mkdir()
    given = {"rate": 1, "clips_dir": str(tmp_path / "clips")}
    made = lambda code="x = 1", **more: inputs([code], given | more, "cpu", tmp_path, ["points.csv"])
    first = made()
    assert key_of(first) == key_of(made()) == key_of(dict(reversed(first.items())))
    assert changed(first, made(rate=2)) == ["parameter rate"] and key_of(made(rate=2)) != key_of(first)
    assert changed(first, made("x = 2")) == ["notebook"]
    assert changed(first, made("from ebwm import energy")) == ["notebook", "module ebwm.energy"]
    for name, told in (("constraints.txt", "lock"), ("points.csv", "data points.csv")):
        rewrite(tmp_path / name, "1", "2")
        assert changed(first, made()) == [told]
        rewrite(tmp_path / name, "2", "1")
    (tmp_path / "clips" / "a.mp4").touch()
    assert changed(first, made()) == [f"data {tmp_path / 'clips'}"]
    assert digest_of_folder(tmp_path / "clips") == digest_of_folder(tmp_path / "clips")


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
def test_comments_docstrings_and_empty_lines_are_no_inputs(source, left):
    assert bare(source) == left
    assert bare(left) == left


def test_a_text_that_a_cell_begins_with_is_shown_and_counts():
    assert bare('"about"\nx = 1', cell=True) == '"about"\nx = 1'
    assert bare('def f():\n    "about"\n    return 1', cell=True) == "def f():\n    return 1"


def undocumented(source):
    """The syntax of a source without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            alone = len(node.body) == 1 and not isinstance(node, ast.Module)
            node.body[:1] = [ast.Expr(ast.Constant(...))] if alone else []
    return ast.dump(tree)


def test_what_is_left_of_the_package_is_the_same_code():
    sources = [path.read_text() for path in PACKAGE.rglob("*.py")]
    assert len(sources) > 50 and any(bare(source) != source for source in sources)
    assert all(ast.dump(ast.parse(bare(source))) == undocumented(source) for source in sources)


@pytest.mark.parametrize("source", ["x = !ls", "def f(:\n    pass", "if True:\n    %matplotlib inline"])
def test_code_whose_imports_cannot_be_told_is_refused(tmp_path, monkeypatch, source):
    monkeypatch.chdir(write_project(tmp_path, source))
    first = source.splitlines()[0]
    assert f"figure 'tiny': '{first}' is no Python" in refusal(lambda: jobs_of(figures.plan("tiny")))


def test_what_has_changed_makes_a_run_old_and_what_is_not_executed_does_not(project):
    (project / "constraints.txt").write_text("torch==2")
    (project / "points.csv").write_text("1")
    rewrite(project / "figures/figures.yaml", "headline:", "data: [points.csv]\n    headline:")
    record = project / "figures/tiny/losses.parquet"
    record.parent.mkdir()
    record.write_bytes(b"on record")
    run_job(only_job())
    assert record.read_bytes() == b"on record"
    assert {p.name for p in record.parent.iterdir()} == {record.name, "runs"}

    notebook, registry = project / "nbs/figures/tiny.ipynb", project / "figures/figures.yaml"
    os.utime(notebook)
    cells = json.loads(notebook.read_text())["cells"]
    cells[1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "seen"}]
    write_notebook(notebook, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "New."}, *cells)
    rewrite(registry, "A tiny figure", "A small figure")
    rewrite(registry, "{smoke: 0.1, cpu: 3}", "{smoke: 9}")
    rewrite(project / "settings.ini", "threads = 1", "threads = 2")
    assert up_to_date(only_job())
    for path, old, new in ((notebook, "rate**update", "rate*update"), (project / "constraints.txt", "2", "3"),
                           (project / "points.csv", "1", "2"), (registry, "updates: 4", "updates: 5"),
                           (registry, "smoke: [0, 1]", "smoke: [0, 2]")):
        rewrite(path, old, new)
        assert not up_to_date(only_job())
        rewrite(path, new, old)
        assert up_to_date(only_job())
    picture = project / "figures/tiny/runs/smoke/losses.png"
    picture.write_bytes(b"other")
    assert not up_to_date(only_job())


def test_a_figure_that_is_up_to_date_needs_no_parts(project, monkeypatch):
    jobs = jobs_of(figures.plan("fan"))
    whole = {jobs[-1].name}
    fresh = set()
    monkeypatch.setattr("ebwm.figures.batch.up_to_date", lambda job: job.name in fresh)
    assert stale(jobs) == jobs
    fresh |= {jobs[0].name, jobs[2].name}
    assert stale(jobs) == [jobs[1], jobs[3], jobs[4]]
    fresh |= {job.name for job in jobs} - whole
    assert stale(jobs) == jobs[-1:]
    fresh = whole
    assert stale(jobs) == []


@pytest.mark.parametrize("path", sorted((ROOT / "nbs/figures").glob("*.ipynb")), ids=lambda path: path.stem)
def test_figures_depend_on_records_and_style_but_not_on_the_engine(path):
    used = set(modules(code_of(cells_of(path))))
    assert {"ebwm.figures.record", "ebwm.figures.style"} <= used
    assert not used & {f"ebwm.{name}" for name in ("figures", "figures.plan", "figures.job", "figures.batch")}


# One job


def only_job(id="tiny", **overrides):
    return jobs_of(figures.plan(id, overrides=overrides))[-1]


def test_a_job_then_a_failing_one(project, capfd):
    job = only_job(updates=3)
    folder = run_job(job)
    assert folder == project / "figures/tiny/runs/smoke" and up_to_date(job) and not up_to_date(only_job())
    expected = ["losses.parquet", "manifest.json", "tiny.ipynb", *PICTURES]
    assert sorted(p.name for p in folder.iterdir()) == sorted(expected)
    manifest = json.loads((folder / "manifest.json").read_text())
    asked = {"scale": "smoke", "seeds": [0, 1], "updates": 3, "rate": 1}
    effective = {**asked, "folder": None, "clips_dir": None, "fast": False}
    assert manifest["parameters"] == {"asked": asked, "effective": effective}
    assert manifest["seeds"] == [0, 1] and manifest["threads"] == 1 and manifest["git"] is None
    assert manifest["results"] == {"executable": sys.executable, "least": 1}
    assert manifest["key"] == job.key and "ebwm.figures.record" in manifest["inputs"]["modules"]
    assert len(pd.read_parquet(folder / "losses.parquet")) == 6
    shown = capfd.readouterr().err
    assert "walking: 100%" in shown and "WARNING" not in shown

    with pytest.raises(NotebookError) as caught:
        run_job(only_job(folder="nowhere"))
    assert str(caught.value) == ("figure 'tiny' failed: ValueError: the walk diverged; "
                                 "the partial notebook is figures/tiny/runs/smoke.failed/tiny.ipynb")
    assert "diverged" in (project / "figures/tiny/runs/smoke.failed/tiny.ipynb").read_text()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert sorted(p.name for p in folder.parent.iterdir()) == ["smoke", "smoke.failed"]


def with_cells(tmp_path, monkeypatch, *sources):
    """The job of a figure that executes these cells after its parameters."""
    monkeypatch.chdir(write_project(tmp_path, *sources))
    return only_job()


def failure(job, **changes):
    """The message of a job that fails."""
    with pytest.raises(NotebookError) as caught:
        run_job(dataclasses.replace(job, **changes))
    return str(caught.value)


def test_a_notebook_that_ignores_what_was_asked_is_an_error(tmp_path, monkeypatch):
    message = failure(with_cells(tmp_path, monkeypatch, "updates = 1"))
    assert "failed: the notebook ran with updates = 1, asked was 4;" in message
    assert not (tmp_path / "figures/tiny/runs/smoke").exists()


def test_a_run_whose_code_changed_meanwhile_is_not_filed_under_the_old(tmp_path, monkeypatch):
    (tmp_path / "constraints.txt").write_text("torch==2")
    change = "from pathlib import Path\nPath('constraints.txt').write_text('torch==3')"
    message = failure(with_cells(tmp_path, monkeypatch, change))
    assert "failed: lock changed since it was started; run it again; the partial notebook" in message
    assert not (tmp_path / "figures/tiny/runs/smoke").exists()


def test_a_kernel_that_is_killed_leaves_its_partial_notebook(tmp_path, monkeypatch):
    cells = "print('so far')", "import os\nos.kill(os.getpid(), 9)"
    message = failure(with_cells(tmp_path, monkeypatch, *cells))
    assert "DeadKernelError: Kernel died; the partial notebook is figures/tiny/runs/smoke.failed" in message
    cells = json.loads((tmp_path / "figures/tiny/runs/smoke.failed/tiny.ipynb").read_text())["cells"]
    assert any("so far" in "".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))


@pytest.mark.parametrize("deaths, fails", [(1, False), (2, True)])
def test_a_kernel_that_dies_at_its_start_has_one_more_chance(project, monkeypatch, deaths, fails, capfd):
    startup = project / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    for death in range(deaths):
        (project / f"death{death}").touch()
    dying = "for path in sorted(pathlib.Path('.').glob('death*'))[:1]:\n    path.unlink()\n    os._exit(1)\n"
    (startup / "00.py").write_text(f"import os, pathlib\n{dying}")
    monkeypatch.setenv("IPYTHONDIR", str(project / "ipython"))
    if fails:
        assert "Kernel died" in failure(only_job())
    else:
        assert run_job(only_job()).is_dir()
    assert "the kernel died at its start; once more" in capfd.readouterr().err
    assert not list(project.glob("death*"))


def test_a_job_that_takes_too_much_memory_or_time_is_ended(tmp_path, monkeypatch):
    hoard = "hoard = bytearray(600 * 2**20)\nhoard[::4096] = b'x' * len(hoard[::4096])"
    job = with_cells(tmp_path, monkeypatch, hoard, "import time\ntime.sleep(60)")
    message = failure(job, memory=0.5)
    told = r"failed: it took 0\.\d GiB of memory, more than its 0\.5; the registry's `memory` allows more"
    assert re.search(told, message)
    message = failure(job, timeout=0.05)
    assert "failed: it ran longer than its 0.05 minutes; the registry's `timeout` allows more;" in message


def finish(manifest):
    """A stand-in for executing a notebook: leaves this manifest, if any."""
    def execute(job, folder, log, watch):
        if isinstance(manifest, dict):
            write_manifest(folder, **manifest)
        elif manifest:
            (folder / "manifest.json").write_text(manifest)
    return execute


EFFECTIVE = {"scale": "smoke", "seeds": [0, 1], "rate": 1}
WITHOUT = {"parameters": {"effective": EFFECTIVE}}


@pytest.mark.parametrize("text, message", [
    ("", "the notebook wrote no manifest.json"),
    (WITHOUT, "the notebook did not record its parameter 'updates'"),
    ("{", "manifest.json cannot be read as a manifest"),
])
def test_a_notebook_with_an_incomplete_record_is_an_error(project, monkeypatch, text, message):
    monkeypatch.setattr("ebwm.figures.job._papermill", finish(text))
    assert message in failure(only_job())


def test_an_interrupted_job_keeps_what_there_was(project, monkeypatch):
    def interrupt(job, folder, log, watch):
        (folder / "half").touch()
        raise KeyboardInterrupt

    earlier = project / "figures/tiny/runs/smoke/manifest.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    left = project / f"figures/tiny/runs/.smoke@{socket.gethostname()}@999999999"
    left.mkdir()
    replaced = left.with_name(f"{left.name}.earlier")
    replaced.mkdir()
    monkeypatch.setattr("ebwm.figures.job._papermill", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job(only_job())
    assert earlier.read_text() == "{}" and (project / "figures/tiny/runs/smoke.failed/half").exists()
    assert not left.exists() and not replaced.exists()


def batch_of(process, **changes):
    """What a batch says of itself, if it were this process."""
    found = {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}
    return {**found, **changes}


def test_a_job_knows_whether_its_batch_is_there():
    me = psutil.Process()
    assert _alive(None) and _alive(batch_of(me)) and _alive(batch_of(me, host="elsewhere", pid=999999999))
    assert _alive(batch_of(me, started=me.create_time() + 30)), "the machine's clock may be set"
    assert not _alive(batch_of(me, started=me.create_time() - 86400)), "another process has its number"
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
    """Be the process of a job whose notebook is a stand-in; the exit code, and what it says at its end."""
    @contextlib.contextmanager
    def unlogged(path):
        yield

    def call(run, batch=None, already=None):
        for name in ("jobs", "status"):
            (project / "batch" / name).mkdir(parents=True, exist_ok=True)
        path = project / "batch/jobs/tiny.json"
        path.write_text(json.dumps({"job": as_json(only_job()), "batch": batch}))
        status = project / "batch/status/tiny.json"
        if already:
            status.write_text(json.dumps(already))
        monkeypatch.setattr("ebwm.figures.job._logged", unlogged)
        monkeypatch.setattr("ebwm.figures.job.run_job", run)
        monkeypatch.setattr("signal.signal", lambda *given: None)
        return main([str(path)]), json.loads(status.read_text())

    return call


def raising(error):
    def run(job, batch):
        raise error
    return run


def test_a_job_says_how_it_went(job_process):
    assert job_process(lambda job, batch: None) == (0, {"state": "made"})
    assert job_process(raising(NotebookError("no"))) == (1, {"state": "failed", "message": "no"})
    told = {"state": "failed", "message": "figure 'tiny' was interrupted"}
    assert job_process(raising(KeyboardInterrupt())) == (130, told)
    code_, told = job_process(raising(AssertionError()), batch_of(psutil.Process(), pid=999999999))
    assert code_ == 1 and told["message"] == "figure 'tiny' failed: the batch that it belongs to has ended"


def test_of_several_processes_the_one_that_failed_is_heard(job_process, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    running = {"state": "running", "started": 0.0}
    assert job_process(lambda job, batch: None, already=running) == (0, running)
    failed = {"state": "failed", "message": "no"}
    assert job_process(raising(NotebookError("no")), already=running) == (1, failed)
    assert job_process(raising(KeyboardInterrupt()), already=failed) == (130, failed)


def parts_made(project, *items):
    """Folders of parts of `fan`, as jobs over these items leave them, and what the join is told."""
    folders = []
    for seed, size in items:
        folder = project / f"parts/{seed}_{size}"
        names = {"scale": "smoke", "seeds": [seed], "sizes": [size], "out": str(folder), "power": 1.0}
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps({"part": True}))
        Record("fan", names).each(worked, seed=[seed], size=[size])
        folders.append(str(folder))
    (project / "whole").mkdir()
    (project / "whole/job.json").write_text(json.dumps({"parts": folders, "each": ["seeds", "sizes"]}))
    names = {"scale": "smoke", "seeds": [0], "sizes": [8, 16], "power": 1.0}
    return Record("fan", {**names, "out": str(project / "whole")})


def worked(seed, size):
    return {"losses": pd.DataFrame({"loss": [seed + 1 / size, 0.0]})}


def test_a_join_takes_parts_in_their_order_and_no_others(project):
    joined = parts_made(project, (0, 8), (0, 16)).each(pytest.fail, seed=[0], size=[8, 16])
    expected = {"seed": [0] * 4, "size": [8, 8, 16, 16], "loss": [1 / 8, 0, 1 / 16, 0]}
    assert joined["losses"].to_dict("list") == expected
    shutil.rmtree(project / "whole")
    shutil.rmtree(project / "parts")
    swapped = parts_made(project, (0, 16), (0, 8))
    message = refusal(swapped.each, pytest.fail, seed=[0], size=[8, 16])
    assert message.endswith("is not the part for {'seed': 0, 'size': 8}")


# Batches, through the command line


@pytest.fixture
def ebwm_command(project):
    """Start `ebwm` in the small project with a copy of the package that may be edited."""
    unneeded = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(ebwm.__file__).parent, project / "package/ebwm", ignore=unneeded)
    environment = {**os.environ, "PYTHONPATH": str(project / "package")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def start(*words):
        return subprocess.Popen([sys.executable, "-m", "ebwm", "figures", *words], env=environment, **pipes)

    return start


def finished(process):
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def jobs_told(err):
    """The jobs that a batch ran, and how they ended."""
    return dict(re.findall(r"^([\w.+-]+): (made|failed), ", err, re.M))


def test_parts_run_as_jobs_and_give_what_one_process_gives(project, ebwm_command):
    code_, _, err = finished(ebwm_command("run", "fan"))
    assert code_ == 0, err
    parts = {f"fan.seeds-{seed}_sizes-{size}": "made" for seed in (0, 1) for size in (8, 16)}
    assert jobs_told(err) == parts | {"fan": "made"} and "5 of 5 jobs" in err and "about" in err
    run = project / "figures/fan/runs/smoke"
    manifest = json.loads((run / "manifest.json").read_text())
    assert [part["part"] for part in manifest["parts"]] == [name.removeprefix("fan.") for name in parts]
    assert manifest["seconds"] >= sum(part["seconds"] for part in manifest["parts"])
    frame = pd.read_parquet(run / "losses.parquet")
    assert frame[["seed", "size"]].values.tolist() == [[0, 8], [0, 16], [1, 8], [1, 16]]
    values = {}
    for source in code_of(cells_of(project / "nbs/figures/fan.ipynb")):
        exec(source, values)
    pd.testing.assert_frame_equal(values["made"]["losses"], frame)

    planned = lambda **overrides: jobs_of(figures.plan("fan", overrides=overrides))
    waiting = lambda **overrides: [job.name for job in stale(planned(**overrides))]
    assert waiting() == []
    assert waiting(sizes=[8, 16, 32]) == ["fan.seeds-0_sizes-32", "fan.seeds-1_sizes-32", "fan"]
    assert waiting(power=2.0) == [*parts, "fan"]
    rewrite(project / "nbs/figures/fan.ipynb", "loss.sum()", "loss.mean()")
    assert waiting() == ["fan"]
    rewrite(project / "nbs/figures/fan.ipynb", "% 7", "% 9")
    assert waiting() == [*parts, "fan"]


def test_what_has_not_changed_is_not_run_again(project, ebwm_command):
    notebook, package = project / "nbs/figures/tiny.ipynb", project / "package/ebwm"

    def ran():
        code_, out, err = finished(ebwm_command("run", "tiny"))
        assert code_ == 0 and re.match("tiny +(made|up to date) +figures/tiny/runs/smoke\n", out), err
        assert ("up to date" in out) == (jobs_told(err) == {})
        return jobs_told(err) == {"tiny": "made"}

    assert ran()
    os.utime(notebook)
    cells = json.loads(notebook.read_text())["cells"]
    write_notebook(notebook, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "New."}, *cells)
    for name in ("video.py", "figures/batch.py"):
        (package / name).write_text((package / name).read_text() + "\nnot_imported_by_the_figure = True\n")
    assert not ran()
    rewrite(package / "figures/style.py", "alpha=0.15", "alpha=0.16")
    assert ran()
    assert not ran()


def test_a_failed_part_is_told_and_redone_alone(project, ebwm_command):
    notebook = project / "nbs/figures/fan.ipynb"
    stumble = "    if (seed, size) == (1, 8) and os.path.exists('stone'):\\n        os._exit(9)\\n"
    rewrite(notebook, "def work(seed, size):\\n", f"def work(seed, size):\\n{stumble}")
    rewrite(notebook, "sizes = [8, 16]", "sizes = [8]")
    (project / "stone").touch()
    code_, out, err = finished(ebwm_command("run", "fan", "tiny"))
    made = jobs_told(err)
    assert code_ == 1 and made.pop("fan.seeds-1_sizes-8") == "failed" and set(made.values()) == {"made"}
    assert made.keys() == {"fan.seeds-0_sizes-8", "tiny"}
    assert "figure 'fan.seeds-1_sizes-8' failed: DeadKernelError" in err
    assert "runs/smoke.parts/seeds-1_sizes-8.failed/fan.ipynb" in err
    assert "figure 'fan' was not run: it needs fan.seeds-1_sizes-8" in err
    assert re.search(r"^fan +failed ", out, re.M) and re.search(r"^tiny +made ", out, re.M)
    assert (project / "figures/fan/runs/smoke.parts/seeds-1_sizes-8.failed/fan.ipynb").is_file()
    (project / "stone").unlink()
    code_, out, err = finished(ebwm_command("run", "fan", "tiny"))
    assert code_ == 0 and jobs_told(err) == {"fan.seeds-1_sizes-8": "made", "fan": "made"}
    assert not list(project.glob("figures/fan/runs/**/*.failed"))


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def kernels(project):
    """The kernels that work in the project."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "ipykernel_launcher" in (process.info["cmdline"] or []) and Path(process.cwd()) == project:
                found.append(process)
        except psutil.Error:
            continue
    return found


SLOW = "    import time\\n    time.sleep(300 if seed == 1 and os.path.exists('slow') else 0)\\n"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_that_is_ended_leaves_nothing_running_and_goes_on_where_it_was(project, ebwm_command, end):
    rewrite(project / "nbs/figures/fan.ipynb", "def work(seed, size):\\n", f"def work(seed, size):\\n{SLOW}")
    rewrite(project / "nbs/figures/fan.ipynb", "sizes = [8, 16]", "sizes = [8]")
    (project / "slow").touch()
    parts = project / "figures/fan/runs/smoke.parts"
    process = ebwm_command("run", "fan", "--cores", "3")
    wait_for(lambda: list(parts.glob("seeds-0_*/manifest.json")) and len(kernels(project)) == 1, 90)

    code_, out, err = finished(ebwm_command("run", "tiny"))
    assert code_ == 2 and out == ""
    assert f"another batch is running in figures (process {process.pid} on" in err.splitlines()[-1]
    assert process.poll() is None and len(kernels(project)) == 1

    process.send_signal(end)
    assert finished(process)[0] == (130 if end == signal.SIGTERM else -9)
    wait_for(lambda: not kernels(project), 15)
    done = {path: path.stat().st_mtime_ns for path in parts.glob("seeds-0_*/manifest.json")}
    (project / "slow").unlink()
    code_, _, err = finished(ebwm_command("run", "fan"))
    assert code_ == 0 and set(jobs_told(err)) == {"fan.seeds-1_sizes-8", "fan"}
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_torchrun_inside_a_job(project, ebwm_command):
    reduce = """
import torch
import torch.distributed as distributed

distributed.init_process_group("gloo")
total = torch.ones(1) * (1 + distributed.get_rank())
distributed.all_reduce(total)
distributed.destroy_process_group()
updates_of_all = int(total)
"""
    cells = json.loads((project / "nbs/figures/tiny.ipynb").read_text())["cells"]
    cells.insert(1, code(reduce, id="r"))
    write_notebook(project / "nbs/figures/tiny.ipynb", *cells)
    rewrite(project / "nbs/figures/tiny.ipynb", "record.close(", "record.close(total=updates_of_all, ")
    rewrite(project / "figures/figures.yaml", "headline: true", "headline: true\n    processes: {smoke: 2}")
    code_, _, err = finished(ebwm_command("run", "tiny"))
    assert code_ == 0, err
    runs = project / "figures/tiny/runs"
    assert json.loads((runs / "smoke/manifest.json").read_text())["results"]["total"] == 3
    assert [path.name for path in runs.iterdir()] == ["smoke"]

    lost = "import os, time\nif os.environ['RANK'] == '1':\n    time.sleep(3)\n    raise ValueError('lost')"
    write_notebook(project / "nbs/figures/tiny.ipynb", *cells, code(lost, id="l"))
    before = (runs / "smoke/manifest.json").read_bytes()
    code_, _, err = finished(ebwm_command("run", "tiny"))
    assert code_ == 1 and jobs_told(err) == {"tiny": "failed"} and "ValueError: lost" in err
    assert (runs / "smoke/manifest.json").read_bytes() == before
    assert (runs / "smoke.failed.1/tiny.ipynb").is_file() and not list(runs.glob(".*"))


def test_replay_check_and_smoke_runs_leave_the_record_alone(project, ebwm_command):
    registry = project / "figures/figures.yaml"
    rewrite(registry, "headline:", "tolerances: {losses.loss: 0.1}\n    headline:")
    rewrite(registry, "rate: 1}", "rate: 1.0}")
    assert finished(ebwm_command("run", "tiny"))[0] == 0
    figures.promote("tiny")
    folder, path = project / "figures/tiny", project / "nbs/figures/tiny.ipynb"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code_, out, _ = finished(ebwm_command("replay", "tiny"))
    assert code_ == 0 and re.search(r"losses\.loss +exact\n", out) and out.endswith("\ntiny: 3 exact\n")
    rewrite(path, "loss=rate", "loss=1.01 * rate")
    rewrite(path, "update=update,", "update=2 * update,")
    code_, out, _ = finished(ebwm_command("replay", "tiny"))
    assert code_ == 1 and re.search(r"losses\.loss +within tolerance; differs by 0.01, allowed 0.1\n", out)
    assert re.search(r"losses\.update +drifted\b", out)
    assert out.endswith("\ntiny: 1 exact, 1 drifted, 1 within tolerance\n")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    code_, out, _ = finished(ebwm_command("check"))
    stale = "    stale: since then these have changed: notebook\n"
    assert code_ == 0 and f"tiny: on record at scale smoke, whole\n{stale}" in out
    frame = pd.read_parquet(folder / "losses.parquet")
    frame.loc[3, "loss"] += 1e-6
    frame.to_parquet(folder / "losses.parquet", index=False)
    code_, out, _ = finished(ebwm_command("check", "tiny"))
    assert code_ == 1 and out.startswith("tiny: WRONG\n    figures/tiny/losses.parquet is not the file")


def test_a_scheduler_that_does_not_start_is_told_with_its_log(project):
    (project / "profile").mkdir()
    (project / "profile/config.yaml").write_text("executor: nonesuch\n")
    outcome = figures.make([figures.plan("tiny")], profile=project / "profile", tell=pytest.fail)
    told = "figure 'tiny' was not run; figures/.batch/logs/snakemake.log says why"
    assert outcome.failed == {"tiny": told} and not outcome.made
    assert "nonesuch" in (project / "figures/.batch/logs/snakemake.log").read_text()
    assert sorted(p.name for p in (project / "figures/.batch").iterdir()) == ["logs"]
    assert not (project / "figures/.batch.json").exists()


def test_replay_needs_something_to_compare_with(project):
    assert "has nothing in figures/tiny to compare with; run it first" in refusal(figures.replay, "tiny")


# Progress


def test_time_left_follows_what_was_seen():
    jobs = [figures.Job(f"j{i}", "f", "", "", "", {}, {}, minutes=1, threads=1) for i in range(4)]
    assert time_left(jobs, {}, 2, 0) == 120
    done = {"j0": {"state": "made", "seconds": 120.0}, "j1": {"state": "running", "started": 0.0}}
    assert time_left(jobs, done, 1, 60.0) == 60 + 120 + 120
    assert time_left(jobs, done, 4, 60.0) == 120
    assert time_left(jobs[:1], done, 1, 0.0) == 0


def test_progress_tells_each_job_that_ends_once(tmp_path):
    jobs = [figures.Job(name, "f", "", "", "", {}, {}) for name in ("a", "b")]
    (tmp_path / "status").mkdir()
    said = lambda name, **words: (tmp_path / f"status/{name}.json").write_text(json.dumps(words))
    lines = []
    with Progress(tmp_path, jobs, 2, lines.append) as progress:
        progress.look()
        said("a", state="running", started=time.time() - 30)
        progress.look()
        assert lines == []
        said("a", state="made")
        progress.look()
        progress.look()
        said("b", state="failed", message="no")
        progress.look()
    assert lines == ["a: made, 30 s; 1 of 2 jobs, about 30 s left", "b: failed, 0 s; 2 of 2 jobs"]


def test_what_is_left_follows_all_jobs_that_have_ended(tmp_path):
    jobs = [figures.Job(name, "f", "", "", "", {}, {}) for name in ("a", "b", "c")]
    (tmp_path / "status").mkdir()
    lines = []
    with Progress(tmp_path, jobs, 1, lines.append) as progress:
        for name, seconds in (("a", 30), ("b", 120)):
            for state in ({"state": "running", "started": time.time() - seconds}, {"state": "made"}):
                (tmp_path / f"status/{name}.json").write_text(json.dumps(state))
                progress.look()
    assert lines[1:] == ["b: made, 2 min; 2 of 3 jobs, about 75 s left"]


def test_the_last_line_of_a_log(tmp_path):
    path = tmp_path / "a.log"
    assert last_line(path) == ""
    path.write_bytes(b"x" * 10_000 + b"\nfirst\n 10%\r 20% done\r\n\n")
    assert last_line(path) == "20% done"


def test_durations():
    assert [duration(s) for s in (0.4, 89, 150, 4000, 9000)] == ["0 s", "89 s", "2 min", "67 min", "2.5 h"]
