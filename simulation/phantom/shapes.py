"""Signed distances of simple solids, in mm: negative inside. P = points.

Distances are computed within `FAR` mm of a solid's box and read `FAR` elsewhere: nothing asks for more.
"""

from collections.abc import Sequence

import numpy as np

from simulation.phantom.noise_field import Array

Triple = tuple[float, float, float]
FAR = 8.0


def length(*parts: Array) -> Array:
    """Euclidean length of vectors given by their components; much faster than `numpy.hypot`."""
    result: Array = np.sqrt(sum(part * part for part in parts))
    return result


def ellipsoid(points: Array, centre: Triple, axes: Triple) -> Array:
    """[P] distance from an ellipsoid at the points [3, P]; exact for a sphere, first order (f / |grad f|) else."""
    middle, radii = np.array(centre, np.float32), np.array(axes, np.float32)
    near = _near(points, middle - radii, middle + radii)
    scaled = (points[:, near] - middle[:, None]) / radii[:, None]
    relative = length(*scaled)
    slope = length(*(scaled / radii[:, None])) + np.float32(1e-6)
    return _spread(points, near, relative * (relative - 1.0) / slope)


def capsules(points: Array, knots: Sequence[tuple[Triple, float]]) -> Array:
    """[P] distance from a tube through the knots (position, radius), its radius changing linearly between them."""
    places, radii = np.array([k[0] for k in knots], np.float32), np.array([k[1] for k in knots], np.float32)
    near = _near(points, (places - radii[:, None]).min(0), (places + radii[:, None]).max(0))
    close = points[:, near]
    nearest = np.full(close.shape[1], FAR, np.float32)
    for number in range(len(knots) - 1):
        along = places[number + 1] - places[number]
        offset = close - places[number][:, None]
        share = np.clip(along @ offset / (along @ along), 0.0, 1.0)
        radius = radii[number] + (radii[number + 1] - radii[number]) * share
        nearest = np.minimum(nearest, length(*(offset - along[:, None] * share)) - radius)
    return _spread(points, near, nearest)


def smooth_minimum(a: Array, b: Array, width: float) -> Array:
    """The smaller of two distances, the edge between them rounded over `width` mm (polynomial form)."""
    blend = np.clip(1.0 - np.abs(a - b) / width, 0.0, None)
    result: Array = np.minimum(a, b) - blend * blend * (width / 4.0)
    return result


def _near(points: Array, low: Array, high: Array) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Positions of the points within `FAR` of a box."""
    inside = np.ones(points.shape[1], bool)
    for row, first, last in zip(points, low - FAR, high + FAR, strict=True):
        inside &= (row > first) & (row < last)
    return np.flatnonzero(inside)


def _spread(points: Array, near: np.ndarray[tuple[int], np.dtype[np.intp]], values: Array) -> Array:
    """Values at the near points, `FAR` at the others."""
    result = np.full(points.shape[1], FAR, np.float32)
    result[near] = np.minimum(values, FAR)
    return result
