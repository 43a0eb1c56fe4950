"""Patients' images that stay where they are: in a memory map, each read when it is asked for.

N patients; S slices, M modalities, H = W pixels of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of one array or of several, in any order, as one array [N, S, M, H, W] that nothing is copied for.

    Attributes:
        each: [N], views of the rows.
        empty: an array [0, S, M, H, W], which says what shape they have where there are none.
    """

    each: tuple[Image, ...]
    empty: Image

    @staticmethod
    def of(parts: Sequence["Image | Rows"]) -> "Rows":
        """All rows of all parts, one part or more, in their order."""
        each = (part.each if isinstance(part, Rows) else tuple(np.asarray(part)) for part in parts)
        return Rows(tuple(row for rows in each for row in rows), np.empty((0, *parts[0].shape[1:]), parts[0].dtype))

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "Rows":
        """Some of these, in the given order."""
        return Rows(tuple(self.each[row] for row in rows), self.empty)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, S, M, H, W)."""
        return (len(self.each), *self.empty.shape[1:])

    @property
    def ndim(self) -> int:
        """As of an array."""
        return self.empty.ndim

    @property
    def dtype(self) -> np.dtype[np.float16]:
        """As of an array."""
        return self.empty.dtype

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, place: int | tuple[Any, ...]) -> Any:
        """One patient's, [S, M, H, W], or a place in them as in an array, of which the patient comes first: a view."""
        row, *inner = place if isinstance(place, tuple) else (place,)
        return self.each[row][tuple(inner)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Image:
        """All of them, copied."""
        if copy is False:
            raise ValueError("Rows lie apart: as one array they are a copy.")
        return np.stack(self.each, dtype=dtype) if self.each else self.empty.astype(dtype or self.dtype)
