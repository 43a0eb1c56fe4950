"""Voxels of DICOM series against the arrays that they were made from: every value, and every value's place."""

from dataclasses import replace
from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from client.data.dicom.header import read_header
from client.data.dicom.pixels import read_volume
from client.data.dicom.series import Series, group_series
from client.data.dicom.sources import find_files
from common.errors import DataError
from simulation.phantom.dicom import Scan, write_classic, write_enhanced
from tests.client.data.conftest import oblique

SHAPE = (14, 12, 8)
INTERLEAVED = [0, 2, 4, 6, 1, 3, 5, 7]
SLOPES = [1 + 0.375 * k for k in range(8)]  # exact in binary, so that equality can be asked for
INTERCEPTS = [-5.0 + k for k in range(8)]
MAKERS = ("SIEMENS", "Philips Medical Systems", "GE MEDICAL SYSTEMS", "Canon Medical Systems")


def scan(**changes) -> Scan:
    voxels = np.random.default_rng(0).integers(0, 1500, SHAPE).astype(np.int32)
    return replace(Scan(voxels, oblique((0.9, 1.1, 3.0))), **changes)


def grouped(folder: Path) -> list[Series]:
    files = find_files(folder, folder, lambda name, why: pytest.fail(f"{name}: {why}"))
    return group_series((file, read_header(file)) for file in files)


def assert_truth(found: Series, truth: Scan) -> None:
    """Each voxel of the truth, looked up where it lies in the world."""
    volume = read_volume(found)
    expected = truth.voxels * np.array(truth.slopes or [1.0]) + np.array(truth.intercepts or [0.0])
    index = np.indices(SHAPE).reshape(3, -1).T
    world = index @ truth.affine[:3, :3].T + truth.affine[:3, 3]
    inverse = np.linalg.inv(volume.affine)
    place = world @ inverse[:3, :3].T + inverse[:3, 3]
    assert np.abs(place - np.round(place)).max() < 1e-4
    assert volume.voxels.shape == SHAPE
    found_there = volume.voxels[tuple(np.round(place).astype(int).T)]
    np.testing.assert_array_equal(found_there, expected[tuple(index.T)].astype(np.float32))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("enhanced", [False, True])
def test_interleaved_with_a_slope_a_slice(tmp_path: Path, maker: str, enhanced: bool) -> None:
    truth = scan(slopes=SLOPES, intercepts=INTERCEPTS, tags={"Manufacturer": maker})
    if enhanced:
        write_enhanced(truth, tmp_path / "one.dcm", order=INTERLEAVED)
    else:
        write_classic(truth, tmp_path, order=INTERLEAVED)
    (found,) = grouped(tmp_path)
    assert_truth(found, truth)
    assert found.geometry.spacing == pytest.approx((0.9, 1.1, 3.0), abs=1e-4)


@pytest.mark.parametrize("enhanced", [False, True])
def test_signed(tmp_path: Path, enhanced: bool) -> None:
    truth = scan(voxels=scan().voxels - 700, signed=True)
    (write_enhanced if enhanced else write_classic)(truth, tmp_path / "series")
    assert_truth(grouped(tmp_path)[0], truth)


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_direction_that_is_rounded_otherwise_in_one_slice_splits_nothing(tmp_path: Path, enhanced: bool) -> None:
    truth = scan()
    if enhanced:
        _tilt_frame(write_enhanced(truth, tmp_path / "one.dcm"))
    else:
        file = write_classic(truth, tmp_path)[4]
        dataset = dcmread(file)
        dataset.ImageOrientationPatient[0] += 5e-4
        dataset.save_as(file)
    (found,) = grouped(tmp_path)
    assert_truth(found, truth)


def _tilt_frame(file: Path) -> None:
    """Each frame gets its own direction, the fifth a slightly other one."""
    dataset = dcmread(file)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    direction = list(shared.PlaneOrientationSequence[0].ImageOrientationPatient)
    del shared.PlaneOrientationSequence
    for k, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.ImageOrientationPatient = [direction[0] + (5e-4 if k == 4 else 0), *direction[1:]]
        groups.PlaneOrientationSequence = [item]
    dataset.save_as(file)


def test_a_missing_slice_is_named_with_its_gap(tmp_path: Path) -> None:
    write_classic(scan(), tmp_path, order=[0, 1, 2, 4, 5, 6, 7])
    (found,) = grouped(tmp_path)
    assert "1 slices are missing after slice 3 (a gap of 6.00 mm where 3.00 mm are usual)" in found.problem
    with pytest.raises(DataError, match="missing"):
        read_volume(found)


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_sheared_stack_is_refused(tmp_path: Path, enhanced: bool) -> None:
    """One degree: highdicom takes it, and forgets the shear."""
    truth = scan(affine=oblique((0.9, 1.1, 3.0), shear=0.05))
    (write_enhanced if enhanced else write_classic)(truth, tmp_path / "series")
    assert "sheared: the last slice lies 0.4 mm beside" in grouped(tmp_path)[0].problem


def test_mixed_series_in_one_folder_come_apart(tmp_path: Path) -> None:
    """Two echoes and a second orientation under one Series Instance UID, and another series among them."""
    first = scan(tags={"EchoTime": 20.0, "EchoNumbers": 1})
    second = scan(voxels=first.voxels[::-1].copy(), tags={"EchoTime": 90.0, "EchoNumbers": 2})
    turned = scan(voxels=first.voxels[:, ::-1].copy(), affine=oblique((0.9, 1.1, 3.0), degrees=80), tags=first.tags)
    other = scan(voxels=first.voxels + 7, seed="other", tags=first.tags)
    for number, each in enumerate((first, second, turned, other)):
        for file in write_classic(each, tmp_path / "all", name=f"{{:03d}}-{number}"):  # file by file, one of each in turn
            dataset = dcmread(file)
            dataset.SOPInstanceUID = each.uid(number, file.name)
            dataset.save_as(file)
    found = grouped(tmp_path)
    assert [series.problem for series in found] == [""] * 4
    for truth in (first, second, turned, other):
        assert sum(_is(series, truth) for series in found) == 1


def _is(series: Series, truth: Scan) -> bool:
    try:
        assert_truth(series, truth)
    except AssertionError:
        return False
    return True


def test_a_time_series_is_no_volume(tmp_path: Path) -> None:
    for time in range(3):
        write_classic(scan(tags={"SOPInstanceUID": "1.2"}), tmp_path / f"{time}")
    for number, file in enumerate(sorted(tmp_path.rglob("IM*"))):
        dataset = dcmread(file)
        dataset.SOPInstanceUID = f"1.2.{number}"
        dataset.save_as(file)
    (found,) = grouped(tmp_path)
    assert "several volumes in one series" in found.problem


def test_a_copy_of_a_file_is_said(tmp_path: Path) -> None:
    file = write_classic(scan(), tmp_path)[0]
    (tmp_path / "copy").write_bytes(file.read_bytes())
    problems = [series.problem for series in grouped(tmp_path)]
    assert sorted(problems) == ["", "a copy of another file (same SOP Instance UID)"]


def test_a_series_that_was_copied_whole_is_one_line(tmp_path: Path) -> None:
    """A disc copied twice into one folder: the plan has a line a series, and not one a file."""
    files = write_classic(scan(), tmp_path / "once")
    write_classic(scan(), tmp_path / "twice")
    found = grouped(tmp_path)
    assert sorted(len(series.files) for series in found) == [len(files), len(files)]
    assert sorted(bool(series.problem) for series in found) == [False, True]


def test_slices_of_two_patients_are_no_volume(tmp_path: Path) -> None:
    files = write_classic(scan(), tmp_path)
    for file in files[: len(files) // 2]:
        dataset = dcmread(file)
        dataset.PatientID = "P-0002"
        dataset.save_as(file)
    (found,) = grouped(tmp_path)
    assert "2 Patient IDs in one series" in found.problem
    assert "P-0002" not in found.problem


LOSSLESS = ("JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless")
PLAIN = ("ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian", "ExplicitVRBigEndian")


@pytest.mark.parametrize("syntax", LOSSLESS + PLAIN)
@pytest.mark.parametrize("enhanced", [False, True])
def test_compressed_pixels(tmp_path: Path, syntax: str, enhanced: bool) -> None:
    """Written by GDCM, whose encoders are another library's than ours; of signed values, which decoders mix up most."""
    truth = scan(voxels=scan().voxels - 700, signed=True)
    files = [write_enhanced(truth, tmp_path / "one.dcm")] if enhanced else write_classic(truth, tmp_path)
    for file in files:
        _encode(file, syntax)
    assert dcmread(files[0]).file_meta.TransferSyntaxUID.is_compressed == (syntax in LOSSLESS)
    assert_truth(grouped(tmp_path)[0], truth)


def _encode(file: Path, syntax: str) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def test_a_compression_that_nobody_here_reads_is_named(tmp_path: Path) -> None:
    for file in write_classic(scan(), tmp_path):
        _encode(file, "JPEG2000Lossless")
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.201")
        dataset.save_as(file)
    with pytest.raises(
        DataError, match=r"compressed as High-Throughput JPEG 2000.*; decompress them, or install the import extra"
    ):
        read_volume(grouped(tmp_path)[0])


def test_pixels_that_end_too_early_are_said(tmp_path: Path) -> None:
    file = write_classic(scan(), tmp_path)[3]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        read_volume(grouped(tmp_path)[0])
