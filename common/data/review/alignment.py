"""Whether a patient's modalities show one head in one place: what is mirrored, moved, shuffled, or another patient's.

Edges lie at the same places whatever a modality makes bright, so the magnitudes of two volumes' gradients are correlated, for
every shift in the plane at once (by the Fourier transform; Pluim et al., IEEE TMI 2000, use gradients for the same reason), as
the files lie and mirrored. `bench/alignment.py` measures what is found, and what is wrongly said, hospital by hospital.

E edges [S, X, Y] of a volume; S slices.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.optimize import linear_sum_assignment

from common.data.gate.finding import Finding, Kind, Level
from common.data.review.percentiles import percentiles
from common.data.review.thumbnail import Thumbnail
from common.data.volumes import Array

MIRRORED = Kind("modality-mirrored", Level.WARNING, "a modality fits the others better mirrored or upside down")
SHUFFLED = Kind("slices-shuffled", Level.WARNING, "a modality's slices fit the others better in another order")
SHIFTED = Kind("modality-shifted", Level.WARNING, "a modality lies a centimetre or more off the others")
STRANGE = Kind("modality-misfit", Level.WARNING, "a modality does not fit the others: not registered, or another patient's")
MASK_MIRRORED = Kind("mask-mirrored", Level.WARNING, "the images show more of a tumour where the mask lies if it is mirrored")
KINDS = (MIRRORED, SHUFFLED, SHIFTED, STRANGE, MASK_MIRRORED)

PIXEL = 4.0  # mm that edges are averaged to
REACH = 24.0  # mm that are tried in the plane, each way
# Of 79 real patients and 12 phantoms: no other way fits better than 0.08 below the right one; no order of slices gains more than
# 0.06; no modality lies more than 8 mm off; none agrees by less than 0.45; no mirrored mask shows more than 1.09 times as much.
BETTER, GAIN, FAR, AGREE, CLEARER = 0.04, 0.1, 10.0, 0.35, 1.2
RIM, INNER = 6.0, 0.15  # mm from the head's outline, and what edges further in agree by (0.27 and more; noise by 0.07 at most)
DOWN = -0.5  # order of slices, below which they go down
OWN = 0.45  # what edges of one patient agree by, at least
SHOWS_TUMOUR = {"t2", "flair"}
LEAST_MARKED = 20  # pixels of a mask that can be compared
WAYS: Mapping[str, tuple[slice, ...]] = {
    "mirrored left for right": np.s_[:, ::-1, :],
    "mirrored front for back": np.s_[:, :, ::-1],
    "turned by 180 degrees": np.s_[:, ::-1, ::-1],
    "upside down": np.s_[::-1, :, :],
}
DO = "Look at both beside each other; convert or register it anew, or leave it out."


@dataclass(frozen=True)
class Fit:
    """How two volumes' edges agree.

    Attributes:
        agreement: correlation at the best shift.
        inner: the same without the head's rim, where all heads have an edge.
        shift: that shift, mm in the plane.
        here: correlation where the files put them.
        way: of `WAYS`, that fits best.
        mirrored: correlation at the best shift of that way.
        gain: how much better slices agree in the best order.
        order: correlation of that order with the one they have; -1: from the top down.
    """

    agreement: float
    inner: float
    shift: float
    here: float
    way: str
    mirrored: float
    gain: float
    order: float

    def problem(self) -> tuple[Kind, str] | None:
        """What is wrong, and in words; the surest first."""
        here, better = f"{self.agreement:.2f}", self.mirrored > self.agreement + BETTER
        if better and self.mirrored > OWN and not self.agreement + self.gain > self.mirrored + BETTER:
            return MIRRORED, f"fits {{}} better {self.way} (edges agree by {self.mirrored:.2f}, as it lies by {here})"
        if self.gain > GAIN and self.order < DOWN:
            return MIRRORED, f"fits {{}} better upside down (edges agree by {self.gain:.2f} more)"
        if self.gain > GAIN:
            return SHUFFLED, f"fits {{}} better with its slices in another order (edges agree by {self.gain:.2f} more)"
        if better or self.agreement < AGREE or self.inner < INNER:
            inner = f", within the head by {self.inner:.2f}"
            return STRANGE, f"does not fit {{}} (edges agree by {here}{inner}; of one patient by {OWN} and more, and 0.27)"
        if self.shift > FAR and self.agreement > self.here + BETTER:
            return SHIFTED, f"lies {self.shift:.0f} mm off {{}} (edges agree by {here} there, by {self.here:.2f} here)"
        return None


def find_misfits(one: Thumbnail) -> Iterator[tuple[str, Finding]]:
    """Modality and warning of each volume that does not lie on the others; of two, at the second."""
    edges = {name: edges_of(slices, one) for name, slices in one.slices.items()}
    pairs = {pair: fit(edges[pair[0]], edges[pair[1]], one) for pair in combinations(edges, 2)}
    bad = {pair: problem for pair, found in pairs.items() if (problem := found.problem())}
    while bad:
        times = {name: sum(name in pair for pair in bad) for name in edges}
        odd = max(reversed(tuple(edges)), key=lambda name: times[name])
        pair = next(pair for pair in bad if odd in pair)
        kind, text = bad[pair]
        other = pair[0] if pair[1] == odd else pair[1]
        doubt = "; which of the two is wrong is not known" if times[odd] == times[other] else ""
        yield odd, kind.finding(text.format(other) + doubt, "modalities of one patient, registered to each other", DO)
        bad = {names: found for names, found in bad.items() if odd not in names}


def fit(a: Array, b: Array, one: Thumbnail) -> Fit:
    """Compare edges [S, X, Y] of two volumes of a thumbnail."""
    side = one.pixel[0] * _block(one), one.pixel[1] * _block(one)
    norm, spectrum = _norm(a, b), _spectrum(a, side)
    agreement, shift, here = _best(spectrum, b, side, norm)
    first, second = _inner(a, one), _inner(b, one)
    inner = _best(_spectrum(first, side), second, side, _norm(first, second))[0]
    ways = {name: _best(spectrum, b[way], side, norm)[0] for name, way in WAYS.items()}
    way = max(ways, key=lambda name: ways[name])
    return Fit(agreement, inner, shift, here, way, ways[way], *_reordered(a, b))


def edges_of(slices: Array, one: Thumbnail) -> Array:
    """[X, Y, S] to the magnitude of the gradient in the plane, [S, X, Y], less each slice's mean; the strongest are clipped."""
    smooth = ndimage.gaussian_filter(slices, (1, 1, 0), truncate=3)
    edges = np.zeros_like(smooth)
    along_x, along_y = smooth[2:, 1:-1] - smooth[:-2, 1:-1], smooth[1:-1, 2:] - smooth[1:-1, :-2]
    edges[1:-1, 1:-1] = np.sqrt(along_x * along_x + along_y * along_y)
    inside = edges[one.depth > 0]
    edges = np.minimum(edges, float(percentiles(inside, (97,))[0])) if inside.size else edges
    block = _block(one)
    x, y = (count // block for count in edges.shape[:2])
    coarse = edges[: x * block, : y * block].reshape(x, block, y, block, -1).mean((1, 3))
    return np.ascontiguousarray(np.moveaxis(coarse - coarse.mean((0, 1)), 2, 0))


def find_mirrored_mask(one: Thumbnail) -> Finding | None:
    """A warning where the mask, mirrored, marks what differs more from other tissue; T1 alone shows too little of a tumour."""
    if one.tumour is None or not SHOWS_TUMOUR & one.slices.keys():
        return None
    mask = np.moveaxis(one.tumour, 2, 0)
    here = _contrast(one, mask)
    there = {name: _contrast(one, mask[way]) for name, way in WAYS.items()}
    way = max(there, key=lambda name: there[name])
    if here <= 0 or there[way] <= CLEARER * here:
        return None
    found = (
        f"the images show more of a tumour where it would lie {way} (what it marks differs from other tissue by "
        f"{there[way]:.2f} there, by {here:.2f} as it lies; standard deviations, summed over modalities)"
    )
    return MASK_MIRRORED.finding(found, "a mask on the tumour", "Look at it; save it anew with the image's own axes.")


def _contrast(one: Thumbnail, mask: Array) -> float:
    """How far what a mask [S, X, Y] marks differs from other tissue, in deviations of that, summed over modalities."""
    head, marked = np.moveaxis(one.depth > 0, 2, 0), mask > 0.5
    inside, beside = head & marked, head & (mask <= 0.1)
    if np.count_nonzero(inside) < LEAST_MARKED or not beside.any():
        return 0.0
    images = [np.moveaxis(slices, 2, 0) for slices in one.slices.values()]
    return sum(float(abs(im[inside].mean() - im[beside].mean()) / (im[beside].std() + 1e-9)) for im in images)


def _inner(edges: Array, one: Thumbnail) -> Array:
    """Edges away from the head's rim, less each slice's mean there; 0 elsewhere."""
    block, (_, x, y) = _block(one), edges.shape
    deep = np.moveaxis(one.depth[::block, ::block][:x, :y] > RIM, 2, 0)
    mean = (edges * deep).sum((1, 2), keepdims=True) / np.maximum(deep.sum((1, 2), keepdims=True), 1)
    return np.where(deep, edges - mean, 0).astype(np.float32)


def _norm(a: Array, b: Array) -> float:
    return float(np.sqrt((a * a).sum() * (b * b).sum())) + 1e-9


def _block(one: Thumbnail) -> int:
    return max(1, round(PIXEL / max(one.pixel)))


def _reach(side: tuple[float, float]) -> tuple[int, int]:
    return int(REACH / side[0]), int(REACH / side[1])


def _padded(a: Array, side: tuple[float, float]) -> list[int]:
    return [fft.next_fast_len(count + more, real=True) for count, more in zip(a.shape[1:], _reach(side), strict=True)]


def _spectrum(a: Array, side: tuple[float, float]) -> NDArray[np.complex64]:
    spectrum: NDArray[np.complex64] = fft.rfft2(a, _padded(a, side))
    return spectrum


def _best(spectrum: NDArray[np.complex64], b: Array, side: tuple[float, float], norm: float) -> tuple[float, float, float]:
    """The highest correlation within reach, mm of its shift, and the correlation without one."""
    x, y = _reach(side)
    both = fft.irfft2((spectrum * np.conj(_spectrum(b, side))).sum(0), _padded(b, side))
    near = np.roll(both, (x, y), (0, 1))[: 2 * x + 1, : 2 * y + 1] / norm
    i, j = np.unravel_index(int(near.argmax()), near.shape)
    return float(near[i, j]), float(np.hypot((i - x) * side[0], (j - y) * side[1])), float(near[x, y])


def _reordered(a: Array, b: Array) -> tuple[float, float]:
    """How much better slices agree, in the mean, each with its best partner (Kuhn, 1955) than each with its own; and how far
    that order goes with their own."""
    flat = [each.reshape(len(each), -1) for each in (a, b)]
    first, second = (each / (np.linalg.norm(each, axis=1, keepdims=True) + 1e-9) for each in flat)
    agreement = np.einsum("ip,jp->ij", first, second)  # no threads for so little
    rows, columns = linear_sum_assignment(-agreement)
    gain = float(agreement[rows, columns].mean() - np.diag(agreement).mean())
    return gain, float(np.corrcoef(rows, columns)[0, 1]) if len(rows) > 1 else 1.0
