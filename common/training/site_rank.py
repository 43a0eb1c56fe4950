"""A site that trains a smaller rank than the run's: the first components of each pair; of the others it gives back zeros.

`federation.low_rank` must let ranks differ: then the components come sorted, and the first are the best pair of that rank.
"""

import numpy as np
from numpy.typing import NDArray

from common.adapters.adapter import PAIR
from common.models.arrays import Arrays

Array = NDArray[np.float32]


def first_components(arrays: Arrays, rank: int) -> Arrays:
    """The arrays with B [O, rank] and A [rank, I] of each pair; with rank 0, or one that is not smaller, as they are."""
    return {name: _first(name.rpartition(".")[2], array, rank) if rank else array for name, array in arrays.items()}


def _first(part: str, array: Array, rank: int) -> Array:
    left, right = PAIR
    return array[:, :rank] if part == left else array[:rank] if part == right else array


def whole(arrays: Arrays, like: Arrays) -> Arrays:
    """The arrays in the shapes of `like`: components that were not trained are zero, and so is their part of the product."""
    return {
        name: array if array.shape == like[name].shape else _padded(array, like[name].shape) for name, array in arrays.items()
    }


def _padded(array: Array, shape: tuple[int, ...]) -> Array:
    return np.pad(array, [(0, full - part) for part, full in zip(array.shape, shape, strict=True)])
