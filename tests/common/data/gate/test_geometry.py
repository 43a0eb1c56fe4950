"""Where images and masks lie: each way in which headers and voxels disagree."""

import nibabel as nib
import numpy as np
import pytest

from tests.common.data.gate.conftest import AFFINE, lesion

C, S = np.cos(np.radians(8)), np.sin(np.radians(8))
MOVE = np.array([[C, -S, 0, 12], [S, C, 0, -9], [0, 0, 1, 6], [0, 0, 0, 1]])
ITK = np.diag([-3.0, -3, 5, 1])  # of a header without codes: left, posterior, superior, from voxel 0


def forms(patient, kind: str, qform, q: int, sform, s: int) -> None:
    voxels, _ = patient.read(kind)
    image = nib.Nifti1Image(voxels, None)
    image.header.set_zooms((3, 3, 5))
    image.set_qform(qform, q) if q else image.header.__setitem__("qform_code", 0)
    image.set_sform(sform, s) if s else image.header.__setitem__("sform_code", 0)
    patient.save(kind, image)


def test_a_stale_sform_is_an_error_and_a_stale_qform_a_warning(patient, truth) -> None:
    forms(patient, "flair", AFFINE, 1, MOVE @ AFFINE, 1)
    sliced, findings = patient.judged()
    assert sliced is None
    [found] = findings
    assert (found.code, found.level, found.file) == ("sform-qform-differ", "error", "flair.nii")
    assert "8 degrees" in found.found
    middle = np.linalg.norm(((MOVE - np.eye(4)) @ AFFINE @ [21.5, 25.5, 9.5, 1])[:3])
    assert f"{middle:.3g} mm at the middle" in found.found
    assert "the sform, which is used" in found.found
    forms(patient, "flair", MOVE @ AFFINE, 1, AFFINE, 1)
    sliced, findings = patient.judged()
    assert [(one.code, one.level) for one in findings] == [("sform-qform-differ", "warning")]
    np.testing.assert_array_equal(sliced.images, truth.images)


@pytest.mark.parametrize(("masked", "code"), [(MOVE @ AFFINE, None), (AFFINE, "mask-displaced")])
def test_all_aligned_by_their_sforms(patient, truth, masked, code) -> None:
    """A mask that ITK drew took the qform: it fits the voxels. One that nibabel drew lies where the images are."""
    for kind in ("t1", "t2", "flair"):
        forms(patient, kind, AFFINE, 1, MOVE @ AFFINE, 2)
    patient.write("mask", lesion().astype(np.uint8), masked)
    codes = {one[:2] for one in patient.said() if one[1] != "sform-qform-differ"}
    assert codes == ({("mask.nii", code)} if code else set())
    sliced, findings = patient.judged(by_voxels=True)
    np.testing.assert_allclose(sliced.images, truth.images, atol=1e-3)
    assert ("placed-by-voxels" in {one.code for one in findings}) == bool(code)


def test_no_orientation_and_a_mask_by_itk(patient, truth) -> None:
    for kind in ("t1", "t2", "flair"):
        forms(patient, kind, None, 0, None, 0)
    patient.write("mask", lesion().astype(np.uint8), ITK)
    assert [one for one in patient.said() if one[0] == "mask.nii"] == [("mask.nii", "mask-displaced", "error")]
    found = patient.judged()[1][-1]
    assert "as ITK does" in found.found
    sliced, findings = patient.judged(by_voxels=True)
    assert {one.code for one in findings} == {"orientation-unknown", "placed-by-voxels"}
    assert sliced.indices.tolist() == truth.indices.tolist()


def test_a_modality_by_itk_on_images_without_orientation(patient) -> None:
    forms(patient, "t1", None, 0, None, 0)
    del patient.files["mask"], patient.files["t2"]
    patient.write("flair", patient.read("flair")[0], ITK)
    assert ("flair.nii", "image-other-reading", "error") in patient.said()
    sliced, _ = patient.judged(by_voxels=True)
    assert sliced is not None
    assert sliced.present.tolist() == [True, False, False, True]


def test_voxel_sizes_that_are_said_twice(patient, truth) -> None:
    image = nib.Nifti1Image(patient.read("t2")[0], AFFINE)
    image.header["qform_code"] = 0
    image.header["pixdim"][1:4] = 1
    (patient.folder / "t2.nii").write_bytes(image.to_bytes())
    raw = bytearray((patient.folder / "t2.nii").read_bytes())
    raw[80:92] = np.ones(3, "<f4").tobytes()
    raw[252:254] = bytes(2)
    (patient.folder / "t2.nii").write_bytes(raw)
    sliced, [found] = patient.judged()
    assert (found.code, found.level) == ("pixdim-differs", "warning")
    assert "pixdim says voxels of 1 x 1 x 1 mm, the affine (sform, code 2) 3 x 3 x 5 mm" in found.found
    np.testing.assert_array_equal(sliced.images, truth.images)


def test_metres_without_their_unit_are_no_head(patient) -> None:
    small = AFFINE.copy()
    small[:3] /= 1000
    for kind in patient.files:
        patient.write(kind, patient.read(kind)[0], small)
    assert ("t1.nii", "size-implausible", "error") in patient.said()


def test_a_modality_that_is_elsewhere(patient) -> None:
    away = AFFINE.copy()
    away[0, 3] += 500
    patient.write("flair", patient.read("flair")[0], away)
    assert ("flair.nii", "image-elsewhere", "error") in patient.said()


@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 0, 1), (0, 2, 1)])
def test_renamed_axes_and_oblique_grids_are_right(patient, truth, axes: tuple[int, ...]) -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    for kind in patient.files:
        voxels, affine = patient.read(kind)
        patient.write(kind, np.ascontiguousarray(voxels.transpose(axes)), turn @ affine[:, [*axes, 3]])
    sliced, findings = patient.judged()
    assert [one for one in findings if one.level == "error"] == []
    np.testing.assert_array_equal(sliced.images, truth.images)


@pytest.mark.parametrize(
    ("affine", "code"),
    [
        (np.eye(4), "mask-no-affine"),
        (np.diag([3.0, 3, 5, 1]), "mask-no-affine"),
        (None, "mask-no-affine"),
        (AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 40.0]), "mask-displaced"),
    ],
)
def test_masks_that_lie_elsewhere(patient, affine, code: str) -> None:
    patient.write("mask", lesion().astype(np.uint8), affine)
    assert patient.said() == [("mask.nii", code, "error")]


def test_a_mask_without_its_origin_is_used_by_voxels_where_the_site_says_so(patient, truth) -> None:
    patient.write("mask", lesion().astype(np.uint8), np.diag([3.0, 3, 5, 1]))
    sliced, findings = patient.judged(by_voxels=True)
    assert [(one.code, one.level) for one in findings] == [("placed-by-voxels", "note")]
    np.testing.assert_array_equal(sliced.images, truth.images)
    patient.write("mask", lesion().astype(np.uint8), np.eye(4))
    assert patient.said(by_voxels=True) == [("mask.nii", "mask-no-affine", "error")]  # its voxels are of another size


def mirrored() -> np.ndarray:
    """The affine whose first axis runs the other way over the same places."""
    other = AFFINE.copy()
    other[0, 0], other[0, 3] = -AFFINE[0, 0], AFFINE[0, 3] + AFFINE[0, 0] * 43
    return other


def test_a_mask_with_other_axes_is_mirrored_or_converted(patient, truth) -> None:
    patient.write("mask", lesion().astype(np.uint8), mirrored())
    assert patient.said() == [("mask.nii", "mask-displaced", "error")]
    patient.write("mask", np.ascontiguousarray(lesion()[::-1]).astype(np.uint8), mirrored())
    sliced, [found] = patient.judged()
    assert (found.code, found.level) == ("mask-other-axes", "warning")
    np.testing.assert_array_equal(sliced.images, truth.images)


def test_thick_slices_that_are_not_axial(patient) -> None:
    x = patient.read("t1")[0]
    patient.files = {"t1": patient.files["t1"]}
    patient.write("t1", x, np.diag([1.0, 8, 1, 1]))
    assert patient.said() == [("t1.nii", "slices-not-axial", "warning")]
