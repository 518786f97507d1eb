"""Cost of EBT-Policy beside cloning and diffusion, on one trunk: `python -m benchmarks.policies`.

A prediction is that of a single observation: cloning in one pass, EBT-Policy in two steps, diffusion in 100. It is the
mean of three in a row, as of a policy that acts alone. A training step is that of a batch, up to the gradients, of a
walk whose gradient goes through its last step. All run interleaved in one process on one thread, and the fastest round
counts: memory that the system takes back between rounds slows single ones. Results are in
figures/benchmarks/policies.json and policies.md.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks.reports import arguments, report_shapes
from ebwm.evaluation.cost import flops, seconds
from ebwm.policy.predictors import Predictor, make_predictor
from ebwm.policy.trunks import ChunkShape
from ebwm.policy.walk import PolicyWalk
from ebwm.settings import generator

STATE, ACTION, LEVELS = 39, 4, 100  # numbers of a state and of an action, as in Meta-World; steps of diffusion
BATCH = 64  # windows of a training step
IN_A_ROW = 3  # predictions
WALK = PolicyWalk(least=2, most=2, step_size=1.0)


class Shape(NamedTuple):
    """Sizes of a comparison."""

    trunk: str
    dim: int
    depth: int


SHAPES = Shape("mlp", 128, 3), Shape("transformer", 128, 3), Shape("transformer", 256, 8)
SMALL = (Shape("mlp", 16, 1),)


def predictors(shape: Shape) -> dict[str, Predictor]:
    """Untrained policies with the same trunk."""
    sizes = ChunkShape(state_dim=STATE, action_dim=ACTION, dim=shape.dim, depth=shape.depth, trunk=shape.trunk)
    make = lambda kind, **settings: make_predictor(kind, sizes, generator(0, "weights"), **settings)
    return {"cloning": make("cloning"), "EBT-Policy": make("ebt", walk=WALK), "diffusion": make("diffusion")}


def measured(shape: Shape, rounds: int) -> dict[str, Any]:
    """Seconds of a prediction, and seconds and FLOPs of a training step, by policy."""
    found, draw = predictors(shape), generator(0, "data")
    sizes = found["cloning"].model.shape
    context = {"state": torch.randn(BATCH, sizes.observe, STATE, generator=draw)}
    target = torch.rand(BATCH, sizes.predict, ACTION, generator=draw) * 2 - 1
    single = {name: part[:1] for name, part in context.items()}
    noise = generator(0, "noise")
    steps = {"cloning": None, "EBT-Policy": WALK.most, "diffusion": LEVELS}
    predict: dict[str, Callable[[], Any]] = {
        name: lambda one=one, count=steps[name]: [one.predict(single, noise, count) for _ in range(IN_A_ROW)]
        for name, one in found.items()}
    train: dict[str, Callable[[], Any]] = {
        name: lambda one=one: one.loss(context, target, noise).backward() for name, one in found.items()}
    times = {"prediction": seconds(predict, rounds), "training": seconds(train, rounds)}
    return {"shape": shape._asdict(), "training_flops": {name: flops(step).total for name, step in train.items()},
            **{name: {kind: timing._asdict() for kind, timing in part.items()} for name, part in times.items()}}


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    machine, rounds = result["machine"], result["rounds"]
    about = (f"{machine['processor']}, {machine['threads']} thread(s), torch {machine['torch']}. The fastest of "
             f"{rounds} rounds. EBT-Policy is trained and run with {WALK.most} steps, diffusion predicts in {LEVELS}; "
             f"a training step has {BATCH} windows.")
    lines = [about, "",
             "| trunk | width | layers | cloning, ms | EBT-Policy, ms | diffusion, ms | diffusion over EBT-Policy "
             "| training: EBT-Policy over cloning, time | FLOPs |", "| --- " * 9 + "|"]
    for case in result["cases"]:
        took, counted = case["prediction"], case["training_flops"]
        times = {name: timing["low"] for name, timing in took.items()}
        trained = {name: timing["low"] for name, timing in case["training"].items()}
        cells = [*case["shape"].values(), *(f"{1000 * value / IN_A_ROW:.2f}" for value in times.values())]
        cells += [f"{times['diffusion'] / times['EBT-Policy']:.1f}",
                  f"{trained['EBT-Policy'] / trained['cloning']:.2f}",
                  f"{counted['EBT-Policy'] / counted['cloning']:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    given = arguments("policies", __doc__.splitlines()[0], 11, "each policy", "a tiny model")
    report_shapes(given, "policies", SMALL if given.size == "smoke" else SHAPES, measured, table)


if __name__ == "__main__":
    main()
