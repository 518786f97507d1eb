"""Choose learning rates and step sizes of the width figure: `python -m benchmarks.tune_width`.

Each kind of model gets eight trials at one width on the validation split, of one seed that the figure
doesn't use. For an EBT: three learning rates at one step size, two more step sizes at the best of them, the
other two learning rates at the best step size, and a third of it. For the Transformer++: the same three
learning rates, and five more around the best. The trials and what they cost go to figures/width/tuning.json,
which the figure's notebook reads.
"""

import argparse
import warnings
from functools import partial

import torch

from ebwm import settings
from ebwm.data.tasks import ClipsConfig, load_data
from ebwm.figures import parameter_defaults
from ebwm.files import write_json
from ebwm.objective import S1
from ebwm.sampler import init_candidates, run
from ebwm.training.configuration import ModelConfig, WalkConfig
from ebwm.training.learner import Learner, make_learner
from ebwm.walk import Walk

from .tuning import SEED, best, score

RATES, STEP_SIZES, FACTORS = (4e-3, 8e-3, 16e-3), (10.0, 3.0, 30.0), (0.7, 1.4, 2.0, 0.85, 1.2)
WIDTH = 96
CHANGES = {"transformer": {"kind": "transformer"}, "noise": {}, "last": {}, "row_space": {},
           "latent": {"candidates": "latent"}}


def in_row_space(model, steps):
    """An EBT whose walks begin as noise within the row space of its input map."""

    def start(states, g):
        rows = torch.linalg.qr(model.embed.weight.detach().T)[0]
        return init_candidates("noise", states, g) @ rows @ rows.T

    def predict(states, g):
        landscape, kernel = Walk().bind(model, model.landscape(states))
        return run(landscape, start(states, g), kernel, steps, final_energy=False).state.y

    loss = lambda states, targets, g: S1(steps)(model, states, targets, generator=g, start=start(states, g))
    return Learner(model, loss, predict)


def learner_of(kind, step_size, figure, state_dim):
    shape = {"dim": WIDTH, "depth": figure["depth"], "heads": WIDTH // figure["head_width"]}
    start = "last" if kind == "last" else "noise"
    walk = WalkConfig(figure["mcmc_steps"], start, step_size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="state_dim")
        learner = make_learner(ModelConfig(**shape | CHANGES[kind]), state_dim, SEED, walk=walk)
    return in_row_space(learner.model, figure["mcmc_steps"]) if kind == "row_space" else learner


def trial(kind, learning_rate, step_size, figure, data):
    """One kind of model with these settings, and its score."""
    learner = learner_of(kind, step_size, figure, data["train"].state_dim)
    row = {"model": kind, "learning_rate": learning_rate}
    row |= {} if kind == "transformer" else {"step_size": step_size}
    row |= score(learner, learning_rate, figure, data, figure["updates"])
    print(row, flush=True)
    return row


def tune(kind, figure, data):
    run, (first, *others) = partial(trial, figure=figure, data=data), STEP_SIZES
    rows = [run(kind, rate, first) for rate in RATES]
    rate = best(rows)["learning_rate"]
    if kind == "transformer":
        return rows + [run(kind, rate * factor, first) for factor in FACTORS]
    rows += [run(kind, rate, other) for other in others]
    middle = best(rows)["step_size"]
    rows += [run(kind, other, middle) for other in RATES if other != rate]
    return [*rows, run(kind, best(rows)["learning_rate"], round(middle / 3, 2))]


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    config = settings.load()
    figure = parameter_defaults(config.notebooks / "figures" / "width.ipynb")
    asked = ("depth", "head_width", "updates", "batch", "frames", "size", "mcmc_steps")
    clips = {name: figure[name] for name in ("frames", "size", "train_clips", "eval_clips")}
    data = load_data(ClipsConfig(**clips))
    trials = {kind: tune(kind, figure, data) for kind in CHANGES}
    rows = [row for part in trials.values() for row in part]
    write_json(config.figures / "width" / "tuning.json", {
        "seed": SEED,
        "width": WIDTH,
        "settings": {name: figure[name] for name in asked},
        "trials": rows,
        "chosen": {kind: best(part) for kind, part in trials.items()},
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    })


if __name__ == "__main__":
    main()
