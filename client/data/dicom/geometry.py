"""Where a stack of slices lies: order, spacing, gaps, shear. K slices; millimetres; DICOM's axes (LPS)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError

SAME_PLACE = 1e-3  # mm: two slices nearer than this are at one place
UNEVEN = 0.02  # of the spacing: how far a step between slices may be from the others
SHEAR = 0.1  # mm: how far the last slice may lie beside the first one's normal

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """An even stack of parallel slices."""

    order: tuple[int, ...]  # the given slices, sorted along the normal
    spacing: tuple[float, float, float]  # between columns, between rows, between slices
    affine: Floats  # 4 x 4, RAS: (column, row, slice) to the world


def stack(positions: Floats, orientation: Floats, pixel_spacing: tuple[float, float]) -> Stack:
    """Put slices in order, and say what keeps them from being a volume.

    Args:
        positions: `[K, 3]`, each slice's first voxel, in any order.
        orientation: `[6]`, direction of a row, then of a column.
        pixel_spacing: between rows, then between columns, as DICOM has it.

    Raises:
        DataError: one slice alone, slices at one place, a missing slice, uneven steps, or a sheared stack.
    """
    row, column = orientation[:3] / np.linalg.norm(orientation[:3]), orientation[3:] / np.linalg.norm(orientation[3:])
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    if len(order) < 2:
        raise DataError("one slice alone is no volume")
    steps = np.diff(along[order])
    _check_steps(steps)
    step = positions[order[-1]] - positions[order[0]]
    sideways = float(np.linalg.norm(step - (step @ normal) * normal))
    if sideways > SHEAR:
        raise DataError(f"sheared: the last slice lies {sideways:.1f} mm beside the first one's normal")
    between = float(along[order[-1]] - along[order[0]]) / (len(order) - 1)
    lps = np.eye(4)
    lps[:3] = np.column_stack((row * pixel_spacing[1], column * pixel_spacing[0], normal * between, positions[order[0]]))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    return Stack(tuple(map(int, order)), (pixel_spacing[1], pixel_spacing[0], between), affine)


def _check_steps(steps: Floats) -> None:
    usual = float(np.median(steps))
    twins = int((steps < SAME_PLACE).sum())
    if twins:
        raise DataError(f"{twins} slices lie where another lies: several volumes in one series, or copies")
    worst = int(np.argmax(np.abs(steps - usual)))
    if abs(steps[worst] - usual) <= UNEVEN * usual:
        return
    missing = steps[worst] / usual
    if missing > 1.5 and abs(missing - round(missing)) < 0.1:
        raise DataError(
            f"{round(missing) - 1} slices are missing after slice {worst + 1} (a gap of {steps[worst]:.2f} mm where {usual:.2f} "
            "mm are usual); export the series anew"
        )
    raise DataError(f"uneven slices: steps of {steps.min():.2f} to {steps.max():.2f} mm")
