"""Task: predict a target of several rows, as one joint candidate, from the rows of a context."""

from pathlib import Path
from typing import Any

from torch import Tensor

from ebwm.checks import refusal
from ebwm.data.arrays import finite_float64, joined, parts_in_memory, read_arrays, split_files
from ebwm.data.configs import PairsConfig
from ebwm.data.task import Items, Rows, Scale, Task, by_counts, read_task, save_task, split_items

__all__ = ["Pairs", "PairsConfig"]


class Pairs(Task):
    """Contexts and targets, both [items rows features], standardised on the training split."""

    in_memory = True
    scales: dict[str, Scale]  # of "context" and "target"

    @classmethod
    def load(cls, config: PairsConfig, seed: int = 0, data: Any = None) -> "Pairs":
        """Read pairs from `data`, a tuple (context, target), or from the source."""
        parts, own = parts_in_memory(data, _checked) if data is not None else _in_files(config.source)
        source = config.source or "data"
        arrays = joined(parts, source, "must hold contexts of one shape, and targets of one shape")
        counts = [len(part["target"]) for part in parts]
        chosen = by_counts(counts) if own else split_items(sum(counts), config.held_out, seed, source)
        scales = {name: Scale.of(array[chosen["train"]]) for name, array in arrays.items()}
        context, target = (scales[name].standardise(arrays[name]) for name in ("context", "target"))
        splits = {split: Items((context[index], target[index])) for split, index in chosen.items()}
        task = cls(config, Rows(target.shape[1], target.shape[2], context.shape[2]), splits)
        task.scales = scales
        return task

    @classmethod
    def restore(cls, config: PairsConfig, folder: Path, tensors: dict[str, Tensor]) -> "Pairs":
        """The task of a finished run, with its standardisation."""
        state, scales = read_task(folder, Rows)
        task = cls(config, state)
        task.scales = scales
        return task

    pair = staticmethod(Rows.pair)

    def baselines(self) -> dict[str, float]:
        """The mean target of the training split."""
        target = self.items("test")[1]
        mean = self.splits["train"].whole()[1].mean(0)
        return {"mean target": float(self.errors(mean.expand_as(target), target).mean())}

    def save(self, folder: Path) -> None:
        """Write the sizes of contexts and targets and their standardisation."""
        save_task(folder, self.state, self.scales)


def _in_files(source: str | None) -> tuple[list[dict[str, Tensor]], bool]:
    """Arrays by name, of a file, or of the three files of a folder in the order of the splits."""
    if source is None:
        raise refusal("data.source", source, "must be a file", "or pass arrays: train(config, data=(context, target)), "
                      "and for a run of such arrays resume(folder, data=...)")
    paths, own = split_files(source)
    if len(paths) > 1 and not own:
        raise refusal("data.source", source, "must be a file with the arrays 'context' and 'target', or a folder of three "
                      "such files with the names train, valid and test")
    return [_checked(read_arrays(path)) for path in paths], own


def _checked(data: Any) -> dict[str, Tensor]:
    if not isinstance(data, dict) and not (isinstance(data, tuple | list) and len(data) == 2):
        raise refusal("data", type(data).__name__, "must be a pair (context, target)")
    named = data if isinstance(data, dict) else dict(zip(("context", "target"), data, strict=True))
    if missing := {"context", "target"} - named.keys():
        raise refusal("data.source", sorted(named), f"must have the array {min(missing)!r}")
    arrays = {name: finite_float64(name, named[name], 3, "[items rows features]") for name in ("context", "target")}
    if len(arrays["context"]) != len(arrays["target"]):
        counts = [len(array) for array in arrays.values()]
        raise refusal("target", counts, "must have as many items as context")
    return arrays
