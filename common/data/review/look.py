"""What kind of image each of a patient's volumes looks like, as numbers that do not hang on the file's intensity scale.

Each volume alone (quantiles inside the head, grey against white matter by the distance from sulci, bright and dark thin
structures, the tumour against the rest), each pair alike (correlations), and each pair against one another (what is brighter
in which).
V volumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.review.thumbnail import STEP, Thumbnail, depth_inside
from common.data.volumes import Array, Mask

Numbers = NDArray[np.float64]

SHELLS = ((2.0, 8.0), (15.0, 20.0), (20.0, 28.0), (28.0, 40.0), (40.0, np.inf))  # mm from the outline
THIN, THICK = 0.8, 2.0  # standard deviations, in steps of the thumbnail, that structures are told from their surroundings by
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
class _Image:
    """One volume, ready to be measured."""

    tissue: Array  # by the median and the range from the 10th to the 90th percentile, deep inside
    spread: float  # that range, by the median
    log: Array  # logarithm of the intensity by the median
    thin: Array  # less what is smoother than THIN
    thick: Array  # less what is smoother than THICK


def look(one: Thumbnail) -> Look:
    """Measure a patient whose thumbnail shows a head."""
    deep = one.deep
    images = [_image(slices, deep, one.pixel) for slices in one.slices.values()]
    count = len(images)
    alike, against = np.zeros((count, count, ALIKE)), np.zeros((count, count, AGAINST))
    for i, j in combinations(range(count), 2):
        alike[i, j] = alike[j, i] = _alike(images[i], images[j], deep)
        against[i, j] = _against(images[i], images[j], deep)
        against[j, i] = -against[i, j]
    return Look(tuple(one.slices), np.array([_alone(image, one) for image in images]), alike, against, one.tumour is not None)


def _image(slices: Array, deep: Mask, pixel: tuple[float, float]) -> _Image:
    low, middle, high = (float(q) for q in np.percentile(slices[deep], (10, 50, 90)))
    tissue = np.clip((slices - middle) / max(high - low, 1e-6), -4, 4)
    log = np.log(np.clip(slices / max(middle, 1e-6), 0.05, 8))
    spread = max(high - low, 1e-6) / max(abs(middle), 1e-6)
    return _Image(tissue, spread, log, _beyond(tissue, THIN, pixel), _beyond(tissue, THICK, pixel))


def _beyond(image: Array, width: float, pixel: tuple[float, float]) -> Array:
    """The image less its surroundings."""
    smooth: Array = ndimage.gaussian_filter(image, (width * STEP / pixel[0], width * STEP / pixel[1], 0), truncate=3)
    beyond: Array = image - smooth
    return beyond


def _alone(image: _Image, one: Thumbnail) -> list[float]:
    deep, tumour = one.deep, one.tumour
    healthy = deep if tumour is None else deep & (tumour < 0.1)
    healthy = healthy if healthy.sum() > 100 else deep
    values = image.tissue[deep]
    numbers = [*np.percentile(image.log[deep], (1, 5, 95, 99)), *np.percentile(values, (1, 5, 25, 75, 95, 99))]
    numbers += [np.log(image.spread), _skewness(np.clip(values, -3, 3))]
    shallow = np.clip(image.tissue, -3, 3)
    numbers += [_mean(shallow[(one.depth > low) & (one.depth <= high) & (healthy | ~deep)]) for low, high in SHELLS]
    for beyond in (image.thin, image.thick):
        structure = beyond[deep]
        low, high = np.percentile(structure, (2, 98))
        numbers += [np.log(max(structure.std(), 1e-6)), _tails(structure), np.log(max(high, 1e-3) / max(-low, 1e-3))]
    numbers += [_near_and_far(image.tissue, healthy, one.pixel, darkest=True)]
    numbers += [_near_and_far(image.tissue, healthy, one.pixel, darkest=False)]
    diseased = None if tumour is None else image.tissue[tumour > 0.9]
    contrast = 0.0 if diseased is None or diseased.size <= 20 else np.median(diseased) - np.median(image.tissue[healthy])
    return [float(number) for number in [*numbers, np.clip(contrast, -2, 2)]]


def _near_and_far(tissue: Array, healthy: Mask, pixel: tuple[float, float], *, darkest: bool) -> float:
    """How much brighter tissue is beside the darkest (brightest) structures, sulci and ventricles, than further off."""
    values = tissue[healthy]
    extreme = tissue < np.percentile(values, 6) if darkest else tissue > np.percentile(values, 94)
    distance = depth_inside(~(extreme & healthy), pixel)
    near, far = tissue[healthy & (distance > 2.5) & (distance <= 5)], tissue[healthy & (distance > 8) & (distance <= 16)]
    return _mean(near) - _mean(far) if min(near.size, far.size) > 50 else 0.0


def _alike(a: _Image, b: _Image, deep: Mask) -> list[float]:
    return [_correlation(a.tissue[deep], b.tissue[deep]), _correlation(a.thick[deep], b.thick[deep])]


def _against(a: _Image, b: _Image, deep: Mask) -> list[float]:
    """Above 0 where `a` is brighter in few places by much: vessels and enhancing tumour, if `a` is the contrast image."""
    first, second = a.tissue[deep], b.tissue[deep]
    difference = first - second
    q = np.percentile(difference, (0.5, 2, 50, 98, 99.5))
    numbers = [_tails(difference), *(np.log((q[-k] - q[2] + 1e-3) / (q[2] - q[k - 1] + 1e-3)) for k in (2, 1))]
    beyond = _regressed(second, first), _regressed(first, second)
    numbers += [_tails((a.thick - b.thick)[deep]), _tails(beyond[0]) - _tails(beyond[1])]
    numbers += [_asymmetry(beyond[0]) - _asymmetry(beyond[1]), np.log(max(first.std(), 1e-6) / max(second.std(), 1e-6))]
    logs = ndimage.gaussian_filter(a.log - b.log, (0.5, 0.5, 0))[deep]
    logs -= np.median(logs)
    for share in (0.2, 1.0, 3.0):
        low, high = np.percentile(logs, (share, 100 - share))
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
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low + high)


def _mean(values: Sequence[float] | Array) -> float:
    return float(np.mean(values)) if len(values) > 50 else 0.0
