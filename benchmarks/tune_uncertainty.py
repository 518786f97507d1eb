"""Choose learning rates and step size of the uncertainty figure: `python -m benchmarks.tune_uncertainty`.

Each model gets five trials on the validation split, of one seed that the figure doesn't use, each of half
the figure's updates: three learning rates, then two more. For the EBT these are step sizes, for the others
learning rates on either side of their best. The score is the SmoothL1 of predictions (for the diffusion
transformer, of its denoising in one step). The trials and what they cost go to
figures/uncertainty/tuning.json, and from there into the manifest.
"""

import dataclasses

from ebwm import settings, training
from ebwm.encoders import principal
from ebwm.figures import parameter_defaults
from ebwm.files import write_json
from ebwm.forks import forking_digits

RATES = (4e-3, 8e-3, 1.6e-2)
STEP_SIZES = (3.0, 1.0, 10.0)
SEED = 100


def clips_of(figure):
    """The figure's training and validation clips."""
    world = {name: figure[name] for name in ("frames", "size", "every", "digits")}
    counts = {"train": figure["train_clips"], "valid": figure["eval_clips"]}
    splits = {split: forking_digits(split, clips=count, **world) for split, count in counts.items()}
    return principal(splits, figure["features"])


def trial(kind, learning_rate, step_size, figure, data):
    """Train once; the validation loss of the final weights."""
    updates = figure["updates"] // 2
    shape = {name: figure[name] for name in ("dim", "depth", "heads")}
    model = training.ModelConfig(kind, **shape, steps=figure["mcmc_steps"], step_size=step_size)
    optimiser = training.OptimiserConfig(updates, figure["batch"], learning_rate, warmup=updates // 10)
    config = training.Config(model, training.DataConfig(), optimiser, SEED, eval_every=updates)
    learner = training.make_learner(model, figure["features"], SEED)
    batches = data["train"].epochs(figure["batch"], settings.generator(SEED, "order"))
    last = training.fit(learner, batches, data["valid"].whole(), config)[-1]
    row = {"model": kind, "learning_rate": learning_rate, "valid_loss": last["valid_loss"]}
    row |= {"step_size": step_size} if kind == "ebt" else {}
    print(row, flush=True)
    return row | {"seconds": round(last["seconds"], 1)}


def best(rows):
    return min(rows, key=lambda row: row["valid_loss"])


def tune(kind, figure, data):
    rows = [trial(kind, rate, STEP_SIZES[0], figure, data) for rate in RATES]
    rate = best(rows)["learning_rate"]
    more = [(rate, size) for size in STEP_SIZES[1:]]
    if kind != "ebt":
        more = [(rate * factor, STEP_SIZES[0]) for factor in (0.7, 1.4)]
    return rows + [trial(kind, *values, figure, data) for values in more]


def main():
    config = settings.load()
    figure = parameter_defaults(config.notebooks / "figures" / "uncertainty.ipynb")
    data = clips_of(figure)
    trials = {kind: tune(kind, figure, data) for kind in ("transformer", "ebt", "diffusion")}
    rows = [row for found in trials.values() for row in found]
    asked = dataclasses.asdict(training.OptimiserConfig()).keys() & figure.keys()
    settings_used = {name: figure[name] for name in sorted(asked)} | {"updates": figure["updates"] // 2}
    chosen = {kind: best(found) for kind, found in trials.items()}
    seconds = sum(row["seconds"] for row in rows)
    write_json(
        config.figures / "uncertainty" / "tuning.json",
        {"seed": SEED, "settings": settings_used, "trials": rows, "chosen": chosen, "seconds": seconds},
    )


if __name__ == "__main__":
    main()
