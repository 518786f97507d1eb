"""What a training step costs, as ratios in one run: `python -m benchmarks` (or `make bench`).

The EBT with two-stream attention, the EBT with dense attention and the Transformer++ take turns in one
process, on the same batch, at the shape of a video model. Printed are the medians with their range, and the
ratios to the Transformer++ of seconds and of FLOPs; the layers' products alone should take the last number.
"""

import argparse

import torch

from ebwm import settings
from ebwm.baselines import Transformer
from ebwm.cost import (
    Shape,
    cpu_model,
    dense_training,
    ebt_training,
    flops,
    peak_gpu_memory,
    seconds,
    transformer_training,
)
from ebwm.ebt import EBT, DenseLandscape
from ebwm.objective import S1, reconstruct, smooth_l1


class DenseEBT(EBT):
    """An EBT whose landscapes use the dense reference."""

    def landscape(self, states):
        return DenseLandscape(self, states)


def contenders(shape, states, targets, steps):
    generator, noise = settings.generator(0, "weights"), settings.generator(0, "noise", states.device)
    tam, two, dense = (kind(**shape, generator=generator).to(states) for kind in (Transformer, EBT, DenseEBT))
    return {
        "Transformer++": lambda: smooth_l1(tam(states), targets).backward(),
        "EBT, two streams": lambda: reconstruct(two, states, targets, S1(steps), generator=noise).backward(),
        "EBT, dense": lambda: reconstruct(dense, states, targets, S1(steps), generator=noise).backward(),
    }


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"batch": 16, "length": 16, "dim": 384, "depth": 6, "heads": 6, "steps": 2, "runs": 7}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", help="by default the one in settings")
    return parser.parse_args()


def main():
    given = arguments()
    shape = {"dim": given.dim, "depth": given.depth, "heads": given.heads}
    size, device = (2, given.batch, given.length, given.dim), settings.device(given.device)
    states, targets = torch.randn(size, generator=settings.generator(0, "data")).to(device)
    functions = contenders(shape, states, targets, given.steps)
    work = Shape(given.dim, given.depth, given.batch, given.length)
    layers = [transformer_training(work), ebt_training(work, given.steps), dense_training(work, given.steps)]
    gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if gpu else cpu_model()
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}, {given.runs} runs")
    print(f"batch {given.batch}, length {given.length}, {shape}, n = {given.steps}; x Transformer++:")
    counts = {name: flops(function).total for name, function in functions.items()}
    for (name, t), formula in zip(seconds(functions, given.runs).items(), layers, strict=True):
        counted, products = counts[name] / counts["Transformer++"], formula.linear / layers[0].linear
        memory = f"  {peak_gpu_memory(functions[name], str(device))} MiB" if gpu else ""
        print(f"{name:18} {t.median:7.3f} s ({t.low:.3f} to {t.high:.3f})  {t.ratio:5.2f} seconds  "
              f"{counted:5.2f} FLOPs  {products:5.2f} products of the layers{memory}")


if __name__ == "__main__":
    main()
