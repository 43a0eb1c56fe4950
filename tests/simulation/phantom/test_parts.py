"""What phantoms are made of: shares of patches, beside the images that a scanner of their own makes of them."""

from dataclasses import replace

import numpy as np
import pytest

from common.config.sections import DataConfig
from common.errors import ConfigError
from simulation.phantom.parts import FIRST_OF_TUMOUR, PARTS, dissect

DATA = DataConfig(size=64, slices=3, intensity="zscore")


def test_shares_fit_the_images_and_repeat() -> None:
    one, again, other = (dissect(number, 11, DATA, 8) for number in (1, 1, 2))  # 1: IDH-wildtype
    assert one.images.shape == (3, 4, 64, 64)
    assert one.parts.shape == (3, len(PARTS), 8, 8)
    for mine, twin in ((one.images, again.images), (one.parts, again.parts)):
        np.testing.assert_array_equal(mine, twin)
    assert not np.array_equal(one.images, other.images)
    shares = one.parts.astype(np.float64)
    assert shares.min() >= 0
    assert shares.sum(1).max() < 1.01
    air = shares.sum(1) < 0.001
    assert air.any()
    seen = one.images.astype(np.float64).max(1).reshape(3, 8, 8, 8, 8).mean((2, 4))
    assert seen[air].max() < 0.03 < seen[~air].mean()  # where nothing is, images are dark
    tumour = shares[:, FIRST_OF_TUMOUR:].sum(1)
    assert tumour.max() > 0.5  # slices are cut where the tumour is
    fluid, white = (shares[:, list(PARTS).index(name)] for name in ("fluid", "white"))
    t2 = one.images[:, 2].astype(np.float64).reshape(3, 8, 8, 8, 8).mean((2, 4))
    healthy = (tumour < 0.02) & (shares.sum(1) > 0.98)
    assert np.corrcoef(t2[healthy], (fluid - white)[healthy])[0, 1] > 0.5  # fluid is bright on T2, white matter dark


@pytest.mark.parametrize("changed", [{"axes": ("axial", "coronal")}, {"field_of_view": (80.0, 112.0)}])
def test_other_planes_are_refused_by_name(changed) -> None:
    with pytest.raises(ConfigError, match=r"data\.axes is .*data\.field_of_view"):
        dissect(1, 11, replace(DATA, **changed), 8)
