"""Figures whose cells run as a script, without a Jupyter kernel: the engine around them is the real one.

`python tests/script_job.py JOB.json` is one job; with other arguments it is the command `ebwm`.
"""

import json
import subprocess
import sys
from pathlib import Path

from ebwm.figures import job as engine
from ebwm.figures.manifest import JOB, sealed
from ebwm.figures.notebook import cells_of, code_of
from ebwm.files import write_json

LEAVE = """import sys
sys.path.insert(0, {tests!r})
from script_job import leave
leave({{**globals()}}, {values})"""


def leave_cell(values: str = "1") -> str:
    """A cell that leaves a record with some values, an expression."""
    return LEAVE.format(tests=str(Path(__file__).parent), values=values)


def leave(names: dict, values: object) -> None:
    """Write a record without data files; its result are the values."""
    folder = Path(names["out"])
    job = json.loads((folder / JOB).read_text())
    effective = {name: names[name] for name in job["asked"]}
    write_json(folder / "manifest.json", sealed({
        "scale": names["scale"], "seeds": names["seeds"], "results": {"values": values}, "pictures": {},
        "data": {}, "threads": 1, "git": None,
        "parameters": {"effective": effective}, "key": job["key"], "inputs": job["inputs"]}))


def script_of(job: engine.Job, folder: Path) -> str:
    """The parameters and the cells of a job as one script."""
    first, *rest = code_of(cells_of(Path(job.notebook), job.part))
    given = [f"{name} = {value!r}" for name, value in {**job.parameters, "out": str(folder)}.items()]
    return "\n".join([first, *given, *rest])


def run_script(job: engine.Job, folder: Path, log: object, watch: engine._Watch) -> None:
    """Instead of papermill: the script in a process."""
    process = subprocess.Popen([sys.executable, "-c", script_of(job, folder)], cwd=job.root, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    watch.pid = process.pid
    try:
        with process.stdout as lines:
            for line in lines:
                watch.write(line)
        code = process.wait()
    finally:
        process.kill()
    if code:
        raise RuntimeError(f"exit code {code}")


if __name__ == "__main__":
    engine._papermill, engine.RUNNER = run_script, (__file__,)
    if sys.argv[1].endswith(".json"):
        sys.exit(engine.main(sys.argv[1:]))
    from ebwm.cli import main

    sys.exit(main(sys.argv[1:]))
