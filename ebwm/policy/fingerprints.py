"""Digests of policies, by which a continued evaluation recognises its policy."""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import nn

from ..files import sha256
from .rollout import Actor

__all__ = ["fingerprint"]

NO_SETTINGS = ("_diffusers_version", "_use_default_values")  # of diffusers; the second is a list in random order
OF_MODULES = vars(nn.Module()).keys()  # attributes of every module: hooks, and what its state holds
PLAIN = int | float | str | None


def fingerprint(
    policy: Actor | Path | str,  # or the folder of a run
) -> str:  # 16 hexadecimal digits
    """A digest of a policy: its weights, its settings and functions that it holds; of a run, the files in the folder."""
    digest = hashlib.sha256()
    if isinstance(policy, str | Path):
        for path in sorted(path for path in Path(policy).glob("*") if path.is_file()):
            digest.update(f"{path.name} {sha256(path)}\n".encode())
    else:
        policy.reset()
        for line in _contents(policy, "", ()):
            digest.update(line)
    return digest.hexdigest()[:16]


def _contents(value: Any, name: str, above: tuple[int, ...]) -> Iterator[bytes]:
    """The tensors, arrays, numbers, words and functions that a policy consists of, with their names."""
    if id(value) in above:  # an object that holds itself
        return
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().numpy()
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if not array.dtype.hasobject:
            yield f"{name}: {array.dtype} {array.shape}\n".encode() + array.tobytes()
            return
        value = array.tolist()  # else the bytes would be addresses
    if isinstance(value, PLAIN):
        yield f"{name}={value!r}\n".encode()
        return
    kind, parts = _parts(value)
    if kind:
        yield f"{name}: {kind}\n".encode()
    for key in sorted((key for key in parts if key not in NO_SETTINGS), key=str):
        yield from _contents(parts[key], f"{name}.{key}", (*above, id(value)))


def _parts(value: Any) -> tuple[str, dict[Any, Any]]:
    """The kind of an object, where it matters, and its parts by name."""
    if isinstance(value, dict):
        return "", value
    if isinstance(value, tuple | list):
        return "", dict(enumerate(value))
    if isinstance(value, nn.Module):
        return "", _of_module(value)
    if isinstance(value, functools.partial):
        return "partial", {"function": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, MethodType):
        return "method", {"function": value.__func__, "of": value.__self__}
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return "function", {"code": value.__code__, "defaults": value.__defaults__, "closure": cells}
    if isinstance(value, CodeType):
        return value.co_code.hex(), {"names": value.co_names, "constants": value.co_consts}
    if type(value).__module__ == "builtins":
        return "", {}
    return type(value).__qualname__, _of_class(type(value)) | getattr(value, "__dict__", {})


def _of_module(module: nn.Module) -> dict[str, Any]:
    """The state of a module, and the settings of it and of the modules in it."""
    found = dict(module.state_dict())
    for name, part in module.named_modules():
        own = _of_class(type(part)) | {key: value for key, value in vars(part).items() if key not in OF_MODULES}
        found |= {f"{name}:{key}": value for key, value in own.items() if _is_setting(value)}
    return found


def _of_class(kind: type) -> dict[str, Any]:
    """Settings that are attributes of a class outside of the library."""
    classes = [one for one in reversed(kind.__mro__) if one.__module__.partition(".")[0] not in ("builtins", "torch", "ebwm")]
    return {key: value for one in classes for key, value in vars(one).items()
            if not key.startswith("__") and _is_setting(value) and not isinstance(value, FunctionType)}


def _is_setting(value: Any) -> bool:
    """Whether a value is a number, a word or a function, or holds only these."""
    if isinstance(value, dict):
        return all(map(_is_setting, value.values()))
    if isinstance(value, tuple | list):
        return all(map(_is_setting, value))
    return isinstance(value, PLAIN | FunctionType | functools.partial)
