"""Content fingerprints of volumes: whether two files, of whatever form, show the same person's scan.

A fingerprint is a set of tokens, each the signature of one place in the head. At the extrema of a difference of Gaussians (Lowe,
IJCV 2004; of brains, Chauvin et al., NeuroImage 2020) pairs of points round the place are compared, as BRIEF does (Calonder et
al., ECCV 2010): a token is 40 such comparisons. A token either comes back whole or not at all, so that sites can compare their
keyed hashes. Places are local, and comparisons need no scale: the file's form, header, orientation of storage, intensity scale,
a shift or another voxel size, a cut field of view and a stripped skull leave enough of the tokens as they were. Another
registration (more than some degrees) or lost voxel sizes do not.

X, Y, Z voxels in RAS order. No module imported here needs torch.
"""

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.volumes import Array, Volume

Fingerprint = NDArray[np.uint64]
"""Tokens of one volume, sorted, each once; empty where the volume shows nothing."""

VERSION = 1  # raise it when the same volume begins to give other tokens
STEP = 2.5  # mm of the grid that places are looked for on
FINE, COARSE = 3.5, 5.0  # mm, the Gaussians' standard deviations
NEAREST, FARTHEST = 8.0, 18.0  # mm from the place to the points that are compared: beyond the blob that made it a place
BANDS, BITS = 4, 40  # tokens of a place, comparisons of a token
FAINT = 0.1  # of the volume's 99th percentile: below lie air and what skull stripping cut away
FIRST = 20  # pairs of points that tell most places at the brain's rim
MOST_FAINT = 0.03  # of the points round a place may be faint: at the brain's rim all heads look alike
CONTRAST = 0.01  # of the same percentile: an extremum that is weaker is noise
MOST_TOKENS = 1024  # of a volume: those with the smallest hash, so that two volumes keep the same ones

LEAST_SHARED = 12  # tokens that fingerprints of one person share at least
SAME_PERSON = 0.03  # of the smaller fingerprint; measured by bench/twins.py
SAME_SCAN = 0.2  # of the smaller fingerprint; T1 and contrast T1 of one session share 0.12 at most


def fingerprint(volume: Volume) -> Fingerprint:
    """The tokens of a volume; the same for equal voxels and voxel sizes, whatever else the header says."""
    known = volume.levels is not None  # then every voxel is finite
    voxels = volume.voxels if known else np.nan_to_num(volume.voxels, nan=0.0, posinf=0.0, neginf=0.0)
    fine = _blurred(voxels, volume.spacing)
    bright = fine[fine > 0]
    if not bright.size or min(fine.shape) < 3:
        return np.empty(0, np.uint64)
    top = float(np.percentile(bright, 99))
    blobs = fine - ndimage.gaussian_filter(fine, np.sqrt(COARSE**2 - FINE**2) / STEP, mode="constant")
    places = _extrema(blobs, (fine > FAINT * top) & (np.abs(blobs) > CONTRAST * top))
    first, second = _pairs()
    for some in (slice(None, FIRST), slice(None)):  # most places at the rim are known by a few points
        around = [_around(fine, places, points[some]) for points in (first, second)]  # [P, points]
        faint = sum(np.count_nonzero(values < FAINT * top, axis=1) for values in around)
        inside = faint <= MOST_FAINT * 2 * BANDS * BITS
        places = places[inside]
    return _tokens((around[0] > around[1])[inside])


def shared(a: Fingerprint, b: Fingerprint) -> int:
    """How many tokens both have."""
    return int(np.intersect1d(a, b, assume_unique=True).size)


def overlap(a: Fingerprint, b: Fingerprint) -> float:
    """The shared tokens as a part of the smaller fingerprint, 0 to 1; 0 where too few are shared to tell."""
    common = shared(a, b)
    return common / min(a.size, b.size) if common >= LEAST_SHARED else 0.0


def near(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether two volumes show one person, at one time: the same scan in any form, or T1 and contrast T1 of one session."""
    return overlap(a, b) >= SAME_PERSON


def same_scan(a: Fingerprint, b: Fingerprint) -> bool:
    """Whether two volumes are one scan in two forms. Stricter than `near`: for two modalities of one patient."""
    return overlap(a, b) >= SAME_SCAN


def _blurred(voxels: Array, spacing: tuple[float, float, float]) -> Array:
    """The volume under the finer Gaussian, on a grid of STEP mm round its middle; beyond its edges lies 0."""
    x, y, z = (_gaussian(count, length) for count, length in zip(voxels.shape, spacing, strict=True))
    rows = (x @ voxels.reshape(voxels.shape[0], -1)).reshape(len(x), *voxels.shape[1:])
    blurred: Array = np.matmul(y, rows) @ z.T
    return blurred


def _gaussian(count: int, length: float) -> Array:
    """Weights [points of the grid, voxels] along one axis."""
    points = max(1, int(np.ceil(count * length / STEP)))
    at = (np.arange(points) - (points - 1) / 2) * STEP
    voxels = (np.arange(count) - (count - 1) / 2) * length
    weights = np.exp(-0.5 * ((at[:, None] - voxels) / FINE) ** 2) * (length / (FINE * np.sqrt(2 * np.pi)))
    return np.asarray(weights, dtype=np.float32)


def _extrema(blobs: Array, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Places [P, 3] of maxima above 0 and minima below 0, in voxels of the grid, to a fraction of one."""
    inner = np.zeros(blobs.shape, dtype=np.bool_)
    inner[1:-1, 1:-1, 1:-1] = allowed[1:-1, 1:-1, 1:-1]
    places, found = np.flatnonzero(inner), []
    for above in (blobs.ravel(), -blobs.ravel()):
        highest = places[above[places] > 0]
        for offset in _beside(blobs.shape):
            highest = highest[above[highest] >= above[highest + offset]]  # soon few are left
        found.append(highest)
    whole = np.stack(np.unravel_index(np.concatenate(found), blobs.shape), axis=1)
    beyond = np.stack([_vertex(blobs, whole, axis) for axis in range(3)], axis=1)
    return np.asarray(whole + beyond, dtype=np.float64)


def _beside(shape: tuple[int, ...]) -> list[int]:
    """How far off the 26 neighbours of a place lie in a flat array of this shape, the nearest first."""
    ways = sorted(product((-1, 0, 1), repeat=3), key=lambda way: sum(map(abs, way)))
    return [(x * shape[1] + y) * shape[2] + z for x, y, z in ways[1:]]


def _vertex(blobs: Array, places: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    """Where along `axis` the parabola through each extremum and its two neighbours has its vertex, from -0.5 to 0.5."""
    step = np.eye(3, dtype=np.int64)[axis]
    before, here, after = (blobs[tuple((places + k * step).T)].astype(np.float64) for k in (-1, 0, 1))
    bend = before - 2 * here + after
    return np.asarray(np.clip(0.5 * (before - after) / np.where(bend == 0, np.inf, bend), -0.5, 0.5))


def _around(fine: Array, places: NDArray[np.float64], points: NDArray[np.float64]) -> Array:
    """Intensities [P, K] at the points [K, 3] (mm) round each place; 0 outside."""
    at = places[:, None, :] + points / STEP
    values: Array = ndimage.map_coordinates(fine, at.reshape(-1, 3).T, order=1, mode="constant")
    return values.reshape(len(places), len(points))


@cache
def _pairs() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points that are compared, [BANDS * BITS, 3] each, in mm: the two of a pair lie at one distance from the place.

    Part of the format: other points give other tokens, and two sites must have the same. Hence the plain old generator, whose
    numbers no release of numpy changes.
    """
    generator = np.random.RandomState(15)
    ways = generator.standard_normal((2, BANDS * BITS, 3))
    ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
    first, second = ways * generator.uniform(NEAREST, FARTHEST, (BANDS * BITS, 1))
    return first, second


def _tokens(comparisons: NDArray[np.bool_]) -> Fingerprint:
    """[P, BANDS * BITS] to at most MOST_TOKENS tokens."""
    bits = comparisons.reshape(len(comparisons), BANDS, BITS).astype(np.uint64)
    codes = (bits << np.arange(BITS, dtype=np.uint64)).sum(axis=-1, dtype=np.uint64)
    banded = codes | (np.arange(BANDS, dtype=np.uint64) << np.uint64(BITS))
    return np.unique(_mixed(banded.ravel()))[:MOST_TOKENS]


def _mixed(codes: Fingerprint) -> Fingerprint:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014): one to one, and as good as random in order."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))
