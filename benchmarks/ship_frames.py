"""Make the small models of frames in ebwm/models: `python -m benchmarks.ship_frames`, or only of some sources.

For each source of clips, an EBT and a Transformer++ are trained on the same clips, or found among the runs and resumed
if necessary. Each is scored on the test split with its weights in half precision, as they are shipped: the EBT by its
number of sampling steps. Both are shipped with configuration, a thinned log and a card, unless the error of the EBT is
above a share of that of repeating the last frame, or rises again when it takes twice the steps of training. The share
is a half, and for the camera, whose frames differ little from one to the next, one.
"""

import argparse
import json
import platform

import torch

from benchmarks.ship_text import is_of, rounded, thinned
from ebwm import settings
from ebwm.data.games import episodes, probes
from ebwm.data.sources import CameraClips
from ebwm.data.tasks import load_task
from ebwm.files import write_json, write_whole
from ebwm.objective import smooth_l1
from ebwm.saving import save_tensors
from ebwm.settings import generator
from ebwm.states import states_of
from ebwm.thinking import predict
from ebwm.training import history as runs
from ebwm.training.learner import load_run
from ebwm.training.presets import load_config
from ebwm.training.run import resume, train
from ebwm.writing import INCLUDED

COMMON = ("model.dim=128", "data.frames=8", "optimiser.updates=1600", "optimiser.batch=16", "eval_every=400",
          "run.logger=none")
EBT = ("model.candidates=latent", "recipe.name=s2", "recipe.most=6", "walk.steps=4", "walk.step_size=3.47")
TRANSFORMER = ("model.kind=transformer",)
SOURCES = {  # preset, and what differs from it
    "digits": ("next_frame", "model.depth=3", "optimiser.learning_rate=0.002"),
    "game": ("game-xxs", "data.game=push:7", "data.encoder=pixels", "data.size=none", "model.depth=3",
             "optimiser.learning_rate=0.004", "walk.start=noise", "data.train_episodes=4096"),
    "camera": ("features-xxs", "model.depth=3", "model.heads=4", "optimiser.learning_rate=0.002", "walk.start=noise",
               "data.encoder=pixels", "data.size=12", "data.pan=0.25", "data.train_clips=8192", "data.eval_clips=512"),
}
SHARES = {"camera": 1.0}  # of the error of repeating the last frame, if not a half
MOVEMENTS = 256  # of the camera over photographs of training, and over others
BRANCHED = 64  # test episodes of a game that are continued by every action
STEPS, KNOWN = (1, 2, 3, 4, 5, 6, 7, 8), 2  # evaluated numbers of steps; frames that show how the digit moves


def finished(config, folder):
    """The run of a configuration: an existing one, resumed if necessary, or a new one."""
    for path in runs.known(folder):
        if is_of(path, config):
            return path if (path / "result.json").is_file() else resume(path)
    return train(config, folder)


def scored(folder):
    """SmoothL1 of the test split with rounded weights, from the third frame on.

    For a game also after every action. For a camera of new movements over the photographs of training, and over others.
    """
    learner, task, config = load_run(folder)
    learner.model.load_state_dict({name: value.float() for name, value in rounded(folder)[0].items()})
    learner.model.requires_grad_(False)
    score = lambda batch: errors_of(learner.model, *learner.pair(batch), KNOWN - 1, config)
    if config.data.kind == "frames":
        clips = CameraClips(config.data, config.seed, task.scales["states"], task.encoder.size, (MOVEMENTS, MOVEMENTS))
        states = torch.stack([clips[clip] for clip in range(len(clips))])
        return score(states[:MOVEMENTS]) | {"other_photographs": score(states[MOVEMENTS:])}
    found = score(unseen(task, config))
    if config.data.kind == "game":
        found["every_action"] = errors_of(learner.model, *every_action(task, config), -1, config)
    return found


def unseen(task, config):
    """The test split as a batch."""
    data, seed = config.data, config.seed
    if data.kind == "clips":
        return load_task(data, seed).items("test")
    played = episodes(data.game, "test", policy=data.policy, count=data.eval_episodes, frames=data.frames, seed=seed)
    return task.encode(played.frames), played.one_hot()


def every_action(task, config):
    """Contexts of test episodes with each action as the last, and as targets the states with the game's next frame."""
    data, seen = config.data, config.data.frames - 1
    probed = probes(data.game, policy=data.policy, count=BRANCHED, frames=seen, seed=config.seed)
    count, choices = probed.branches.shape[:2]
    states = task.encode(probed.episodes.frames).repeat_interleave(choices, 0)
    actions = probed.episodes.one_hot().repeat_interleave(choices, 0)
    actions[:, -1] = torch.eye(choices).repeat(count, 1)
    following = task.encode(probed.branches).flatten(0, 1)
    return (states, actions), torch.cat([states[:, 1:], following[:, None]], 1)


def errors_of(model, context, target, first, config):
    """Errors of predictions from a position on: of an EBT by its number of steps; and of repeating the last frame."""
    error = lambda found: float(smooth_l1(found[:, first:], target[:, first:]))
    last = {"last_frame": error(states_of(context))}
    if config.model.kind != "ebt":
        return {"loss": error(model(context))} | last
    walk = lambda steps: predict(model, context, steps, generator=generator(config.seed, "evaluation"))
    return {"loss_by_steps": {str(steps): error(walk(steps).value) for steps in STEPS}} | last


def check(name, scores, config):
    """Stop unless the EBT is better than repeating the last frame by enough, and more steps do not worsen it."""
    losses, steps = scores["loss_by_steps"], config.walk.steps
    trained, longer = losses[str(steps)], losses[str(2 * steps)]
    if trained > SHARES.get(name, 0.5) * scores["last_frame"] or longer > 1.1 * trained:
        raise SystemExit(f"{name}: SmoothL1 {trained:.3f} after {steps} steps, {longer:.3f} after {2 * steps}, and "
                         f"{scores['last_frame']:.3f} of the last frame: nothing is shipped")


def ship(source, target, card):
    """Write a run's weights in half precision, its configuration, its scale, a thinned log and a card."""
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(target / "model.safetensors", *rounded(source))
    for name in filter(lambda name: (source / name).is_file(), ("config.json", "task.json", "encoder.json")):
        write_whole(target / name, lambda draft, name=name: draft.write_bytes((source / name).read_bytes()))
    lines = "".join(json.dumps(row) + "\n" for row in thinned(source))
    write_whole(target / "log.jsonl", lambda draft: draft.write_text(lines))
    write_json(target / "card.json", card)


def ship_source(name):
    """Train, score and write the two models of a source of clips."""
    preset, *shape = SOURCES[name]
    overrides = {name: (*COMMON, *shape, *EBT), f"{name}_transformer": (*COMMON, *shape, *TRANSFORMER)}
    configs = {model: load_config(preset, changes) for model, changes in overrides.items()}
    found = {model: finished(config, settings.load().runs) for model, config in configs.items()}
    scores = {model: scored(path) for model, path in found.items()}
    check(name, scores[name], configs[name])
    for model, path in found.items():
        result = json.loads((path / "result.json").read_text())
        card = {"preset": preset, "overrides": [*overrides[model]], "seed": configs[model].seed, **scores[model],
                "data_digests": result["data_digests"], "python": platform.python_version(), "torch": torch.__version__}
        ship(path, INCLUDED / model, card)
        print(model, scores[model], flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", help=f"of {', '.join(SOURCES)}; all by default")
    sources = parser.parse_args().sources or list(SOURCES)
    if unknown := {*sources} - {*SOURCES}:
        parser.error(f"unknown {', '.join(sorted(unknown))}; known are {', '.join(SOURCES)}")
    torch.set_num_threads(1)
    for name in sources:
        ship_source(name)


if __name__ == "__main__":
    main()
