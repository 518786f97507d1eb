"""State on disk: tensors as safetensors with JSON in the header, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ebwm.files import write_whole

__all__ = ["CheckpointError", "load_tensors", "save_tensors"]


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message names it and says why."""


def save_tensors(
    path: Path,  # where to write, ending in .safetensors
    tensors: dict[str, Tensor],  # by name
    meta: dict[str, Any] | None = None,  # kept as JSON in the file's header
) -> None:
    """Save tensors, and what belongs to them, in one file."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    header = {"meta": json.dumps(meta or {}, sort_keys=True)}
    write_whole(path, lambda draft: save_file(tensors, draft, header))


def load_tensors(
    path: Path,  # a file written by `save_tensors`
) -> tuple[dict[str, Tensor], dict[str, Any]]:  # tensors by name, and what was kept beside them
    """Read tensors back; nothing in the file is ever run."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, meta
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a safetensors checkpoint ({error})") from None
