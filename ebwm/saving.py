"""Tensors as safetensors files with JSON in the header, and models as folders; no pickle."""

import inspect
import json
import os
import re
from dataclasses import asdict, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ebwm.checks import instance, refusal
from ebwm.files import write_whole
from ebwm.usage import UsageError

if TYPE_CHECKING:  # imported where tensors are written: torch takes a second
    import torch

__all__ = ["FILE", "CheckpointError", "Saved", "check_weights", "load_tensors", "meta_of", "save_tensors"]

FILE = "model.safetensors"  # of the weights, in the folder of a model
AGAIN = "save the model again, or train again"


class CheckpointError(UsageError):
    """A file that cannot be used as a checkpoint; the message names the file and the reason."""


def save_tensors(
    path: Path,  # where to write, ending in .safetensors
    tensors: dict[str, "torch.Tensor"],  # by name
    meta: dict[str, Any] | None = None,  # JSON values for the header of the file
) -> None:
    """Write tensors and JSON values to one file, atomically."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    header = {"meta": json.dumps(meta or {}, sort_keys=True)}
    write_whole(path, lambda draft: _save_file(tensors, draft, header))


def _save_file(tensors: dict[str, "torch.Tensor"], draft: Path, header: dict[str, str]) -> None:
    """Write a file; errors of the operating system, such as a full disk, are raised as OSError."""
    from safetensors.torch import save_file

    try:
        save_file(tensors, draft, header)
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(draft)) from error
        raise


def load_tensors(
    path: Path,  # a file written by `save_tensors`
) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:  # tensors by name, all finite, and the JSON values
    """Read tensors and JSON values; no code in the file is executed."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    if not Path(path).stat().st_size:
        raise CheckpointError(f"{path}: the file is empty")
    try:
        with safe_open(path, "pt") as file:
            meta = meta_of(file)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, json.JSONDecodeError, RecursionError, TypeError) as error:
        raise CheckpointError(f"{path}: not a safetensors checkpoint ({error})") from None
    if not tensors:
        raise CheckpointError(f"{path}: the file holds no tensor; {AGAIN}")
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"{path}: {_listed(bad)} holds NaN or infinite values; {AGAIN}")
    return tensors, meta


def meta_of(
    file: Any,  # opened by `safe_open`
) -> dict[str, Any]:
    """The JSON values in the header of an open file."""
    meta = json.loads((file.metadata() or {}).get("meta", "{}"))
    if not isinstance(meta, dict):
        raise TypeError(f"meta={type(meta).__name__}: must be a dictionary")
    return meta


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


class Saved:
    """A module that can be saved and loaded; it remembers the arguments of its constructor.

    Options given as a data class are saved as single arguments, generators are not saved.
    """

    arguments: dict[str, Any]  # of the constructor, JSON values

    def __new__(cls, *given: Any, **named: Any) -> "Saved":
        model = super().__new__(cls)
        object.__setattr__(model, "arguments", _arguments(cls, given, named))
        return model

    def save(
        self,
        folder: Path | str,  # created if necessary
    ) -> Path:  # of the file `model.safetensors` in it
        """Write weights and constructor arguments, atomically."""
        instance("folder", folder, (str, os.PathLike), "must be a path")
        meta = {"class": type(self).__name__, "arguments": self.arguments}
        save_tensors(path := Path(folder) / FILE, self.state_dict(), meta)
        return path

    @classmethod
    def load(
        cls,
        folder: Path | str,  # written by `save`
        **changes: Any,  # arguments of the constructor to change, such as compile=True
    ) -> "Saved":
        """The saved model; no code in the file is executed."""
        instance("folder", folder, (str, os.PathLike), "must be a path")
        path = Path(folder) / FILE
        if not path.is_file():
            raise refusal("folder", str(folder), f"contains no {FILE}", "give a folder written by save()",
                          FileNotFoundError)
        tensors, meta = load_tensors(path)
        if meta.get("class") != cls.__name__:
            known = meta.get("class") or "no class; of a training run, use ebwm.training.learner.load_learner(folder)"
            raise refusal("folder", str(folder), f"must hold a model of class {cls.__name__}", f"it holds {known}")
        model = _made(cls, meta["arguments"] | changes).to(next(iter(tensors.values())).dtype)
        check_weights(path, tensors, model)
        model.load_state_dict(tensors)
        return model


def _made(cls: type[Saved], arguments: dict[str, Any]) -> Saved:
    """A model whose weights will be replaced: the global generator is left alone, and no step size is measured."""
    import torch

    given = arguments | ({"step_size": 1.0} if "step_size" in inspect.signature(cls).parameters else {})
    with torch.random.fork_rng(devices=[]):
        model = cls(**given)
    object.__setattr__(model, "arguments", arguments)
    return model


def check_weights(
    path: Path,  # of the file, for the message
    tensors: dict[str, "torch.Tensor"],  # from the file, by name
    model: "torch.nn.Module",  # that takes them
) -> None:
    """Refuse tensors that are not the weights of a model, by name and shape."""
    found, expected = ({name: tuple(tensor.shape) for name, tensor in group.items()}
                       for group in (tensors, model.state_dict()))
    if wrong := sorted(dict(found.items() ^ expected.items())):
        raise CheckpointError(f"{path}: must hold the weights of this {type(model).__name__}; missing, unknown or "
                              f"of another shape: {_listed(wrong)}; {AGAIN}")


def _arguments(cls: type, given: tuple, named: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, without generators; the fields of a data class are arguments of their own."""
    import torch

    try:
        bound = inspect.signature(cls.__init__).bind(None, *given, **named).arguments
    except TypeError:  # `__init__` raises the error
        return {}
    found: dict[str, Any] = {}
    for name, value in [*bound.items()][1:]:
        rest = name == "changes"
        found |= value if rest else asdict(value) if is_dataclass(value) else {name: value}
    return {name: _plain(value) for name, value in found.items() if not isinstance(value, torch.Generator)}


def _plain(value: Any) -> Any:
    """A number of NumPy or PyTorch as one of Python."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, bool | int | float):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value
