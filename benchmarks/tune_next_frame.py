"""Choose learning rates and step size of the next-frame figure: `python -m benchmarks.tune_next_frame`.

Each model gets five trials on the validation split, of one seed that the figure doesn't use: three
learning rates, then two more. For the EBT these are step sizes, for the Transformer++ learning rates on
either side of its best. The trials and what they cost go to figures/next_frame/tuning.json, and from there
into the manifest.
"""

import argparse
import dataclasses
import json

from ebwm import settings
from ebwm.data.tasks import ClipsConfig, load_data
from ebwm.figures import parameter_defaults
from ebwm.files import write_json
from ebwm.training.configuration import OptimiserConfig

from .tuning import SEED, best, trial

RATES = (2e-3, 4e-3, 8e-3)


def clips_of(figure):
    """The figure's training and validation clips."""
    counts = {name: figure[name] for name in ("train_clips", "eval_clips")}
    return load_data(ClipsConfig(**counts))


def tune_ebt(step_size, others, *setting):
    rows = [trial("ebt", rate, step_size, *setting) for rate in RATES]
    return rows + [trial("ebt", best(rows)["learning_rate"], other, *setting) for other in others]


def tune_transformer(*setting):
    rows = [trial("transformer", rate, 1.0, *setting) for rate in RATES]
    rate = best(rows)["learning_rate"]
    return rows + [trial("transformer", rate * factor, 1.0, *setting) for factor in (0.7, 1.4)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step-sizes", type=float, nargs=3, default=(10.0, 5.0, 20.0))
    parser.add_argument("--only", choices=("transformer", "ebt"), help="keep the trials of the other on file")
    asked = parser.parse_args()
    first, *others = asked.step_sizes
    config = settings.load()
    path = config.figures / "next_frame" / "tuning.json"
    figure = parameter_defaults(config.notebooks / "figures" / "next_frame.ipynb")
    setting = figure, clips_of(figure), figure["updates"]
    tune = {"transformer": lambda: tune_transformer(*setting),
            "ebt": lambda: tune_ebt(first, others, *setting)}
    kept = json.loads(path.read_text())["trials"] if asked.only else []
    rows = {kind: [row for row in kept if row["model"] == kind] for kind in tune}
    rows |= {kind: make() for kind, make in tune.items() if asked.only in (None, kind)}
    trials = [row for kind in tune for row in rows[kind]]
    used = sorted(dataclasses.asdict(OptimiserConfig()).keys() & figure.keys())
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
