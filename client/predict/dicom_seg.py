"""A proposed mask as DICOM SEG, on the slices of the series that the patient's image was made from.

It is written by highdicom, and says of itself that an algorithm proposed it. Needs what `fedmri-site import` needs.
K slices of R rows and C columns; X, Y, Z voxels; millimetres.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.predict.proposal import Proposal
from common.errors import ConfigError, DataError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's RAS and DICOM's LPS differ in the first two axes' signs
INSIDE = 0.5  # of the proposal's volume that must lie in the series: else it is another one
MAY_BE_EMPTY = (
    *("AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex"),
    *("ReferringPhysicianName", "StudyDate", "StudyID", "StudyTime"),
)  # attributes of type 2
PLACE = (
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
)  # without which a mask has none
INSTEAD = "Without --dicom the mask is written as NIfTI."
LABEL, SERIES = "Proposed tumour", "Proposed tumour (FedMRI, research, not drawn)"


def read_series(folder: Path) -> list[Any]:
    """The images of the one series in a folder.

    Raises:
        ConfigError: pydicom and highdicom are not installed.
        DataError: no DICOM image, several series, enhanced multi-frame images, or images without a place in the patient.
    """
    try:
        import highdicom  # noqa: F401, PLC0415
        from pydicom import dcmread  # noqa: PLC0415
        from pydicom.errors import InvalidDicomError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(f"--dicom needs {error.name}. Run, in the checkout: python -m pip install -e '.[import]'") from error
    found: dict[str, list[Any]] = {}
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            image = dcmread(file)
        except (InvalidDicomError, OSError):
            continue
        if "PixelData" in image:
            found.setdefault(str(image.get("SeriesInstanceUID", "")), []).append(image)
    if len(found) != 1:
        told = ", ".join(str(images[0].get("SeriesDescription", "unnamed")) for images in found.values()) or "none"
        raise DataError(f"--dicom {folder}: expected the images of one series, found {len(found)} ({told}). Name its folder.")
    [images] = found.values()
    _require_placed(images, folder)
    for image in images:  # a SEG copies them, and some exports lack what may be empty
        for name in MAY_BE_EMPTY:
            if name not in image:
                setattr(image, name, "")
    return images


def _require_placed(images: list[Any], folder: Path) -> None:
    if any("PerFrameFunctionalGroupsSequence" in image for image in images):
        raise DataError(f"--dicom {folder}: enhanced multi-frame images are not supported. {INSTEAD}")
    if lacking := sorted({name for name in PLACE for image in images if name not in image}):
        raise DataError(f"--dicom {folder}: its images lack {', '.join(lacking)}, so that no pixel has a place. {INSTEAD}")


def frames_of(proposal: Proposal, images: list[Any]) -> NDArray[np.uint8]:
    """The mask on the images' own pixels [K, R, C]: each takes the nearest voxel.

    Raises:
        DataError: most of the proposal lies outside the images.
    """
    to_voxel = np.asarray(np.linalg.inv(proposal.reference.affine) @ LPS, np.float64)
    frames = np.stack([_frame(proposal.mask, image, to_voxel) for image in images])
    area = float(np.prod([float(edge) for edge in images[0].PixelSpacing]))
    inside = float(frames.sum()) * area * _step(images) / 1000
    if inside < INSIDE * proposal.ml:
        raise DataError(
            f"--dicom: {inside:.1f} of {proposal.ml:.1f} ml of the proposed tumour lie in the series' images. Name the series "
            f"that the patient's {proposal.modality} was made from."
        )
    return frames


def seg_of(proposal: Proposal, images: list[Any], version: str) -> bytes:
    """The file's content.

    Args:
        proposal: of the patient.
        images: of `read_series`.
        version: of the software that proposes.

    Raises:
        DataError: of `frames_of`, or highdicom cannot build on the images.
    """
    frames = frames_of(proposal, images)
    try:
        return _content(frames, images, version)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # by which highdicom says what it misses in the images
        raise DataError(f"--dicom: no SEG can be built on the series ({error}). {INSTEAD}") from error


def _content(frames: NDArray[np.uint8], images: list[Any], version: str) -> bytes:
    """The file of a mask on the images' pixels."""
    import highdicom as hd  # noqa: PLC0415
    from pydicom.sr.codedict import codes  # noqa: PLC0415

    algorithm = hd.AlgorithmIdentificationSequence(name="FedMRI", version=version, family=codes.DCM.ArtificialIntelligence)
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=LABEL,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    made = hd.seg.Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=hd.UID(),
        series_number=int(images[0].get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="FedMRI",
        manufacturer_model_name="FedMRI",
        software_versions=version,
        device_serial_number="none",
        series_description=SERIES,
        omit_empty_frames=False,
    )
    content = BytesIO()
    made.save_as(content)
    return content.getvalue()


def _frame(mask: NDArray[np.bool_], image: Any, to_voxel: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[R, C] of one image."""
    direction, position = np.array(image.ImageOrientationPatient, float), np.array(image.ImagePositionPatient, float)
    between_rows, between_columns = (float(value) for value in image.PixelSpacing)
    rows, columns = np.meshgrid(np.arange(image.Rows), np.arange(image.Columns), indexing="ij")
    place = position + columns[..., None] * between_columns * direction[:3] + rows[..., None] * between_rows * direction[3:]
    voxels = np.einsum("ij,rcj->irc", to_voxel[:3, :3], place) + to_voxel[:3, 3, None, None]
    found: NDArray[np.uint8] = ndimage.map_coordinates(mask.astype(np.uint8), voxels, order=0)
    return found


def _step(images: list[Any]) -> float:
    """Between neighbouring images, in mm."""
    direction = np.array(images[0].ImageOrientationPatient, float)
    normal = np.cross(direction[:3], direction[3:])
    along = np.sort([np.array(image.ImagePositionPatient, float) @ normal for image in images])
    return float(np.median(np.diff(along))) if len(along) > 1 else float(images[0].get("SliceThickness") or 1.0)
