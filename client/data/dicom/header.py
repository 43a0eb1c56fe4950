"""A DICOM file's header: read without its pixels, and asked alike in classic and enhanced (multi-frame) files."""

from collections.abc import Iterator
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import MediaStorageDirectoryStorage

from client.data.dicom.sources import SourceFile
from common.errors import DataError

# What an enhanced file calls otherwise (PS3.3 C.8.13).
ENHANCED = {
    "EchoTime": "EffectiveEchoTime",
    "InversionTime": "InversionTimes",
    "ScanningSequence": "EchoPulseSequence",
    "DiffusionBValue": "DiffusionBValue",
    "ImageType": "FrameType",
}
_OLD_START = (b"\x08\x00", b"\x02\x00")  # a file from before 1993 starts with its first group, without preamble


class IndexFileError(DataError):
    """A DICOMDIR: an index of the others, which are found without it.

    Args:
        named: the files that it names, as a source would name them.
    """

    def __init__(self, named: tuple[str, ...]) -> None:
        super().__init__(f"DICOMDIR: an index of {len(named)} others, no image")
        self.named = named


def read_header(file: SourceFile) -> Dataset:
    """A file's header, without its pixels.

    Raises:
        IndexFileError: an index (DICOMDIR), and no image.
        DataError: no DICOM, or damaged; says which.
    """
    try:
        with file.path.open("rb") as stream:
            start = stream.read(132)
        preamble = start[128:] == b"DICM"
        if not preamble and start[:2] not in _OLD_START:
            raise DataError("no DICOM file")
        dataset = dcmread(file.path, stop_before_pixels=True, force=not preamble)
        storage = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    except (OSError, InvalidDicomError, EOFError, ValueError, AttributeError, NotImplementedError, KeyError, TypeError) as error:
        raise DataError(f"no DICOM file that can be read ({type(error).__name__})") from error
    if storage == MediaStorageDirectoryStorage:
        raise IndexFileError(_named(file, dataset))
    if not storage:
        raise DataError("no DICOM file" if not preamble else "DICOM without a SOP class")
    return dataset


def _named(file: SourceFile, dataset: Dataset) -> tuple[str, ...]:
    """The files of an index's records, which lie below its own folder (PS3.10 8.6)."""
    beside = file.name[: max(file.name.rfind("/"), file.name.rfind("!")) + 1]
    listed = (record.get("ReferencedFileID") for record in dataset.get("DirectoryRecordSequence") or ())
    return tuple(beside + "/".join([one] if isinstance(one, str) else map(str, one)) for one in listed if one)


def value(dataset: Dataset, keyword: str) -> Any:
    """A tag of the file: at the top, or in the functional groups that all frames share, or in the first frame's.

    Args:
        dataset: the header.
        keyword: as classic files call it.

    Returns:
        None where it is absent or empty; of several values a list.
    """
    for place in _places(dataset):
        for name in dict.fromkeys((keyword, ENHANCED.get(keyword, keyword))):
            found = place.get(name)
            if found is not None and found not in ("", []):
                return list(found) if isinstance(found, MultiValue) else found
    return None


def number(dataset: Dataset, keyword: str) -> float | None:
    """A tag as a number; of several the first; None where there is none."""
    found = value(dataset, keyword)
    try:
        return float(found[0] if isinstance(found, list) else found)
    except (TypeError, ValueError):
        return None


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """A tag's values in upper case."""
    found = value(dataset, keyword)
    return tuple(str(word).strip().upper() for word in (found if isinstance(found, list) else [found]) if word is not None)


def frame_groups(dataset: Dataset) -> list[Dataset]:
    """Of an enhanced file each frame's functional groups; [] for a classic one."""
    return list(dataset.get("PerFrameFunctionalGroupsSequence") or [])


def in_groups(groups: Dataset | None, keyword: str) -> Any:
    """A tag of one frame's (or the shared) functional groups."""
    for item in _items(groups) if groups is not None else ():
        if keyword in item:
            return item.get(keyword)
    return None


def _places(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in (dataset.get(sequence) or [])[:1]:
            yield from _items(groups)


def _items(groups: Dataset) -> Iterator[Dataset]:
    for element in groups:
        if element.VR == "SQ" and not element.tag.is_private:
            yield from element.value
