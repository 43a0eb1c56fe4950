"""Intensities by mean and deviation of the brain: against the plain formula, and against what a scanner's gain changes."""

from dataclasses import replace

import numpy as np
import pytest

from common.config.sections import DataConfig
from common.data.slices import scaled_slab
from common.data.volumes import Volume, apply_window, foreground, zscore_window

Z = DataConfig(intensity="zscore")


def brain(size: int = 24) -> np.ndarray:
    generator = np.random.default_rng(5)
    voxels = np.zeros((size, size, 6), np.float32)
    voxels[4:-4, 4:-4] = generator.normal(300.0, 40.0, (size - 8, size - 8, 6))
    return voxels


def test_the_window_is_three_deviations_below_the_mean_to_five_above() -> None:
    voxels = brain()
    inside = np.sort(voxels[foreground(voxels)].astype(np.float64))
    low, high = np.percentile(inside, [1.0, 99.5])
    clipped = [min(max(value, low), high) for value in inside]
    mean = sum(clipped) / len(clipped)
    deviation = (sum((value - mean) ** 2 for value in clipped) / len(clipped)) ** 0.5
    assert zscore_window(voxels, 1.0, 99.5) == pytest.approx((mean - 3 * deviation, mean + 5 * deviation))


def test_a_receivers_gain_changes_nothing_and_a_bright_tumour_little() -> None:
    voxels, every = brain(), np.arange(6)
    plain = scaled_slab(Volume(voxels, np.eye(4)), "t1", every, Z)
    np.testing.assert_allclose(scaled_slab(Volume(np.float32(7.5) * voxels, np.eye(4)), "t1", every, Z), plain, atol=1e-5)
    bright = voxels.copy()
    bright[10:14, 10:14] = 900.0  # one voxel in sixteen
    rest = (voxels > 0) & (bright == voxels)
    by_deviation = scaled_slab(Volume(bright, np.eye(4)), "t1", every, Z)[rest] - plain[rest]
    percentiles = replace(Z, intensity="percentiles")
    before, after = (scaled_slab(Volume(v, np.eye(4)), "t1", every, percentiles)[rest] for v in (voxels, bright))
    assert abs(by_deviation.mean()) < 0.2 < abs((after - before).mean())


def test_air_is_black_as_what_lies_beyond_the_volume_is() -> None:
    voxels, every = brain(), np.arange(6)
    voxels[8:16, 8:16] = 2000.0  # fluid: the brain's mean lies less than three deviations above air
    low, high = zscore_window(voxels, 1.0, 99.5) or (0.0, 0.0)
    assert low < 0
    scaled, shown = scaled_slab(Volume(voxels, np.eye(4)), "t2", every, Z), voxels > 0
    assert not scaled[~shown].any()
    np.testing.assert_allclose(scaled[shown], ((voxels[shown] - low) / (high - low)).clip(0, 1), rtol=1e-5)


def test_a_volume_without_contrast_has_none() -> None:
    for voxels in (np.zeros((4, 4, 2), np.float32), np.full((4, 4, 2), 3.0, np.float32)):
        assert zscore_window(voxels, 1.0, 99.5) is None
        assert not apply_window(voxels, zscore_window(voxels, 1.0, 99.5)).any()


def test_old_caches_stay_good_and_the_new_rule_has_its_own() -> None:
    assert "intensity" not in DataConfig().of_slices()
    assert Z.of_slices() == DataConfig().of_slices() | {"intensity": "zscore, air 0"}
