"""A series' voxels, exactly: highdicom applies each slice's own slope and intercept and puts frames where they lie.

Neither dcm2niix 1.0.20260724 (one slope for all frames of Siemens' and GE's enhanced files, half of a Siemens series without
repetition time) nor SimpleITK 2.5.7 (frames in the order of the file, a series in its first slice's type) reads all of
`tests/client/data/test_pixels.py` right; highdicom 0.28.2 does, once shear is refused and directions are made equal.
"""

import warnings
from pathlib import Path

import highdicom
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from client.data.dicom.header import frame_groups
from client.data.dicom.series import Series
from client.data.volume import Volume
from common.errors import DataError

_TOLERANCE = 1e-2  # mm: highdicom's corner against ours, which is reckoned apart from it


def read_volume(series: Series) -> Volume:
    """Read a series.

    Raises:
        DataError: it is no volume, or its pixels cannot be decoded; says what is lacking.
    """
    if series.problem:
        raise DataError(f"series {series.id}: {series.problem}")
    datasets = [_pixels(series, file.path, file.name) for file in series.files]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that a scanner wrote longer than the standard allows
            stacked = _stacked(datasets)
    except (ValueError, RuntimeError, AttributeError, KeyError, TypeError, NotImplementedError) as error:
        raise DataError(f"series {series.id}: its pixels cannot be read ({_reason(datasets[0], error)})") from error
    voxels = np.ascontiguousarray(stacked.array.transpose(2, 1, 0))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ stacked.affine @ np.eye(4)[[2, 1, 0, 3]].T
    return _checked(series, Volume(voxels, affine))


def _pixels(series: Series, path: Path, name: str) -> Dataset:
    try:
        return _little_endian(dcmread(path))
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise DataError(f"series {series.id}, {name}: cannot be read to its end ({type(error).__name__})") from error


def _little_endian(dataset: Dataset) -> Dataset:
    """An enhanced file of big endian (retired in 2006), which highdicom refuses: elements decoded here, and pixels swapped."""
    meta = dataset.file_meta
    if meta.TransferSyntaxUID != ExplicitVRBigEndian or not frame_groups(dataset):
        return dataset
    turned = Dataset({element.tag: element for element in dataset})
    if dataset.BitsAllocated > 8:
        turned.PixelData = np.frombuffer(dataset.PixelData, f">u{dataset.BitsAllocated // 8}").byteswap().tobytes()
    turned.file_meta = FileMetaDataset(meta)
    turned.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    turned.set_original_encoding(False, True, dataset.original_character_set)
    return turned


def _stacked(datasets: list[Dataset]) -> highdicom.Volume:
    """Slope and intercept of the slice's own (the Modality LUT), never the maker's private ones or a real-world map."""
    if frame_groups(datasets[0]):
        _one_direction(datasets[0])
        return highdicom.Image.from_dataset(datasets[0], copy=False).get_volume(
            dtype=np.float32, apply_real_world_transform=False, rtol=0.05
        )
    return highdicom.get_volume_from_series(
        datasets, dtype=np.float32, apply_real_world_transform=False, rtol=0.05, orientation_tol=0.01
    )


def _one_direction(dataset: Dataset) -> None:
    """Give all frames the first one's direction: highdicom wants them equal to the last digit, which scanners do not write."""
    groups = frame_groups(dataset)
    first = groups[0].get("PlaneOrientationSequence")
    for group in groups if first else ():
        group.PlaneOrientationSequence = first


def _checked(series: Series, volume: Volume) -> Volume:
    """Held against the geometry of the headers, which was computed apart: the same shape, and both ends at the same place."""
    geometry, shape = series.geometry, volume.voxels.shape
    corners = np.array([[0, 0, 0, 1], [*(np.array(shape) - 1), 1]]).T
    ours = geometry.affine @ corners
    reversed_slices = geometry.affine @ np.diag([1, 1, -1, 1]) @ corners + (geometry.affine @ [0, 0, shape[2] - 1, 0])[:, None]
    theirs = volume.affine @ corners
    if shape[2] == len(series.frames) and any(np.abs(theirs - mine).max() < _TOLERANCE for mine in (ours, reversed_slices)):
        return volume
    raise DataError(f"series {series.id}: its slices do not lie where their headers say; report this series' header to us")


def _reason(dataset: Dataset, error: Exception) -> str:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        return f"compressed as {syntax.name}; decompress them, or install the import extra: pip install 'fedmri[import]'"
    return " ".join(str(error).split())[:200]
