"""The memory that a model needs in training, compared with the memory that is free before it is built."""

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ebwm.checks import refusal
from ebwm.training.configuration import Config, ConfigError
from ebwm.training.distributed import SingleProcess
from ebwm.training.learner import make_learner

__all__ = ["check_memory", "free_memory", "number_of_weights"]

TRAINED, BUILT = 16, 4  # bytes of a weight: with its gradient and the moments of AdamW, and alone, in float32


def check_memory(
    config: Config,  # of a run
    task: Any,  # what the model predicts
    world: SingleProcess,  # where it is trained
) -> None:
    """Refuse a model whose weights do not fit in the free memory; it is built on the CPU, then moved to the device."""
    count = number_of_weights(config, task)
    share = world.size if config.run.strategy == "fsdp" else 1
    needs = [(world.device, TRAINED * count / share), (torch.device("cpu"), BUILT * count)]
    for device, needed in needs:
        free = free_memory(device)
        if free is not None and needed > free:
            rule = (f"has {count:.3g} weights, which need {needed / 2**30:.3g} GiB of memory ({device}), "
                    f"of which {free / 2**30:.3g} GiB are free")
            model = f"{config.model.kind} {config.model.depth}x{config.model.dim}"
            raise refusal("model", model, rule, "choose a smaller model.dim or model.depth", ConfigError)


def number_of_weights(
    config: Config,  # of a run
    task: Any,  # what the model predicts
) -> float:  # infinite if a tensor has more elements than torch can count
    """Number of weights, from models of one and two layers without memory: it is linear in the depth."""
    counts, most = [], min(config.model.depth, 2)
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            for depth in range(1, most + 1):
                model = replace(config.model, depth=depth)
                learner = make_learner(model, task, config.seed, config.recipe, config.walk)
                counts.append(sum(weight.numel() for weight in learner.model.parameters()))
    except (RuntimeError, OverflowError, TypeError) as error:  # classes by which torch reports an overflow
        if "overflow" not in str(error).lower():
            raise
        return float("inf")
    return counts[0] + (config.model.depth - 1) * (counts[-1] - counts[0])


def free_memory(
    device: torch.device,  # "cpu" or a GPU
) -> int | None:  # bytes; None if the system does not report it
    """Memory that a process may still take, within the limit of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        names = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"}
        known = names <= getattr(os, "sysconf_names", {}).keys()
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None


def _of_container() -> int | None:
    """The limit of a container; what it uses contains files that the system can drop."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no limit
        return None
