"""The program `run.py` of a bundle: runs the steps of its plan on a machine without a network, and packs the results.

It imports nothing but the standard library, and is copied into each bundle.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["check", "main", "pack", "run_step", "units"]

MANIFEST = "manifest.json"  # the last file of a run
MOST_BYTES, MOST_FILES = 16 * 2**20, 8  # of the packed results
RESERVE = 2**18  # bytes of a file for its digests, and for blocks that gzip cannot compress
LOGS, STATES = "logs", "states.json"  # folder of the steps' logs; file of their states
RESULTS = re.compile(r"src/figures/(benchmarks|\w+/runs)/")
GRACE = 30  # seconds that a stopped step has to end
MACHINE = """
import json, platform, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
print(json.dumps({"gpu": gpu, "torch": torch.__version__, "python": platform.python_version()}))
"""


def main(
    here: Path,  # unpacked bundle
    argv: Sequence[str] | None = None,  # arguments; default: those of the process
) -> int:  # 0: all steps were run, 1: a step failed or had no time
    """Run the steps in order, except those that an earlier call has done; after each of them, pack all results."""
    options = _options(argv)
    plan = json.loads((here / "plan.json").read_text(encoding="utf-8"))
    steps = _chosen(plan["steps"], options.only)
    _check_python(plan["python"])
    if wrong := check(here):
        _refuse(f"{wrong[0]} differs from its digest; copy the bundle again")
    environment = _environment(here)
    states = _earlier(here)
    deadline = time.monotonic() + 60 * options.minutes
    status = {"scale": plan["scale"], "commit": plan["commit"], "machine": _machine(environment)}
    for step in steps:
        with _interruptible() as interrupted:
            if states.get(step["name"], {}).get("state") != "done":
                states[step["name"]] = run_step(step, here / "src", here / LOGS, environment, deadline)
        (here / STATES).write_text(json.dumps(states), encoding="utf-8")
        left = pack(units(here, plan["scale"]), options.out, {**status, "steps": [*states.values()]})
        _tell(states[step["name"]], left)
        if interrupted:
            return 130
    return int(any(states[step["name"]]["state"] != "done" for step in steps))


def _earlier(here: Path) -> dict[str, dict[str, Any]]:
    """The states of steps in earlier calls, by name."""
    path = here / STATES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description="Run the steps of this bundle and pack their results.")
    parser.add_argument("--minutes", type=float, default=25, help="time for all steps together; default: 25")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the packed results; default: results")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="run only these steps of plan.json")
    return parser.parse_args(argv)


def _refuse(message: str) -> NoReturn:
    raise SystemExit(f"run.py: {message}")


def _chosen(steps: list[dict[str, Any]], only: Sequence[str] | None) -> list[dict[str, Any]]:
    names = [step["name"] for step in steps]
    for name in only or []:
        if name not in names:
            _refuse(f"--only={name!r}: must be one of {', '.join(names)}")
    return [step for step in steps if not only or step["name"] in only]


def _check_python(wanted: str) -> None:
    have = f"{sys.version_info.major}.{sys.version_info.minor}"
    if have != wanted:
        _refuse(f"this bundle is for Python {wanted}, not {have}; make another: ebwm bundle OUT --python {have}")


def check(
    here: Path,  # unpacked bundle
) -> list[str]:
    """The files that are missing or differ from their digests, except earlier results, which steps replace."""
    digests = json.loads((here / "digests.json").read_text(encoding="utf-8"))
    return [name for name, digest in digests.items() if not RESULTS.match(name) and _digest(here / name) != digest]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


# Steps


def _environment(here: Path) -> dict[str, str]:
    """Variables of the steps: the wheels, installed to a folder, and the package come first."""
    site = here / "site"
    wheels = sorted(map(str, (here / "wheels").glob("*.whl")))
    if wheels and not site.is_dir():
        draft = here / ".site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(draft)]
        done = subprocess.run([*pip, *wheels], capture_output=True, text=True)
        if done.returncode:
            _refuse(f"pip cannot install the wheels: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        draft.rename(site)
    paths = [str(here / "src"), str(site), os.environ.get("PYTHONPATH", "")]
    official = here / "src" / "official"
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg",
            **({"OFFICIAL_EBT": str(official)} if official.is_dir() else {})}


def _machine(environment: dict[str, str]) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", MACHINE], env=environment, capture_output=True, text=True)
    if done.returncode:
        _refuse(f"torch cannot be imported: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_step(
    step: dict[str, Any],  # name, command and minutes
    root: Path,  # working directory
    logs: Path,  # folder of the log NAME.log
    environment: dict[str, str],  # variables
    deadline: float,  # of all steps, as a time of `time.monotonic`
) -> dict[str, Any]:  # name, state (done, failed, stopped, skipped), seconds
    """Run a step, and stop it and its processes after its minutes; skip it if these no longer fit."""
    start = time.monotonic()
    if start + 60 * step["minutes"] > deadline:
        return {"name": step["name"], "state": "skipped", "seconds": 0.0}
    print(f"{step['name']} (at most {step['minutes']:g} minutes) ...", flush=True)
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable if word == "python" else word for word in step["command"]]
    with open(logs / f"{step['name']}.log", "wb") as log:
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            state = "failed" if process.wait(60 * step["minutes"]) else "done"
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            _end(process)
            state = "stopped"
    return {"name": step["name"], "state": state, "seconds": round(time.monotonic() - start, 1)}


def _end(process: subprocess.Popen) -> None:
    """Terminate a process and its children; kill them after a time."""
    for kind, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM in a list; the first one raises KeyboardInterrupt, which stops the step."""
    seen: list[int] = []

    def note(kind: int, frame: Any) -> None:
        seen.append(kind)
        if len(seen) == 1:
            raise KeyboardInterrupt

    before = {kind: signal.signal(kind, note) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _tell(step: dict[str, Any], left: list[str]) -> None:
    why = "; its time no longer fits into --minutes" if step["state"] == "skipped" else f" after {step['seconds']:.0f} s"
    print(f"{step['name']}: {step['state']}{why}", flush=True)
    for name in left:
        print(f"  left out, too large: {name}", flush=True)


# Results


def units(
    here: Path,  # unpacked bundle, with logs
    scale: str,  # of the figures
) -> dict[str, dict[str, Path]]:  # by name: files by their path in the packed results
    """What belongs together: a log, a benchmark, a run of a figure, a part of a run."""
    root = here / "src"
    found = {f"logs/{path.name}": {f"logs/{path.name}": path} for path in sorted((here / LOGS).glob("*.log"))}
    runs = [*root.glob(f"figures/*/runs/{scale}*/{MANIFEST}"), *root.glob(f"figures/*/runs/{scale}*.parts/*/{MANIFEST}")]
    folders = [path.parent for path in sorted(root.glob("figures/benchmarks/*/benchmarks.json")) + sorted(runs)]
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        if not any(part.startswith(".") for part in folder.relative_to(root).parts):
            found[name] = {f"{name}/{path.name}": path for path in sorted(folder.iterdir())
                           if path.is_file() and not path.name.startswith(".")}
    return found


def pack(
    found: dict[str, dict[str, Path]],  # from `units`
    out: Path,  # folder of results-1.tar.gz, ...
    status: dict[str, Any],  # steps and machine; travels along
    most: int = MOST_BYTES,  # bytes of a file
    files: int = MOST_FILES,  # number of files
) -> list[str]:  # names of the units that do not fit
    """Pack the results into files of limited size; a unit that does not fit as a whole is left out."""
    bins: list[dict[str, Path]] = [{}]
    left = []
    for name, members in found.items():
        placed = _placed(bins, members, most - RESERVE, files)
        bins = placed or bins
        left += [] if placed else [name]
    text = json.dumps({**status, "left_out": left}, indent=2).encode()
    digests = [{path: _digest(file) for path, file in members.items()} for members in bins]
    digests[0]["status.json"] = hashlib.sha256(text).hexdigest()
    identity = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    for number, (members, own) in enumerate(zip(bins, digests, strict=True), 1):
        content = {"pack": identity, "part": number, "parts": len(bins), "files": own}
        texts = {"digests.json": json.dumps(content, indent=2).encode()} | ({"status.json": text} if number == 1 else {})
        _write(out / f".results-{number}.tar.gz", members, texts)
    for number in range(1, files + 1):
        path = out / f"results-{number}.tar.gz"
        path.unlink(missing_ok=True)
        if number <= len(bins):
            (out / f".{path.name}").replace(path)
    return left


def _placed(bins: list[dict[str, Path]], members: dict[str, Path], most: int, files: int) -> list[dict[str, Path]] | None:
    """The bins with these files in the first ones with room, or None."""
    bins = [dict(taken) for taken in bins]
    for name, path in members.items():
        for taken in [*bins, {}]:
            if sum(map(_size, taken.values())) + _size(path) <= most:
                break
        else:
            return None
        if not any(taken is one for one in bins):
            bins.append(taken)
        taken[name] = path
    return bins if len(bins) <= files else None


def _size(path: Path) -> int:
    """Bytes of a file in a tar, with its headers."""
    return path.stat().st_size + 2048


def _write(path: Path, members: dict[str, Path], texts: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        for name, file in members.items():
            tar.add(file, name, recursive=False)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
