"""A volume as one cube: against a function of the place in mm, a naive loop over voxels, and the run's own cache."""

from typing import Any

import numpy as np
import pytest

from common.config.axes import slice_names, squares
from common.config.sections import DataConfig
from common.data.gate.patient import read_patient
from common.data.planes import choose_cube, cut_cube
from common.data.slices import slice_case
from common.data.volumes import Volume
from tests.common.data.gate.conftest import patient  # noqa: F401  (a fixture)

SHAPE, SPACING = (20, 18, 9), np.array([1.5, 2.0, 4.0])
AFFINE = np.diag([*SPACING, 1.0])
REGION = np.zeros(SHAPE, bool)
REGION[6:13, 5:12, 2:7] = True
MIDDLE = SPACING * [9, 8, 4]  # mm


def cube_of(size: int, field: float) -> DataConfig:
    return DataConfig(axes=("volume",), size=size, slices=size, field_of_view=field, through="brain", intensity="zscore")


def places(size: int, field: float) -> list[np.ndarray]:
    """X, Y, Z in mm of [S, H, W]: layers from below, rows from the front, columns from the patient's right."""
    s, h, w = np.indices((size, size, size))
    steps = [(one + 0.5) * field / size - field / 2 for one in (w, h, s)]
    return [MIDDLE[0] - steps[0], MIDDLE[1] - steps[1], MIDDLE[2] + steps[2]]


def test_a_linear_function_comes_out_at_its_place_along_all_three_axes() -> None:
    x, y, z = (step * i for step, i in zip(SPACING, np.indices(SHAPE), strict=True))
    volume = Volume((5 + 0.7 * x - 0.4 * y + 0.2 * z).astype(np.float32), AFFINE)
    data = cube_of(8, 12.0)  # its voxels are no wider than the volume's
    found = cut_cube(volume, choose_cube(REGION, volume, data), data, lambda voxels: voxels)
    there = places(8, 12.0)
    np.testing.assert_allclose(found, 5 + 0.7 * there[0] - 0.4 * there[1] + 0.2 * there[2], rtol=1e-5)


def weight(distance: float, width: float) -> float:
    """Of a voxel by its distance: a triangle as wide as the wider of both voxels."""
    half = max(1.0, width)
    return max(0.0, 1 - abs(distance) / half)


def naive(voxels: np.ndarray, size: int, field: float) -> np.ndarray:
    """Every voxel of the cube as the weighted mean over a line of voxels along each axis; outside counts as 0."""
    found = np.zeros((size, size, size))
    there = np.stack(places(size, field), -1) / SPACING
    lines = [range(-30, n + 30) for n in SHAPE]
    for at in np.ndindex(found.shape):
        parts = []
        for axis in range(3):
            raw = np.array([weight(there[at][axis] - i, field / size / SPACING[axis]) for i in lines[axis]])
            parts.append((raw / raw.sum())[30:-30])
        found[at] = np.einsum("x,y,z,xyz->", *parts, voxels)
    return found


@pytest.mark.parametrize("field", [10.0, 90.0])
def test_it_is_what_a_loop_over_voxels_gives_finer_and_coarser(field: float) -> None:
    voxels, data = np.random.default_rng(0).uniform(0, 1, SHAPE).astype(np.float32), cube_of(5, field)
    volume = Volume(voxels, AFFINE)
    found = cut_cube(volume, choose_cube(REGION, volume, data), data, lambda some: some)
    np.testing.assert_allclose(found, naive(voxels, 5, field), atol=1e-5)
    assert not found[0].any() or field < 50  # far outside there is nothing


def test_a_patients_images_are_the_layers_of_the_cube(patient: Any) -> None:  # noqa: F811
    data = DataConfig(
        axes=("volume",), size=16, slices=16, field_of_view=160.0, through="brain", intensity="zscore", modalities=("t1", "flair")
    )
    sliced = slice_case(patient.case(), data)
    assert sliced.images.shape == (16, 2, 16, 16)
    assert len(squares(data)) == len(sliced.indices) == 16
    read = read_patient(patient.case(), data)
    shown = sliced.images[:, int(np.flatnonzero(sliced.present)[0])]
    assert shown[8].max() > 0.2  # the brain is in the middle
    assert not shown[0].any()  # and air at the rim
    assert sliced.planes[0].depth == read.reference.voxels.shape[2]
    assert (np.diff(sliced.indices) >= 0).all()
    assert slice_names(data, sliced.indices)[0].startswith("volume slice")
    assert not sliced.tumour


def test_slices_that_were_cached_before_keep_their_key() -> None:
    assert "axes" not in DataConfig().of_slices()
    assert cube_of(8, 12.0).of_slices()["axes"] == ("volume",)


def test_another_shift_moves_it_in_the_plane() -> None:
    volume, data = Volume(np.ones(SHAPE, np.float32), AFFINE), cube_of(8, 12.0)
    here, there = choose_cube(REGION, volume, data), choose_cube(REGION, volume, data, (3.0, -2.0))
    assert np.subtract(there.centre, here.centre) == pytest.approx([3.0, -2.0])
    assert here.height == pytest.approx(MIDDLE[2])
