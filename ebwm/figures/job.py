"""One job: a notebook executed by papermill with limits of time and memory, one retry, and atomic results."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ebwm.compat import require
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.execution import execute_cells, execute_script, has_jupyter, kernel_manager, python_path
from ebwm.figures.inputs import changed, inputs
from ebwm.figures.manifest import JOB, MANIFEST, read_manifest
from ebwm.figures.notebook import cells_of, code_of
from ebwm.figures.plan import Job, from_json, gpus, short
from ebwm.files import write_json

__all__ = ["command", "main", "run_job", "torchrun", "up_to_date"]

RUNNER = ("-m", "ebwm.figures")  # arguments of Python that run a job's file
FAILED, INTERRUPTED = 1, 130
INTERVAL = 0.5  # seconds between two checks of a kernel or a GPU lock
EARLIER = ".earlier"  # suffix of a folder while another replaces it
CLOCK = 600  # tolerance of process start times, for adjustments of the clock, seconds


def up_to_date(
    job: Job,  # a job
) -> bool:
    """Whether the job's folder holds a complete result of these inputs."""
    try:
        return read_manifest(Path(job.folder)).get("key") == job.key
    except FigureError:
        return False


def run_job(
    job: Job,  # a job
    batch: dict[str, Any] | None = None,  # host, pid and start of the batch's process; the job ends with it
) -> Path:  # folder of the run
    """Execute a notebook in a temporary folder, and rename the folder once it is complete."""
    place = Path(job.folder)
    draft = _draft(place)
    try:
        _execute(job, draft, batch)
        _check_effective(job, draft)
        _check_unchanged(job)
    except BaseException as error:
        kept = _replace(draft, _failed(place))
        if not isinstance(error, Exception):
            raise
        raise NotebookError(f"figure {job.name!r} failed: {_one_line(error)}; the partial notebook is "
                            f"{short(kept / _notebook(job), Path(job.root))}") from error
    shutil.rmtree(_failed(place), ignore_errors=True)
    if _rank():
        shutil.rmtree(draft)
        return place
    (draft / JOB).unlink()
    return _replace(draft, _ready(place) if "RANK" in os.environ else place)


def _rank() -> int:
    """The rank under torchrun; only rank 0 writes a record."""
    return int(os.environ.get("RANK", 0))


def _ready(place: Path) -> Path:
    """The folder of rank 0's record until all ranks have succeeded."""
    return place.with_name(f".{place.name}.ready")


def _draft(place: Path) -> Path:
    """An empty hidden folder for this process; removes those of ended processes on this host."""
    psutil, host = require("psutil", "figures"), socket.gethostname()
    for old in place.parent.glob(f".{place.name}@{host}@*"):
        if psutil.pid_exists(int(old.name.rpartition("@")[2].partition(".")[0])):
            continue
        if old.suffix == EARLIER and not place.exists():
            old.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    draft = place.with_name(f".{place.name}@{host}@{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def _failed(place: Path) -> Path:
    return place.with_name(f"{place.name}.failed" + (f".{_rank()}" if _rank() else ""))


def _notebook(job: Job) -> str:
    return f"{job.figure}.ipynb"


def _replace(folder: Path, place: Path) -> Path:
    """Rename a folder to its final path, and remove an earlier one there."""
    earlier = folder.with_name(f"{folder.name}{EARLIER}")
    shutil.rmtree(earlier, ignore_errors=True)
    if place.exists():
        place.rename(earlier)
    folder.rename(place)
    shutil.rmtree(earlier, ignore_errors=True)
    return place


# The notebook


def _execute(job: Job, folder: Path, batch: dict[str, Any] | None) -> None:
    description = {"key": job.key, "inputs": job.inputs, "asked": job.parameters, "part": job.part,
                   "each": list(job.each), "parts": list(job.parts)}
    write_json(folder / JOB, description)
    log = folder / "kernel.log"
    with open(log, "wb") as stream, _Watch(job, batch) as watch:
        try:
            _papermill(job, folder, stream, watch)
        except Exception as error:
            if watch.reason or not _exited_at_start(error, folder / _notebook(job)):
                raise
            print(f"{job.name}: the kernel exited before the first cell; retrying once", file=sys.stderr)
            _papermill(job, folder, stream, watch)
    log.unlink()


def _papermill(job: Job, folder: Path, log: BinaryIO, watch: "_Watch") -> None:
    notebook, root = Path(job.notebook), Path(job.root)
    parameters = {**job.parameters, "out": short(folder, root)}
    count = len(cells_of(notebook, job.part))
    if not has_jupyter():
        variables = _variables(job) | {"PYTHONPATH": python_path()}
        return execute_script(notebook, count, folder, parameters, root, watch, **variables)
    execute_cells(notebook, count, folder, parameters, root, _kernel_manager(job, log, watch), watch)


def _kernel_manager(job: Job, log: BinaryIO, watch: "_Watch") -> type:
    class KernelManager(kernel_manager(**_variables(job))):
        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(stderr=log, **options)
            watch.pid = self.provisioner.pid

    return KernelManager


def _variables(job: Job) -> dict[str, str]:
    """Variables of the notebook's process; threads that spin would delay those of other jobs."""
    return {"OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}


def _exited_at_start(error: Exception, notebook: Path) -> bool:
    """Whether the kernel exited before it executed a cell."""
    if "kernel died" not in str(error).lower():
        return False
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.is_file() else []
    return not any(cell.get("execution_count") for cell in cells)


def _check_effective(job: Job, folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        raise FigureError("the notebook wrote no manifest.json; it must call Record.close()")
    effective = read_manifest(folder)["parameters"]["effective"]
    for name, requested in job.parameters.items():
        if name not in effective:
            raise FigureError(f"the notebook did not record its parameter {name!r}")
        if effective[name] != requested:
            raise FigureError(f"the notebook ran with {name}={effective[name]!r} instead of {requested!r}")


def _check_unchanged(job: Job) -> None:
    """Raise if an input has changed since the start: the key would not describe the code that ran."""
    code = code_of(cells_of(Path(job.notebook), job.part))
    now = inputs(code, job.parameters, job.inputs["device"], Path(job.root), job.data)
    if differing := changed(job.inputs, now):
        raise FigureError(f"{', '.join(differing)} changed during the run; run it again")


def _one_line(error: Exception) -> str:
    name, text = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error))
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
    message = text.splitlines()[0] if text else "no message"
    return message if isinstance(error, FigureError) else f"{name}: {message}"


# The watch


class _Watch(threading.Thread):
    """Thread that kills a kernel without output for too long, beyond its memory, or after the end of its batch."""

    def __init__(self, job: Job, batch: dict[str, Any] | None):
        super().__init__(daemon=True)
        self.psutil = require("psutil", "figures")
        self.job, self.batch = job, batch
        self.pid: int | None = None
        self.reason = self.last = ""
        self.started = self.moved = time.monotonic()
        self.over = threading.Event()

    def __enter__(self) -> "_Watch":
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, *traceback: object) -> None:
        self.over.set()
        self.join()
        if self.reason and isinstance(error, Exception):
            raise FigureError(self.reason) from error

    def write(self, text: str) -> None:
        """Pass on output of the cells, and note when it came."""
        sys.stderr.write(text)
        self.moved, self.last = time.monotonic(), text.strip().rpartition("\r")[2].rpartition("\n")[2] or self.last

    def flush(self) -> None:
        """Write buffered output."""
        sys.stderr.flush()

    def run(self) -> None:
        while not self.over.wait(INTERVAL):
            processes = self._processes()
            self.reason = self._violation(processes) if processes else ""
            if self.reason:
                for process in processes:
                    with contextlib.suppress(self.psutil.Error):
                        process.kill()
                return

    def _processes(self) -> list[Any]:
        """The kernel and its child processes."""
        with contextlib.suppress(self.psutil.Error):
            kernel = self.psutil.Process(self.pid) if self.pid else None
            return [*kernel.children(recursive=True), kernel] if kernel else []
        return []

    def _violation(self, processes: list[Any]) -> str:
        now = time.monotonic()
        if (now - self.moved) / 60 > self.job.timeout:
            came = f", at {self.last!r}" if self.last else ""
            return (f"it made no progress for {self.job.timeout:g} minutes, its limit, after "
                    f"{(now - self.started) / 60:.0f} minutes{came}; use fewer --cores on a busy machine, "
                    "or raise `timeout` in the registry")
        taken = sum(self._memory(process) for process in processes)
        if taken > self.job.memory:
            return (f"it used {taken:.1f} GiB of memory and exceeded its limit of {self.job.memory:g}; "
                    "raise `memory` in the registry")
        return "" if _alive(self.batch) else "its batch has ended"

    def _memory(self, process: Any) -> float:
        with contextlib.suppress(self.psutil.Error):
            return process.memory_info().rss / 2**30
        return 0.0


def _alive(batch: dict[str, Any] | None) -> bool:
    """Whether the process of a batch exists; True for a batch on another host."""
    psutil = require("psutil", "figures")
    if not batch or batch["host"] != socket.gethostname():
        return True
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(batch["pid"])
        same = abs(process.create_time() - batch["started"]) < CLOCK
        return same and process.status() != psutil.STATUS_ZOMBIE
    return False


# The process


def main(
    argv: list[str],  # path of the job's file, in the folder `jobs` of a batch
) -> int:  # 0: made, 1: failed, 130: interrupted
    """Run the job described by a file, and write its status to the folder `status`."""
    path = Path(argv[0])
    content = json.loads(path.read_text(encoding="utf-8"))
    job, batch = from_json(content["job"]), content["batch"]
    status = path.parents[1] / "status" / path.name
    signal.signal(signal.SIGTERM, _interrupt)
    with _logged(path.parents[1] / "logs" / f"{path.stem}.log"):
        if "RANK" not in os.environ:
            write_json(status, {"state": "running", "started": time.time()})
        try:
            if not _alive(batch):
                raise NotebookError(f"figure {job.name!r} failed: its batch has ended")
            _run(job, batch, path)
        except (NotebookError, OSError) as error:
            _fail(status, str(error))
            return FAILED
        except KeyboardInterrupt:
            _fail(status, f"figure {job.name!r} was interrupted")
            return INTERRUPTED
        if "RANK" not in os.environ:
            write_json(status, {"state": "made"})
    return 0


def _interrupt(*arguments: object) -> None:
    """Handle SIGTERM like Ctrl-C; ignore further signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _fail(status: Path, message: str) -> None:
    """Write the status of a failure; under torchrun, that of the rank that fails first."""
    if json.loads(status.read_text(encoding="utf-8"))["state"] != "failed":
        write_json(status, {"state": "failed", "message": message})


def _run(job: Job, batch: dict[str, Any] | None, path: Path) -> None:
    if job.processes > 1 and "RANK" not in os.environ:
        _launch(job, path)
    else:
        with _devices(job, path.parents[1]):
            run_job(job, batch)


def _launch(job: Job, path: Path) -> None:
    """Run the notebook under torchrun; accept the record of rank 0 once all ranks have succeeded."""
    place = Path(job.folder)
    process = subprocess.Popen(torchrun(job, path))
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if code:
        shutil.rmtree(_ready(place), ignore_errors=True)
        raise NotebookError(f"figure {job.name!r} failed: torchrun ended with exit code {code}")
    _replace(_ready(place), place)


def command(
    path: Path,  # path of the job's file
) -> list[str]:
    """The command that runs a job."""
    return [sys.executable, *RUNNER, str(path)]


def torchrun(
    job: Job,  # a job of several processes
    path: Path,  # path of the job's file
) -> list[str]:
    """The command that runs the processes of a job on this machine."""
    count = ["--standalone", "--nproc-per-node", str(job.processes)]
    return [sys.executable, "-m", "torch.distributed.run", *count, *RUNNER, str(path)]


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Redirect the output of this process and its kernel to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
        yield


@contextlib.contextmanager
def _devices(job: Job, batch: Path) -> Iterator[None]:
    """Lock a GPU of this machine for a job that needs one, and hide the others."""
    if not job.gpus:
        yield
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = visible.split(",") if visible else [str(i) for i in range(gpus())]
    if not known:
        raise NotebookError(f"figure {job.name!r} failed: it needs a GPU, and {socket.gethostname()} has none")
    name, lock = _free(known, batch)
    with lock:
        os.environ["CUDA_VISIBLE_DEVICES"] = name
        yield


def _free(known: list[str], batch: Path) -> tuple[str, Any]:
    """Wait for a GPU that no other job of the batch has locked; returns it with its lock."""
    filelock, host = require("filelock", "figures"), socket.gethostname()
    while True:
        for name in known:
            lock = filelock.FileLock(batch / f"gpu.{host}.{name.replace('/', '_')}.lock")
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                return name, lock
        time.sleep(INTERVAL)
