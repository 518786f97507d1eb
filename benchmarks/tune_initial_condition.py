"""Choose learning rate and step size for each start of the figure `initial_condition`.

`python -m benchmarks.tune_initial_condition` gives each start five trials on the validation split, of one
seed that the figure doesn't use: three learning rates, then two more step sizes at the best of them. With
`--start` it makes the trials of one start alone, so that the three can run side by side; with `--join` it
puts what they left into figures/initial_condition/tuning.json, from where it gets into the manifest.
"""

import argparse
import json

from ebwm import settings
from ebwm.data.tasks import ClipsConfig, load_data
from ebwm.figures import parameter_defaults
from ebwm.files import write_json
from ebwm.sampler import STARTS
from ebwm.training.configuration import ModelConfig, WalkConfig
from ebwm.training.learner import make_learner

from .tuning import SEED, best, score

RATES, STEP_SIZES = (4e-3, 1e-2, 2.5e-2), (3.0, 1.0, 10.0)


def trial(start, learning_rate, step_size, figure, data):
    """Walks from one start with these settings, and their score."""
    shape = {name: figure[name] for name in ("dim", "depth", "heads")}
    walk = WalkConfig(figure["mcmc_steps"], start, step_size)
    learner = make_learner(ModelConfig("ebt", **shape), data["train"].state_dim, SEED, walk=walk)
    row = {"start": start, "learning_rate": learning_rate, "step_size": step_size}
    row |= score(learner, learning_rate, figure, data, figure["updates"])
    print(row, flush=True)
    return row


def tune(start, figure):
    clips = {name: figure[name] for name in ("features", "train_clips", "eval_clips")}
    setting = figure, load_data(ClipsConfig(**clips))
    first, *others = STEP_SIZES
    rows = [trial(start, rate, first, *setting) for rate in RATES]
    return rows + [trial(start, best(rows)["learning_rate"], other, *setting) for other in others]


def join(folder, figure):
    """Make one file of what the trials of each start left."""
    parts = [folder / f"tuning-{start}.json" for start in STARTS]
    trials = [row for part in parts for row in json.loads(part.read_text())]
    shape = ("dim", "depth", "heads", "mcmc_steps", "features", "train_clips", "eval_clips")
    asked = ("updates", "batch", *shape)
    write_json(
        folder / "tuning.json",
        {
            "seed": SEED,
            "settings": {name: figure[name] for name in asked},
            "trials": trials,
            "chosen": {start: best([row for row in trials if row["start"] == start]) for start in STARTS},
            "seconds": sum(row["seconds"] for row in trials),
        },
    )
    for part in parts:
        part.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", choices=STARTS)
    parser.add_argument("--join", action="store_true")
    asked, config = parser.parse_args(), settings.load()
    figure = parameter_defaults(config.notebooks / "figures" / "initial_condition.ipynb")
    folder = config.figures / "initial_condition"
    if not asked.join:
        for start in [asked.start] if asked.start else STARTS:
            write_json(folder / f"tuning-{start}.json", tune(start, figure))
    if asked.join or not asked.start:
        join(folder, figure)


if __name__ == "__main__":
    main()
