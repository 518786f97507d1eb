"""Cost of an EBT: `make bench`, or `python -m benchmarks`.

Contenders run interleaved in one process, with the same weights and inputs, on one thread. With
OFFICIAL_EBT=path/to/checkout, the official code is measured too, and its results are compared with ours.
Results are a table, two plots and all numbers in figures/benchmarks. On a machine with a GPU, a training step is
measured at several lengths of the context; these results are in a folder of figures/benchmarks for each GPU.
"""

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import exactness, measure, report
from benchmarks import official as theirs
from benchmarks.cases import CASES, EAGER, LENGTHS, OFFICIAL, PLAIN, cost_cases, gpu_cases, small
from ebwm.figures.bundle import commit_of
from ebwm.files import write_json, write_whole

FOLDER = Path(__file__).resolve().parents[1] / "figures" / "benchmarks"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("full", "smoke"), default="full", help="smoke: tiny models")
    parser.add_argument("--cases", choices=("cpu", "gpu"), default="gpu" if torch.cuda.is_available() else "cpu",
                        help="what to measure; default: gpu on a machine with a GPU")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, metavar="S",
                        help="gpu: lengths of the context; results of other lengths are kept")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16", help="gpu: of matrix products")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="only the cases whose names contain this")
    parser.add_argument("--out", type=Path, help="folder of the results; required for a partial run")
    parser.add_argument("--memory-of", nargs=2, metavar=("CASE", "CONTENDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def sized(cases: list, size: str) -> list:
    return [small(case) for case in cases] if size == "smoke" else list(cases)


def run(given: argparse.Namespace, official: theirs.Official | None) -> dict:
    """Measure the selected cases; progress is printed to stderr."""
    cases = enumerate(sized(CASES, given.size))
    cases = [(i, case) for i, case in cases if (given.only or "") in case.name]
    records = []
    for index, case in cases:
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        record = measure.timed(case, official, given.rounds)
        if case.memory and measure.has_peak():
            record["memory"] = measure.memory(index, given.size, given.threads, measure.names(case, official))
        records.append(record)
    cost = []
    for axis, value, case in [] if given.only else cost_cases():
        case = replace(small(case), steps=case.steps) if given.size == "smoke" else case
        print(f"cost against {axis} = {value} ...", file=sys.stderr, flush=True)
        cost.append((axis, value, measure.timed(case, None, given.rounds)))
    same = exactness.table(official) if official else {}
    return {"machine": measure.machine(), "commits": commits(), "rounds": given.rounds, "cases": records, "cost": cost,
            "exactness": same}


def run_on_gpu(given: argparse.Namespace, official: theirs.Official | None, out: Path) -> dict:
    """Measure the cases for a GPU; what is measured is written after each of them, beside earlier cases."""
    result = {"machine": measure.machine(), "commits": commits(), "rounds": given.rounds, "cases": earlier(out),
              "cost": [], "exactness": {}}
    for case in sized(gpu_cases(given.lengths, given.precision), given.size):
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        record = measure.on_gpu(case, official, given.rounds)
        ours = [name for name in record["seconds"] if name not in (PLAIN, OFFICIAL, EAGER)]
        record["differences"] = exactness.on_device(case, ours)
        others = [other for other in result["cases"] if other["case"]["name"] != case.name]
        result["cases"] = sorted([*others, record], key=lambda r: (r["case"]["precision"], r["case"]["length"]))
        write(result, out)
    return result


def commits() -> dict[str, str]:
    """Commits of this repository and of the checkout of the official code, if git knows them."""
    folders = {"ebwm": Path(__file__).resolve().parents[1], OFFICIAL: os.environ.get("OFFICIAL_EBT")}
    found = {name: commit_of(Path(folder)) for name, folder in folders.items() if folder}
    return {name: commit for name, commit in found.items() if commit}


def earlier(out: Path) -> list[dict]:
    """Cases that were measured on the same machine and versions."""
    path = out / "benchmarks.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content["cases"] if content.get("machine") == measure.machine() else []


def place(given: argparse.Namespace) -> Path:
    """The folder of the results: one for each GPU."""
    if given.cases == "cpu":
        return FOLDER
    return FOLDER / re.sub(r"[^a-z0-9]+", "-", measure.machine()["gpu"].lower())


def write(result: dict, out: Path) -> str:
    """Write numbers, table and plots; returns the table."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "benchmarks.json", result)
    text = report.table(result)
    write_whole(out / "table.md", lambda draft: draft.write_text(text, encoding="utf-8"))
    report.plots(result, out)
    return text


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    no_gpu = given.cases == "gpu" and not torch.cuda.is_available()
    if not (given.out or given.memory_of) and (given.only or given.size != "full" or no_gpu):
        raise SystemExit("--only, --size smoke, and --cases gpu without a GPU need --out FOLDER: "
                         "recorded results must be complete")
    out = given.out or place(given)
    official = theirs.load() if os.environ.get("OFFICIAL_EBT") else None
    if given.memory_of:
        index, name = given.memory_of
        print(json.dumps(measure.own_peak(sized(CASES, given.size)[int(index)], name, official)))
        return
    print(write(run_on_gpu(given, official, out) if given.cases == "gpu" else run(given, official), out))


if __name__ == "__main__":
    main()
