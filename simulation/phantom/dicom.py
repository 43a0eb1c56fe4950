"""A volume as DICOM files: classic (a file a slice) and enhanced multi-frame, as the makers write them.

C columns, R rows, K slices: `voxels[C, R, K]` of stored values, and a NIfTI affine (millimetres, RAS) that takes (column, row,
slice) to the world. What a right reader gives back is `voxels * slopes + intercepts` under this affine, whatever the order of the
files or frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's RAS and DICOM's LPS differ in the first two axes' signs


@dataclass(frozen=True)
class Scan:
    """One series: what is stored, where it lies, and its header."""

    voxels: NDArray[np.int32]  # [C, R, K] stored values
    affine: NDArray[np.float64]  # 4 x 4, RAS
    slopes: Sequence[float] = ()  # one a slice; (): no rescaling in the header
    intercepts: Sequence[float] = ()
    signed: bool = False
    tags: Mapping[str, Any] = field(default_factory=dict)  # DICOM keyword -> value, over the defaults
    seed: str = "series"  # study and series of the same names get the same UIDs
    study: str = "study"

    def uid(self, *names: object) -> UID:
        """A UID that follows from the names."""
        return generate_uid(entropy_srcs=[self.study, *map(str, names)])

    def position(self, k: int) -> list[float]:
        """Slice k's first voxel, LPS."""
        return _decimal(LPS @ self.affine @ [0, 0, k, 1])[:3]

    def orientation(self) -> list[float]:
        """Direction of a row, then of a column, LPS."""
        axes = (LPS @ self.affine)[:3, :2]
        return _decimal((axes / np.linalg.norm(axes, axis=0)).T.ravel())

    def spacing(self) -> list[float]:
        """Between rows, then between columns."""
        return _decimal(np.linalg.norm(self.affine[:3, [1, 0]], axis=0))

    def slice_step(self) -> float:
        """Between slices, along their normal."""
        row, column = np.reshape(self.orientation(), (2, 3))
        return float(abs(np.cross(row, column) @ (LPS @ self.affine)[:3, 2]))


def write_classic(scan: Scan, folder: Path, *, order: Sequence[int] = (), name: str = "IM{:04d}") -> list[Path]:
    """One MR Image Storage file a slice.

    Args:
        scan: the series.
        folder: made where it is absent.
        order: in which the slices were acquired, so numbered and so named; (): from first to last. A slice that it lacks is not
            written.
        name: of the n-th file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, k in enumerate(order or range(scan.voxels.shape[2]), start=1):
        dataset = _common(scan, MRImageStorage, scan.uid(scan.seed, k))
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = scan.position(k)
        dataset.ImageOrientationPatient = scan.orientation()
        dataset.PixelSpacing = scan.spacing()
        dataset.SliceThickness = dataset.SpacingBetweenSlices = round(scan.slice_step(), 6)
        if scan.slopes:
            dataset.RescaleSlope, dataset.RescaleIntercept = scan.slopes[k], scan.intercepts[k] if scan.intercepts else 0
            dataset.RescaleType = "US"
        _set(dataset, scan.tags)
        dataset.PixelData = _pixels(scan, [k])
        files.append(folder / name.format(number))
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(scan: Scan, file: Path, *, order: Sequence[int] = ()) -> Path:
    """One Enhanced MR Image Storage file, with position and rescaling of each frame in its functional group.

    Args:
        scan: the series.
        file: its folder is made where it is absent.
        order: in which the slices stand in the file; (): from first to last.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    stored = list(order or range(scan.voxels.shape[2]))
    dataset = _common(scan, EnhancedMRImageStorage, scan.uid(scan.seed, "enhanced"))
    dataset.NumberOfFrames = len(stored)
    dataset.InstanceNumber = 1
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=scan.spacing(), SliceThickness=round(scan.slice_step(), 6))]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=scan.orientation())]
    timing = {key: scan.tags[key] for key in ("RepetitionTime", "FlipAngle", "EchoTrainLength") if key in scan.tags}
    shared.MRTimingAndRelatedParametersSequence = [_item(**timing)]
    if "EchoTime" in scan.tags:
        shared.MREchoSequence = [_item(EffectiveEchoTime=float(scan.tags["EchoTime"]))]
    if "InversionTime" in scan.tags:
        shared.MRModifierSequence = [_item(InversionRecovery="YES", InversionTimes=float(scan.tags["InversionTime"]))]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(scan, k) for k in stored]
    dataset.DimensionOrganizationType = "3D"
    _set(dataset, {key: value for key, value in scan.tags.items() if key not in (*timing, "EchoTime", "InversionTime")})
    dataset.PixelData = _pixels(scan, stored)
    dataset.save_as(file, enforce_file_format=True)
    return file


def _frame(scan: Scan, k: int) -> Dataset:
    frame = Dataset()
    frame.FrameContentSequence = [_item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])]
    frame.PlanePositionSequence = [_item(ImagePositionPatient=scan.position(k))]
    frame.MRImageFrameTypeSequence = [_item(FrameType=list(scan.tags.get("ImageType", ["ORIGINAL", "PRIMARY", "M", "NONE"])))]
    if scan.slopes:
        intercept = scan.intercepts[k] if scan.intercepts else 0
        frame.PixelValueTransformationSequence = [
            _item(RescaleSlope=scan.slopes[k], RescaleIntercept=intercept, RescaleType="US")
        ]
    return frame


def _common(scan: Scan, storage: UID, instance: UID) -> Dataset:
    """What every file of the series says."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = scan.uid("study"), scan.uid(scan.seed)
    dataset.FrameOfReferenceUID = scan.uid("frame of reference")
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Phantom^Petra", "P-0001", "19700101"
    dataset.PatientSex, dataset.PatientAge = "F", "054Y"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240301", "101500", "A1"
    dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = "MR", 1, "phantom"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    dataset.Manufacturer, dataset.MagneticFieldStrength = "SIEMENS", 3.0
    dataset.Columns, dataset.Rows = scan.voxels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(scan.signed)
    return dataset


def _set(dataset: Dataset, tags: Mapping[str, Any]) -> None:
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    _set(item, tags)
    return item


def _pixels(scan: Scan, slices: Sequence[int]) -> bytes:
    """The slices as DICOM stores them: frame, row, column."""
    kind = np.int16 if scan.signed else np.uint16
    return scan.voxels[:, :, list(slices)].astype(kind).transpose(2, 1, 0).tobytes()


def _decimal(values: NDArray[np.float64]) -> list[float]:
    """As a decimal string of 16 characters can hold them."""
    return [float(f"{value:.9g}") for value in values]
