"""Choose the settings of a figure that compares recipes: `python -m benchmarks.tune_recipes objectives`.

A trial runs the figure's own notebook as far as its work begins, with other parameters, and scores one
training on the validation clips, with a seed that the figure doesn't use. For `objectives` each recipe gets
five trials, three learning rates and then two more values of its own knob, at the widest state of scale
`cpu`; for `ablation` the full recipe S2 gets five, three learning rates and then two more standard
deviations of Langevin noise, and all variants share what it chose. The trials and what they cost go to
figures/ID/tuning.json, and from there into the manifest.
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ebwm import settings
from ebwm.figures import parameter_defaults
from ebwm.files import write_json

SEED = 100
RATES = (6e-3, 2e-3, 18e-3)
KNOBS = {
    "reconstruction": ("step_size", (3.0, 1.0, 10.0)),
    "contrastive": ("chain_step_contrastive", (0.03, 0.003, 0.3)),
    "persistent": ("chain_step_persistent", (0.03, 0.003, 0.3)),
    "score": ("std", (0.5, 0.25, 1.0)),
}
NOISES = ("noise", (0.1, 0.03, 0.3))


def names_of(id, changes):
    """What a figure's notebook has defined when its work begins."""
    path = settings.load().notebooks / "figures" / f"{id}.ipynb"
    names = {"__name__": id}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "parts" in tags:
            return names
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
        if "parameters" in tags:
            names.update(changes)
    raise ValueError(f"{path} has no cell tagged parts")


def score_recipe(kind, names):
    """Validation loss of one recipe at the widest state, walked in the best of the ways that are tried."""
    data = names["data_of"](max(names["state_dims"]))
    model, _ = names["train"](kind, data, SEED)
    valid = data["valid"].whole(names["choice_clips"])
    return float(names["choices"](kind, model, valid, SEED).valid_loss.min())


def score_ablation(kind, names):
    """Validation loss of the full recipe at its trained number of steps."""
    _, log = names["train"](kind, SEED)
    return float(log.valid_loss.dropna().iloc[-1])


def trial(id, score, kind, changes):
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        names = names_of(id, changes | {"out": out})
        try:
            loss = score(kind, names)
        except FloatingPointError:
            loss = float("inf")
    row = {"recipe": kind, **changes, "valid_loss": loss, "seconds": round(time.perf_counter() - began, 1)}
    print(row, flush=True)
    return row


def best(rows):
    return min(rows, key=lambda row: row["valid_loss"])


def tune(id, score, kind, rate, knob, values):
    """Three learning rates at the first value of the knob, then its other values at the best of them."""
    rows = [trial(id, score, kind, {rate: value, knob: values[0]}) for value in RATES]
    chosen = best(rows)[rate]
    return rows + [trial(id, score, kind, {rate: chosen, knob: value}) for value in values[1:]]


def tune_all(id, jobs):
    if id == "ablation":
        return {"s2": tune(id, score_ablation, "s2", "learning_rate", *NOISES)}
    with ProcessPoolExecutor(jobs) as pool:
        found = {
            kind: pool.submit(tune, id, score_recipe, kind, f"learning_rate_{kind}", *knob)
            for kind, knob in KNOBS.items()
        }
        return {kind: rows.result() for kind, rows in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("id", choices=("objectives", "ablation"))
    parser.add_argument("--jobs", type=int, default=2, help="recipes that are tuned side by side")
    given = parser.parse_args()
    id, config, found = given.id, settings.load(), tune_all(given.id, given.jobs)
    trials = [row for rows in found.values() for row in rows]
    defaults = parameter_defaults(config.notebooks / "figures" / f"{id}.ipynb")
    tuned = {name for row in trials for name in row} | {"scale", "seeds", "out"}
    write_json(
        Path(config.figures) / id / "tuning.json",
        {
            "seed": SEED,
            "settings": {name: value for name, value in defaults.items() if name not in tuned},
            "trials": trials,
            "chosen": {kind: best(rows) for kind, rows in found.items()},
            "seconds": sum(row["seconds"] for row in trials),
        },
    )


if __name__ == "__main__":
    main()
