"""Choose the settings of a figure that compares recipes: `python -m benchmarks.tune_recipes objectives`.

A trial runs the figure's own notebook as far as its work begins, with other parameters, and scores one
training on the validation clips, with a seed that the figure doesn't use. For `objectives` each recipe gets
five trials, three learning rates and then two more values of its own knob, at the widest state of scale
`cpu`; for `ablation` the full recipe S2 gets five, three learning rates and then two more standard
deviations of Langevin noise, and all variants share what it chose; for `thinking` S1, S2 and the
Transformer++ get five each, of learning rates and step sizes, scored by the mean over two seeds. The trials
and what they cost go to figures/ID/tuning.json, and from there into the manifest.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm.std import tqdm

from ebwm import settings
from ebwm.figures import parameter_defaults
from ebwm.files import write_json

from .tuning import SEED, best


class Search(NamedTuple):
    """What is tried for one recipe: learning rates, then more values of a knob, or more rates."""

    score: Callable  # (recipe, the notebook's names) -> validation loss
    rate: str  # name of the learning rate
    rates: tuple[float, ...]
    knob: str | None = None  # its name; None: the learning rate again
    values: tuple[float, ...] = (1.0, 0.7, 1.4)  # of the knob, the first for all rates; or factors of a rate


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


def score_objective(recipe, names):
    """Validation loss of one recipe at the widest state, walked in the best of the ways that are tried."""
    data = names["data_of"](max(names["state_dims"]))
    model, _ = names["train"](recipe, data, SEED)
    valid = data["valid"].whole(names["choice_clips"])
    return float(names["choices"](recipe, model, valid, SEED).valid_loss.min())


def score_ablation(recipe, names):
    """Validation loss of the full recipe at its trained number of steps."""
    _, log = names["train"](recipe, SEED)
    return float(log.valid_loss.dropna().iloc[-1])


def score_thinking(recipe, names):
    """Mean validation loss at the trained number of steps over two seeds; some settings fail for one."""
    bar = tqdm(disable=True)
    losses = [names["train"](recipe, seed, bar)[1]["valid_loss"] for seed in (SEED, SEED + 1)]
    return sum(losses) / len(losses)


OBJECTIVES = {
    "reconstruction": ("step_size", (3.0, 1.0, 10.0)),
    "contrastive": ("chain_step_contrastive", (0.03, 0.003, 0.3)),
    "persistent": ("chain_step_persistent", (0.03, 0.003, 0.3)),
    "score": ("std", (0.5, 0.25, 1.0)),
}
THINKING = {
    "s1": ("step_size_s1", (3.0, 1.0, 10.0)),
    "s2": ("step_size_s2", (1.0, 0.3, 3.0)),
    "transformer": (),
}
RATES = (6e-3, 2e-3, 18e-3)


def searches(score, rates, knobs):
    """A search for each recipe, whose learning rate has its name."""
    return {recipe: Search(score, f"learning_rate_{recipe}", rates, *knob) for recipe, knob in knobs.items()}


SEARCHES = {
    "objectives": searches(score_objective, RATES, OBJECTIVES),
    "ablation": {"s2": Search(score_ablation, "learning_rate", RATES, "noise", (0.1, 0.03, 0.3))},
    "thinking": searches(score_thinking, (8e-3, 4e-3, 16e-3), THINKING),
}


def trial(id, recipe, score, changes):
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        names = names_of(id, changes | {"out": out})
        try:
            loss = score(recipe, names)
        except FloatingPointError:
            loss = None
    row = {"recipe": recipe, **changes, "valid_loss": loss, "seconds": round(time.perf_counter() - began, 1)}
    print(row, flush=True)
    return row


def tune(id, recipe):
    """All trials of one recipe."""
    score, rate, rates, knob, (first, *others) = SEARCHES[id][recipe]
    at = lambda value, other: {rate: value * other} if knob is None else {rate: value, knob: other}
    rows = [trial(id, recipe, score, at(value, first)) for value in rates]
    chosen = best(rows)[rate]
    return rows + [trial(id, recipe, score, at(chosen, other)) for other in others]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("id", choices=tuple(SEARCHES))
    parser.add_argument("--jobs", type=int, default=2, help="recipes that are tuned side by side")
    given = parser.parse_args()
    id, config = given.id, settings.load()
    with ProcessPoolExecutor(given.jobs) as pool:
        pending = {recipe: pool.submit(tune, id, recipe) for recipe in SEARCHES[id]}
        found = {recipe: rows.result() for recipe, rows in pending.items()}
    trials = [row for rows in found.values() for row in rows]
    defaults = parameter_defaults(config.notebooks / "figures" / f"{id}.ipynb")
    tuned = {name for row in trials for name in row} | {"scale", "seeds", "out"}
    write_json(
        Path(config.figures) / id / "tuning.json",
        {
            "seed": SEED,
            "settings": {name: value for name, value in defaults.items() if name not in tuned},
            "trials": trials,
            "chosen": {recipe: best(rows) for recipe, rows in found.items()},
            "seconds": sum(row["seconds"] for row in trials),
        },
    )


if __name__ == "__main__":
    main()
