"""Choose the settings of the figures of text: `python -m benchmarks.tune_text`.

Four ways to learn the embedded text get seven trials each on validation windows, with a seed that no
figure uses. An EBT gets five step sizes and then two more learning rates: by S1 with the update of the
authors' code and with that of their paper, whose step sizes have to be larger by about the number of tokens,
and by S2, whose noise is 3 on logits, as in the authors' runs. The Transformer++ has no step size and gets
seven learning rates. Trials and what they cost go to figures/text_scaling/tuning.json; all figures of text
read it.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ebwm import settings, training
from ebwm.files import write_json

from .tuning import SEED, best

FIGURE = dict(tokenizer="train:1024", length=64, dim=64, depth=2, heads=4, batch=8, updates=400,
              eval_windows=200)
RATE = 6e-3  # of the trials of step sizes
SEARCHES = {
    "transformer": dict(rates=(1.5e-3, 3e-3, 6e-3, 9e-3, 12e-3, 18e-3, 24e-3)),
    "s1": dict(step_sizes=(2.0, 6.0, 20.0, 60.0, 200.0), factors=(0.5, 2.0)),
    "paper": dict(step_sizes=(500.0, 2e3, 8e3, 3.2e4, 1.28e5), factors=(0.5, 2.0)),
    "s2": dict(step_sizes=(0.5, 1.5, 5.0, 15.0, 50.0), factors=(0.5, 2.0)),
}


def configuration(name, learning_rate, step_size, figure, seed=SEED):
    """A run of one of the four ways."""
    shape = {key: figure[key] for key in ("dim", "depth", "heads")}
    kind = "transformer" if name == "transformer" else "ebt"
    update = "paper" if name == "paper" else "code"
    model = training.ModelConfig(kind, **shape, step_size=step_size, update=update)
    recipe, multiplier = training.RecipeConfig(), 3.0
    if name == "s2":
        recipe, multiplier = training.RecipeConfig("s2", most=3, unroll=1, noise=3.0), 0.0
    updates = figure["updates"]
    optimiser = training.OptimiserConfig(updates, figure["batch"], learning_rate, warmup=updates // 10,
                                         step_size_multiplier=multiplier)
    data = training.TextConfig(**{key: figure[key] for key in ("tokenizer", "length", "eval_windows")})
    return training.Config(model, data, optimiser, seed, eval_every=updates, recipe=recipe)


def trial(name, learning_rate, step_size, figure):
    """Train once: the validation loss of the final weights, None where it broke down."""
    config = configuration(name, learning_rate, step_size, figure)
    data = training.load_data(config.data)
    states = training.states_of(data["train"])
    learner = training.make_learner(config.model, states, SEED, config.recipe)
    row = {"model": name, "learning_rate": learning_rate}
    row |= {} if name == "transformer" else {"step_size": step_size}
    batches = training.batches_of(data["train"], figure["batch"], SEED)
    try:
        last = training.fit(learner, batches, data["valid"].whole(figure["eval_windows"]), config)[-1]
        row |= {"valid_loss": last["valid_loss"], "seconds": round(last["seconds"], 1)}
    except FloatingPointError:
        row |= {"valid_loss": None, "seconds": 0.0}
    print(row, flush=True)
    return row


def search(name, figure):
    """All trials of one way to learn."""
    wanted = SEARCHES[name]
    if name == "transformer":
        return [trial(name, rate, 1.0, figure) for rate in wanted["rates"]]
    rows = [trial(name, RATE, step_size, figure) for step_size in wanted["step_sizes"]]
    chosen = best(rows)["step_size"]
    return rows + [trial(name, RATE * factor, chosen, figure) for factor in wanted["factors"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="searches that go on side by side")
    training.load_data(configuration("s1", RATE, 1.0, FIGURE).data)
    with ProcessPoolExecutor(parser.parse_args().jobs) as pool:
        pending = {name: pool.submit(search, name, FIGURE) for name in SEARCHES}
        found = {name: rows.result() for name, rows in pending.items()}
    trials = [row for rows in found.values() for row in rows]
    write_json(
        Path(settings.load().figures) / "text_scaling" / "tuning.json",
        {
            "seed": SEED,
            "settings": FIGURE,
            "trials": trials,
            "chosen": {name: best(rows) for name, rows in found.items()},
            "seconds": sum(row["seconds"] for row in trials),
        },
    )


if __name__ == "__main__":
    main()
