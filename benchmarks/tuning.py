"""What the scripts that choose settings of figures share: one training run, its score, the best of some."""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ebwm import settings
from ebwm.data.encoders import principal
from ebwm.data.forks import forking_digits
from ebwm.files import write_json
from ebwm.training.configuration import Config, ModelConfig, OptimiserConfig, WalkConfig
from ebwm.training.learner import batches_of, make_learner
from ebwm.training.trainer import fit

SEED = 100  # which no comparison uses


def forking_clips(figure):
    """A figure's training and validation clips of forking digits, as principal components."""
    world = {name: figure[name] for name in ("frames", "size", "every", "digits")}
    counts = {"train": figure["train_clips"], "valid": figure["eval_clips"]}
    splits = {split: forking_digits(split, clips=count, **world) for split, count in counts.items()}
    return principal(splits, figure["features"])


def score(learner, learning_rate, figure, data, updates):
    """Train once: the validation loss of the final weights, None where it broke down, and seconds."""
    batch = figure["batch"]
    optimiser = OptimiserConfig(updates, batch, learning_rate, warmup=max(1, updates // 10))
    config = Config(optimiser=optimiser, seed=SEED, eval_every=updates)
    batches = batches_of(data["train"], batch, SEED)
    try:
        last = fit(learner, batches, data["valid"].whole(), config)[-1]
    except FloatingPointError:
        return {"valid_loss": None, "seconds": 0.0}
    return {"valid_loss": last["valid_loss"], "seconds": round(last["seconds"], 1)}


def trial(kind, learning_rate, step_size, figure, data, updates):
    """One kind of model with these settings, and its score."""
    shape = {name: figure[name] for name in ("dim", "depth", "heads")}
    walk = WalkConfig(figure["mcmc_steps"], step_size=step_size)
    learner = make_learner(ModelConfig(kind, **shape), data["train"].state_dim, SEED, walk=walk)
    row = {"model": kind, "learning_rate": learning_rate}
    row |= {"step_size": step_size} if kind == "ebt" else {}
    row |= score(learner, learning_rate, figure, data, updates)
    print(row, flush=True)
    return row


def best(rows):
    """The trial with the lowest validation loss, of those that have one: training may fail."""
    return min((row for row in rows if row["valid_loss"] is not None), key=lambda row: row["valid_loss"])


def text_score(learner, config, data, figure):
    """Train once on text: the validation loss of the final weights, None where it broke down, and seconds."""
    batches = batches_of(data["train"], figure["batch"], config.seed)
    try:
        last = fit(learner, batches, data["valid"].whole(figure["eval_windows"]), config)[-1]
        return {"valid_loss": last["valid_loss"], "seconds": round(last["seconds"], 1)}
    except FloatingPointError:
        return {"valid_loss": None, "seconds": 0.0}


def one_by_one(trial, searches, chosen):
    """Trials of one setting's values, then of the next at the best so far; `trial` takes settings by name."""
    rows, chosen = [], dict(chosen)
    for setting, values in searches.items():
        rows += [trial(**chosen | {setting: value}) for value in values]
        chosen[setting] = best(rows)[setting]
    return rows


def tune(id, ways, search, figure, description):
    """Search for each of some ways to learn, side by side, and keep all trials in figures/ID/tuning.json."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--jobs", type=int, default=2, help="searches that go on side by side")
    with ProcessPoolExecutor(parser.parse_args().jobs) as pool:
        pending = {way: pool.submit(search, way, figure) for way in ways}
        found = {way: rows.result() for way, rows in pending.items()}
    trials = [row for rows in found.values() for row in rows]
    write_json(
        Path(settings.load().figures) / id / "tuning.json",
        {
            "seed": SEED,
            "settings": figure,
            "trials": trials,
            "chosen": {way: best(rows) for way, rows in found.items()},
            "seconds": sum(row["seconds"] for row in trials),
        },
    )
