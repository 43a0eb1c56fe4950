"""Masks: values between labels, and what is no tumour mask."""

import numpy as np
import pytest
from scipy import ndimage

from common.data.gate.patient import read_patient
from tests.common.data.gate.conftest import AFFINE, DATA, SHAPE, lesion

MASK = lesion()
LABELS = np.where(MASK, 4, 0)
LABELS[:31][MASK[:31]] = 1
LABELS[:29][MASK[:29]] = 2


def dice(patient) -> float:
    read = read_patient(patient.case(), DATA)
    assert read.tumour
    return float(2 * (read.region & MASK).sum() / (read.region.sum() + MASK.sum()))


def splined() -> np.ndarray:
    return ndimage.shift(ndimage.shift(MASK.astype(np.float32), (0.4, 0.3, 0.35), order=3), (-0.4, -0.3, -0.35), order=3)


@pytest.mark.parametrize(
    ("voxels", "least"),
    [
        (splined(), 0.97),
        (ndimage.gaussian_filter(MASK.astype(np.float32), 0.8), 0.9),
        (1 / (1 + np.exp(-(ndimage.gaussian_filter(MASK.astype(np.float32), 0.8) - 0.5) * 20)), 0.9),  # nowhere 0
        (ndimage.shift(MASK.astype(np.float32), (0.2, 0, 0), order=1), 0.9),
        (ndimage.shift(LABELS.astype(np.float32), (0.2, 0, 0), order=1), 0.9),  # half of label 1, not of 4
    ],
)
def test_half_of_the_label_is_the_threshold(patient, voxels: np.ndarray, least: float) -> None:
    patient.write("mask", voxels.astype(np.float32))
    assert patient.said() == [("mask.nii", "mask-fractional", "note")]
    assert dice(patient) > least


@pytest.mark.parametrize("scale", [1, 255, 1 / 255, 1000])
def test_scaled_masks_and_labels_are_right(patient, scale: float) -> None:
    for voxels in (MASK * scale, MASK * scale + 1e-8, LABELS * scale):
        patient.write("mask", voxels.astype(np.float32))
        assert {level for _, _, level in patient.said()} <= {"warning"}  # labels in thousands are said to be unknown
        assert dice(patient) == 1


def test_an_empty_mask(patient) -> None:
    patient.write("mask", np.zeros(SHAPE, np.uint8))
    sliced, findings = patient.judged()
    assert [(one.code, one.level) for one in findings] == [("mask-empty", "warning")]
    assert not sliced.tumour


def test_labels_that_nobody_knows(patient) -> None:
    patient.write("mask", np.where(LABELS == 4, 17, LABELS).astype(np.uint8))
    assert patient.said() == [("mask.nii", "mask-labels-unknown", "warning")]
    assert dice(patient) == 1


def test_images_and_parcellations_are_no_masks(patient) -> None:
    patient.write("mask", patient.read("t1")[0].astype(np.float32) + 0.5)
    assert patient.said() == [("mask.nii", "mask-not-a-mask", "error")]
    patient.write("mask", patient.read("t1")[0])
    assert patient.said() == [("mask.nii", "mask-not-a-mask", "error")]


def test_a_brain_mask_an_inverted_one_and_a_large_one(patient) -> None:
    brain = patient.read("t1")[0] > 0
    for voxels in (brain, ~MASK, np.ones(SHAPE)):
        patient.write("mask", voxels.astype(np.uint8))
        assert patient.said() == [("mask.nii", "mask-is-brain", "error")]
    half = brain.copy()
    half[: SHAPE[0] // 2] = False
    patient.write("mask", half.astype(np.uint8))
    assert patient.said() == [("mask.nii", "mask-large", "warning")]


def test_a_mask_in_air(patient) -> None:
    air = np.zeros(SHAPE, np.uint8)
    air[1:4, 1:6, 8:12] = 1
    patient.write("mask", air)
    assert patient.said() == [("mask.nii", "mask-in-air", "error")]


def test_a_mask_on_another_grid_is_resampled_and_must_reach_the_images(patient) -> None:
    coarse = AFFINE @ np.diag([2.0, 1, 1, 1])
    patient.write("mask", MASK[::2].astype(np.uint8), coarse)
    assert patient.said() == [("mask.nii", "mask-resampled", "note")]
    assert dice(patient) > 0.8
    coarse[0, 3] -= 1000
    patient.write("mask", MASK[::2].astype(np.uint8), coarse)
    assert ("mask.nii", "mask-outside", "error") in patient.said()
