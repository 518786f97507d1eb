"""Jobs of tests/test_distributed.py; run as a script by torchrun, and imported for a single process."""

import importlib
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import torch
from tiny_run import tensors, tiny_pairs

from ebwm import settings
from ebwm.data.task import Rows, Tokens, Vectors, select
from ebwm.files import write_whole
from ebwm.saving import save_tensors
from ebwm.training.distributed import full_tensor, process_group
from ebwm.training.learner import make_learner
from ebwm.training.presets import load_config
from ebwm.training.run import Stopped, resume, train
from ebwm.training.trainer import Trainer, averaged, trainer_state

TINY = ["model.dim=16", "model.heads=2", "model.depth=2", "walk.start=last"]
TEXT = ["walk.start=zeros", "walk.step_size=2"]
# Settings without random numbers after the initial weights: results do not depend on the number of processes.
SETTINGS = {
    "vectors, s1": (Vectors(12), []),
    "vectors, accumulated": (Vectors(12), ["optimiser.accumulate=2"]),
    "vectors, autograd": (Vectors(12), ["model.gradient=eager", "recipe.stream=false"]),
    "vectors, s2": (Vectors(12), ["recipe.name=s2", "recipe.most=2", "recipe.noise=0", "recipe.spread=1",
                                  "recipe.replay=0"]),
    "vectors, average": (Vectors(12), ["optimiser.average=0.9"]),
    "tokens": (Tokens(30), TEXT),
    "tokens, autograd": (Tokens(30), [*TEXT, "model.gradient=eager"]),
    "tokens, paper's update": (Tokens(30), [*TEXT, "walk.update=paper"]),
    "tokens, transformer": (Tokens(30), [*TEXT, "model.kind=transformer"]),
    "rows": (Rows(1, 4, 4), ["model.kind=joint_ebt"]),
    "actions": (Vectors(12, 2), []),
}
# Runs with randomness: name and entries.
RUNS = {"actions": ["run.strategy=ddp", "data.kind=states", "recipe.name=s2", "walk.start=noise"],
        "fsdp": ["run.strategy=fsdp", "recipe.name=s2", "walk.start=noise"],
        "plain": ["run.strategy=fsdp"],
        "pairs": ["run.strategy=ddp", "data.kind=pairs", "model.kind=joint_ebt", "recipe.name=s2"]}


def batches_for(state):
    """Three batches of 8 items."""
    if isinstance(state, Rows):
        context, target = (part[:8].double() for part in tiny_pairs())
        return [(context * scale, target * scale) for scale in (1.0, 0.5, 2.0)]
    if isinstance(state, Tokens):
        return [*torch.randint(30, (3, 8, 7), generator=settings.generator(0, "windows"))]
    states, actions = (torch.randn(3, 8, 6, size, dtype=torch.float64, generator=settings.generator(0, name))
                       for name, size in (("clips", 12), ("actions", 2)))
    return [*zip(states, actions, strict=True)] if state.action_dim else [*states]


def learn(name, world):
    """Gradients of the first update, the state after three, and a prediction."""
    state, entries = SETTINGS[name]
    config = load_config("smoke", [*TINY, *entries])
    learner = make_learner(config.model, state, 0, config.recipe, config.walk)
    learner.model.double()
    world.setup(learner.model)
    trainer, batches, first = Trainer(learner, config, world=world), batches_for(state), {}
    for batch in batches:
        size = 8 // world.size
        row = trainer.update(select(batch, slice(world.rank * size, (world.rank + 1) * size)))
        first = first or {f"gradient.{key}": full_tensor(weight.grad).clone()
                          for key, weight in learner.model.named_parameters()}
    with averaged(trainer) as scored, torch.no_grad():
        prediction = scored.predict(scored.pair(batches[0])[0], trainer.noise)
    return first | trainer_state(trainer)[0] | {"prediction": prediction, "loss": torch.tensor(row["loss"])}


def learn_all(strategy, folder):
    with process_group(torch.device("cpu"), strategy=strategy) as world:
        for name in SETTINGS:
            tensors = learn(name, world)
            if not world.rank:
                save_tensors(folder / f"{name}.safetensors", tensors)


def train_one(name, folder, update=None):
    """A run of four updates, or a run that is stopped after some."""
    base = [*TINY, "run.logger=none", "run.save_every=1", "run.keep=9", "optimiser.updates=4"]
    config = load_config("smoke", [*base, *([] if tensors(name) else ["data.features=12"]), *RUNS[name]])
    stop = None if update is None else lambda row: row["update"] == update
    try:
        return train(config, folder, False, stop, **tensors(name))
    except Stopped:
        return folder / "001"


def resume_one(name, folder):
    return resume(folder, progress=False, **tensors(name))


def main(folder):
    """All jobs of several processes, each in a forked child, with a process group at a free port."""
    torch.set_num_threads(1)
    importlib.import_module("lightning_fabric.strategies")  # once, and not in each child
    jobs = [(learn_all, strategy, folder / strategy) for strategy in ("ddp", "fsdp")]
    for name in RUNS:
        jobs += [(train_one, name, folder / "whole" / name), (train_one, name, folder / "parts" / name, 2)]
        if name != "plain":
            jobs.append((resume_one, name, folder / "parts" / name / "001"))
    for number, (job, *given) in enumerate([*jobs, (resume_one, "plain", folder / "one" / "parts" / "001")]):
        port = free_port(folder / f"port-{number}")
        os.environ |= {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "False"}
        child = multiprocessing.get_context("fork").Process(target=job, args=given)
        child.start()
        child.join()
        assert child.exitcode == 0, f"{job.__name__}{tuple(given)} failed"


def free_port(file):
    """A port that the first process chooses and writes to a file."""
    if os.environ["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            write_whole(file, lambda draft: draft.write_text(str(free.getsockname()[1])))
    while not file.is_file():
        time.sleep(0.01)
    return file.read_text()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
