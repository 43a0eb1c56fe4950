"""What images hold: normalised ones give the slices of what they were made of, and broken ones are named."""

import numpy as np
import pytest

from common.data.gate.background import settle
from common.data.volumes import Levels, Volume, foreground, intensity_window, zscore_window
from tests.common.data.gate.conftest import AFFINE, SHAPE, head

MODALITIES = ("t1", "t2", "flair")


def zscored(x: np.ndarray) -> np.ndarray:
    inside = x > 0
    return np.where(inside, (x - x[inside].mean()) / x[inside].std(), 0)


def within(x: np.ndarray) -> np.ndarray:
    return (x - x[x > 0].mean()) / x[x > 0].std()


NORMALISED = {
    "z-scored within the brain": zscored,
    "z-scored, background no number": lambda x: np.where(x > 0, within(x), np.nan),
    "z-scored, background far below": lambda x: np.where(x > 0, within(x), -9.0),
    "z-scored, background above": lambda x: np.where(x > 0, within(x), 10.0),
    "z-scored as a whole": lambda x: (x - x.mean()) / x.std(),
    "scaled to -1 to 1": lambda x: 2 * x / x.max() - 1,
    "scaled to 0 to 1": lambda x: x / x.max(),
    "all negative": lambda x: np.where(x > 0, x - 2.0 * x.max(), 0),
    "padded with -1024": lambda x: np.where(np.indices(x.shape).min(0) < 2, -1024.0, x),
    "lifted by 1000": lambda x: x + 1000.0,
    "int16": lambda x: (x - 500).astype(np.int16),
}


@pytest.mark.parametrize("how", NORMALISED)
def test_a_normalised_image_gives_the_same_slices(patient, truth, how: str) -> None:
    for kind in MODALITIES:
        made = NORMALISED[how](patient.read(kind)[0].astype(np.float64))
        patient.write(kind, made if made.dtype == np.int16 else made.astype(np.float32))
    sliced, findings = patient.judged()
    assert {one.level for one in findings} <= {"note", "warning"}
    if how != "scaled to 0 to 1":  # a background above all others could be an inverted image's too: a warning, the same slices
        code = "background-brightest" if how in ("z-scored, background above", "all negative") else "background-not-zero"
        assert [one.file for one in findings if one.code == code] == [f"{m}.nii" for m in MODALITIES]
    np.testing.assert_allclose(sliced.images.astype(float), truth.images.astype(float), atol=0.02)
    assert sliced.present.tolist() == truth.present.tolist()


def test_air_that_is_noise_around_an_image_with_its_mean_taken_off(patient, truth) -> None:
    noise = np.abs(np.random.default_rng(5).normal(0, 3, SHAPE))
    raw: dict[str, np.ndarray] = {kind: patient.read(kind)[0] + noise for kind in MODALITIES}
    for kind, x in raw.items():
        patient.write(kind, x.astype(np.float32))
    want = patient.judged()[0]
    for kind, x in raw.items():
        patient.write(kind, ((x - x.mean()) / x.std()).astype(np.float32))
    got, findings = patient.judged()
    assert {one.code for one in findings} == {"background-not-zero"}
    np.testing.assert_allclose(got.images.astype(float), want.images.astype(float), atol=0.02)


@pytest.mark.parametrize(
    "voxels",
    [
        head(0, 50).astype(np.float32),
        head(0, 50) - 3.0 * (np.random.default_rng(0).random(SHAPE) < 0.3),  # ringing: small negative values
        np.abs(np.random.default_rng(0).normal(0, 4, SHAPE)) + head(0, 50),  # noise in air
        np.random.default_rng(0).uniform(50, 200, SHAPE),
        np.zeros(SHAPE),
        np.full(SHAPE, np.nan),
    ],
)
def test_ordinary_images_stay_to_the_last_bit(voxels: np.ndarray) -> None:
    volume = Volume(voxels.astype(np.float32), AFFINE)
    settled, findings = settle(volume)
    assert settled is volume
    assert findings == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
@pytest.mark.parametrize("size", [7, 1000, 4001])
def test_percentiles_of_levels_are_numpys_to_the_last_bit(dtype: type, size: int) -> None:
    generator = np.random.default_rng(size)
    info = np.iinfo(dtype)
    raw: np.ndarray = generator.integers(max(info.min, -3000), min(info.max, 9000), (size, 1, 1)).astype(dtype)
    voxels = raw.astype(np.float32) * np.float32(0.37)
    values, counts = np.unique(voxels, return_counts=True)
    levels = Levels(values, counts.astype(np.int64))
    for q in (0, 1, 37.5, 99, 99.5, 100):
        for asked in (q, (q,)):
            mine, truth = levels.percentile(asked), np.percentile(voxels, asked)
            assert np.array_equal(mine, truth)
            assert np.asarray(mine).dtype == np.asarray(truth).dtype
    np.testing.assert_array_equal(foreground(voxels, levels), foreground(voxels))
    assert intensity_window(voxels, 1.0, 99.5, levels) == intensity_window(voxels, 1.0, 99.5)
    assert zscore_window(voxels, 1.0, 99.5, levels) == pytest.approx(zscore_window(voxels, 1.0, 99.5), rel=1e-6)


def test_numbers_that_ran_over(patient) -> None:
    voxels = patient.read("t2")[0].astype(np.int64) * 90
    assert voxels.max() > 50000
    patient.write("t2", voxels.astype(np.int16))
    assert ("t2.nii", "intensity-wrapped", "error") in patient.said()
    patient.write("t2", voxels.astype(np.uint16))
    assert patient.said() == []


def test_a_bright_end_that_was_cut_off(patient) -> None:
    patient.write("t1", np.minimum(patient.read("t1")[0], 200))
    assert patient.said() == [("t1.nii", "intensity-clipped", "warning")]


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_an_image_of_one_value(patient, value: float) -> None:
    patient.write("t2", np.full(SHAPE, value, np.float32))
    assert ("t2.nii", "image-constant", "error") in patient.said()


def test_a_label_map_under_the_name_of_a_modality(patient) -> None:
    patient.write("t2", patient.read("mask")[0].astype(np.int16))
    assert ("t2.nii", "image-few-values", "warning") in patient.said()


def test_numbers_that_are_none_count_as_background(patient, truth) -> None:
    x = patient.read("t2")[0].astype(np.float32)
    patient.write("t2", np.where(x > 0, x, np.nan))
    sliced, [found] = patient.judged()
    assert (found.code, found.level) == ("not-finite", "warning")
    np.testing.assert_array_equal(sliced.images, truth.images)


@pytest.mark.parametrize("value", [1e17, 3e38])
@pytest.mark.parametrize("whole", [False, True])
def test_numbers_that_no_image_has_are_none(patient, value: float, whole: bool) -> None:
    """A slope that was read wrongly, or one voxel of uninitialised memory: squares of it run out of 32 bits."""
    x = patient.read("t2")[0].astype(np.float32)
    patient.write("t2", x * np.float32(value / x.max()) if whole else np.where(x == x.max(), np.float32(value), x))
    said = patient.said()
    assert ("t2.nii", "not-finite", "warning") in said
    assert (("t2.nii", "image-constant", "error") in said) == whole
