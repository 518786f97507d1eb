"""Choose learning rates and step size of the thinking figure: `python -m benchmarks.tune_thinking`.

Five trials on the validation clips for each of Transformer++, EBT by S1 and EBT by S2, of one seed that the
figure doesn't use: three learning rates, then two step sizes, or for the Transformer++ two more rates. The
trials and what they cost go to figures/thinking/tuning.json, and from there into the manifest.
"""

from ebwm import settings, training
from ebwm.baselines import Transformer
from ebwm.ebt import EBT
from ebwm.encoders import Encoded, PrincipalComponents
from ebwm.figures import parameter_defaults
from ebwm.files import write_json
from ebwm.objective import S1, S2, smooth_l1
from ebwm.video import moving_digits

RATES, STEP_SIZES, FACTORS = (4e-3, 8e-3, 1.6e-2), (1.0, 10.0), (0.7, 1.4)
SEED, KNOWN = 100, range(8)


def learner_of(kind, step_size, figure):
    weights, steps = settings.generator(SEED, "weights"), figure["train_steps"]
    shape = {name: figure[name] for name in ("dim", "depth", "heads")} | {"state_dim": figure["features"]}
    if kind == "transformer":
        model = Transformer(**shape, generator=weights)
        return training.Learner(model, lambda x, y, g: smooth_l1(model(x), y), lambda x, g: model(x))
    recipe = S1(steps) if kind == "s1" else S2(steps, steps + 1, noise=figure["noise"])
    return training.walking(EBT(**shape, step_size=step_size, generator=weights), recipe, steps)


def trial(kind, learning_rate, step_size, figure, data):
    """Train once; the validation loss of the final weights."""
    updates, batch = figure["updates"], figure["batch"]
    optimiser = training.OptimiserConfig(updates, batch, learning_rate, warmup=updates // 10)
    config = training.Config(optimiser=optimiser, seed=SEED, eval_every=updates)
    batches = data["train"].epochs(batch, settings.generator(SEED, "order"))
    row = {"model": kind, "learning_rate": learning_rate}
    row |= {} if kind == "transformer" else {"step_size": step_size}
    try:
        last = training.fit(learner_of(kind, step_size, figure), batches, data["valid"].whole(), config)[-1]
        row |= {"valid_loss": last["valid_loss"], "seconds": round(last["seconds"], 1)}
    except FloatingPointError:
        row |= {"valid_loss": float("inf"), "seconds": 0.0}
    print(row, flush=True)
    return row


def best(rows):
    return min(rows, key=lambda row: row["valid_loss"])


def tune(kind, figure, data):
    rows = [trial(kind, rate, figure["step_size"], figure, data) for rate in RATES]
    rate = best(rows)["learning_rate"]
    if kind == "transformer":
        return rows + [trial(kind, rate * factor, 1.0, figure, data) for factor in FACTORS]
    return rows + [trial(kind, rate, size, figure, data) for size in STEP_SIZES]


def main():
    config = settings.load()
    figure = parameter_defaults(config.notebooks / "figures" / "thinking.ipynb")
    clips = {"train": figure["train_clips"], "valid": figure["eval_clips"]}
    pixels = {split: moving_digits(split, clips=count, digits=KNOWN) for split, count in clips.items()}
    encoder = PrincipalComponents(pixels["train"], figure["features"])
    data = {split: Encoded(part, encoder) for split, part in pixels.items()}
    rows = {kind: tune(kind, figure, data) for kind in ("transformer", "s1", "s2")}
    trials = [row for part in rows.values() for row in part]
    write_json(config.figures / "thinking" / "tuning.json", {
        "seed": SEED, "settings": {name: figure[name] for name in ("batch", "updates")}, "trials": trials,
        "chosen": {kind: best(part) for kind, part in rows.items()},
        "seconds": sum(row["seconds"] for row in trials),
    })


if __name__ == "__main__":
    main()
