"""Choose learning rates and step size of the uncertainty figure: `python -m benchmarks.tune_uncertainty`.

Each model gets five trials on the validation split, of one seed that the figure doesn't use, each of half
the figure's updates: three learning rates, then two more. For the EBT these are step sizes, for the others
learning rates on either side of their best. The score is the SmoothL1 of predictions (for the diffusion
transformer, of its denoising in one step). The trials and what they cost go to
figures/uncertainty/tuning.json, and from there into the manifest.
"""

import dataclasses

from ebwm import settings
from ebwm.figures import parameter_defaults
from ebwm.files import write_json
from ebwm.training.configuration import OptimiserConfig

from .tuning import SEED, best, forking_clips, trial

RATES = (4e-3, 8e-3, 1.6e-2)
STEP_SIZES = (3.0, 1.0, 10.0)


def tune(kind, figure, data):
    setting = figure, data, figure["updates"] // 2
    rows = [trial(kind, rate, STEP_SIZES[0], *setting) for rate in RATES]
    rate = best(rows)["learning_rate"]
    more = [(rate, size) for size in STEP_SIZES[1:]]
    if kind != "ebt":
        more = [(rate * factor, STEP_SIZES[0]) for factor in (0.7, 1.4)]
    return rows + [trial(kind, *values, *setting) for values in more]


def main():
    config = settings.load()
    figure = parameter_defaults(config.notebooks / "figures" / "uncertainty.ipynb")
    data = forking_clips(figure)
    trials = {kind: tune(kind, figure, data) for kind in ("transformer", "ebt", "diffusion")}
    rows = [row for found in trials.values() for row in found]
    asked = dataclasses.asdict(OptimiserConfig()).keys() & figure.keys()
    settings_used = {name: figure[name] for name in sorted(asked)} | {"updates": figure["updates"] // 2}
    chosen = {kind: best(found) for kind, found in trials.items()}
    seconds = sum(row["seconds"] for row in rows)
    write_json(
        config.figures / "uncertainty" / "tuning.json",
        {"seed": SEED, "settings": settings_used, "trials": rows, "chosen": chosen, "seconds": seconds},
    )


if __name__ == "__main__":
    main()
