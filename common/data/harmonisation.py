"""Nyul's harmonisation: a piecewise linear map brings each volume's landmarks to the standard ones (`common.config.standard`).

The window of `common.data.slices` is the first part of it: two percentiles of the foreground become 0 and 1. X, Y, Z voxels.
"""

import numpy as np

from common.config.standard import PERCENTILES
from common.data.volumes import Array, Volume, air, foreground

LEAST = 1e-6  # landmarks that lie nearer are one: no line leads from one value to two
DIGITS = 4


def landmarks(volume: Volume, window: tuple[float, float] | None) -> tuple[float, ...]:
    """The deciles of the volume's foreground where its window is 0 and 1; () for a volume without contrast."""
    if window is None:
        return ()
    low, high = window
    if volume.levels is not None:
        inside = volume.levels.above(air(volume.voxels, volume.levels))
        found = [float(inside.percentile((q,))[0]) for q in PERCENTILES]
    else:
        found = [float(value) for value in np.percentile(volume.voxels[foreground(volume.voxels)], PERCENTILES)]
    return tuple(min(max((value - low) / (high - low), 0.0), 1.0) for value in found)


def to_standard(scaled: Array, own: tuple[float, ...], standard: tuple[float, ...]) -> Array:
    """Move values along the line through 0, the landmarks and 1.

    Args:
        scaled: any shape, from 0 to 1.
        own: the volume's landmarks; (): it has no contrast, and stays as it is.
        standard: where they go.
    """
    xs, ys = [0.0], [0.0]
    for x, y in zip(own, standard, strict=False):
        if xs[-1] + LEAST < x < 1.0 - LEAST:
            xs.append(x)
            ys.append(y)
    return np.interp(scaled, [*xs, 1.0], [*ys, 1.0]).astype(np.float32) if own else scaled
