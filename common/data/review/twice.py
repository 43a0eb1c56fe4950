"""The same scan twice: in two modalities of one patient, or as two patients; voxel by voxel, or in another form of the file.

Voxels are compared by hash; a patient's modalities by how their fine structures correlate, on one grid; patients by content
fingerprints (`common.data.fingerprint`), which another format, intensity scale, voxel size or field of view and a stripped skull
leave alike. Masks by hash,
too. Memory grows by 4 KiB a volume.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from common.data.fingerprint import LEAST_SHARED, SAME_PERSON, Fingerprint, fingerprint
from common.data.gate.finding import Finding, Kind, Level
from common.data.review.look import Look
from common.data.volumes import Mask, Volume

SAME_VOXELS = Kind("volume-twice", Level.WARNING, "two files hold the same voxels")
SAME_IMAGE = Kind("volume-twice-near", Level.WARNING, "two files of a patient show one scan, in two forms")
SAME_MASK = Kind("mask-twice", Level.WARNING, "two patients have one tumour mask")
SAME_PATIENT = Kind("person-twice", Level.WARNING, "two patients are, by their images, one person")
KINDS = (SAME_VOXELS, SAME_IMAGE, SAME_MASK, SAME_PATIENT)
LEAST_MASK = 50  # voxels: outlines of fewer are one by chance
# Measured on thumbnails: T1 and contrast T1 of 73 real patients reach 0.896 (fine) and 0.946, of phantoms 0.875 and 0.932;
# copies with another gamma, rounded to 8 bits, 0.986 and 0.992 at least; half a voxel off as well, a phantom, 0.943 and 0.973.
ALIKE_FINE, ALIKE_SMOOTH = 0.93, 0.965
OF_THE_TWO = "Find out which of the two it is; leave one out."
COMMON = 64  # volumes that a token may stand in: one that stands in more tells nobody apart


def find_alike(seen: Look) -> Iterator[tuple[str, Finding]]:
    """Modality and warning of each volume that is, but for scale and interpolation, an earlier one of the patient."""
    for j, name in enumerate(seen.names):
        for i in range(j):
            smooth, fine = (float(number) for number in seen.alike[i, j])
            if smooth >= ALIKE_SMOOTH and fine >= ALIKE_FINE:
                text = f"is {seen.names[i]} once more, in another form (fine structures correlate by {fine:.3f})"
                yield name, SAME_IMAGE.finding(text, "another image", OF_THE_TWO)


@dataclass(frozen=True, eq=False)
class Seen:
    """One volume: whose, where, and what it shows."""

    patient: str
    file: str
    digest: bytes  # of its voxels
    tokens: Fingerprint


@dataclass
class Volumes:
    """All volumes of a site, as they come."""

    seen: list[Seen] = field(default_factory=list)
    masks: dict[bytes, tuple[str, str]] = field(default_factory=dict)  # digest -> the first patient that has it, and the file

    def add_mask(self, patient: str, file: str, tumour: Mask) -> Iterator[Finding]:
        """Remember a mask [X, Y, Z], and warn where another patient's is the same, wherever either lies in its image."""
        digest = _outline_digest(tumour)
        owner, first = self.masks.setdefault(digest, (patient, file)) if digest else (patient, file)
        if owner != patient:
            text = f"marks, voxel by voxel, what {first} marks, which is another patient's"
            do = "Find out whose mask it is; take it away from the other."
            yield SAME_MASK.finding(text, "a mask of the patient's own", do).of(patient, file)

    def add(self, patient: str, file: str, volume: Volume) -> None:
        """Remember one volume; its voxels are not kept."""
        self.seen.append(Seen(patient, file, _digest(volume), fingerprint(volume)))

    def find_twice(self) -> Iterator[Finding]:
        """Warnings about what was seen before, at the later of the two: one for each file, and one for each two patients."""
        known: dict[bytes, int] = {}
        exact: set[tuple[int, int]] = set()
        for number, one in enumerate(self.seen):
            first = known.setdefault(one.digest, number)
            if first != number:
                exact.add((first, number))
                yield self._finding(SAME_VOXELS, number, f"has the same voxels as {self.seen[first].file}")
        told: set[tuple[str, str]] = set()
        for first, second, overlap in self._overlapping():
            a, b = self.seen[first], self.seen[second]
            if a.patient != b.patient and overlap >= SAME_PERSON and (a.patient, b.patient) not in told:
                told.add((a.patient, b.patient))
                if (first, second) not in exact:
                    text = f"shows the person of {a.file} (fingerprints agree by {overlap:.0%})"
                    yield self._finding(SAME_PATIENT, second, text)

    def _finding(self, kind: Kind, number: int, found: str) -> Finding:
        one = self.seen[number]
        expected = "another person" if kind is SAME_PATIENT else "another image"
        return kind.finding(found, expected, OF_THE_TWO).of(one.patient, one.file)

    def _overlapping(self) -> Iterator[tuple[int, int, float]]:
        """Pairs of volumes that share enough tokens to tell, the earlier first, and the share of the smaller fingerprint."""
        shared = sparse.triu(_shared([one.tokens for one in self.seen]), k=1).tocoo()
        sizes = np.array([one.tokens.size for one in self.seen])
        for i, j, count in sorted(zip(shared.row.tolist(), shared.col.tolist(), shared.data.tolist(), strict=True)):
            if count >= LEAST_SHARED:
                yield i, j, count / int(min(sizes[i], sizes[j]))


def _shared(fingerprints: list[Fingerprint]) -> sparse.csr_matrix:
    """[V, V]: how many tokens each two volumes share, by way of the tokens: far fewer than pairs of volumes share any."""
    if not any(one.size for one in fingerprints):
        return sparse.csr_matrix((len(fingerprints), len(fingerprints)), dtype=np.int32)
    tokens, columns = np.unique(np.concatenate(fingerprints), return_inverse=True)
    rows: NDArray[np.int64] = np.repeat(np.arange(len(fingerprints)), [one.size for one in fingerprints])
    telling = np.bincount(columns)[columns] <= COMMON
    held = (np.ones(int(telling.sum()), np.int32), (rows[telling], columns[telling]))
    matrix = sparse.csr_matrix(held, shape=(len(fingerprints), tokens.size))
    return (matrix @ matrix.T).tocsr()


def _outline_digest(tumour: Mask) -> bytes:
    """Equal for what has the same shape in voxels; nothing for a speck, and for a full box, which may be drawn twice."""
    sides = [np.flatnonzero(tumour.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not sides[0].size:
        return b""
    box = tumour[tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)]
    if np.count_nonzero(box) < LEAST_MASK or box.all():
        return b""
    return hashlib.sha256(f"{box.shape}".encode() + np.packbits(box).tobytes()).digest()


def _digest(volume: Volume) -> bytes:
    """Equal for equal voxels. Of a volume whose values are counted, one voxel in 16 beside the counts tells it from any other."""
    levels, shape = volume.levels, f"{volume.voxels.shape}".encode()
    if levels is None:
        return hashlib.sha256(shape + volume.voxels.tobytes()).digest()
    some = np.ascontiguousarray(volume.voxels[::4, ::4])
    return hashlib.sha256(shape + levels.values.tobytes() + levels.counts.tobytes() + some.tobytes()).digest()
