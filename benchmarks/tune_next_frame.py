"""Choose learning rates and step size of the next-frame figure: `python -m benchmarks.tune_next_frame`.

Each model gets five trials on the validation split, of one seed that the figure doesn't use: three
learning rates, then two more. For the EBT these are step sizes, for the Transformer++ learning rates on
either side of its best. The trials and what they cost go to figures/next_frame/tuning.json, and from there
into the manifest.
"""

import argparse
import dataclasses
import json

from ebwm import settings, training
from ebwm.figures import parameter_defaults
from ebwm.files import write_json

RATES = (2e-3, 4e-3, 8e-3)
SEED = 100


def trial(kind, learning_rate, step_size, figure):
    """Train once; the validation loss of the final weights."""
    clips = training.DataConfig(train_clips=figure["train_clips"], eval_clips=figure["eval_clips"])
    shape = {name: figure[name] for name in ("dim", "depth", "heads")}
    model = training.ModelConfig(kind, **shape, steps=figure["mcmc_steps"], step_size=step_size)
    optimiser = training.OptimiserConfig(
        figure["updates"], figure["batch"], learning_rate, warmup=figure["updates"] // 10
    )
    config = training.Config(model, clips, optimiser, SEED, eval_every=figure["updates"])
    data = training.load_data(clips)
    learner = training.make_learner(model, data["train"].state_dim, SEED)
    batches = data["train"].epochs(figure["batch"], settings.generator(SEED, "order"))
    last = training.fit(learner, batches, data["valid"].whole(), config)[-1]
    row = {"model": kind, "learning_rate": learning_rate, "valid_loss": last["valid_loss"]}
    row |= {"step_size": step_size} if kind == "ebt" else {}
    print(row, flush=True)
    return row | {"seconds": round(last["seconds"], 1)}


def best(rows):
    return min(rows, key=lambda row: row["valid_loss"])


def tune_ebt(figure, step_size, others):
    rows = [trial("ebt", rate, step_size, figure) for rate in RATES]
    return rows + [trial("ebt", best(rows)["learning_rate"], other, figure) for other in others]


def tune_transformer(figure):
    rows = [trial("transformer", rate, 1.0, figure) for rate in RATES]
    rate = best(rows)["learning_rate"]
    return rows + [trial("transformer", rate * factor, 1.0, figure) for factor in (0.7, 1.4)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step-sizes", type=float, nargs=3, default=(10.0, 5.0, 20.0))
    parser.add_argument("--only", choices=("transformer", "ebt"), help="keep the trials of the other on file")
    asked = parser.parse_args()
    first, *others = asked.step_sizes
    config = settings.load()
    path = config.figures / "next_frame" / "tuning.json"
    figure = parameter_defaults(config.notebooks / "figures" / "next_frame.ipynb")
    tune = {"transformer": lambda: tune_transformer(figure), "ebt": lambda: tune_ebt(figure, first, others)}
    kept = json.loads(path.read_text())["trials"] if asked.only else []
    rows = {kind: [row for row in kept if row["model"] == kind] for kind in tune}
    rows |= {kind: make() for kind, make in tune.items() if asked.only in (None, kind)}
    trials = [row for kind in tune for row in rows[kind]]
    used = sorted(dataclasses.asdict(training.OptimiserConfig()).keys() & figure.keys())
    write_json(
        path,
        {
            "seed": SEED,
            "settings": {name: figure[name] for name in used},
            "trials": trials,
            "chosen": {kind: best(rows[kind]) for kind in tune},
            "seconds": sum(row["seconds"] for row in trials),
        },
    )


if __name__ == "__main__":
    main()
