"""Pictures in DICOM, written by pydicom, against the arrays that were written: what a viewer would show is what is read."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    RLELossless,
    VLPhotographicImageStorage,
    generate_uid,
)

from common.data.cases import read_site
from common.data.check import check_site
from common.data.gate.files import load_volume, read_file
from common.data.gate.finding import StaysOutError
from common.data.slices import slice_case
from tests.common.data.gate.test_pictures import CONFIG, code_of, only_case, picture, saved

DEEP = picture(48, 64).astype(np.uint16) * 16 + 5  # 12 bits


def header(pixels: np.ndarray, photometric: str, bits: int) -> Dataset:
    dataset = Dataset()
    colour = pixels.ndim == 3
    dataset.SOPClassUID = VLPhotographicImageStorage if colour else ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, photometric) if colour else (1, photometric)
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    return dataset


def dicom(file: Path, pixels: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 12, **tags: Any) -> Path:
    dataset = header(pixels, photometric, bits)
    dataset.PixelData = pixels.tobytes()
    return written(file, dataset, **tags)


def written(file: Path, dataset: Dataset, **tags: Any) -> Path:
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


def read(file: Path) -> np.ndarray:
    """Rows and columns as the file has them."""
    return load_volume(file).voxels[::-1, ::-1, 0].T


def share(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((pixels.astype(float) - low) / (high - low)).clip(0, 1) * 65535


def test_without_a_window_the_range_of_the_pixels_is_shown(tmp_path: Path) -> None:
    found = read(dicom(tmp_path / "a.dcm", DEEP))
    np.testing.assert_allclose(found, share(DEEP, DEEP.min(), DEEP.max()), atol=0.51)


def test_in_monochrome1_less_is_brighter_and_padding_stays_black(tmp_path: Path) -> None:
    found = read(dicom(tmp_path / "a.DCM", DEEP, "MONOCHROME1"))
    np.testing.assert_allclose(found, 65535 - share(DEEP, DEEP.min(), DEEP.max()), atol=0.51)
    padded = DEEP.copy()
    padded[:10] = 0
    found = read(dicom(tmp_path / "b.dicom", padded, "MONOCHROME1", PixelPaddingValue=0))
    np.testing.assert_allclose(found[10:], 65535 - share(DEEP[10:], DEEP[10:].min(), DEEP[10:].max()), atol=0.51)
    assert (found[:10] == 0).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_first_window_is_applied_to_rescaled_values(tmp_path: Path, function: str) -> None:
    """As pydicom's own function, which answers in the file's bits."""
    tags: dict[str, Any] = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "VOILUTFunction": function}
    file = dicom(tmp_path / "a.dcm", DEEP, WindowCenter=[2500, 100], WindowWidth=[1800, 20], **tags)
    plain = header(DEEP, "MONOCHROME2", 16)
    plain.WindowCenter, plain.WindowWidth, plain.VOILUTFunction = 2500, 1800, function
    np.testing.assert_allclose(read(file), apply_windowing(DEEP.astype(np.int64) * 2 - 1000, plain), atol=0.51)


def test_a_table_of_interest_comes_before_a_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    entries = (4095 * (np.arange(4096) / 4095) ** 2).round().astype(np.uint16)
    table.LUTData = entries.tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    file = dicom(tmp_path / "a.dcm", DEEP, VOILUTSequence=[table], WindowCenter=10, WindowWidth=5)
    np.testing.assert_allclose(read(file), entries[DEEP] / 4095 * 65535, atol=0.51)


def test_signed_values_and_a_lossless_compression(tmp_path: Path) -> None:
    signed = DEEP.astype(np.int16) - 2000
    dataset = header(signed, "MONOCHROME2", 16)
    dataset.PixelData = signed.tobytes()
    dataset.compress(RLELossless)
    found = read(written(tmp_path / "a.dcm", dataset))
    np.testing.assert_allclose(found, share(signed, signed.min(), signed.max()), atol=0.51)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_become_the_brightness_that_a_png_has(tmp_path: Path, photometric: str) -> None:
    colour = np.stack([picture(), picture(seed=5)[::-1], np.full((64, 64), 90, np.uint8)], axis=2)
    stored = colour if photometric == "RGB" else np.asarray(Image.fromarray(colour).convert("YCbCr"))
    file = dicom(tmp_path / "a.dcm", stored, photometric, bits=8)
    png = read(saved(tmp_path / "a.png", colour))
    np.testing.assert_allclose(read(file), png, atol=0 if photometric == "RGB" else 1)
    [found] = read_file(file, "a.dcm")[1]
    assert (found.code, photometric in found.found) == ("picture-grey", True)


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    palette = np.arange(256, dtype=np.uint8)[:, None] * np.array([1, 0, 0], np.uint8) + np.array([0, 40, 200], np.uint8)
    dataset = header(picture(), "PALETTE COLOR", 8)
    dataset.PixelData = picture().tobytes()
    for name, entries in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(dataset, f"{name}PaletteColorLookupTableData", entries.tobytes())
        dataset[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
    found = read(written(tmp_path / "a.dcm", dataset))
    np.testing.assert_allclose(found, palette[picture()] @ np.array([0.299, 0.587, 0.114]), atol=1)


def test_a_burned_in_text_is_said(tmp_path: Path) -> None:
    for said, codes in (("YES", ["picture-burned-in"]), ("NO", [])):
        file = dicom(tmp_path / "sub-1" / "a.dcm", DEEP, BurnedInAnnotation=said)
        assert [one.code for one in read_file(file, "a.dcm")[1]] == codes
    check = check_site(read_site(tmp_path, CONFIG), CONFIG)
    assert check.used == 1


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    several = header(DEEP, "MONOCHROME2", 12)
    several.PixelData, several.NumberOfFrames = DEEP.tobytes() * 2, 2
    assert code_of(written(tmp_path / "frames.dcm", several)) == ("picture-several", "2 frames in one DICOM file")
    packed = header(DEEP, "MONOCHROME2", 12)
    packed.file_meta.TransferSyntaxUID = HTJ2KLossless
    packed.PixelData = encapsulate([bytes(500)])
    packed["PixelData"].VR = "OB"
    code, found = code_of(written(tmp_path / "packed.dcm", packed))
    assert (code, HTJ2KLossless.name in found, "cannot be decoded" in found) == ("picture-not-read", True, True)
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.88.11"), generate_uid()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assert "without a picture (Basic Text SR" in code_of(written(tmp_path / "report.dcm", report))[1]
    whole = dicom(tmp_path / "whole.dcm", DEEP).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-2000])
    assert code_of(tmp_path / "cut.dcm")[0] == "picture-not-read"
    saved(tmp_path / "png.png", picture()).rename(tmp_path / "png.dcm")
    assert "no DICOM file" in code_of(tmp_path / "png.dcm")[1]


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real = dicom(tmp_path / "a.dcm", DEEP), builtins.__import__

    def absent(name: str, *given: Any, **named: Any) -> Any:
        if name == "pydicom":
            raise ImportError(name)
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(StaysOutError) as caught:
        load_volume(file)
    assert "fedmri[import]" in str(caught.value)
    assert caught.value.findings[0].code == "picture-no-pydicom"


def test_a_site_of_dicom_pictures_is_cut_and_two_views_want_a_choice(tmp_path: Path) -> None:
    dicom(tmp_path / "sub-1" / "pa.dcm", DEEP)
    cut = slice_case(only_case(tmp_path), CONFIG.data)
    shown = share(DEEP, DEEP.min(), DEEP.max()) / 65535
    darkest = shown[shown > 0.05 * np.percentile(shown[shown > 0], 99)].min()  # that is no air
    np.testing.assert_allclose(cut.images[0, 0, 8:56], ((shown - darkest) / (1 - darkest)).clip(0), atol=2e-3)
    dicom(tmp_path / "sub-1" / "lateral.dcm", DEEP)
    assert {one.code for one in check_site(read_site(tmp_path, CONFIG), CONFIG).findings if one.level == "error"} == {
        "file-twins"
    }
    (tmp_path / "site.toml").write_text('[files]\nimage = "pa.dcm"\n')
    assert check_site(read_site(tmp_path, CONFIG), CONFIG).used == 1


@pytest.mark.parametrize(
    ("tags", "ratio"),
    [
        ({}, 1.0),
        ({"PixelSpacing": ["0.2", "0.2"]}, 1.0),
        ({"PixelSpacing": ["0.4", "0.2"]}, 2.0),
        ({"ImagerPixelSpacing": ["0.1", "0.2"]}, 0.5),
        ({"PixelAspectRatio": ["3", "2"], "PixelSpacing": ["0.2", "0.2"]}, 1.5),
    ],
)
def test_pixels_that_are_not_square_keep_their_shape(tmp_path: Path, tags: dict[str, Any], ratio: float) -> None:
    """A circle in mm, stored as an ellipse, is a circle again."""
    y, x = np.mgrid[:40, :60]
    disc = (((y - 19.5) * ratio) ** 2 + (x - 29.5) ** 2 <= 9**2).astype(np.uint16) * 4000
    volume, _ = read_file(dicom(tmp_path / "a.dcm", disc, **tags), "a.dcm")
    assert volume.spacing[1] / volume.spacing[0] == pytest.approx(ratio)
    assert max(n * step for n, step in zip(volume.voxels.shape[:2], volume.spacing[:2], strict=True)) == pytest.approx(100.0)
    inside = volume.voxels[:, :, 0] > volume.voxels.max() / 2
    width, height = (np.ptp(np.flatnonzero(inside.any(1 - axis))) * volume.spacing[axis] for axis in (0, 1))
    assert width == pytest.approx(height, abs=2 * max(volume.spacing[:2]))


def test_pixels_of_no_size_keep_the_picture_out(tmp_path: Path) -> None:
    with pytest.raises(StaysOutError, match="rows 0 apart"):
        read_file(dicom(tmp_path / "a.dcm", DEEP, PixelSpacing=["0", "0.2"]), "a.dcm")
