"""Files sorted into series, and mixed series into stacks: one orientation, one echo, one kind of image each."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydicom.dataset import Dataset

from client.data.dicom.geometry import Stack, stack
from client.data.dicom.header import frame_groups, in_groups, value
from client.data.dicom.sources import SourceFile
from common.errors import DataError

COPY = "a copy of another file (same SOP Instance UID)"
SAME_DIRECTION = 5e-3  # scanners round, and realign while they scan: smaller differences do not split a series


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies, and what tells it from the slices of another volume."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]  # between rows, between columns
    kind: tuple[str, ...]  # matrix, echo, image type, b-value


@dataclass(frozen=True)
class Series:
    """Files that make one volume, or say why they do not."""

    id: str  # short and stable: in the plan it stands for the UIDs
    files: tuple[SourceFile, ...]
    header: Dataset  # of the first file
    frames: tuple[Frame, ...]
    problem: str = ""  # why it is no volume

    @property
    def geometry(self) -> Stack:
        """Where the slices lie.

        Raises:
            DataError: they are no volume.
        """
        first = self.frames[0]
        return stack(np.array([f.position for f in self.frames]), np.array(first.orientation), first.spacing)


def group_series(headers: Iterable[tuple[SourceFile, Dataset]]) -> list[Series]:
    """Sort files into volumes.

    Returns:
        One entry a stack, in the order of their files; what is no volume has its `problem`.
    """
    parts: dict[tuple[str, ...], list[tuple[SourceFile, Dataset, Frame]]] = defaultdict(list)
    odd: list[Series] = []
    seen: set[str] = set()
    for file, dataset in headers:
        instance = str(dataset.get("SOPInstanceUID", "")) or file.name
        series = str(dataset.get("SeriesInstanceUID", ""))
        if instance in seen:
            odd.append(Series(_id(series, COPY), (file,), dataset, (), COPY))
            continue
        seen.add(instance)
        try:
            frames = _frames(dataset)
        except DataError as error:
            odd.append(Series(_id(series, str(error)), (file,), dataset, (), str(error)))
            continue
        if len(frames) > 1 or frame_groups(dataset):
            odd.append(_multi_frame(file, dataset, frames))
        else:
            _put(parts, (str(dataset.get("StudyInstanceUID", "")), series, *frames[0].kind), (file, dataset, frames[0]))
    return _merged(odd) + [_classic(key, members) for key, members in parts.items()]


def _put(parts: dict[tuple[str, ...], list[tuple[SourceFile, Dataset, Frame]]], key: tuple[str, ...], member: "Member") -> None:
    """Into the stack of the same kind whose slices point the same way."""
    turn = 0
    while (stack_key := (*key, str(turn))) in parts and not _parallel(parts[stack_key][0][2], member[2]):
        turn += 1
    parts[stack_key].append(member)


Member = tuple[SourceFile, Dataset, Frame]


def _parallel(one: Frame, other: Frame) -> bool:
    return bool(np.abs(np.subtract(one.orientation, other.orientation)).max() <= SAME_DIRECTION)


def _classic(key: tuple[str, ...], members: list[Member]) -> Series:
    files, datasets, frames = zip(*members, strict=True)
    series = Series(_id(*key), tuple(files), datasets[0], tuple(frames))
    people = len({str(dataset.get("PatientID", "") or "").strip() for dataset in datasets})
    if people > 1:  # no number stands here: the plan tells nobody's
        return _with_problem(series, f"slices under {people} Patient IDs in one series: whose it is, is not known")
    return _checked(series)


def _multi_frame(file: SourceFile, dataset: Dataset, frames: list[Frame]) -> Series:
    series = Series(
        _id(str(dataset.get("SeriesInstanceUID", "")), str(dataset.get("SOPInstanceUID", ""))), (file,), dataset, tuple(frames)
    )
    if len({frame.kind for frame in frames}) > 1:
        return _with_problem(series, "several echoes or kinds of image in one file; export them apart")
    if not all(_parallel(frames[0], frame) for frame in frames):
        return _with_problem(series, "several orientations in one file; export them apart")
    return _checked(series)


def _checked(series: Series) -> Series:
    """With the reason, where it is no volume."""
    try:
        _ = series.geometry
    except DataError as error:
        return _with_problem(series, str(error))
    return series


def _with_problem(series: Series, problem: str) -> Series:
    return Series(series.id, series.files, series.header, series.frames, problem)


def _merged(odd: list[Series]) -> list[Series]:
    """Files of one series that are no images for one reason: one entry."""
    merged: dict[str, Series] = {}
    for series in odd:
        known = merged.get(series.id)
        files = known.files + series.files if known else series.files
        merged[series.id] = Series(series.id, files, series.header, series.frames, series.problem)
    return list(merged.values())


def _frames(dataset: Dataset) -> list[Frame]:
    """A file's slices.

    Raises:
        DataError: it has no place in space, or no pixels.
    """
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        raise DataError("no image (a report, a plan, a structure set)")
    groups = frame_groups(dataset)
    if not groups:
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise DataError("several frames without a place in space (a film, or a capture of the screen)")
        return [_frame(dataset, None, None)]
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    return [_frame(dataset, shared, group) for group in groups]


def _frame(dataset: Dataset, shared: Dataset | None, own: Dataset | None) -> Frame:
    def tag(keyword: str) -> object:
        for groups in (own, shared):
            if (found := in_groups(groups, keyword)) is not None:
                return found
        return dataset.get(keyword)

    try:
        position, orientation = _floats(tag("ImagePositionPatient"), 3), _floats(tag("ImageOrientationPatient"), 6)
        spacing = _floats(tag("PixelSpacing"), 2)
    except (TypeError, ValueError):
        raise DataError("no place in space (a capture of the screen, a drawing, or a report as a picture)") from None
    echo = tag("EffectiveEchoTime") or tag("EchoTime") or tag("EchoNumbers")
    image_type = tag("FrameType") if own is not None else value(dataset, "ImageType")
    kind = (f"{dataset.Rows}x{dataset.Columns}", _text(echo), _text(image_type), _text(tag("DiffusionBValue")))
    return Frame(position, orientation, (round(spacing[0], 4), round(spacing[1], 4)), kind)


def _text(found: object) -> str:
    return "" if found is None else str(found)


def _floats(found: object, count: int) -> tuple[float, ...]:
    values = tuple(float(v) for v in found)  # type: ignore[attr-defined]
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(found)
    return values


def is_continued(one: Series, other: Series) -> bool:
    """Whether two series are parts of one volume: of one kind and direction, and an even stack only together, end to end."""
    if (
        one.problem
        or other.problem
        or one.frames[0].kind != other.frames[0].kind
        or not _parallel(one.frames[0], other.frames[0])
    ):
        return False
    both = Series("", (), one.header, (*one.frames, *other.frames))
    return one.frames[0].spacing == other.frames[0].spacing and not _checked(both).problem and _is_end_to_end(both.geometry, one)


def _is_end_to_end(together: Stack, first: Series) -> bool:
    """Slices that lie in turn, one of each, are two packages of one acquisition, and no halves."""
    places = [order < len(first.frames) for order in together.order]
    return sum(a != b for a, b in pairwise(places)) == 1


def _id(*names: str) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def shown_matrix(series: Series) -> tuple[str, str, str]:
    """Matrix, spacing in millimetres and slices, as a plan shows them."""
    first = series.frames[0] if series.frames else None
    matrix = f"{series.header.get('Columns', '?')}x{series.header.get('Rows', '?')}"
    if first is None or series.problem:
        return matrix, "n/a", str(len(series.frames) or len(series.files))
    spacing = "x".join(f"{step:.2f}" for step in series.geometry.spacing)
    return matrix, spacing, str(len(series.frames))
