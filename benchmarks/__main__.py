"""What a training step costs, as ratios in one run: `python -m benchmarks` (or `make bench`).

The EBT with two-stream attention, the EBT with dense attention and the Transformer++ take turns in one
process, on the same batch, at the shape of a video model. Printed are the medians with their range, and the
ratio to the Transformer++, whose floor for n steps is 2n + 1.
"""

import argparse
import statistics
import time

import torch

from ebwm import settings
from ebwm.baselines import Transformer
from ebwm.ebt import EBT, DenseLandscape
from ebwm.figures import cpu_model
from ebwm.objective import S1, reconstruct, smooth_l1


class DenseEBT(EBT):
    """An EBT whose landscapes use the dense reference."""

    def landscape(self, states):
        return DenseLandscape(self, states)


def seconds(step):
    began = time.perf_counter()
    step().backward()
    return time.perf_counter() - began


def contenders(shape, states, targets, steps):
    generator, noise = settings.generator(0, "weights"), settings.generator(0, "noise")
    tam = Transformer(**shape, generator=generator)
    two, dense = (kind(**shape, step_size=10.0, generator=generator) for kind in (EBT, DenseEBT))
    return {
        "Transformer++": lambda: smooth_l1(tam(states), targets),
        "EBT, two streams": lambda: reconstruct(two, states, targets, S1(steps), generator=noise),
        "EBT, dense": lambda: reconstruct(dense, states, targets, S1(steps), generator=noise),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"batch": 16, "length": 16, "dim": 384, "depth": 6, "heads": 6, "steps": 2, "runs": 7}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    shape = {"dim": given.dim, "depth": given.depth, "heads": given.heads}
    size = (2, given.batch, given.length, given.dim)
    states, targets = torch.randn(size, generator=settings.generator(0, "data"))
    steps = contenders(shape, states, targets, given.steps)
    times = {name: [] for name in steps}
    for run in range(given.runs + 1):
        for name, step in steps.items():
            took = seconds(step)
            times[name] += [took] if run else []
    base = statistics.median(times["Transformer++"])
    print(f"{cpu_model()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {given.runs} runs")
    floor = 2 * given.steps + 1
    print(f"batch {given.batch}, length {given.length}, {shape}, n = {given.steps}: floor {floor}")
    for name, values in times.items():
        median, low, high = statistics.median(values), min(values), max(values)
        print(f"{name:18} {median:7.3f} s ({low:.3f} to {high:.3f})  {median / base:5.2f} x Transformer++")


if __name__ == "__main__":
    main()
