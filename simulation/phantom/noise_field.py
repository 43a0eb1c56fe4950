"""Smooth random fields in space: cubic B-splines with random coefficients on a coarse lattice.

A field on a grid is three small matrix products; a field at free points is an interpolation. Both have unit variance, roughly.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

Array = NDArray[np.floating[Any]]
"""float32 in bulk; numpy may widen a step in between."""

REACH = 130.0  # mm from the centre that every lattice covers


def _basis(positions: Array, spacing: float, count: int) -> Array:
    """[N, count] cubic B-spline weights of lattice knots at the positions."""
    distance = np.abs((positions[:, None] + REACH) / spacing + 1.0 - np.arange(count)[None, :])
    near = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
    far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6.0
    weights: Array = np.where(distance < 1.0, near, far).astype(np.float32)
    return weights


def grid_field(generator: np.random.Generator, axes: tuple[Array, Array, Array], spacing: float) -> Array:
    """A field [X, Y, Z] on a grid whose features are about `spacing` mm apart.

    Args:
        generator: of the field's knots.
        axes: mm positions along x, y, z, within `REACH` of the centre.
        spacing: in mm, above 0.
    """
    count = int(np.ceil(2 * REACH / spacing)) + 3
    knots = generator.standard_normal((count, count, count), dtype=np.float32)
    bx, by, bz = (_basis(axis, spacing, count) for axis in axes)
    field = np.tensordot(bx, knots, axes=(1, 0))
    field = np.matmul(by, field)  # [X, Y, count]
    field = field @ bz.T
    # The squared weights of a cubic B-spline sum to 0.4794 on average, in each of the three directions.
    result: Array = field / np.float32(0.4794**1.5)
    return result


def ripple_field(generator: np.random.Generator, points: Array, wavelength: float) -> Array:
    """A field [P] of one dominant wavelength (mm) at the points [3, P]: white noise through a difference of Gaussians.

    Its zero level is a labyrinth of sheets half a wavelength apart, such as the walls between gyri.
    """
    spacing = wavelength / 4.0
    count = int(np.ceil(2 * REACH / spacing)) + 3
    white = generator.standard_normal((count, count, count), dtype=np.float32)
    narrow = gaussian_filter(white, 0.62, truncate=3.0)
    knots = narrow - gaussian_filter(white, 0.92, truncate=3.0)
    knots /= knots.std()
    field = map_coordinates(knots, (points + REACH) / spacing + 1.0, order=2, prefilter=False, mode="nearest")
    result: Array = (field / field.std()).astype(np.float32)
    return result
