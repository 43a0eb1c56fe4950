"""What tells a patient from others in the ledger: their id, and what is in their volumes.

The mark of a volume is of its decoded values and its size in voxels, in whatever order of axes: so a new name, export, header,
orientation, type or compression changes nothing. A header that lost the voxels' size or place changes nothing either: those are
not in it. A volume that was resampled, cropped or stripped of its skull is another one here; near twins are looked for elsewhere.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.cases import Case
from common.data.gate.files import companion, load_volume
from common.errors import DataError
from common.files import write_atomic

FOLDER = "voxel-marks"  # in the cache: what a file's voxels are known by, under the hash of the file
LEVELS = 16  # values that must occur several times before their counts tell one volume from another
VERSION = 1  # raise it when the same volume begins to give other marks


def patient_facts(case: Case, cache: Path) -> tuple[str, ...]:
    """A patient's id, and for each volume the file's hash and the marks of its voxels.

    Args:
        case: whose volumes are read, where the cache does not know them.
        cache: folder that may be deleted at any time; a volume takes about a second without it.

    Raises:
        DataError: a volume that cannot be read.
    """
    return (f"id:{case.id}", *(fact for file in case.files.values() for fact in _file_facts(case, file, cache)))


def voxel_marks(voxels: NDArray[np.float32]) -> tuple[str, ...]:
    """Two marks of a volume; none of one without contrast, which tells nothing of whose it is.

    The first is of its values in ascending order. The second is of how often each value occurs, from the lowest to the highest,
    so that another scale or offset of all values changes nothing; a volume in which nearly no value comes twice has no second.

    Args:
        voxels: [X, Y, Z], decoded.
    """
    values = np.sort(voxels, axis=None) + np.float32(0.0)  # without -0; numbers that are none come last
    values[np.isnan(values)] = np.nan
    if not values.size or values[0] == values[-1] or np.isnan(values[0]):
        return ()
    shape = "x".join(map(str, sorted(voxels.shape)))
    marks = [f"voxels:{_sha256(shape, values)}"]
    begins = np.flatnonzero(np.concatenate([[True], values[1:] > values[:-1]]))  # all NaN count with the highest
    counts = np.diff(np.append(begins, values.size)).astype(np.int64)
    if int((counts > 1).sum()) > LEVELS:  # the most frequent, which is mostly air, tells little
        marks.append(f"levels:{_sha256(shape, counts)}")
    return tuple(marks)


def _file_facts(case: Case, file: Path, cache: Path) -> tuple[str, ...]:
    digest = _digest(case, file)
    kept = cache / FOLDER / f"{digest}-{VERSION}.json"
    try:
        marks = tuple(map(str, json.loads(kept.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        marks = voxel_marks(load_volume(file, case.where(file)).voxels)
        try:
            write_atomic(kept, json.dumps(marks).encode())
        except OSError as error:
            raise DataError(f"Cache {kept.parent}: cannot be written to ({error.strerror}).") from error
    return (f"volume:{digest}", *marks) if marks else ()  # files without contrast may be the same for many


def _digest(case: Case, file: Path) -> str:
    """Of the voxels' half where the file is one of a pair: headers of different patients may be equal."""
    other = companion(file)
    try:
        return case.sha256(other if other and file.suffix == ".hdr" else file)
    except OSError as error:
        raise DataError(f"{case.where(file)}: cannot be read ({error.strerror}).") from error


def _sha256(shape: str, values: NDArray[np.generic]) -> str:
    return hashlib.sha256(shape.encode() + b"\0" + values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()
