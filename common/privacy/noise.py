"""Privacy's randomness: from the operating system's generator, never from a seed.

Who knows the seed can subtract the noise, and who knows the sample loses nothing to sampling: so neither may come from the
run's seed, which the server chooses. Single floating-point normals also show their past in their lowest bits (Mironov, CCS 2012);
summing several hides it (Holohan and Braghin, arXiv 2107.10138).
"""

import math
import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID_BITS = 12  # steps of the grid that noised sums lie on, in one standard deviation of the noise: 2 to this power
SUMMED = 4  # normals that make one
CHUNK = 1 << 20  # values made at a time, for the sake of memory


def noised(total: Tensor, std: float) -> Tensor:
    """A sum plus noise of standard deviation `std`, float32, on a grid that neither the sum nor the noise decides.

    Rounded to float32 alone, a sum shows in its lowest bits what was added up, noise or not: which values it can have at all
    depends on the patients (Mironov, CCS 2012). Added in float64 and rounded to a fixed grid, it does not.
    """
    noise = system_normal(tuple(total.shape), std, np.float64)
    grid = 2.0 ** (math.floor(math.log2(std)) - GRID_BITS)
    steps = torch.round((total.detach().double().cpu() + noise) / grid)
    return (steps * grid).to(dtype=total.dtype, device=total.device)


def system_normal(shape: tuple[int, ...], std: float, kind: type[np.floating[Any]] = np.float32) -> Tensor:
    """Independent normals of standard deviation `std`, of this kind of number [*shape], on the CPU.

    Box and Muller's method in float64; `SUMMED` of its values are added up and divided by the square root of their number.
    """
    size = math.prod(shape)
    values = np.empty(size, kind)
    for start in range(0, size, CHUNK):
        count = min(CHUNK, size - start)
        values[start : start + count] = _standard(count) * std
    return torch.from_numpy(values.reshape(shape))


def system_sample(count: int, rate: float) -> NDArray[np.int64]:
    """A Poisson sample: each of `count` with chance `rate`, by itself. Ascending; may be empty."""
    return np.flatnonzero(_uniform(count) <= rate) if rate > 0 else np.empty(0, np.int64)


def _standard(count: int) -> NDArray[np.float64]:
    """[count] standard normals, `SUMMED` to each."""
    pairs = (count * SUMMED + 1) // 2
    radius = np.sqrt(-2.0 * np.log(_uniform(pairs)))
    angle = 2.0 * math.pi * _uniform(pairs)
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: count * SUMMED]
    summed: NDArray[np.float64] = both.reshape(SUMMED, count).sum(0) / math.sqrt(SUMMED)
    return summed


def _uniform(count: int) -> NDArray[np.float64]:
    """[count] uniforms in (0, 1], 53 bits each."""
    bits = np.frombuffer(os.urandom(8 * count), np.uint64)
    values: NDArray[np.float64] = ((bits >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    return values
