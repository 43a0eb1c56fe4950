"""Registration finds motions that are known, and says when it did not."""

from dataclasses import replace

import numpy as np
import pytest

from client.data.registration import Registration, apply, head_points, register
from client.data.resampling import resample_image, resample_mask
from client.data.volume import Volume
from tests.client.data.conftest import CONTRAST, head, oblique

GRID, SHAPE = oblique((2.5, 2.5, 3.0)), (56, 60, 44)


def volume(modality: str, affine: np.ndarray = GRID, shape: tuple[int, int, int] = SHAPE) -> Volume:
    return Volume(head(affine, shape, CONTRAST[modality]).astype(np.float32), affine)


def motion(shift: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Rotation about an oblique axis by Rodrigues' formula, then a shift."""
    x, y, z = np.array([2.0, -1.0, 3.0]) / np.sqrt(14)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = shift
    return matrix


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["t2", pytest.param("flair", marks=pytest.mark.thorough)])
def test_ten_millimetres_and_ten_degrees_to_under_one_millimetre(modality: str) -> None:
    reference, truth = volume("t1c"), motion((6.0, -6.0, 5.3), 10.0)  # 10 mm
    other = volume(modality)
    found = register(reference, replace(other, affine=truth @ other.affine))
    points = head_points(reference)
    assert np.linalg.norm(apply(found.matrix, points) - apply(truth, points), axis=1).max() < 1.0
    assert found.problem == ""
    assert found.turn == pytest.approx(10, abs=0.5)
    assert found.information[1] > found.information[0]


@pytest.mark.slow
def test_the_same_images_give_the_same_answer() -> None:
    reference, other = volume("t1c"), volume("t2")
    moved = replace(other, affine=motion((3.0, 0.0, 0.0), 3.0) @ other.affine)
    one, two = register(reference, moved), register(reference, moved)
    np.testing.assert_array_equal(one.matrix, two.matrix)


@pytest.mark.slow
def test_two_images_that_have_nothing_in_common_are_not_believed() -> None:
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    assert register(volume("t1c"), Volume(noise, motion((80.0, 0, 0), 0) @ GRID)).problem


GOOD = Registration(np.eye(4), (0.2, 0.5), 0.3, 0.9, 5.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"information": (0.5, 0.2)}, "agree less"),
        ({"inconsistency": 2.5}, "there and back differ by 2.5 mm"),
        ({"shift": 80.0}, "moves the head by 80 mm"),
        ({"turn": 45.0}, "45 degrees"),
        ({"overlap": 0.2}, "share 20% of the head"),
    ],
)
def test_each_bound(changes, said) -> None:
    assert GOOD.problem == ""
    assert said in replace(GOOD, **changes).problem


def test_a_mask_keeps_its_labels_and_its_size() -> None:
    """A ball of 8 voxels radius moved by a quarter voxel: a resampler of whole numbers loses 26% of it."""
    index = np.indices((24, 24, 24))
    ball = (((index - 11.5) ** 2).sum(axis=0) < 64) * np.float32(4)
    moved = np.eye(4)
    moved[:3, 3] = 0.25
    result = resample_mask(Volume(ball, np.eye(4)), Volume(ball, np.eye(4)), moved).voxels
    assert set(np.unique(result)) == {0.0, 4.0}
    assert (result > 0).sum() == pytest.approx((ball > 0).sum(), rel=0.02)


def test_an_image_is_interpolated_in_floats_within_its_range() -> None:
    """A plane stays a plane under cubic splines."""
    index = np.indices((12, 14, 10)).astype(np.float32)
    plane = Volume(index[0] + 0.5 * index[1] - 0.25 * index[2], np.eye(4))
    moved = np.eye(4)
    moved[:3, 3] = (0.25, -0.5, 0.75)
    result = resample_image(plane, plane, moved).voxels
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(result[inner], plane.voxels[inner] + 0.25 - 0.25 - 0.1875, atol=2e-2)
    assert result.min() >= plane.voxels.min()
    assert result.max() <= plane.voxels.max()


def test_the_same_grid_and_no_motion_change_no_voxel() -> None:
    other = volume("t2")
    assert resample_image(other, volume("t1c"), np.eye(4)) is other
