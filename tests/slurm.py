"""A stand-in for Slurm on one machine: the commands that snakemake's executor calls; jobs are processes."""

import sys
from pathlib import Path

PROGRAM = '''#!{python}
"""Slurm's commands, for one machine; every call is noted in calls.txt."""
import os, shlex, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
JOBS = HERE / "slurm-jobs"
name, words = Path(sys.argv[0]).name, sys.argv[1:]
JOBS.mkdir(exist_ok=True)
with open(HERE / "calls.txt", "a") as calls:
    print(name, shlex.join(words), file=calls)


def sbatch():
    number = str(1 + len(list(JOBS.glob("*.pid"))))
    output = words[words.index("--output") + 1].replace("%j", number)
    wrapped = next(word for word in words if word.startswith("--wrap=")).removeprefix("--wrap=")
    state = JOBS / f"{{number}}.state"
    state.write_text("RUNNING")
    script = f"({{wrapped}}) > {{shlex.quote(output)}} 2>&1; code=$?; " \\
             f"[ $code = 0 ] && echo COMPLETED > {{state}} || echo FAILED > {{state}}"
    job = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           env={{**os.environ, "SLURM_JOB_ID": number}})
    (JOBS / f"{{number}}.pid").write_text(str(job.pid))
    print(number)


def srun():
    while words and words[0].startswith("-"):
        words.pop(0)
    os.execvp(words[0], words)


def sacct():
    for state in JOBS.glob("*.state"):
        print(f"{{state.stem}}|{{state.read_text().strip()}}")


def scancel():
    for number in words:
        (JOBS / f"{{number}}.state").write_text("CANCELLED")
        os.killpg(int((JOBS / f"{{number}}.pid").read_text()), 15)


def sacctmgr():
    print("research")


def sinfo():
    print("gpu*")


{{"sbatch": sbatch, "srun": srun, "sacct": sacct, "squeue": sacct, "scancel": scancel, "sacctmgr": sacctmgr,
 "sinfo": sinfo}}.get(name, lambda: None)()
'''
COMMANDS = ("sbatch", "srun", "sacct", "squeue", "scancel", "sacctmgr", "sinfo", "scontrol")


def write_commands(folder: Path) -> Path:
    """Write the commands into FOLDER/bin; the calls that they get are noted in FOLDER/calls.txt."""
    program = PROGRAM.format(python=sys.executable).replace("{{", "{").replace("}}", "}")
    (folder / "bin").mkdir()
    for name in COMMANDS:
        path = folder / "bin" / name
        path.write_text(program)
        path.chmod(0o755)
    return folder / "bin"
