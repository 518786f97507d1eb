"""Arguments and result files that the smaller benchmarks share."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.__main__ import FOLDER
from benchmarks.measure import machine
from ebwm.files import write_json, write_whole


def arguments(
    name: str,  # of the module
    description: str,
    rounds: int,  # default
    measured: str,  # what each round measures
    smoke: str,  # what --size smoke changes
) -> argparse.Namespace:  # size, rounds, and out: the folder of the results
    """Read the command line, and use one thread."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--size", choices=("full", "smoke"), default="full", help=f"smoke: {smoke}")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measured rounds of {measured}")
    parser.add_argument("--out", type=Path, help="folder of the results; required for --size smoke")
    given = parser.parse_args()
    if given.size == "smoke" and not given.out:
        raise SystemExit("--size smoke needs --out FOLDER: recorded results must be complete")
    torch.set_num_threads(1)
    given.out = given.out or FOLDER
    return given


def report_shapes(
    given: argparse.Namespace,  # of `arguments`
    name: str,  # of the files, without suffix
    shapes: Sequence[Any],  # sizes of the comparisons
    measured: Callable[[Any, int], dict[str, Any]],  # sizes and number of rounds -> a comparison
    table: Callable[[dict[str, Any]], str],  # writes the result as Markdown
) -> None:
    """Measure comparisons of several sizes, and report them."""
    cases = [measured(shape, given.rounds) for shape in shapes]
    report(given.out, name, {"machine": machine(), "rounds": given.rounds, "cases": cases}, table)


def report(
    folder: Path,  # is made if it does not exist
    name: str,  # of the files, without suffix
    result: dict[str, Any],
    table: Callable[[dict[str, Any]], str],  # writes the result as Markdown
) -> None:
    """Write a result as JSON and as a table, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", json.loads(json.dumps(result)))
    text = table(result)
    write_whole(folder / f"{name}.md", lambda draft: draft.write_text(text, encoding="utf-8"))
    print(text)
