"""Losses of small runs that must not change; to write them again: python tests/golden.py"""

import json
import os
import tempfile
from pathlib import Path

from tiny_run import S2, log_of, trained

FILE = Path(__file__).with_name("golden_losses.json")
CALM = "walk.step_size=1"
RUNS = {"s1": [CALM], "s2": [*S2, CALM], "transformer": ["model.kind=transformer"]}


def losses(name, folder):
    """The loss of each update of a small run."""
    return [row["loss"] for row in log_of(trained(folder, *RUNS[name]))]


def main():
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(EBWM_CACHE=folder, EBWM_DEVICE="cpu")
        values = {name: losses(name, Path(folder) / "runs") for name in RUNS}
    FILE.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
