"""Choose learning rates and step size of the facets figure: `python -m benchmarks.tune_facets`.

Each of the four models gets seven trials on the validation clips, of one seed that the figure doesn't use:
three learning rates, then four more. For the EBT these are step sizes, for the others learning rates around
their best. A trial is shorter than a run of the figure: `--updates`. The trials and what they cost go
to figures/facets/tuning.json, and from there into the manifest.
"""

import argparse

from ebwm import settings
from ebwm.figures import parameter_defaults
from ebwm.files import write_json

from .tuning import SEED, best, forking_clips, trial

KINDS = ("ebt", "transformer", "gru", "diffusion")
RATES = (2e-3, 4e-3, 8e-3)
STEP_SIZES = (10.0, 5.0, 20.0, 2.5, 1.25)
FACTORS = (0.7, 1.4, 2.0, 2.8)


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
    data = forking_clips(figure)
    trials = {kind: tune(kind, figure, data, updates) for kind in KINDS}
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
