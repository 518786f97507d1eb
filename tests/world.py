"""Jobs of tests/test_distributed.py, for one process and for two."""

import contextlib
import multiprocessing
import os
import socket

import torch
from tiny_run import tensors, tiny_pairs

from ebwm import settings
from ebwm.data.task import Rows, Tokens, Vectors, select
from ebwm.saving import save_tensors
from ebwm.training.distributed import full_tensor, process_group
from ebwm.training.learner import make_learner
from ebwm.training.optimiser import fix_step_size
from ebwm.training.presets import load_config
from ebwm.training.run import Stopped, resume, train
from ebwm.training.trainer import Trainer, averaged, trainer_state

TINY = ["model.dim=16", "model.heads=2", "model.depth=1", "walk.start=last"]
TEXT = ["walk.start=zeros", "walk.step_size=2"]
# Settings without random numbers after the initial weights: results do not depend on the number of processes.
SETTINGS = {
    "vectors, accumulated": (Vectors(12), ["optimiser.accumulate=2"]),
    "vectors, autograd": (Vectors(12), ["model.gradient=eager", "recipe.stream=false"]),
    "vectors, s2": (Vectors(12), ["recipe.name=s2", "recipe.most=2", "recipe.noise=0", "recipe.spread=1",
                                  "recipe.replay=0"]),
    "vectors, average": (Vectors(12), ["optimiser.average=0.9"]),
    "tokens": (Tokens(30), TEXT),
    "tokens, autograd": (Tokens(30), [*TEXT, "model.gradient=eager"]),
    "tokens, paper's update": (Tokens(30), [*TEXT, "walk.update=paper"]),
    "tokens, transformer": (Tokens(30), [*TEXT, "model.kind=transformer"]),
    "tokens, padded": (Tokens(30, 0), [*TEXT, "optimiser.accumulate=2"]),
    "rows": (Rows(1, 4, 4), ["model.kind=joint_ebt", "walk.start=zeros"]),
    "actions": (Vectors(12, 2), []),
    "fixed step size": (Vectors(12), ["optimiser.step_size_multiplier=0"]),
}
MIXED = {name: (state, [*entries, "run.precision=bf16-mixed"])
         for name, state, entries in [("vectors", Vectors(12), []), ("tokens", Tokens(30, 0), TEXT)]}
# Runs with randomness: name and entries.
RUNS = {"actions": ["run.strategy=ddp", "data.kind=states", "recipe.name=s2", "walk.start=noise",
                    "run.precision=bf16-mixed"],
        "fsdp": ["run.strategy=fsdp", "recipe.name=s2", "walk.start=noise", "run.precision=bf16-mixed"],
        "plain": ["run.strategy=fsdp"],
        "pairs": ["run.strategy=ddp", "data.kind=pairs", "model.kind=joint_ebt", "recipe.name=s2", "walk.start=zeros"]}


def batches_for(state, dtype=torch.float64):
    """Two batches of 8 items."""
    if isinstance(state, Rows):
        context, target = (part[:8].double() for part in tiny_pairs())
        return [(context * scale, target * scale) for scale in (0.5, 2.0)]
    if isinstance(state, Tokens):
        tokens = torch.randint(30, (2, 8, 7), generator=settings.generator(0, "windows"))
        if state.ignore_index is not None:
            tokens[:, 5:, 2:] = state.ignore_index  # most targets of the second process
            tokens[0, 6:, 1:] = tokens[1, 4:, 1:] = state.ignore_index  # of its second part, of all its parts
        return [*tokens]
    states, actions = (torch.randn(2, 8, 6, size, dtype=dtype, generator=settings.generator(0, name))
                       for name, size in (("clips", 12), ("actions", 2)))
    return [*zip(states, actions, strict=True)] if state.action_dim else [*states]


def learn(state, entries, world):
    """Gradients of the first update, the state after two, and a prediction."""
    config = load_config("smoke", [*TINY, *entries])
    learner = make_learner(config.model, state, 0, config.recipe, config.walk)
    world.precision = config.run.precision
    wide = torch.float32 if world.precision == "bf16-mixed" else torch.float64  # which autocast would leave alone
    learner.model.to(wide)
    fix_step_size(learner.model, config.optimiser)
    world.setup(learner.model)
    trainer, batches, first = Trainer(learner, config, world=world), batches_for(state, wide), {}
    for batch in batches:
        size = 8 // world.size
        row = trainer.update(select(batch, slice(world.rank * size, (world.rank + 1) * size)))
        first = first or {f"gradient.{key}": full_tensor(weight.grad).clone()
                          for key, weight in learner.model.named_parameters() if weight.requires_grad}
    with averaged(trainer) as scored, torch.no_grad():
        prediction = scored.predict(scored.pair(batches[0])[0], trainer.noise)
    return first | trainer_state(trainer)[0] | {"prediction": prediction, "loss": torch.tensor(row["loss"])}


def learn_all(strategy, folder):
    with process_group(torch.device("cpu"), strategy=strategy) as world:
        for kind, chosen in {"": SETTINGS, "mixed ": MIXED}.items():
            for name, (state, entries) in chosen.items():
                tensors = learn(state, entries, world)
                if not world.rank:
                    save_tensors(folder / f"{kind}{name}.safetensors", tensors)


def train_one(name, folder, update=None):
    """A run of three updates, or a run that is stopped after some."""
    base = [*TINY, "run.logger=none", "run.save_every=1", "optimiser.updates=3"]
    config = load_config("smoke", [*base, *([] if tensors(name) else ["data.features=12"]), *RUNS[name]])
    stop = None if update is None else lambda row: row["update"] == update
    try:
        return train(config, folder, False, stop, **tensors(name))
    except Stopped:
        return folder / "001"


def resume_one(name, folder):
    return resume(folder, progress=False, **tensors(name))


def together(*jobs):
    """Run jobs, functions with their arguments, one after the other in two processes with the variables of torchrun.

    The processes are forked from one that has imported the library.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ebwm.training.run", "ebwm.joint", "lightning_fabric.strategies"])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "TORCHELASTIC_RUN_ID": "none"}  # as Fabric knows torchrun
    places = [{**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    placed = [*zip(_free_ports(len(jobs)), jobs, strict=True)]
    pair = [context.Process(target=_ranked, args=(place, placed)) for place in places]
    for process in pair:
        process.start()
    for process in pair:
        process.join(600)
        process.kill()
    assert [process.exitcode for process in pair] == [0, 0], f"a job of {jobs} failed"


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("", 0))
        return [str(free.getsockname()[1]) for free in sockets]


def _ranked(environment, jobs):
    os.environ |= environment
    torch.set_num_threads(1)
    for port, (job, *given) in jobs:
        os.environ["MASTER_PORT"] = port
        job(*given)
