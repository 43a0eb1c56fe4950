"""A modality is present where it shows something in the slices that the model looks at: in training and prediction alike."""

import numpy as np

from client.predict.prefetch import reading
from common.config.site import SiteConfig
from common.data.cache import open_site
from common.data.cases import Site
from common.data.slices import Sliced
from tests.common.data.gate.conftest import AFFINE, DATA


def slab(patient, first: int, end: int) -> None:
    voxels, affine = patient.read("t2")
    moved = affine.copy()
    moved[:3, 3] = (affine @ [0, 0, first, 1])[:3]
    patient.write("t2", voxels[:, :, first:end], moved)


def test_a_slab_that_misses_the_slices_is_absent(patient, truth, tmp_path) -> None:
    slab(patient, 0, 6)
    sliced, findings = patient.judged()
    assert [(one.file, one.code, one.level) for one in findings] == [("t2.nii", "modality-not-in-slices", "warning")]
    assert sliced.present.tolist() == [True, False, False, True]
    assert not sliced.images[:, 2].any()
    np.testing.assert_array_equal(sliced.images[:, [0, 3]], truth.images[:, [0, 3]])
    with reading((patient.case(),), DATA) as read:
        [(_, predicted)] = list(read)
    assert isinstance(predicted, Sliced)
    site = Site("s", patient.folder, (patient.case(),), SiteConfig())
    trained = open_site(site, DATA, tmp_path / "cache", workers=1)
    assert trained.present.tolist() == [predicted.present.tolist()] == [sliced.present.tolist()]
    assert [one.code for one in trained.findings] == ["modality-not-in-slices"]


def test_a_slab_that_reaches_some_is_present_and_said(patient, truth) -> None:
    slab(patient, 0, int(truth.indices[1]) + 1)
    sliced, [found] = patient.judged()
    assert (found.code, found.level) == ("modality-in-some-slices", "note")
    assert "2 of the 3 slices" in found.found
    assert sliced.present.tolist() == truth.present.tolist()


def test_a_slab_padded_to_the_grid_is_absent_too(patient) -> None:
    voxels, _ = patient.read("t2")
    voxels = voxels.copy()
    voxels[:, :, 6:] = 0
    patient.write("t2", voxels)
    assert patient.said() == [("t2.nii", "modality-no-signal", "warning")]


def test_nothing_in_the_slices_at_all(patient) -> None:
    for kind in ("t1", "t2", "flair"):
        voxels = patient.read(kind)[0].copy()
        voxels[:, :, 6:] = 0
        patient.write(kind, voxels, AFFINE)
    patient.files.pop("mask")
    mask = np.zeros(voxels.shape, np.uint8)
    mask[20:25, 20:25, 14] = 1
    patient.write("mask", mask)
    assert "error" in {level for _, _, level in patient.said()}
