"""Modalities that lie on each other or do not, on a head of edges that is known; and masks on the other side."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from common.data.review.alignment import find_mirrored_mask, find_misfits
from common.data.review.thumbnail import Thumbnail

PIXEL, SHAPE = (2.0, 2.0), (96, 112, 12)


def labels() -> np.ndarray:
    """Regions of one head, of no symmetry: where smooth noise lies between its quantiles."""
    generator = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(generator.normal(size=SHAPE), (5, 5, 0.6))
    return np.digitize(smooth, np.percentile(smooth, (20, 40, 60, 80)))


REGIONS = labels()
X, Y = np.meshgrid(np.arange(SHAPE[0]) - 47.5, np.arange(SHAPE[1]) - 55.5, indexing="ij")
HEAD = np.repeat(((X / 38) ** 2 + (Y / 46) ** 2 < 1)[:, :, None], SHAPE[2], axis=2)


def image(contrast: tuple[float, ...], seed: int) -> np.ndarray:
    """The head as a modality shows it, with noise."""
    noise = np.random.default_rng(seed).normal(0, 8, SHAPE)
    return np.where(HEAD, np.array(contrast)[REGIONS] + noise, 0).astype(np.float32)


T1, T2, FLAIR = image((90, 200, 300, 420, 260), 1), image((800, 500, 330, 200, 410), 2), image((60, 420, 300, 260, 380), 3)


def thumbnail(**slices: np.ndarray) -> Thumbnail:
    depth = np.stack([ndimage.distance_transform_edt(HEAD[:, :, s], sampling=PIXEL) for s in range(SHAPE[2])], axis=2)
    return Thumbnail(slices, None, PIXEL, depth.astype(np.float32))


def codes(one: Thumbnail) -> list[tuple[str, str]]:
    return [(name, finding.code) for name, finding in find_misfits(one)]


def test_modalities_of_one_head_fit() -> None:
    assert codes(thumbnail(t1=T1, t2=T2, flair=FLAIR)) == []


@pytest.mark.parametrize(
    ("flair", "code"),
    [
        (FLAIR[::-1], "modality-mirrored"),
        (FLAIR[:, ::-1], "modality-mirrored"),
        (FLAIR[::-1, ::-1], "modality-mirrored"),
        (FLAIR[:, :, ::-1], "modality-mirrored"),
        (np.roll(FLAIR, 7, axis=0), "modality-shifted"),
        (FLAIR[:, :, [5, 2, 9, 0, 7, 11, 4, 1, 10, 3, 8, 6]], "slices-shuffled"),
        (np.random.default_rng(0).uniform(0, 400, SHAPE).astype(np.float32), "modality-misfit"),
    ],
)
def test_the_odd_one_is_named(flair: np.ndarray, code: str) -> None:
    assert codes(thumbnail(t1=T1, flair=flair, t2=T2)) == [("flair", code)]


def test_a_few_millimetres_are_no_finding() -> None:
    assert codes(thumbnail(t1=T1, t2=T2, flair=np.roll(FLAIR, (2, -2), (0, 1)))) == []


def test_of_two_nobody_knows_which() -> None:
    [(name, finding)] = find_misfits(thumbnail(t1=T1, flair=FLAIR[::-1]))
    assert name == "flair"
    assert "which of the two" in finding.found
    assert "left for right" in finding.found


def test_one_modality_is_not_judged() -> None:
    assert codes(thumbnail(t1=T1[::-1])) == []


def test_a_mask_on_the_other_side() -> None:
    tumour = np.zeros(SHAPE, np.float32)
    tumour[25:35, 40:55, 4:8] = 1
    one = thumbnail(flair=(FLAIR + 500 * tumour).astype(np.float32))
    assert find_mirrored_mask(one) is None  # no mask
    assert find_mirrored_mask(replace(one, tumour=tumour)) is None
    assert find_mirrored_mask(replace(one, slices={"t1": one.slices["flair"]}, tumour=tumour[::-1].copy())) is None
    found = find_mirrored_mask(replace(one, tumour=tumour[::-1].copy()))
    assert found is not None
    assert found.code == "mask-mirrored"
    assert "left for right" in found.found
