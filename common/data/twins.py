"""The same person in two folders: the fingerprints of whole patients, compared all with all.

N patients of one site, K of another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common.data.cases import Case
from common.data.fingerprint import LEAST_SHARED, SAME_PERSON, VERSION, Fingerprint, fingerprint
from common.data.gate.files import load_volume
from common.errors import DataError
from common.files import write_atomic


@dataclass(frozen=True, order=True)
class Twin:
    """Two patients who are one person, by their rows in two lists."""

    first: int
    second: int
    overlap: float  # shared tokens, as a part of the smaller fingerprint


def patient_fingerprint(case: Case, cache: Path | None = None) -> Fingerprint:
    """The tokens of all the patient's images together; a file that cannot be read adds none (the data gate names it)."""
    return joined(_of_file(case, file, cache) for file in case.files.values())


def joined(parts: Iterable[Fingerprint]) -> Fingerprint:
    """The tokens of several volumes of one patient."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def find_twins(ours: Sequence[Fingerprint], theirs: Sequence[Fingerprint]) -> list[Twin]:
    """All pairs of one patient here and one there who are one person.

    Args:
        ours: N fingerprints, plain or keyed (`keyed`).
        theirs: K fingerprints, keyed as `ours` are.
    """
    if not ours or not theirs:
        return []
    shared = _shared(ours, theirs)
    smaller = np.minimum.outer([one.size for one in ours], [one.size for one in theirs])
    found = np.argwhere((shared >= LEAST_SHARED) & (shared >= SAME_PERSON * smaller))
    return [Twin(int(i), int(k), float(shared[i, k] / smaller[i, k])) for i, k in found]


def comparable(tokens: Fingerprint) -> bool:
    """Whether a twin of the patient could be found at all: of a tiny or empty image too few tokens come back."""
    return tokens.size >= 4 * LEAST_SHARED


def _shared(ours: Sequence[Fingerprint], theirs: Sequence[Fingerprint]) -> NDArray[np.int64]:
    """[N, K]: how many tokens each two share."""
    both = [*ours, *theirs]
    owners = np.repeat(np.arange(len(both)), [one.size for one in both])
    known, columns = np.unique(np.concatenate(both), return_inverse=True)
    table = sparse.csr_array((np.ones(owners.size, np.int64), (owners, columns)), shape=(len(both), max(known.size, 1)))
    product: NDArray[np.int64] = (table[: len(ours)] @ table[len(ours) :].T).toarray()
    return product


def _of_file(case: Case, file: Path, cache: Path | None) -> Fingerprint:
    try:
        if cache is None:
            return fingerprint(load_volume(file))
        key = case.sha256(file)
    except (OSError, DataError):
        return np.empty(0, np.uint64)
    return _stored(cache / "fingerprints" / f"{VERSION}-{key}.npy", file)


def _stored(path: Path, file: Path) -> Fingerprint:
    """From the cache, or made and kept there; a cache that cannot be written is done without."""
    try:
        kept: Fingerprint = np.load(path, allow_pickle=False)
        if kept.dtype == np.uint64 and kept.ndim == 1:
            return kept
    except (OSError, ValueError, EOFError):
        pass
    try:
        tokens = fingerprint(load_volume(file))
    except DataError:
        return np.empty(0, np.uint64)
    buffer = BytesIO()
    np.save(buffer, tokens, allow_pickle=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError:
        pass
    return tokens
