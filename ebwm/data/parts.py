"""Arrays in several files as one array whose rows are read where they are needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from ebwm.checks import refusal
from ebwm.data.cache import open_array

__all__ = ["BLOCK", "Parts"]

BLOCK = 1 << 20  # bytes that are read at once


class Parts:
    """Memory-mapped arrays of bytes, one after the other; indexing reads the chosen rows and nothing else."""

    def __init__(
        self,
        paths: Sequence[Path],  # `.npy` files of equal shapes but for the first axis
        rows: Int[np.ndarray, " n"] | None = None,  # of all files one after the other; None: all
    ):
        self.paths = list(paths)
        self.arrays = [open_array(path) for path in self.paths]
        if not self.arrays or len({array.shape[1:] for array in self.arrays}) > 1:
            shapes = sorted({array.shape[1:] for array in self.arrays})
            raise refusal("paths", shapes, "must be files of equal shapes but for the first axis")
        self.ends = np.cumsum([len(array) for array in self.arrays])
        self.rows = np.arange(self.ends[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole."""
        return (len(self), *self.arrays[0].shape[1:])

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(
        self,
        index: int | np.integer | slice | Int[np.ndarray, " n"],  # of one row, or of several
    ) -> UInt8[np.ndarray, "..."]:  # in memory
        rows = self.rows[index]
        if rows.ndim == 0:
            return self._read(rows[None])[0]
        return self._read(rows)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        part = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(part):
            inside = part == number
            start = self.ends[number] - len(self.arrays[number])
            found[inside] = self.arrays[number][rows[inside] - start]
        return found

    def take(
        self,
        rows: Int[np.ndarray, " n"],  # of this array
    ) -> "Parts":
        """Some rows, not read yet."""
        return Parts(self.paths, self.rows[rows])

    def blocks(self) -> Iterator[UInt8[np.ndarray, "..."]]:
        """All rows in their order, about BLOCK bytes at a time."""
        rows = max(1, BLOCK // max(1, self.arrays[0][0].nbytes))
        return (self[start:start + rows] for start in range(0, len(self), rows))
