"""Masks on the slices' grid: against the slices themselves, kept once, and carried with the patients."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import common.data.lesions as module
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.dataset import WHOLE, SiteData
from common.data.gate.files import load_volume
from common.data.lesions import slice_lesion, with_lesions
from common.data.slices import prepare_case

PATIENTS = {"sub-1": ["t1", "flair", "mask"], "sub-2": ["t1c"]}


@pytest.fixture
def site(write_site, run):
    return read_site(write_site("bonn", PATIENTS), run)


def test_it_lies_where_the_images_show_the_tumour(site, small) -> None:
    """An image that is bright where the mask is, is cut like the mask."""
    case = site.cases[0]
    assert case.mask is not None
    voxels = 1 + load_volume(case.mask).voxels
    voxels += 1e-4 * np.random.default_rng(0).random(voxels.shape, np.float32)  # a border of one value would be background
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), case.files["t1"])
    images, *_ = prepare_case(case, replace(small, low_percentile=0.0, high_percentile=100.0))
    found = slice_lesion(case, small)
    assert found.shape == images[:, 0].shape
    assert (found == WHOLE).any()
    same = images[:, 0].astype(np.float32) * WHOLE
    # Where the tumour is whole the percentiles make it 1, beside it 0; at its edge both are interpolated.
    assert ((found > 0) == (same > 1)).mean() > 0.99


def test_a_patient_without_a_mask_has_none(site, small) -> None:
    assert not slice_lesion(site.cases[1], small).any()


def test_it_is_made_once_and_a_damaged_file_is_made_anew(site, small, tmp_path: Path, monkeypatch) -> None:
    made: list[str] = []

    def counted(case, data):
        made.append(case.id)
        return slice_lesion(case, data)

    monkeypatch.setattr(module, "slice_lesion", counted)
    cache = tmp_path / "cache"
    patients = open_site(site, small, cache, workers=1)
    first, second = (with_lesions(patients, site, small, cache) for _ in range(2))
    assert made == ["sub-1", "sub-2"]
    assert patients.lesions is None
    np.testing.assert_array_equal(first.lesions, second.lesions)
    [file] = cache.glob("*.lesions.npz")
    file.write_bytes(file.read_bytes()[:-40])
    np.testing.assert_array_equal(with_lesions(patients, site, small, cache).lesions, first.lesions)
    assert len(made) == 4
    assert open_site(site, small, cache, workers=1).key == patients.key  # the slices are what they were


def test_some_patients_and_several_sites_keep_theirs(site, small, tmp_path: Path) -> None:
    patients = with_lesions(open_site(site, small, tmp_path, workers=1), site, small, tmp_path)
    assert patients.lesions is not None
    np.testing.assert_array_equal(patients.select([1, 0]).lesions, patients.lesions[[1, 0]])
    np.testing.assert_array_equal(SiteData.pool([patients, patients.select([0])], "x").lesions, patients.lesions[[0, 1, 0]])
    assert SiteData.pool([patients, replace(patients, lesions=None)], "x").lesions is None
