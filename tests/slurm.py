"""A stand-in for Slurm on one machine: the commands that snakemake's executor calls; jobs are processes.

`python slurm.py FOLDER NAME WORD ...` is the command NAME; its jobs and a list of the calls are in FOLDER. A job whose
command contains the word in FOLDER/busy stays in the queue.
"""

import contextlib
import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def _new_number(jobs: Path) -> str:
    """The first number that no job has; several jobs may be submitted at the same moment."""
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            (jobs / f"{number}.number").touch(exist_ok=False)
            return str(number)


def sbatch(jobs: Path, *words: str) -> None:
    number = _new_number(jobs)
    output = words[words.index("--output") + 1].replace("%j", number)
    wrapped = next(word for word in words if word.startswith("--wrap=")).removeprefix("--wrap=")
    state, busy = jobs / f"{number}.state", jobs.with_name("busy")
    waits = busy.is_file() and busy.read_text() in wrapped
    state.write_text("PENDING" if waits else "RUNNING")
    script = (f"({wrapped}) > {shlex.quote(output)} 2>&1; code=$?; "
              f"[ $code = 0 ] && echo COMPLETED > {state} || echo FAILED > {state}")
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    job = subprocess.Popen(["sh", "-c", "exec sleep 300" if waits else script], start_new_session=True, **streams,
                           env={**os.environ, "SLURM_JOB_ID": number})
    (jobs / f"{number}.pid").write_text(str(job.pid))
    print(number)


def srun(jobs: Path, *words: str) -> None:
    first = next(place for place, word in enumerate(words) if not word.startswith("-"))
    os.execvp(words[first], words[first:])


def sacct(jobs: Path, *words: str) -> None:
    for state in jobs.glob("*.state"):
        print(f"{state.stem}|{state.read_text().strip()}")


def scancel(jobs: Path, *numbers: str) -> None:
    for number in numbers:
        (jobs / f"{number}.state").write_text("CANCELLED")
        os.killpg(int((jobs / f"{number}.pid").read_text()), 15)


COMMANDS = {"sbatch": sbatch, "srun": srun, "sacct": sacct, "squeue": sacct, "scancel": scancel,
            "sacctmgr": lambda *given: print("research"), "sinfo": lambda *given: print("gpu*"),
            "scontrol": lambda *given: print("localhost"), "torchrun": lambda *given: None}
SLURM = [name for name in COMMANDS if name != "torchrun"]


def write_commands(folder: Path, names: Iterable[str] = SLURM) -> None:
    """Write the commands into FOLDER/bin; the calls that they get are noted in FOLDER/calls.txt."""
    for name in ("bin", "slurm-jobs"):
        (folder / name).mkdir(exist_ok=True)
    for name in names:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
        path.chmod(0o755)


if __name__ == "__main__":
    place, name, *given = sys.argv[1:]
    with open(f"{place}/calls.txt", "a", encoding="utf-8") as calls:
        print(name, shlex.join(given), file=calls)
    COMMANDS[name](Path(place) / "slurm-jobs", *given)
