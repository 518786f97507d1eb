"""Make the small models of moving digits in ebwm/models: `python -m benchmarks.ship_frames`.

An EBT and a Transformer++ are trained on the same clips, or found among the runs and resumed if necessary.
Each is scored on the test split with its weights in half precision, as they are shipped: the EBT by its number
of sampling steps. Both are shipped with configuration, a thinned log and a card, unless the error of the EBT
is above half of that of repeating the last frame, or rises again when it takes twice the steps of training.
"""

import argparse
import json
import platform

import torch

from benchmarks.ship_text import is_of, rounded, thinned
from ebwm import settings
from ebwm.data.tasks import load_task
from ebwm.files import write_json, write_whole
from ebwm.objective import smooth_l1
from ebwm.saving import save_tensors
from ebwm.settings import generator
from ebwm.thinking import predict
from ebwm.training import history as runs
from ebwm.training.learner import load_run
from ebwm.training.presets import load_config
from ebwm.training.run import resume, train
from ebwm.writing import INCLUDED

PRESET = "next_frame"
SHAPE = ("model.dim=128", "model.depth=3", "data.frames=8", "optimiser.updates=1600", "optimiser.batch=16",
         "optimiser.learning_rate=0.002", "eval_every=400", "run.logger=none")
SHIPPED = {
    "digits": (*SHAPE, "model.candidates=latent", "recipe.name=s2", "recipe.most=6",
               "walk.steps=4", "walk.step_size=3.47"),
    "digits_transformer": (*SHAPE, "model.kind=transformer"),
}
STEPS, KNOWN = (1, 2, 3, 4, 5, 6, 7, 8), 2  # evaluated numbers of steps; frames that show how the digit moves


def finished(config, folder):
    """The run of a configuration: an existing one, resumed if necessary, or a new one."""
    for path in runs.known(folder):
        if is_of(path, config):
            return path if (path / "result.json").is_file() else resume(path)
    return train(config, folder)


def scored(folder):
    """SmoothL1 on the test split with the rounded weights, by number of steps, from the third frame on."""
    learner, _, config = load_run(folder)
    learner.model.load_state_dict({name: value.float() for name, value in rounded(folder)[0].items()})
    context, target = learner.pair(load_task(config.data, config.seed).items("test"))
    error = lambda found: float(smooth_l1(found[:, KNOWN - 1:], target[:, KNOWN - 1:]))
    if config.model.kind != "ebt":
        with torch.no_grad():
            return {"loss": error(learner.model(context)), "last_frame": error(context)}
    walk = lambda steps: predict(learner.model, context, steps, generator=generator(config.seed, "evaluation"))
    return {"loss_by_steps": {str(steps): error(walk(steps).value) for steps in STEPS}, "last_frame": error(context)}


def check(scores, config):
    """Stop unless the EBT is far better than repeating the last frame, and more steps do not worsen it."""
    losses, steps = scores["loss_by_steps"], config.walk.steps
    trained, longer = losses[str(steps)], losses[str(2 * steps)]
    if trained > 0.5 * scores["last_frame"] or longer > 1.1 * trained:
        raise SystemExit(f"digits: SmoothL1 {trained:.3f} after {steps} steps, {longer:.3f} after {2 * steps}, and "
                         f"{scores['last_frame']:.3f} of the last frame: nothing is shipped")


def ship(source, target, card):
    """Write a run's weights in half precision, its configuration, a thinned log and a card."""
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(target / "model.safetensors", *rounded(source))
    write_whole(target / "config.json", lambda draft: draft.write_bytes((source / "config.json").read_bytes()))
    lines = "".join(json.dumps(row) + "\n" for row in thinned(source))
    write_whole(target / "log.jsonl", lambda draft: draft.write_text(lines))
    write_json(target / "card.json", card)


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    configs = {name: load_config(PRESET, overrides) for name, overrides in SHIPPED.items()}
    found = {name: finished(config, settings.load().runs) for name, config in configs.items()}
    scores = {name: scored(path) for name, path in found.items()}
    check(scores["digits"], configs["digits"])
    for name, path in found.items():
        result = json.loads((path / "result.json").read_text())
        card = {"preset": PRESET, "overrides": [*SHIPPED[name]], "seed": configs[name].seed, **scores[name],
                "data_digests": result["data_digests"], "python": platform.python_version(), "torch": torch.__version__}
        ship(path, INCLUDED / name, card)
        print(name, scores[name], flush=True)


if __name__ == "__main__":
    main()
