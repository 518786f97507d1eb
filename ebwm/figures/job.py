"""One job in a process of its own: a notebook through papermill, watched, retried once, never half-kept."""

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
from ebwm.figures.inputs import PACKAGE, changed, inputs
from ebwm.figures.notebook import cells_of, code_of
from ebwm.figures.plan import Job, from_json, gpus, short
from ebwm.figures.record import JOB, MANIFEST, read_manifest
from ebwm.files import write_json

__all__ = ["main", "run_job", "torchrun", "up_to_date"]

FAILED, INTERRUPTED = 1, 130
LOOK = 0.5  # seconds between two looks at a kernel
EARLIER = ".earlier"  # ending of a folder while another takes its place
CLOCK = 600  # seconds by which a machine's clock, and so when a process started, may be set meanwhile


def up_to_date(
    job: Job,
) -> bool:
    """Whether the job's folder holds, whole, what these inputs make."""
    try:
        return read_manifest(Path(job.folder)).get("key") == job.key
    except FigureError:
        return False


def run_job(
    job: Job,
    batch: dict[str, Any] | None = None,  # host, pid and start of the process that must outlive the job
) -> Path:  # folder of the run
    """Execute a notebook beside its final place, and move it there once it is complete."""
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
    """Which of torchrun's processes this is; only the first leaves a record."""
    return int(os.environ.get("RANK", 0))


def _ready(place: Path) -> Path:
    """Where the first of torchrun's processes leaves its record until all have ended well."""
    return place.with_name(f".{place.name}.ready")


def _draft(place: Path) -> Path:
    """An empty hidden folder for this process; those of processes that have ended here are removed."""
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
    """Rename a folder to its place, where an earlier one may lie."""
    earlier = folder.with_name(f"{folder.name}{EARLIER}")
    shutil.rmtree(earlier, ignore_errors=True)
    if place.exists():
        place.rename(earlier)
    folder.rename(place)
    shutil.rmtree(earlier, ignore_errors=True)
    return place


# The notebook


def _execute(job: Job, folder: Path, batch: dict[str, Any] | None) -> None:
    told = {"key": job.key, "inputs": job.inputs, "asked": job.parameters, "part": job.part,
            "each": list(job.each), "parts": list(job.parts)}
    write_json(folder / JOB, told)
    log = folder / "kernel.log"
    with open(log, "wb") as stream, _Watch(job, batch) as watch:
        try:
            _papermill(job, folder, stream, watch)
        except Exception as error:
            if watch.reason or not _died_at_start(error, folder / _notebook(job)):
                raise
            print(f"{job.name}: the kernel died at its start; once more", file=sys.stderr)
            _papermill(job, folder, stream, watch)
    log.unlink()


def _papermill(job: Job, folder: Path, log: BinaryIO, watch: "_Watch") -> None:
    papermill, nbformat = require("papermill", "figures"), require("nbformat", "figures")
    notebook = nbformat.read(job.notebook, as_version=4)
    notebook.cells = notebook.cells[:len(cells_of(Path(job.notebook), job.part))]
    papermill.execute_notebook(
        notebook,
        folder / _notebook(job),
        parameters={**job.parameters, "out": short(folder, Path(job.root))},
        kernel_name="python3",
        kernel_manager_class=_kernel_manager(job, log, watch),
        cwd=job.root,
        progress_bar=False,
        stdout_file=sys.stderr,
        stderr_file=sys.stderr,
    )


def _kernel_manager(job: Job, log: BinaryIO, watch: "_Watch") -> type:
    """A kernel of the running interpreter, whatever kernels the machine offers, that imports this ebwm."""
    client, kernel = require("jupyter_client", "figures"), require("ipykernel.kernelspec", "figures")
    path = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    spec = client.kernelspec.KernelSpec(**kernel.get_kernel_dict())
    spec.argv = [sys.executable, *spec.argv[1:]]
    spec.env = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": str(job.threads)}

    class KernelManager(client.AsyncKernelManager):
        kernel_spec = spec

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(stderr=log, **options)
            watch.pid = self.provisioner.pid

    return KernelManager


def _died_at_start(error: Exception, notebook: Path) -> bool:
    """Whether the kernel was gone before it had executed any cell."""
    if "kernel died" not in str(error).lower():
        return False
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.is_file() else []
    return not any(cell.get("execution_count") for cell in cells)


def _check_effective(job: Job, folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        raise FigureError("the notebook wrote no manifest.json; it must call close() on its Record")
    effective = read_manifest(folder)["parameters"]["effective"]
    for name, asked in job.parameters.items():
        if name not in effective:
            raise FigureError(f"the notebook did not record its parameter {name!r}")
        if effective[name] != asked:
            raise FigureError(f"the notebook ran with {name} = {effective[name]!r}, asked was {asked!r}")


def _check_unchanged(job: Job) -> None:
    """What was run is what the key names, though somebody may have been at work meanwhile."""
    code = code_of(cells_of(Path(job.notebook), job.part))
    now = inputs(code, job.parameters, job.inputs["device"], Path(job.root), job.data)
    if differing := changed(job.inputs, now):
        raise FigureError(f"{', '.join(differing)} changed since it was started; run it again")


def _one_line(error: Exception) -> str:
    name, text = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error))
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
    message = text.splitlines()[0] if text else "no message"
    return message if isinstance(error, FigureError) else f"{name}: {message}"


# The watch


class _Watch(threading.Thread):
    """Ends a kernel that outgrows its memory, overstays its time, or outlives its batch."""

    def __init__(self, job: Job, batch: dict[str, Any] | None):
        super().__init__(daemon=True)
        self.psutil = require("psutil", "figures")
        self.job, self.batch = job, batch
        self.pid: int | None = None
        self.reason = ""
        self.started = time.monotonic()
        self.over = threading.Event()

    def __enter__(self) -> "_Watch":
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, *traceback: object) -> None:
        self.over.set()
        self.join()
        if self.reason and isinstance(error, Exception):
            raise FigureError(self.reason) from error

    def run(self) -> None:
        while not self.over.wait(LOOK):
            processes = self._processes()
            self.reason = self._complaint(processes) if processes else ""
            if self.reason:
                for process in processes:
                    with contextlib.suppress(self.psutil.Error):
                        process.kill()
                return

    def _processes(self) -> list[Any]:
        """The kernel and what it started."""
        with contextlib.suppress(self.psutil.Error):
            kernel = self.psutil.Process(self.pid) if self.pid else None
            return [*kernel.children(recursive=True), kernel] if kernel else []
        return []

    def _complaint(self, processes: list[Any]) -> str:
        minutes = (time.monotonic() - self.started) / 60
        if minutes > self.job.timeout:
            return f"it ran longer than its {self.job.timeout:g} minutes; the registry's `timeout` allows more"
        taken = sum(self._memory(process) for process in processes)
        if taken > self.job.memory:
            return (f"it took {taken:.1f} GiB of memory, more than its {self.job.memory:g}; "
                    "the registry's `memory` allows more")
        return "" if _alive(self.batch) else "the batch that it belongs to has ended"

    def _memory(self, process: Any) -> float:
        with contextlib.suppress(self.psutil.Error):
            return process.memory_info().rss / 2**30
        return 0.0


def _alive(batch: dict[str, Any] | None) -> bool:
    """Whether the process that started the batch is still there, as far as this machine can tell."""
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
    argv: list[str],  # the job's file, in the folder `jobs` of a batch
) -> int:  # 0 made, 1 failed, 130 interrupted
    """Run the job that a file describes, and say how it went beside it."""
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
                raise NotebookError(f"figure {job.name!r} failed: the batch that it belongs to has ended")
            _work(job, batch, path)
        except (NotebookError, OSError) as error:
            _fail(status, str(error))
            return FAILED
        except KeyboardInterrupt:
            _fail(status, f"figure {job.name!r} was interrupted")
            return INTERRUPTED
        if "RANK" not in os.environ:
            write_json(status, {"state": "made"})
    return 0


def _interrupt(*given: object) -> None:
    """End as Ctrl-C does; what is asked again meanwhile changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _fail(status: Path, message: str) -> None:
    """Say why; the first of torchrun's processes that fails has the word."""
    if json.loads(status.read_text(encoding="utf-8"))["state"] != "failed":
        write_json(status, {"state": "failed", "message": message})


def _work(job: Job, batch: dict[str, Any] | None, path: Path) -> None:
    if job.processes > 1 and "RANK" not in os.environ:
        _conduct(job, path)
    else:
        with _devices(job, path.parents[1]):
            run_job(job, batch)


def _conduct(job: Job, path: Path) -> None:
    """Run the notebook in several processes; what the first leaves counts once all have ended well."""
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


def torchrun(
    job: Job,
    path: Path,  # the job's file
) -> list[str]:
    """The command that runs a job in its processes on this machine."""
    count = ["--standalone", "--nproc-per-node", str(job.processes)]
    return [sys.executable, "-m", "torch.distributed.run", *count, "-m", "ebwm.figures", str(path)]


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send what this process and its kernel say to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", buffering=0) as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
        yield


@contextlib.contextmanager
def _devices(job: Job, batch: Path) -> Iterator[None]:
    """Hold one of this machine's GPUs for the job, where it wants one, and show it no other."""
    if not job.gpus:
        yield
        return
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = shown.split(",") if shown else [str(i) for i in range(gpus())]
    if not known:
        raise NotebookError(f"figure {job.name!r} failed: it needs a GPU, and there is none on {socket.gethostname()}")
    name, lock = _free(known, batch)
    with lock:
        os.environ["CUDA_VISIBLE_DEVICES"] = name
        yield


def _free(known: list[str], batch: Path) -> tuple[str, Any]:
    """The first GPU that no other job of the batch holds, and the lock that says so; waits for it."""
    filelock, host = require("filelock", "figures"), socket.gethostname()
    while True:
        for name in known:
            lock = filelock.FileLock(batch / f"gpu.{host}.{name.replace('/', '_')}.lock")
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                return name, lock
        time.sleep(LOOK)
