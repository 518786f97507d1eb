"""Choose learning rates and step size of the facets figure: `python -m benchmarks.tune_facets`.

Each of the four models gets seven trials on the validation clips, of one seed that the figure doesn't use:
three learning rates, then four more. For the EBT these are step sizes, for the others learning rates around
their best. A trial is shorter than a run of the figure: `--updates`. The trials and what they cost go
to figures/facets/tuning.json, and from there into the manifest.
"""

import argparse

from ebwm import settings, training
from ebwm.encoders import principal
from ebwm.figures import parameter_defaults
from ebwm.files import write_json
from ebwm.forks import forking_digits

from .tune_next_frame import best

RATES = (2e-3, 4e-3, 8e-3)
STEP_SIZES = (10.0, 5.0, 20.0, 2.5, 1.25)
FACTORS = (0.7, 1.4, 2.0, 2.8)
SEED = 100


def load(figure):
    """The figure's training and validation clips."""
    world = {name: figure[name] for name in ("frames", "size", "every", "digits")}
    counts = {"train": figure["train_clips"], "valid": figure["eval_clips"]}
    splits = {split: forking_digits(split, clips=count, **world) for split, count in counts.items()}
    return principal(splits, figure["features"])


def trial(kind, learning_rate, step_size, figure, data, updates):
    """Train once; the validation loss of the final weights."""
    shape = {name: figure[name] for name in ("dim", "depth", "heads")}
    model = training.ModelConfig(kind, **shape, steps=figure["mcmc_steps"], step_size=step_size)
    optimiser = training.OptimiserConfig(updates, figure["batch"], learning_rate, warmup=updates // 10)
    config = training.Config(model, training.DataConfig(), optimiser, SEED, eval_every=updates)
    learner = training.make_learner(model, data["train"].state_dim, SEED)
    batches = data["train"].epochs(figure["batch"], settings.generator(SEED, "order"))
    last = training.fit(learner, batches, data["valid"].whole(), config)[-1]
    row = {"model": kind, "learning_rate": learning_rate, "valid_loss": last["valid_loss"]}
    row |= {"step_size": step_size} if kind == "ebt" else {}
    print(row, flush=True)
    return row | {"seconds": round(last["seconds"], 1)}


def tune(kind, *setting):
    """Seven trials of one model."""
    rows = [trial(kind, rate, STEP_SIZES[0], *setting) for rate in RATES]
    rate = best(rows)["learning_rate"]
    if kind == "ebt":
        return rows + [trial(kind, rate, step_size, *setting) for step_size in STEP_SIZES[1:]]
    return rows + [trial(kind, rate * factor, STEP_SIZES[0], *setting) for factor in FACTORS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=300)
    updates = parser.parse_args().updates
    config = settings.load()
    figure = parameter_defaults(config.notebooks / "figures" / "facets.ipynb")
    data = load(figure)
    trials = {kind: tune(kind, figure, data, updates) for kind in training.LEARNERS}
    rows = [row for found in trials.values() for row in found]
    write_json(
        config.figures / "facets" / "tuning.json",
        {
            "seed": SEED,
            "settings": {"updates": updates, "batch": figure["batch"]},
            "trials": rows,
            "chosen": {kind: best(found) for kind, found in trials.items()},
            "seconds": sum(row["seconds"] for row in rows),
        },
    )


if __name__ == "__main__":
    main()
