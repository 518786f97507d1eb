"""Measurement: seconds in interleaved rounds, memory in a separate process for each contender."""

import json
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import official as theirs
from benchmarks.cases import MANUAL, OFFICIAL, PLAIN, Case, function_of
from ebwm.evaluation.cost import cpu_model, flops, seconds


def names(case: Case, official: theirs.Official | None) -> list[str]:
    """Contenders that are available."""
    return [name for name in case.contenders if official or name != OFFICIAL]


def timed(case: Case, official: theirs.Official | None, rounds: int) -> dict:
    """Seconds of all contenders of a case, and their ratios."""
    functions = {name: function_of(case, name, official) for name in names(case, official)}
    times = seconds(functions, rounds)
    record = {"case": asdict(case), "bound": case.bound if case.kind == "training" else None,
              "seconds": {name: time._asdict() for name, time in times.items()}}
    if case.kind == "training" and not case.vocabulary:
        record["flops"] = {name: flops(functions[name]).total for name in (PLAIN, MANUAL)}
    if OFFICIAL in functions:
        record["official / manual"] = times[OFFICIAL].median / times[MANUAL].median
    return record


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1])


def own_peak(case: Case, name: str, official: theirs.Official | None) -> float:  # MiB
    """Memory of two steps of a contender beyond its model and data; called in a separate process."""
    function = function_of(case, name, official)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak
    before = _status("VmRSS")
    for _ in range(2):
        function()
    return (_status("VmHWM") - before) / 2**10


def memory(index: int, size: str, threads: int, of: list[str]) -> dict[str, float]:
    """Peak memory of each contender of a case, given by its index."""
    found = {}
    for name in of:
        options = ["--size", size, "--threads", str(threads), "--memory-of", str(index), name]
        command = [sys.executable, "-m", "benchmarks", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, str | int]:
    """Hardware and versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    versions = {"torch": torch.__version__, "python": platform.python_version(), "system": platform.system()}
    return {"processor": cpu_model(), "gpu": gpu, "threads": torch.get_num_threads(), **versions}
