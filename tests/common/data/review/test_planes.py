"""Against SciPy, slice by slice."""

import numpy as np
import pytest
from scipy import ndimage

from common.data.review.percentiles import percentiles
from common.data.review.planes import opened, squared_distance, without_holes

MASKS = ndimage.gaussian_filter(np.random.default_rng(4).normal(size=(5, 40, 31)), (0, 1, 1)) > 0


def test_opening_and_filling_are_scipys() -> None:
    for ours, theirs in ((opened, ndimage.binary_opening), (without_holes, ndimage.binary_fill_holes)):
        np.testing.assert_array_equal(ours(MASKS), np.stack([theirs(mask) for mask in MASKS]))
    assert without_holes(np.ones((2, 4, 4), np.bool_)).all()
    assert not without_holes(np.zeros((2, 4, 4), np.bool_)).any()


def test_distances_are_scipys_as_far_as_asked() -> None:
    points, pixel = np.random.default_rng(5).random((3, 50, 41)) > 0.998, (1.5, 2.0)
    points[2] = False
    squared = squared_distance(points, pixel, 9.0)
    for slice_, seen in zip(points[:2], squared[:2], strict=True):
        true = ndimage.distance_transform_edt(~slice_, sampling=pixel)
        np.testing.assert_allclose(np.sqrt(seen[true <= 9]), true[true <= 9], rtol=1e-6)
        assert (seen[true > 9] > 81).all()
    assert np.isinf(squared[2]).all()


@pytest.mark.parametrize("count", [1, 2, 1001])
def test_percentiles_are_numpys(count) -> None:
    values, q = np.random.default_rng(6).normal(size=count).astype(np.float32), (0, 0.5, 37, 50, 99.5, 100)
    np.testing.assert_allclose(percentiles(values, q), np.percentile(values.astype(np.float64), q), rtol=1e-12)
