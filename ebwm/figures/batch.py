"""Many jobs at once: what is up to date is skipped, the rest goes through snakemake, one batch at a time."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebwm.compat import require
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.inputs import PACKAGE
from ebwm.figures.job import up_to_date
from ebwm.figures.plan import Job, Plan, as_json, cores, gpus, jobs_of, plan, short
from ebwm.figures.progress import Progress, status_of
from ebwm.files import write_json
from ebwm.settings import Settings

__all__ = ["Outcome", "make", "run", "stale"]

LOOK = 0.2  # seconds between two looks at the jobs
LOGS = "logs"  # of the last batch in which something failed


@dataclass
class Outcome:
    """What became of a batch."""

    made: dict[str, Path] = field(default_factory=dict)  # figures run now
    fresh: dict[str, Path] = field(default_factory=dict)  # figures that were up to date
    failed: dict[str, str] = field(default_factory=dict)  # jobs, and why


def run(
    id: str,  # a figure of the registry
    scale: str | None = None,  # the settings' scale by default
    overrides: dict[str, Any] | None = None,  # parameters by name, before the registry's
    config: Settings | None = None,  # settings in effect by default
    **options: Any,  # of `make`
) -> Path:  # folder of the run
    """Make one figure, unless it is up to date."""
    chosen = plan(id, scale, overrides, config)
    outcome = make([chosen], **options)
    if outcome.failed:
        raise NotebookError("; ".join(outcome.failed.values()))
    return chosen.folder


def make(
    plans: Sequence[Plan],  # checked runs
    cores: int | None = None,  # how many to use; all by default
    force: bool = False,  # run also what is up to date
    profile: Path | None = None,  # folder of a snakemake profile, such as that for Slurm
    tell: Callable[[str], None] | None = None,  # takes lines about jobs; to stderr by default
) -> Outcome:
    """Run the jobs of these runs that are not up to date, in parallel, those that fail beside the others."""
    if not plans:
        return Outcome()
    by_plan = [jobs_of(plan, cores) for plan in plans]
    with _alone(plans[0].config):
        todo = [job for jobs in by_plan for job in (jobs if force else stale(jobs))]
        outcome = _outcome(plans, todo)
        if todo:
            with _folder(plans[0].config) as folder:
                _write_jobs(folder, todo, here=profile is None)
                _snakemake(folder, todo, plans[0].config, cores, profile, tell)
                outcome.failed = _failures(folder, todo, plans[0].config.root)
                _keep_logs(folder, outcome.failed)
        outcome.made = {id: place for id, place in outcome.made.items() if id not in outcome.failed}
    return outcome


def stale(
    jobs: Sequence[Job],  # of one run, parts first
) -> list[Job]:
    """The jobs that are to be run: none for a figure that is up to date, even where its parts are gone."""
    *parts, whole = jobs
    return [] if up_to_date(whole) else [*(part for part in parts if not up_to_date(part)), whole]


def _outcome(plans: Sequence[Plan], todo: Sequence[Job]) -> Outcome:
    figures = {job.figure for job in todo}
    places = {plan.figure.id: plan.folder for plan in plans}
    return Outcome(made={id: place for id, place in places.items() if id in figures},
                   fresh={id: place for id, place in places.items() if id not in figures})


# One batch at a time


@contextlib.contextmanager
def _alone(config: Settings) -> Iterator[None]:
    """Hold the lock of the figures folder, or say who does."""
    filelock = require("filelock", "figures")
    lock, holder = config.figures / ".batch.lock", config.figures / ".batch.json"
    config.figures.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(lock, timeout=0):
            write_json(holder, _me())
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except filelock.Timeout:
        who = json.loads(holder.read_text(encoding="utf-8")) if holder.is_file() else {}
        raise FigureError(f"another batch is running in {short(config.figures, config.root)} "
                          f"(process {who.get('pid', 'unknown')} on {who.get('host', 'an unknown machine')}); "
                          "wait for it, or stop it") from None


def _me() -> dict[str, Any]:
    """This process, so that jobs can tell when it has ended."""
    process = require("psutil", "figures").Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


@contextlib.contextmanager
def _folder(config: Settings) -> Iterator[Path]:
    """An empty folder for the batch's own files, removed at its end."""
    parent = config.figures / ".batch"
    for old in parent.glob("*"):
        if old.name != LOGS:
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"{os.getpid()}"
    for name in ("jobs", "status", "logs", "done"):
        (folder / name).mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# What snakemake is given


def _write_jobs(folder: Path, jobs: Sequence[Job], here: bool) -> None:
    names = {job.name for job in jobs}
    for job in jobs:
        path = folder / "jobs" / f"{job.name}.json"
        write_json(path, {"job": as_json(job), "batch": _me(), "snakemake": _rule(job, path, names, here)})


def _rule(job: Job, path: Path, names: set[str], here: bool) -> dict[str, Any]:
    """What the rule of a job says: its command, what it waits for, and what it takes."""
    memory = job.memory * job.processes * 1024
    most = require("psutil", "figures").virtual_memory().total / 2**20 if here else memory
    return {
        "command": shlex.join([sys.executable, "-m", "ebwm.figures", str(path)]),
        "needs": [name for name in job.needs if name in names],
        "threads": job.threads * (1 if here else job.processes),
        "mem_mb": round(min(memory, most)),
        "runtime": round(job.timeout) + 2,
        "gpu": job.gpus,
    }


def _command(folder: Path, jobs: Sequence[Job], count: int, profile: Path | None) -> list[str]:
    """snakemake as a scheduler alone: which jobs there are was decided by their keys."""
    psutil = require("psutil", "figures")
    total = round(psutil.virtual_memory().total / 2**20)
    most = gpus() if any(job.gpus for job in jobs) else 0
    here = ["--cores", str(count), "--resources", f"mem_mb={total}", f"gpu={most}"]
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(Path(__file__).with_name("Snakefile")),
        "--directory", str(folder), "--keep-going", "--nolock", "--rerun-triggers", "mtime",
        *(["--profile", str(profile.resolve())] if profile else here),
    ]


def _snakemake(folder: Path, jobs: Sequence[Job], config: Settings, count: int | None, profile: Path | None,
               tell: Callable[[str], None] | None) -> None:
    """Start snakemake, show how its jobs go, and leave no process behind."""
    count = max(count or cores(), *(job.threads for job in jobs))
    environment = os.environ | {"PYTHONPATH": _python_path(), "XDG_CACHE_HOME": str(folder / "cache")}
    with _ended_as_by_a_person(), open(folder / "logs" / "snakemake.log", "wb") as log:
        process = subprocess.Popen(_command(folder, jobs, count, profile), cwd=config.root, env=environment,
                                   stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        _follow(process, folder, jobs, count, tell)


def _follow(process: subprocess.Popen, folder: Path, jobs: Sequence[Job], count: int,
            tell: Callable[[str], None] | None) -> None:
    try:
        with Progress(folder, jobs, count, tell) as progress:
            while process.poll() is None:
                progress.look()
                time.sleep(LOOK)
            progress.look()
    finally:
        _end(process)


@contextlib.contextmanager
def _ended_as_by_a_person() -> Iterator[None]:
    """Take a lost terminal and a request to end for Ctrl-C, so that nothing is left running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.signal(kind, signal.default_int_handler) for kind in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]))


def _end(process: subprocess.Popen) -> None:
    """Ask snakemake, which cancels what it has submitted, and all below it to end; after a while make them."""
    psutil = require("psutil", "figures")
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        jobs = parent.children(recursive=True)
        process.send_signal(signal.SIGINT)
        for job in jobs:
            with contextlib.suppress(psutil.NoSuchProcess):
                job.terminate()
        for left in psutil.wait_procs([*jobs, parent], timeout=20)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
    process.wait()


# How it went


def _failures(folder: Path, jobs: Sequence[Job], root: Path) -> dict[str, str]:
    said = {job.name: status_of(folder, job) for job in jobs}
    logs = short(folder.with_name(LOGS), root)
    return {job.name: _why(job, said, logs) for job in jobs if said[job.name].get("state") != "made"}


def _why(job: Job, said: dict[str, dict[str, Any]], logs: str) -> str:
    if message := said[job.name].get("message"):
        return message
    if said[job.name]:
        return f"figure {job.name!r} failed: its process ended without a word; see {logs}/{job.name}.log"
    waited = [name for name in job.needs if said.get(name, {"state": "made"}).get("state") != "made"]
    why = f": it needs {', '.join(waited)}" if waited else f"; {logs}/snakemake.log says why"
    return f"figure {job.name!r} was not run{why}"


def _keep_logs(folder: Path, failed: dict[str, str]) -> None:
    """Keep what the processes said where something went wrong."""
    place = folder.with_name(LOGS)
    shutil.rmtree(place, ignore_errors=True)
    if failed:
        slurm = folder / ".snakemake" / "slurm_logs"
        if slurm.is_dir():
            slurm.rename(folder / "logs" / "slurm")
        (folder / "logs").rename(place)
