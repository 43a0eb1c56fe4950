"""On made-up heads: ellipsoids full of smooth random tissue, 2 mm voxels."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from common.data.fingerprint import MOST_TOKENS, fingerprint, near, overlap, same_scan, shared
from common.data.gate.files import load_volume
from common.data.volumes import Volume

SHAPE, EDGE = (76, 92, 60), 2.0


def head(seed: int, *, skull: bool = False) -> Volume:
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    tissue = 1 + 0.5 * ndimage.zoom(ndimage.gaussian_filter(noise, 3.0), 1.0) / 0.03
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    voxels = np.where(radius < 0.9, 300 * np.clip(tissue, 0.3, None), 0)
    if skull:
        voxels = np.where((radius > 0.98) & (radius < 1.05), 900, voxels)
    return Volume(voxels.astype(np.float32), np.diag([EDGE, EDGE, EDGE, 1.0]))


@pytest.fixture(scope="module")
def one() -> Volume:
    return head(1)


def moved(volume: Volume, part: float) -> Volume:
    return Volume(ndimage.shift(volume.voxels, (part, -part, part), order=1), volume.affine)


def wider(volume: Volume) -> Volume:
    shape = tuple(round(n / 1.3) for n in SHAPE)
    voxels = ndimage.affine_transform(volume.voxels, np.full(3, 1.3), output_shape=shape, order=1)
    return Volume(voxels, np.diag([1.3 * EDGE] * 3 + [1.0]))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: moved(v, 0.5),
        wider,
        lambda v: Volume(v.voxels[8:-4, 5:-9, 8:-3], v.affine),
        lambda v: Volume(v.voxels * 3.7, v.affine + np.array([[0, 0, 0, 40.0]] * 3 + [[0] * 4])),
        lambda v: Volume(np.round(v.voxels / 8), v.affine),
        lambda _: head(1, skull=True),
    ],
    ids=["moved", "wider voxels", "cropped", "scaled", "coarse values", "skull"],
)
def test_the_same_scan_in_another_form_is_near(one, change):
    assert near(fingerprint(one), fingerprint(change(one)))


def test_two_heads_are_not_near(one):
    tokens = [fingerprint(one), *(fingerprint(head(seed)) for seed in (2, 3, 4))]
    assert not any(near(a, b) for i, a in enumerate(tokens) for b in tokens[:i])
    assert max(shared(a, b) for i, a in enumerate(tokens) for b in tokens[:i]) <= 2


def test_another_file_of_the_same_voxels_gives_the_same_tokens(one, tmp_path):
    turned = one.voxels[::-1, :, ::-1].transpose(2, 0, 1)
    affine = np.array([[0, -EDGE, 0, 9], [0, 0, EDGE, -9], [-EDGE, 0, 0, 3], [0, 0, 0, 1]])
    file = tmp_path / "other.nii.gz"
    file.write_bytes(gzip.compress(nib.Nifti1Image(turned, affine).to_bytes(), 1))
    assert np.array_equal(fingerprint(load_volume(file)), fingerprint(one))


def test_near_is_symmetric_and_one_scan_is_stricter(one):
    whole, other = fingerprint(one), fingerprint(moved(one, 0.5))
    assert near(other, whole)
    assert overlap(whole, other) == overlap(other, whole)
    assert same_scan(whole, whole)
    assert overlap(whole, whole) == 1.0
    assert not same_scan(whole, whole[:3])


def test_tokens_are_sorted_few_and_each_once(one):
    tokens = fingerprint(one)
    assert tokens.dtype == np.uint64
    assert 100 < tokens.size <= MOST_TOKENS
    assert np.array_equal(tokens, np.unique(tokens))


def test_what_shows_nothing_has_no_tokens_and_is_near_nothing():
    for voxels in (np.zeros((20, 20, 20)), np.full((20, 20, 20), np.nan), np.ones((2, 2, 2)), np.ones((40, 40, 40))):
        tokens = fingerprint(Volume(voxels.astype(np.float32), np.eye(4)))
        assert not near(tokens, tokens)
