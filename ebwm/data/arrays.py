"""Arrays from files: NumPy, PyTorch (weights only), safetensors and Parquet."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ebwm.checks import refusal
from ebwm.compat import require
from ebwm.data.cache import SPLITS
from ebwm.files import looked_in

__all__ = ["READERS", "array_files", "finite_float64", "joined", "own_splits", "parts_in_memory", "read_arrays",
           "split_files"]


def read_arrays(
    path: Path,  # a file with one of the endings of READERS
) -> dict[str, Any]:  # arrays by name; a file with a single array without a name gives the name ""
    """Read the arrays of a file."""
    if path.suffix not in READERS:
        raise refusal("data.source", str(path), f"must end in one of {', '.join(READERS)}")
    try:
        return READERS[path.suffix](path)
    except (OSError, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise refusal("data.source", str(path), f"cannot be read ({error})") from None
    except Exception as error:  # a package's own class of errors, as of safetensors and pickle
        raise refusal("data.source", str(path), f"cannot be read ({type(error).__name__}: {error})") from None


def _numpy(path: Path) -> dict[str, Any]:
    loaded = np.load(path, allow_pickle=False)
    return {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}


def _torch(path: Path) -> dict[str, Any]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return loaded if isinstance(loaded, dict) else {"": loaded}


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def _parquet(path: Path) -> dict[str, Any]:
    """Columns of nested lists, one row for each item, or a long table with columns `item`, `time` and features."""
    table = require("pyarrow.parquet", "figures").read_table(path)
    if "item" not in table.column_names:
        return {name: np.array(table[name].to_pylist()) for name in table.column_names}
    keys = [name for name in ("item", "time") if name in table.column_names]
    rows = table.sort_by([(name, "ascending") for name in keys])
    _, counts = np.unique(rows["item"].to_numpy(), return_counts=True)
    if len({*counts.tolist()}) != 1:
        raise ValueError("items have different numbers of rows")
    features = [name for name in table.column_names if name not in keys]
    groups = {"states": [name for name in features if not name.startswith("action")],
              "actions": [name for name in features if name.startswith("action")]}
    values = {group: np.stack([rows[name].to_numpy() for name in names], 1)
              for group, names in groups.items() if names}
    return {group: array.reshape(len(counts), counts[0], -1) for group, array in values.items()}


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".npy": _numpy, ".npz": _numpy, ".pt": _torch, ".safetensors": _safetensors, ".parquet": _parquet}


def array_files(
    source: str,  # a file, or a folder
) -> list[Path]:  # the file, or the files of the folder by name
    """The files of a source."""
    path = Path(source)
    files = sorted(p for p in path.iterdir() if p.suffix in READERS) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise refusal("data.source", source, f"must be a file or a folder of files ({', '.join(READERS)}){looked_in(path)}")
    return files


def own_splits(
    names: Iterable[str],  # of files without their endings, or of arrays
    what: str,  # setting or argument, for the message
    source: str,  # its value, for the message
) -> bool:  # whether they are "train", "valid" and "test"
    """Whether data come with their own splits; refuses one or two of the three beside no other name."""
    found = set(names)
    if len(found) > 1 and found < {*SPLITS}:
        missing = " and ".join(name for name in SPLITS if name not in found)
        raise refusal(what, source, f"has {' and '.join(sorted(found))}, but no {missing}",
                      "give all three, or other names to split the data at random")
    return found == {*SPLITS}


def parts_in_memory(
    data: Any,  # arrays, or a dictionary of the arrays of each split
    checked: Callable[[Any], dict[str, Tensor]],  # gives arrays by name
) -> tuple[list[dict[str, Tensor]], bool]:  # and whether the data have their own splits
    """Arrays by name, of each split if the data have their own splits."""
    if isinstance(data, dict) and own_splits(data, "data", ", ".join(map(str, data))):
        return [checked(data[split]) for split in SPLITS], True
    return [checked(data)], False


def split_files(
    source: str,  # a file, or a folder
) -> tuple[list[Path], bool]:  # and whether the data have their own splits
    """The files of a source; those of data with their own splits in the order of the splits."""
    paths = array_files(source)
    own = own_splits((path.stem for path in paths), "data.source", source)
    return sorted(paths, key=lambda path: SPLITS.index(path.stem)) if own else paths, own


def joined(
    parts: Sequence[dict[str, Tensor]],  # arrays by name, with the same names in each part
    source: str,  # for the message
    rule: str,  # that parts of different shapes break
) -> dict[str, Tensor]:
    """The arrays of all parts, one after the other."""
    if len({tuple((name, part.shape[1:]) for name, part in arrays.items()) for arrays in parts}) > 1:
        raise refusal("data.source", source, rule)
    return {name: torch.cat([arrays[name] for arrays in parts]) for name in parts[0]}


def finite_float64(
    name: str,  # of the array, for the message
    values: Any,  # array or tensor of numbers
    axes: int,  # number of axes
    layout: str = "",  # what they are, for the message
) -> Float[Tensor, "..."]:  # float64
    """Convert an array to a finite float64 tensor: rounded to float32, states far from 0 would become equal."""
    try:
        tensor = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError, KeyError):
        remedy = "convert it with .to_numpy()" if hasattr(values, "to_numpy") else ""
        raise refusal(name, type(values).__name__, "must be an array of numbers", remedy) from None
    if tensor.is_complex() or tensor.layout != torch.strided:
        raise refusal(name, f"{tensor.dtype}, {tensor.layout}", "must be a dense array of real numbers",
                      "convert it with .to_dense(), .real or .abs()")
    tensor = tensor.double()
    if tensor.ndim != axes:
        raise refusal(name, list(tensor.shape), f"must have a shape of {axes} axes{layout and ', '}{layout}")
    if 0 in tensor.shape[1:]:
        raise refusal(name, list(tensor.shape), "must have at least one entry along each axis")
    if len(bad := (~tensor.isfinite()).nonzero()):
        rule = f"must be finite; {len(bad)} of {tensor.numel()} values are not, the first at {bad[0].tolist()}"
        raise refusal(name, float(tensor[tuple(bad[0])]), rule, "replace NaN and infinite values")
    return tensor
