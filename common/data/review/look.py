"""What kind of image each of a patient's volumes looks like, as numbers that do not hang on the file's intensity scale.

Each volume alone (quantiles inside the head, grey against white matter by the distance from sulci, bright and dark thin
structures, the tumour against the rest), each pair alike (correlations), and each pair against one another (what is brighter
in which).
V volumes.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.review.percentiles import of_sorted, percentiles
from common.data.review.planes import squared_distance
from common.data.review.thumbnail import STEP, Thumbnail
from common.data.volumes import Array, Mask

Numbers = NDArray[np.float64]
Pixels = NDArray[np.intp]

SHELLS = ((2.0, 8.0), (15.0, 20.0), (20.0, 28.0), (28.0, 40.0), (40.0, np.inf))  # mm from the outline
THIN, THICK = 0.8, 2.0  # standard deviations, in steps of the thumbnail, that structures are told from their surroundings by
QUANTILES = (1, 5, 25, 75, 95, 99)
BESIDE, FURTHER = (2.5, 5.0), (8.0, 16.0)  # mm from the darkest and the brightest structures
ALONE, ALIKE, AGAINST = 26, 2, 13  # how many numbers there are of each kind


@dataclass(frozen=True, eq=False)
class Look:
    """One patient's volumes in numbers."""

    names: tuple[str, ...]
    alone: Numbers  # [V, ALONE]
    alike: Numbers  # [V, V, ALIKE], the same both ways
    against: Numbers  # [V, V, AGAINST], with the other sign the other way
    masked: bool  # a tumour mask helped


@dataclass(frozen=True, eq=False)
class _Places:
    """Where a patient is measured: pixels by their place in the flat image [X, Y, S], the same for each volume."""

    deep: Pixels  # well inside the head
    healthy: Pixels  # those of them without tumour, where enough are left
    shells: tuple[Pixels, ...]  # at the distances of SHELLS
    tumour: Pixels  # none without a mask


@dataclass(frozen=True, eq=False)
class _Image:
    """One volume, ready to be measured, P pixels deep inside."""

    image: Array  # [X, Y, S], by the median and the range from the 10th to the 90th percentile, deep inside
    spread: float  # that range, by the median
    quantiles: Numbers  # of `tissue`, at QUANTILES
    logs: Numbers  # of the logarithm of the intensity by the median, at QUANTILES
    tissue: Array  # [P] of `image`
    log: Array  # [P], that logarithm, of half a pixel's neighbourhood
    thin: Array  # [P], `image` less what is smoother than THIN
    thick: Array  # [P], less what is smoother than THICK


def look(one: Thumbnail) -> Look:
    """Measure a patient whose thumbnail shows a head."""
    places = _places(one)
    images = [_image(slices, places.deep, one.pixel) for slices in one.slices.values()]
    count = len(images)
    alike, against = np.zeros((count, count, ALIKE)), np.zeros((count, count, AGAINST))
    for i, j in combinations(range(count), 2):
        alike[i, j] = alike[j, i] = _alike(images[i], images[j])
        against[i, j] = _against(images[i], images[j])
        against[j, i] = -against[i, j]
    alone = np.array([_alone(image, places, one.pixel) for image in images])
    return Look(tuple(one.slices), alone, alike, against, one.tumour is not None)


def _places(one: Thumbnail) -> _Places:
    deep, depth, tumour = one.deep, one.depth, one.tumour
    healthy = deep if tumour is None else deep & (tumour < 0.1)
    healthy = healthy if healthy.sum() > 100 else deep
    taken = healthy | ~deep
    shells = tuple(np.flatnonzero((depth > low) & (depth <= high) & taken) for low, high in SHELLS)
    diseased = np.flatnonzero(tumour > 0.9) if tumour is not None else np.empty(0, np.intp)
    return _Places(np.flatnonzero(deep), np.flatnonzero(healthy), shells, diseased)


def _image(slices: Array, deep: Pixels, pixel: tuple[float, float]) -> _Image:
    rising = np.sort(slices.take(deep))
    low, middle, high = (float(q) for q in of_sorted(rising, (10, 50, 90)))
    spread, unit = max(high - low, 1e-6), max(middle, 1e-6)
    quantiles = of_sorted(rising, QUANTILES)
    image = np.clip((slices - middle) / spread, -4, 4)
    return _Image(
        image=image,
        spread=spread / max(abs(middle), 1e-6),
        quantiles=np.clip((quantiles - middle) / spread, -4, 4),
        logs=np.log(np.clip(quantiles / unit, 0.05, 8)),
        tissue=image.take(deep),
        log=ndimage.gaussian_filter(np.log(np.clip(slices / unit, 0.05, 8)), (0.5, 0.5, 0)).take(deep),
        thin=_beyond(image, THIN, pixel).take(deep),
        thick=_beyond(image, THICK, pixel).take(deep),
    )


def _beyond(image: Array, width: float, pixel: tuple[float, float]) -> Array:
    """The image less its surroundings."""
    smooth: Array = ndimage.gaussian_filter(image, (width * STEP / pixel[0], width * STEP / pixel[1], 0), truncate=3)
    beyond: Array = image - smooth
    return beyond


def _alone(image: _Image, places: _Places, pixel: tuple[float, float]) -> list[float]:
    logs, quantiles = image.logs[[0, 1, 4, 5]], image.quantiles
    numbers = [*logs, *quantiles, np.log(image.spread), _skewness(np.clip(image.tissue, -3, 3))]
    numbers += [_mean(np.clip(image.image.take(shell), -3, 3)) for shell in places.shells]
    for structure in (image.thin, image.thick):
        low, high = percentiles(structure, (2, 98))
        numbers += [np.log(max(structure.std(), 1e-6)), _tails(structure), np.log(max(high, 1e-3) / max(-low, 1e-3))]
    healthy = image.image.take(places.healthy)
    dark, middle, bright = percentiles(healthy, (6, 50, 94))
    numbers += [_near_and_far(image.image, places.healthy, healthy < dark, pixel)]
    numbers += [_near_and_far(image.image, places.healthy, healthy > bright, pixel)]
    contrast = np.median(image.image.take(places.tumour)) - middle if places.tumour.size > 20 else 0.0
    return [float(number) for number in [*numbers, np.clip(contrast, -2, 2)]]


def _near_and_far(image: Array, healthy: Pixels, extreme: Mask, pixel: tuple[float, float]) -> float:
    """How much brighter tissue is beside extreme structures, sulci and ventricles, than further off.

    Args:
        image: [X, Y, S].
        healthy: the pixels that count.
        extreme: which of them are such structures.
        pixel: mm along X and Y.
    """
    structures = np.zeros(image.shape, np.bool_)
    structures.ravel()[healthy[extreme]] = True
    (closest, near_to), (far_from, farthest) = BESIDE, FURTHER
    away = squared_distance(np.moveaxis(structures, 2, 0), pixel, farthest)
    squared = np.moveaxis(away, 0, 2).take(healthy)
    tissue = image.take(healthy)
    near = tissue[(squared > closest**2) & (squared <= near_to**2)]
    far = tissue[(squared > far_from**2) & (squared <= farthest**2)]
    return _mean(near) - _mean(far) if min(near.size, far.size) > 50 else 0.0


def _alike(a: _Image, b: _Image) -> list[float]:
    return [_correlation(a.tissue, b.tissue), _correlation(a.thick, b.thick)]


def _against(a: _Image, b: _Image) -> list[float]:
    """Above 0 where `a` is brighter in few places by much: vessels and enhancing tumour, if `a` is the contrast image."""
    first, second = a.tissue, b.tissue
    difference = first - second
    q = percentiles(difference, (0.5, 2, 50, 98, 99.5))
    numbers = [_tails(difference), *(np.log((q[-k] - q[2] + 1e-3) / (q[2] - q[k - 1] + 1e-3)) for k in (2, 1))]
    beyond = _regressed(second, first), _regressed(first, second)
    numbers += [_tails(a.thick - b.thick), _tails(beyond[0]) - _tails(beyond[1])]
    numbers += [_asymmetry(beyond[0]) - _asymmetry(beyond[1]), np.log(max(first.std(), 1e-6) / max(second.std(), 1e-6))]
    shares = (0.2, 1.0, 3.0)
    logs = percentiles(a.log - b.log, (50, *shares, *(100 - share for share in shares)))
    for low, high in zip(logs[1:4] - logs[0], logs[4:] - logs[0], strict=True):
        numbers += [high + low, np.log((high + 0.02) / (0.02 - low))]
    return [float(number) for number in numbers]


def _regressed(known: Array, other: Array) -> Array:
    """What `known` does not tell of `other`, in standard deviations, clipped."""
    known, other = known - known.mean(), other - other.mean()
    rest = other - (known @ other) / max(float(known @ known), 1e-6) * known
    return np.clip(rest / max(float(rest.std()), 1e-6), -6, 6)


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b) / max(float(np.sqrt((a @ a) * (b @ b))), 1e-6)


def _skewness(values: Array) -> float:
    centred = values - values.mean()
    return float((centred * centred * centred).mean()) / max(float(values.std()), 1e-6) ** 3


def _tails(values: Array) -> float:
    """The cube root of a clipped skewness: which of the tails is heavier."""
    clipped = np.clip((values - values.mean()) / max(float(values.std()), 1e-6), -6, 6)
    return float(np.cbrt((clipped * clipped * clipped).mean()))  # a power of an array is ten times slower


def _asymmetry(values: Array) -> float:
    """The sum of the outermost quantiles."""
    low, high = percentiles(values, (0.5, 99.5))
    return float(low + high)


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) > 50 else 0.0
