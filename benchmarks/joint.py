"""Cost of a training step of a `DenoisingEBT` beside its one-pass twin: `python -m benchmarks.joint`.

Both have the same layers and inputs, and run interleaved in one process on one thread. The overhead is the ratio of
their times divided by the ratio of their FLOPs: 1 would be a step that costs no more than its arithmetic. Results are
in figures/benchmarks/joint.json and joint.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.reports import arguments, report_shapes
from ebwm.denoising import Denoiser, DenoisingEBT
from ebwm.evaluation.cost import flops, seconds
from ebwm.objective import S1
from ebwm.settings import generator
from ebwm.walk import Walk

FEATURES = 48  # of a patch: 4 x 4 pixels of three colours


class Shape(NamedTuple):
    """Sizes of a comparison."""

    batch: int
    rows: int  # patches of an image
    dim: int
    depth: int
    heads: int
    steps: int  # of a training walk


SHAPES = (Shape(32, 64, 64, 2, 2, 1), Shape(32, 64, 192, 3, 3, 1), Shape(16, 64, 384, 6, 6, 1),
          Shape(16, 64, 384, 6, 6, 2))
SMALL = (Shape(2, 4, 16, 1, 2, 1),)


def training_steps(shape: Shape) -> dict[str, Callable[[], None]]:
    """A training step of each model, up to the gradients, on the same noisy images."""
    sizes = {"dim": shape.dim, "depth": shape.depth, "heads": shape.heads, "candidate_dim": FEATURES}
    one_pass = Denoiser(**sizes, generator=generator(0, "weights"))
    ebt = DenoisingEBT(**sizes, rows=shape.rows, step_size=1.0, generator=generator(0, "weights"))
    noisy, clean = torch.randn(2, shape.batch, shape.rows, FEATURES, generator=generator(0, "data"))
    recipe, noise = S1(Walk(shape.steps, "last")), generator(0, "walk")
    return {"one pass": lambda: F.smooth_l1_loss(one_pass(noisy), clean).backward(),
            "EBT": lambda: recipe(ebt, noisy, clean, generator=noise).backward()}


def measured(shape: Shape, rounds: int) -> dict:
    """Seconds and FLOPs of both models, and the overhead."""
    steps = training_steps(shape)
    counted = {name: flops(step).total for name, step in steps.items()}
    times = seconds(steps, rounds)
    floor = counted["EBT"] / counted["one pass"]
    return {"shape": shape._asdict(), "flops": counted, "seconds": {name: t._asdict() for name, t in times.items()},
            "floor": floor, "overhead": times["EBT"].ratio / floor}


def table(result: dict) -> str:
    """The results in Markdown."""
    machine, rounds = result["machine"], result["rounds"]
    lines = [f"{machine['processor']}, {machine['threads']} thread(s), torch {machine['torch']}. Medians of {rounds} "
             "rounds; the overhead is the ratio of times divided by the ratio of FLOPs.", "",
             "| batch | patches | width | layers | steps | one pass, ms | EBT, ms | ratio of FLOPs | overhead |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for case in result["cases"]:
        shape, times = case["shape"], case["seconds"]
        cells = [shape[name] for name in ("batch", "rows", "dim", "depth", "steps")]
        cells += [f"{1000 * times[name]['median']:.1f}" for name in ("one pass", "EBT")]
        cells += [f"{case['floor']:.2f}", f"{case['overhead']:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    given = arguments("joint", __doc__.splitlines()[0], 11, "each model", "tiny models")
    report_shapes(given, "joint", SMALL if given.size == "smoke" else SHAPES, measured, table)


if __name__ == "__main__":
    main()
