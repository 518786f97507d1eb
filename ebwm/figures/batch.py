"""Batches: skip jobs that are up to date, and run the others in parallel with snakemake."""

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

from ebwm import checks
from ebwm.compat import require
from ebwm.figures import local
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.execution import python_path
from ebwm.figures.job import command, up_to_date
from ebwm.figures.plan import Job, Plan, as_json, cores, gpus, jobs_of, plan, short
from ebwm.figures.progress import Progress, status_of
from ebwm.files import write_json
from ebwm.settings import Settings

__all__ = ["Outcome", "make", "run", "signals_as_interrupts", "stale"]

INTERVAL = 0.2  # seconds between two reads of the jobs' status
LOGS = "logs"  # folder of the logs of the last batch with a failure


@dataclass
class Outcome:
    """Result of a batch."""

    made: dict[str, Path] = field(default_factory=dict)  # folders of the figures that ran
    fresh: dict[str, Path] = field(default_factory=dict)  # folders of the figures that were up to date
    failed: dict[str, str] = field(default_factory=dict)  # messages of the jobs that failed


def run(
    id: str,  # a figure of the registry
    scale: str | None = None,  # default: the settings' scale
    overrides: dict[str, Any] | None = None,  # parameters by name; they override the registry's
    config: Settings | None = None,  # default: the settings in effect
    **options: Any,  # options of `make`
) -> Path:  # folder of the run
    """Make one figure, unless it is up to date."""
    chosen = plan(id, scale, overrides, config)
    outcome = make([chosen], **options)
    if outcome.failed:
        raise NotebookError("; ".join(outcome.failed.values()))
    return chosen.folder


def make(
    plans: Sequence[Plan],  # checked runs
    cores: int | None = None,  # number of cores; default: all
    force: bool = False,  # run jobs that are up to date too
    profile: Path | None = None,  # folder of a snakemake profile, such as profiles/slurm
    part: str = "",  # run only the job of this item, as in "seeds-0"; "": all jobs
    report: Callable[[str], None] | None = None,  # receives a line for each job; default: print to stderr
) -> Outcome:
    """Run the jobs that are not up to date in parallel; a failed job does not stop the others."""
    if not plans:
        return Outcome()
    by_plan = [jobs_of(plan) for plan in plans]
    for jobs in by_plan if part else []:
        if len(jobs) == 1:
            remedy = "leave out --part"
            raise checks.refusal(f"figure {jobs[0].figure!r}: part", part, "this run has no parts", remedy, FigureError)
        checks.one_of(f"figure {jobs[-1].figure!r}: part", part, map(_label, jobs[:-1]), FigureError)
    with _locked(plans[0].config):
        todo = [job for jobs in by_plan for job in (jobs if force else stale(jobs)) if _chosen(job, part)]
        outcome = _outcome(plans, todo)
        if todo:
            with _folder(plans[0].config) as folder:
                _write_jobs(folder, todo, here=profile is None)
                _snakemake(folder, todo, plans[0].config, cores, profile, report)
                outcome.failed = _failures(folder, todo, plans[0].config.root)
                _keep_logs(folder, outcome.failed)
        lost = {job.figure for job in todo if job.name in outcome.failed}
        outcome.made = {id: place for id, place in outcome.made.items() if id not in lost}
    return outcome


def stale(
    jobs: Sequence[Job],  # jobs of one run, parts first
) -> list[Job]:
    """The jobs to run: none for a figure that is up to date, even if its parts were deleted."""
    *parts, whole = jobs
    return [] if up_to_date(whole) else [*(part for part in parts if not up_to_date(part)), whole]


def _label(job: Job) -> str:
    """The items of a part, as in "seeds-0"."""
    return job.name.removeprefix(f"{job.figure}.")


def _chosen(job: Job, part: str) -> bool:
    return not part or (job.part and _label(job) == part)


def _outcome(plans: Sequence[Plan], todo: Sequence[Job]) -> Outcome:
    figures = {job.figure for job in todo}
    places = {plan.figure.id: plan.folder for plan in plans}
    return Outcome(made={id: place for id, place in places.items() if id in figures},
                   fresh={id: place for id, place in places.items() if id not in figures})


# One batch at a time


@contextlib.contextmanager
def _locked(config: Settings) -> Iterator[None]:
    """Lock the figures folder, or raise an error that names the process that holds the lock."""
    filelock = require("filelock", "figures")
    lock, holder = config.figures / ".batch.lock", config.figures / ".batch.json"
    config.figures.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(lock, timeout=0):
            write_json(holder, _this_process())
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except filelock.Timeout:
        other = json.loads(holder.read_text(encoding="utf-8")) if holder.is_file() else {}
        raise FigureError(f"another batch is running in {short(config.figures, config.root)} "
                          f"(process {other.get('pid', 'unknown')} on {other.get('host', 'an unknown host')}); "
                          "wait for it, or stop it") from None


def _this_process() -> dict[str, Any]:
    """Host, pid and start of this process, from which jobs detect its end."""
    process = require("psutil", "figures").Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


@contextlib.contextmanager
def _folder(config: Settings) -> Iterator[Path]:
    """An empty folder for the batch's files; removed at the end."""
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


# Snakemake


def _write_jobs(folder: Path, jobs: Sequence[Job], here: bool) -> None:
    names = {job.name for job in jobs}
    for job in jobs:
        path = folder / "jobs" / f"{job.name}.json"
        write_json(path, {"job": as_json(job), "batch": _this_process(), "snakemake": _rule(job, path, names, here)})


def _rule(job: Job, path: Path, names: set[str], here: bool) -> dict[str, Any]:
    """The snakemake rule of a job: command, dependencies and resources."""
    memory = job.memory * job.processes * 1024
    most = _memory() if here else memory
    return {
        "command": shlex.join(command(path)),
        "needs": [name for name in job.needs if name in names],
        "threads": job.threads * (1 if here else job.processes),
        "mem_mb": round(min(memory, most)),
        "runtime": round(max(60, 5 * job.minutes)) + 2,
        "gpu": job.gpus,
    }


def _memory() -> float:
    """Memory of this machine in MiB."""
    return require("psutil", "figures").virtual_memory().total / 2**20


def _command(folder: Path, jobs: Sequence[Job], count: int, profile: Path | None) -> list[str]:
    """The command of snakemake, used only as a scheduler: the jobs were selected by their keys."""
    most = gpus() if any(job.gpus for job in jobs) else 0
    here = ["--cores", str(count), "--resources", f"mem_mb={round(_memory())}", f"gpu={most}"]
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(Path(__file__).with_name("Snakefile")),
        "--directory", str(folder), "--keep-going", "--nolock", "--rerun-triggers", "mtime",
        *(["--profile", str(profile.resolve())] if profile else here),
    ]


def _snakemake(folder: Path, jobs: Sequence[Job], config: Settings, count: int | None, profile: Path | None,
               report: Callable[[str], None] | None) -> None:
    """Run snakemake, report progress, and end all its processes."""
    count = max(count or cores(), *(job.threads for job in jobs))
    environment = os.environ | {"PYTHONPATH": python_path(), "XDG_CACHE_HOME": str(folder / "cache")}
    if not (profile or local.has_snakemake()):
        return _queue(folder, jobs, config, count, environment, report)
    with signals_as_interrupts(), open(folder / "logs" / "snakemake.log", "wb") as log:
        process = subprocess.Popen(_command(folder, jobs, count, profile), cwd=config.root, env=environment,
                                   stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                   preexec_fn=_accept_interrupts)
        _follow(process, folder, jobs, count, report)


def _queue(folder: Path, jobs: Sequence[Job], config: Settings, count: int, environment: dict[str, str],
           report: Callable[[str], None] | None) -> None:
    """Run the jobs without snakemake."""
    paths = {job.name: folder / "jobs" / f"{job.name}.json" for job in jobs}
    rules = {name: json.loads(path.read_text(encoding="utf-8"))["snakemake"] for name, path in paths.items()}
    commands = {name: shlex.split(rule["command"]) for name, rule in rules.items()}
    limits = {"threads": count, "mem_mb": _memory(), "gpu": gpus() if any(job.gpus for job in jobs) else 0}
    with signals_as_interrupts(), Progress(folder, jobs, count, report) as progress:
        local.queue(commands, rules, limits, environment, config.root, progress.update)


def _accept_interrupts() -> None:
    """Undo what `nohup` and background jobs of a shell leave to their children, which then ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _follow(process: subprocess.Popen, folder: Path, jobs: Sequence[Job], count: int,
            report: Callable[[str], None] | None) -> None:
    try:
        with Progress(folder, jobs, count, report) as progress:
            while process.poll() is None:
                progress.update()
                time.sleep(INTERVAL)
            progress.update()
    finally:
        _end(process)


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that no process and no temporary file remains."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.signal(kind, signal.default_int_handler) for kind in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _end(process: subprocess.Popen) -> None:
    """Interrupt snakemake, which cancels submitted jobs, and terminate its children; kill them after a timeout."""
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


# Failures


def _failures(folder: Path, jobs: Sequence[Job], root: Path) -> dict[str, str]:
    states = {job.name: status_of(folder, job) for job in jobs}
    logs, last = short(folder.with_name(LOGS), root), _last_line(folder / "logs" / "snakemake.log")
    return {job.name: _reason(job, states, logs, last) for job in jobs if states[job.name].get("state") != "made"}


def _last_line(log: Path) -> str:
    """The last line of a log, such as the error with which the scheduler ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _reason(job: Job, states: dict[str, dict[str, Any]], logs: str, last: str) -> str:
    if message := states[job.name].get("message"):
        return message
    if states[job.name]:
        return f"figure {job.name!r} failed: its process ended without a message; see {logs}/{job.name}.log"
    missing = [name for name in job.needs if states.get(name, {"state": "made"}).get("state") != "made"]
    reason = f": it needs {', '.join(missing)}" if missing else f": {last}; see {logs}/snakemake.log"
    return f"figure {job.name!r} was not run{reason}"


def _keep_logs(folder: Path, failed: dict[str, str]) -> None:
    """Store the logs of a batch with a failure."""
    place = folder.with_name(LOGS)
    shutil.rmtree(place, ignore_errors=True)
    if failed:
        slurm = folder / ".snakemake" / "slurm_logs"
        if slurm.is_dir():
            slurm.rename(folder / "logs" / "slurm")
        (folder / "logs").rename(place)
