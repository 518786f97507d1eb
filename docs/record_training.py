"""Record the runs of the page of the training explorer: python docs/record_training.py, about two minutes."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ebwm import train
from ebwm.explore.runs import RunCurves, TrainingSettings, compute

FILE = Path(__file__).parent / "_static" / "explore" / "training_data.js"
SHOWN = ("loss", "energy gap", "inner gradient norm", "step size", "gradient norm", "learning rate")
COMMON = ["model.dim=64", "model.candidates=latent", "data.frames=6", "optimiser.updates=200", "optimiser.warmup=20",
          "run.monitor_every=10", "eval_every=25", "run.logger=none"]
RUNS = {f"step size {size}": f"walk.step_size={size}" for size in ("0.03", "0.3", "auto", "30", "300")}
RUNS["Transformer"] = "model.kind=transformer"


def rounded(
    values: list[float | None],
) -> list[float | None]:
    """Four significant digits."""
    return [None if value is None else float(f"{value:.4g}") for value in values]


def recorded(
    name: str,  # shown
    run: RunCurves,  # with all curves
) -> dict[str, Any]:
    """A run as JSON: updates and values of each curve, validation losses, faults and the test loss."""
    curves = {label: [curve.updates, rounded(curve.values)] for label, curve in run.curves.items()}
    faults = [[event["update"], event["what"]] for event in run.faults]
    return {"name": name, "curves": curves, "valid": [run.valid.updates, rounded(run.valid.values)], "faults": faults,
            "test": rounded([run.run.test_loss])[0]}


def main() -> None:
    """Train the runs and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        for entry in RUNS.values():
            train("smoke", folder, progress=False, overrides=[*COMMON, entry])
        found = compute(TrainingSettings(folder, shown=SHOWN)).runs
    runs = [recorded(*pair) for pair in zip(RUNS, found, strict=True)]
    text = ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs)
    FILE.write_text(f"// Written by docs/record_training.py.\nexport const RUNS = [\n{text}\n];\n", encoding="utf-8")


if __name__ == "__main__":
    main()
