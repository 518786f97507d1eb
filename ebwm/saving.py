"""Models as folders: the arguments of their constructor and their weights, without pickle."""

import inspect
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from ebwm.checks import refusal
from ebwm.files import write_whole

__all__ = ["Saved"]

FILE = "model.safetensors"


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
        from safetensors.torch import save_file

        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}
        header = {"class": type(self).__name__, "arguments": json.dumps(self.arguments, sort_keys=True)}
        write_whole(path := Path(folder) / FILE, lambda draft: save_file(tensors, draft, header))
        return path

    @classmethod
    def load(
        cls,
        folder: Path | str,  # written by `save`
        **changes: Any,  # arguments of the constructor to change, such as compile=True
    ) -> "Saved":
        """The saved model; no code in the file is executed."""
        from safetensors import SafetensorError, safe_open

        path = Path(folder) / FILE
        if not path.is_file():
            raise refusal("folder", str(folder), f"contains no {FILE}", "give a folder written by save()",
                          FileNotFoundError)
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise refusal("folder", str(folder), f"{FILE} is damaged ({error})", "save the model again") from None
        if header.get("class") != cls.__name__:
            known = header.get("class") or "no class; of a training run, use ebwm.training.learner.load_learner(folder)"
            raise refusal("folder", str(folder), f"must hold a model of class {cls.__name__}", f"it holds {known}")
        model = cls(**json.loads(header["arguments"]) | changes)
        model.load_state_dict(tensors)
        return model.to(next(iter(tensors.values())).dtype)


def _arguments(cls: type, given: tuple, named: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, without generators; the fields of a data class are arguments of their own."""
    try:
        bound = inspect.signature(cls.__init__).bind(None, *given, **named).arguments
    except TypeError:  # `__init__` raises the error
        return {}
    found: dict[str, Any] = {}
    for name, value in [*bound.items()][1:]:
        rest = name == "changes"
        found |= value if rest else asdict(value) if is_dataclass(value) else {name: value}
    return {name: value for name, value in found.items() if not isinstance(value, torch.Generator)}
