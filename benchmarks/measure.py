"""Measurement: seconds in interleaved rounds, memory in a separate process for each contender."""

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import official as theirs
from benchmarks.cases import FUSED, MANUAL, OFFICIAL, PLAIN, Case, function_of
from ebwm.evaluation.cost import cpu_model, flops, peak_gpu_memory, seconds
from ebwm.gradient.attention import can_be_fused

# FLOPs per second of dense matrix products in bfloat16 and in float32 (not TF32), by name of the GPU; from NVIDIA's
# data sheets of the H100 (SXM, PCIe), the H200 (SXM) and the A100.
PEAKS = {
    r"NVIDIA H100 80GB HBM3|NVIDIA H200": {"bf16": 989e12, "float32": 67e12},
    r"NVIDIA H100 PCIe": {"bf16": 756e12, "float32": 51e12},
    r"NVIDIA A100[- ].*": {"bf16": 312e12, "float32": 19.5e12},
}


def peak(gpu: str, precision: str) -> float | None:
    """FLOPs per second of a GPU; None for an unknown one."""
    return next((found[precision] for name, found in PEAKS.items() if re.fullmatch(name, gpu)), None)


def names(case: Case, official: theirs.Official | None) -> list[str]:
    """Contenders that are available."""
    fused = can_be_fused(torch.device(case.device), case.dim // case.heads)
    absent = ([] if official else [OFFICIAL]) + ([] if fused else [FUSED])
    return [name for name in case.contenders if name not in absent]


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


def on_gpu(case: Case, official: theirs.Official | None, rounds: int) -> dict:
    """Seconds, memory and utilisation of the contenders; those that fail, as without memory, and the reasons."""
    functions, taken, failed = {}, {}, {}
    for name in names(case, official):
        try:
            functions[name] = function_of(case, name, official)
            functions[name]()  # compile
            taken[name] = peak_gpu_memory(functions[name]) if case.device == "cuda" else None
        except Exception as error:  # a machine with a GPU is rare: the others are measured all the same
            failed[name] = str(error).partition("\n")[0] or type(error).__name__
            functions.pop(name, None)
    times = seconds(functions, rounds)
    record = {"case": asdict(case), "bound": case.bound, "flops": case.flops, "failed": failed,
              "utilisation": utilisation(case, times),
              "seconds": {name: time._asdict() for name, time in times.items()}}
    return record | ({"memory": taken} if case.device == "cuda" else {})


def utilisation(case: Case, times: dict) -> dict[str, float]:
    """FLOPs that a training step needs, per second, as a fraction of the GPU's peak; empty for an unknown GPU."""
    most = peak(torch.cuda.get_device_name(), case.precision) if case.device == "cuda" else None
    needed = lambda name: case.flops[PLAIN if name == PLAIN else MANUAL]
    return {name: needed(name) / time.median / most for name, time in times.items()} if most else {}


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1])


CLEAR = "/proc/self/clear_refs"


def has_peak() -> bool:
    """Whether the system can reset the peak of a process's memory; without, times are measured alone."""
    return os.access(CLEAR, os.W_OK)


def own_peak(case: Case, name: str, official: theirs.Official | None) -> float:  # MiB
    """Memory of two steps of a contender beyond its model and data; called in a separate process."""
    function = function_of(case, name, official)
    Path(CLEAR).write_text("5", encoding="utf-8")  # reset the peak
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
