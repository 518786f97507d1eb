"""A queue of jobs on this machine, in place of snakemake where it is not installed."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ebwm.compat import installed

__all__ = ["has_snakemake", "queue"]

INTERVAL = 0.2  # seconds between two looks at the processes


def has_snakemake() -> bool:
    """Whether snakemake can schedule jobs here."""
    return installed("snakemake")


def queue(
    commands: Mapping[str, Sequence[str]],  # by name of the job
    rules: Mapping[str, Mapping[str, Any]],  # by name: needs, and the resources that it takes
    limits: Mapping[str, float],  # by resource
    environment: Mapping[str, str],  # of the processes
    root: Path,  # their working directory
    look: Callable[[], None],  # called at every look at the processes
) -> None:
    """Run jobs in parallel, each after those that it needs; one that needs a failed job is left out."""
    waiting, running, made = list(commands), {}, set()
    ended: set[str] = set()
    try:
        while waiting or running:
            for name in [name for name, process in running.items() if process.poll() is not None]:
                made |= {name} if running.pop(name).returncode == 0 else set()
                ended.add(name)
            lost = {name for name in waiting if any(need in ended - made for need in rules[name]["needs"])}
            waiting, ended = [name for name in waiting if name not in lost], ended | lost
            for name in [name for name in waiting if made.issuperset(rules[name]["needs"])]:
                if _fits(name, running, rules, limits):
                    waiting.remove(name)
                    running[name] = subprocess.Popen(commands[name], cwd=root, env=dict(environment))
            look()
            time.sleep(INTERVAL)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            _end(process)


def _fits(name: str, running: Mapping[str, Any], rules: Mapping[str, Any], limits: Mapping[str, float]) -> bool:
    """Whether the resources for one more job are free; a job that alone exceeds a limit runs alone."""
    taken = {resource: sum(rules[other][resource] for other in running) for resource in limits}
    return not running or all(taken[key] + rules[name][key] <= limits[key] for key in limits)


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    process.kill()
    process.wait()
