"""What a file is: each form is read as nibabel reads it, or named for what it is."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.gate.files import companion, load_volume
from common.data.gate.finding import StaysOutError
from tests.common.data.gate.conftest import AFFINE, SHAPE, head

MGH = (1).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in (4, 4, 4, 1, 3)) + bytes(300)


def code_of(file: Path) -> tuple[str, str]:
    with pytest.raises(StaysOutError) as caught:
        load_volume(file)
    [found] = caught.value.findings
    return found.code, found.found


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "file-empty", "0 bytes"),
        (bytes(128) + b"DICM" + bytes(400), "file-not-nifti", "DICOM"),
        (MGH, "file-not-nifti", "FreeSurfer"),
        (gzip.compress(MGH, mtime=0), "file-not-nifti", "FreeSurfer"),
        (b"NRRD0004\ntype: short\n", "file-not-nifti", "NRRD"),
        (b"ObjectType = Image\nNDims = 3\n", "file-not-nifti", "MetaImage"),
        (b"\x89PNG\r\n\x1a\n" + bytes(400), "file-not-nifti", "PNG"),
        (b"PK\x03\x04" + bytes(400), "file-not-nifti", "ZIP"),
        (b"<!DOCTYPE html><html>Please log in", "file-not-nifti", "web page"),
        (b"../../.git/annex/objects/xx/SHA256E-s1--a.nii.gz", "file-not-nifti", "git-annex"),
        (b"version https://git-lfs.github.com/spec/v1\n", "file-not-nifti", "Git LFS"),
        (b"patient\tage\n1\t60\n", "file-not-nifti", "text file"),
        (np.random.default_rng(0).bytes(400), "file-damaged", "no header"),
        (gzip.compress(gzip.compress(bytes(400), mtime=0), mtime=0), "file-not-nifti", "compressed twice"),
        (gzip.compress(bytes(400), mtime=0) + b"more", "file-damaged", "after the gzip"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, code: str, words: str) -> None:
    (tmp_path / "t1.nii.gz").write_bytes(content)
    found = code_of(tmp_path / "t1.nii.gz")
    assert found[0] == code
    assert words in found[1]


def test_a_directory_and_nothing(tmp_path: Path) -> None:
    assert code_of(tmp_path)[0] == code_of(tmp_path / "x.nii")[0] == "file-unreadable"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_stored_form_is_read_as_nibabel_reads_it(tmp_path: Path, dtype: type, order: str, kind: Any) -> None:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(f"{order}{np.dtype(dtype).str[1:]}"))
    header["scl_slope"], header["scl_inter"] = 2.5, 10
    turned = AFFINE[:, [1, 2, 0, 3]] * [1, -1, 1, 1]
    nib.save(kind(head(0, 50).transpose(1, 2, 0).astype(dtype), turned, header), tmp_path / "a.nii.gz")
    truth = nib.as_closest_canonical(nib.load(tmp_path / "a.nii.gz"))
    volume = load_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.voxels, np.asarray(truth.dataobj, np.float32))
    np.testing.assert_allclose(volume.affine, truth.affine, atol=1e-9)
    if volume.levels is not None:
        values, counts = np.unique(volume.voxels, return_counts=True)
        np.testing.assert_array_equal(volume.levels.values, values)
        np.testing.assert_array_equal(volume.levels.counts, counts)
    assert (volume.levels is None) == (np.dtype(dtype).itemsize > 2)


@pytest.mark.parametrize("named", [".img", ".hdr"])
def test_pairs_are_read_by_either_name(tmp_path: Path, named: str) -> None:
    nib.save(nib.Nifti1Pair(head(0, 0), AFFINE), tmp_path / "a.img")
    np.testing.assert_array_equal(load_volume(tmp_path / f"a{named}").voxels, head(0, 0))
    other = companion(tmp_path / f"a{named}")
    assert other is not None
    other.unlink()
    assert code_of(tmp_path / f"a{named}")[0] == "file-half-of-a-pair"


def test_analyze_knows_no_orientation(tmp_path: Path) -> None:
    image = nib.AnalyzeImage(head(0, 0), np.diag([-3.0, 3, 5, 1]))
    nib.save(image, tmp_path / "a.img")
    volume = load_volume(tmp_path / "a.hdr")
    assert volume.header is not None
    assert (volume.header.form, volume.header.sform_code, volume.header.qform_code) == ("Analyze 7.5", 0, 0)
    np.testing.assert_array_equal(volume.voxels, head(0, 0)[::-1])  # left comes first, as nibabel has it
    assert volume.spacing == (3, 3, 5)


@pytest.mark.parametrize(("shape", "words"), [((4, 4, 4, 3), "3 frames"), ((1, 4, 4, 4), "stands first"), ((4, 4), "one slice")])
def test_frames_are_counted(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)), tmp_path / "a.nii")
    code, found = code_of(tmp_path / "a.nii")
    assert code == "file-several-frames"
    assert words in found


def test_axes_of_length_one_behind_are_harmless(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(head(0, 0)[..., None, None], AFFINE), tmp_path / "a.nii")
    np.testing.assert_array_equal(load_volume(tmp_path / "a.nii").voxels, head(0, 0))


def test_colours_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, AFFINE), tmp_path / "a.nii")
    assert code_of(tmp_path / "a.nii") == ("file-colour", "a colour picture (RGB24)")


def test_the_magnitude_of_complex_numbers_is_used_and_said(patient, truth) -> None:
    voxels, affine = patient.read("flair")
    patient.write("flair", voxels.astype(np.complex64) * np.exp(2.5j), affine)
    sliced, findings = patient.judged()
    assert [(one.code, one.level) for one in findings] == [("file-complex", "warning")]
    np.testing.assert_allclose(sliced.images, truth.images, atol=1e-3)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3)])
def test_units_of_length_are_honoured(patient, truth, unit: str, factor: float) -> None:
    for kind in patient.files:
        voxels, affine = patient.read(kind)
        scaled = affine.copy()
        scaled[:3] *= factor
        image = nib.Nifti1Image(voxels, scaled)
        image.header.set_xyzt_units(unit)
        patient.save(kind, image)
    sliced, findings = patient.judged()
    assert {one.code for one in findings} == {"unit-not-mm"}
    assert "3 x 3 x 5 mm" in findings[0].found
    np.testing.assert_allclose(sliced.images, truth.images, atol=1e-3)  # the header holds 32 bits of a thousandth


@pytest.mark.parametrize("column", [0, 2])
def test_an_affine_without_volume(tmp_path: Path, column: int) -> None:
    image = nib.Nifti1Image(head(0, 0), AFFINE)
    flat = AFFINE.copy()
    flat[:, column] = 0
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = flat[row]
    image.header["sform_code"] = 1
    image._affine = flat
    content = bytearray(image.to_bytes())
    content[280:328] = np.asarray(flat[:3], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    assert code_of(tmp_path / "a.nii")[0] == "affine-singular"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_half_a_file_breaks_off(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    nib.save(nib.Nifti1Image(head(0, 0), AFFINE), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert code_of(file)[0] == "file-truncated"
