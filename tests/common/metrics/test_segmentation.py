"""Agreement of masks: closed forms of two cubes, a naive loop over surfaces, and means with intervals."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from common.metrics.segmentation import agreement, dice_difference, summary

SPACING = (1.0, 2.0, 5.0)


def cube(start: tuple[int, int, int], edge: int = 4) -> NDArray[np.bool_]:
    found = np.zeros((12, 12, 12), bool)
    found[tuple(slice(at, at + edge) for at in start)] = True
    return found


def surface(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Places in mm of the voxels of a mask that have a neighbour outside."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.array(SPACING)


def naive_hd95(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    """The larger of the two 95th percentiles of distances from each surface to the other."""
    far = []
    for a, b in ((surface(one), surface(two)), (surface(two), surface(one))):
        far.append(np.percentile([min(np.linalg.norm(b - place, axis=1)) for place in a], 95))
    return float(max(far))


def test_two_overlapping_cubes() -> None:
    """Edge 4, shifted by one voxel along X: 48 of 64 voxels in common; surfaces are 1 mm apart there."""
    found = agreement(cube((4, 4, 4)), cube((5, 4, 4)), SPACING)
    assert [found.dice, found.jaccard] == pytest.approx([2 * 48 / 128, 48 / 80])
    assert found.hd95_mm == pytest.approx(1.0)
    assert [found.drawn_ml, found.proposed_ml] == pytest.approx([0.64, 0.64])
    apart = agreement(cube((4, 4, 4)), cube((4, 4, 6)), SPACING)
    assert apart.hd95_mm == pytest.approx(10.0)  # two slices of 5 mm


def test_distances_are_a_naive_loops() -> None:
    generator = np.random.default_rng(3)
    for _ in range(4):
        one, two = (ndimage.binary_dilation(generator.random((10, 10, 8)) < 0.01, iterations=2) for _ in range(2))
        found = agreement(one, two, SPACING)
        assert found.hd95_mm == pytest.approx(naive_hd95(one, two), rel=1e-5)
        assert found.dice == pytest.approx(2 * (one & two).sum() / (one.sum() + two.sum()))


def test_equal_masks_agree_and_nothing_proposed_is_said() -> None:
    mask, nothing = cube((4, 4, 4)), np.zeros((12, 12, 12), bool)
    same = agreement(mask, mask, SPACING)
    assert (same.dice, same.jaccard, same.hd95_mm) == (1.0, 1.0, 0.0)
    empty = agreement(nothing, mask, SPACING)
    assert (empty.dice, empty.jaccard, empty.hd95_mm) == (0.0, 0.0, None)
    with pytest.raises(ValueError, match="marks something"):
        agreement(mask, nothing, SPACING)


def rows(dice: list[float], distance: list[float | None]) -> list[dict[str, float | None]]:
    return [{"dice": d, "jaccard": d / (2 - d), "hd95_mm": h} for d, h in zip(dice, distance, strict=True)]


def test_means_are_over_patients_and_those_without_a_distance_are_counted() -> None:
    told = summary(rows([0.0, 0.5, 1.0, 0.9], [None, 4.0, 1.0, 2.0]), bootstrap=500, generator=np.random.default_rng(0))
    assert (told["n"], told["empty"], told["hd95_mm"]["n"]) == (4, 1, 3)
    assert told["dice"]["value"] == pytest.approx(0.6)
    assert told["hd95_mm"]["value"] == pytest.approx(7 / 3)
    assert told["dice"]["low"] < 0.6 < told["dice"]["high"]
    alone = summary(rows([0.5], [1.0]), bootstrap=500, generator=np.random.default_rng(0))
    assert (alone["dice"]["value"], alone["dice"]["low"]) == (0.5, None)
    nobody = summary([], bootstrap=500, generator=np.random.default_rng(0))
    assert (nobody["n"], nobody["dice"]["value"]) == (0, None)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        told = summary(rows(list(generator.beta(8, 2, 40)), [1.0] * 40), bootstrap=400, generator=generator)["dice"]
        inside += told["low"] <= 0.8 <= told["high"]
    assert 0.89 <= inside / 200 <= 0.99


def test_differences_are_paired() -> None:
    """A model that is better by 0.1 for each patient has no doubt left, however much patients differ."""
    first, second = rows([0.9, 0.5, 0.3, 0.7], [1.0] * 4), rows([0.8, 0.4, 0.2, 0.6], [1.0] * 4)
    told = dice_difference(first, second, bootstrap=300, generator=np.random.default_rng(0))
    assert told == pytest.approx({"value": 0.1, "low": 0.1, "high": 0.1})
