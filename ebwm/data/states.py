"""Task: predict the next vector of a sequence, from arrays in files or in memory, with optional actions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebwm.checks import refusal
from ebwm.data.arrays import finite_float64, joined, parts_in_memory, read_arrays, split_files
from ebwm.data.configs import StatesConfig
from ebwm.data.task import SPLITS, Items, Scale, Sequences, Vectors, by_counts, read_task, save_task, split_items

__all__ = ["States", "StatesConfig"]


class States(Sequences):
    """Sequences of vectors, standardised on the training split.

    Recordings are split at random; one or two, which `length` cuts into sequences, are split in time. Data with their own
    splits keep them: files of a folder, or entries of a dictionary, with the names train, valid and test.
    """

    in_memory = True
    scales: dict[str, Scale]  # of "states", and of "actions" if there are any

    @classmethod
    def load(cls, config: StatesConfig, seed: int = 0, data: Any = None) -> "States":
        """Read recordings [items time features] from `data` (states, or (states, actions)) or from the source."""
        parts, own = parts_in_memory(data, _named) if data is not None else _in_files(config.source)
        source = config.source or "data"
        arrays = joined(parts, source, "must hold recordings of one length and one number of features; cut them to one length")
        count = len(arrays["states"])
        if own:
            chosen = by_counts([len(part["states"]) for part in parts])
        elif count < len(SPLITS) and config.length:
            arrays = {name: _cut(array, config.length) for name, array in arrays.items()}
            chosen = _split_in_time(count, len(arrays["states"]) // count, config.held_out, source)
        else:
            _, time, features = arrays["states"].shape
            chosen = split_items(count, config.held_out, seed, source, "each has "
                                 f"{time} states of {features} features: give [items time features], or set data.length to cut it")
        scales = {name: Scale.of(array[chosen["train"]]) for name, array in arrays.items()}
        arrays = {name: scales[name].standardise(array) for name, array in arrays.items()}
        parts = {split: tuple(_cut(array[index], config.length) for array in arrays.values())
                 for split, index in chosen.items()}
        splits = {split: Items(part if len(part) > 1 else part[0]) for split, part in parts.items()}
        task = cls(config, Vectors(*(array.shape[-1] for array in arrays.values())), splits)
        task.scales = scales
        return task

    @classmethod
    def restore(cls, config: StatesConfig, folder: Path, tensors: dict[str, Tensor]) -> "States":
        """The task of a finished run, with its standardisation."""
        state, scales = read_task(folder, Vectors)
        task = cls(config, state)
        task.scales = scales
        return task

    def save(self, folder: Path) -> None:
        """Write the sizes of states and actions and their standardisation."""
        save_task(folder, self.state, self.scales)


def _named(data: Any) -> dict[str, Tensor]:
    """Arrays in memory by name: a tensor of states, or a pair or dictionary of states and actions."""
    if isinstance(data, dict):
        unknown = data.keys() - {"states", "actions"}
        if unknown or "states" not in data:
            raise refusal("data", sorted(data), "must have the keys 'states' and, optionally, 'actions'")
        named = {name: data[name] for name in ("states", "actions") if name in data}
    else:
        listed = isinstance(data, list) and [getattr(part, "ndim", 0) for part in data] == [3, 3]
        parts = tuple(data) if listed or isinstance(data, tuple) else (data,)
        if len(parts) not in (1, 2):
            raise refusal("data", f"{len(parts)} parts", "must be the states, or a pair (states, actions)")
        named = dict(zip(("states", "actions"), parts, strict=False))
    arrays = {name: finite_float64(name, values, 3, "[items time features]") for name, values in named.items()}
    if len({array.shape[:2] for array in arrays.values()}) > 1:
        shape, needed = list(arrays["actions"].shape), list(arrays["states"].shape[:2])
        rule = f"must be [{needed[0]} {needed[1]} features], one action for each state"
        raise refusal("actions.shape", shape, rule, "repeat the last action, which leads to no state of the data")
    if arrays["states"].shape[1] < 2:
        raise refusal("states", list(arrays["states"].shape), "must have at least 2 states in a sequence")
    return arrays


def _in_files(source: str | None) -> tuple[list[dict[str, Tensor]], bool]:
    """Arrays by name, of each file; the files of data with their own splits come in the order of the splits."""
    if source is None:
        remedy = "or pass arrays: train(config, data=...), and for a run of such arrays resume(folder, data=...)"
        raise refusal("data.source", source, "must be a file or a folder", remedy)
    paths, own = split_files(source)
    if {"states", "actions"} <= {path.stem for path in paths}:
        raise refusal("data.source", source, "must be one file with the arrays 'states' and 'actions'",
                      "write both with np.savez(path, states=states, actions=actions)")
    return [_named(_recordings(path)) for path in paths], own


def _recordings(path: Path) -> dict[str, Tensor]:
    """States, and actions if there are any, of one file; an array without item axis is one recording."""
    arrays = read_arrays(path)
    alone = next(iter(arrays.values())) if len(arrays) == 1 and "actions" not in arrays else None
    states = arrays.get("states", alone)
    if states is None:
        raise refusal("data.source", str(path), f"holds the arrays {', '.join(arrays)}; one must be 'states'",
                      "a Parquet file may have a row for each state instead, with the columns item and time")
    named = {"states": states} | {name: arrays[name] for name in ("actions",) if name in arrays}
    axes = {name: getattr(values, "ndim", 0) for name, values in named.items()}
    tensors = {name: finite_float64(f"{path}: {name}", values, 2 if axes[name] == 2 else 3,
                                    "[items time features], or [time features] for one") for name, values in named.items()}
    return {name: tensor if tensor.ndim == 3 else tensor[None] for name, tensor in tensors.items()}


def _split_in_time(recordings: int, windows: int, held_out: float, source: str) -> dict[str, Tensor]:
    """Windows by split, in the order of time: the first of each recording for training, the last for the test."""
    held = max(1, round(held_out * windows))
    if windows < 2 * held + 1:
        raise refusal("data.source", source, f"must hold at least 3 sequences of data.length, not {windows}",
                      "choose a shorter data.length")
    times, first = torch.arange(windows), windows * torch.arange(recordings)[:, None]
    parts = times.split([windows - 2 * held, held, held])
    return {name: (first + part).flatten() for name, part in zip(SPLITS, parts, strict=True)}


def _cut(array: Tensor, length: int | None) -> Tensor:
    """Consecutive windows of recordings; the rest of a recording is dropped."""
    if length is None or length == array.shape[1]:
        return array
    if length > array.shape[1]:
        raise refusal("length", length, f"must be at most {array.shape[1]}, the states of a recording")
    count = array.shape[1] // length
    return array[:, :count * length].unflatten(1, (count, length)).flatten(0, 1)
