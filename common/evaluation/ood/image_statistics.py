"""Image statistics: contrast, sharpness, noise, spikes, ghosts. Networks trained on photographs overlook these.

M modalities, S slices, H = W pixels.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

AIR = 0.02  # below it a pixel is background
BANDS = (0.0, 0.08, 0.16, 0.28, 0.5)  # cycles a pixel; none is empty from 16 pixels on
STATISTICS = 26


def image_statistics(images: Matrix) -> Matrix:
    """Statistics of each modality, over all its slices together.

    Args:
        images: [S, M, H, W], intensities 0 to 1.

    Returns:
        [M, STATISTICS], finite also for an empty image.
    """
    return np.stack([_of_one(images[:, m]) for m in range(images.shape[1])])


def _of_one(image: Matrix) -> Matrix:
    """[S, H, W] to [STATISTICS]."""
    inside = image[image > AIR]
    inside = inside if inside.size else np.zeros(1)
    mean, deviation = float(inside.mean()), float(inside.std()) + 1e-3
    standard = (inside - mean) / deviation
    found = [inside.size / image.size, mean, deviation, float((standard**3).mean()), _log((standard**4).mean())]
    found += [float(q) for q in np.quantile(inside, (0.05, 0.25, 0.5, 0.75, 0.95))]
    found.append(_log((image > 0.99).mean()))  # clipped at the top
    return np.array(found + _edges(image, deviation) + _spectrum(image))


def _edges(image: Matrix, deviation: float) -> list[float]:
    """Sharpness along both axes, and how evenly edges are spread: gradient entropy (McGee et al., JMRI 2000;11:174)."""
    brain = image > AIR
    down = np.abs(np.diff(image, axis=1))[brain[:, 1:] & brain[:, :-1]]
    across = np.abs(np.diff(image, axis=2))[brain[:, :, 1:] & brain[:, :, :-1]]
    both = np.concatenate([down, across, np.zeros(1)])
    share = both / (both.sum() + 1e-6)
    entropy = -float(np.sum(share * np.log(share + 1e-12))) / np.log(both.size + 1.0)
    second = np.abs(np.diff(image, 2, axis=1))[brain[:, 2:] & brain[:, 1:-1] & brain[:, :-2]]
    rough = float(np.median(second)) if second.size else 0.0
    means = [float(part.mean()) if part.size else 0.0 for part in (down, across)]
    return [_log(sum(means) / deviation), _log(means[0]) - _log(means[1]), entropy, _log(rough / deviation)]


def _spectrum(image: Matrix) -> list[float]:
    """Log shares of power by band, how uneven each is between the axes, and how far single frequencies stand out."""
    size = image.shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    power = (np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2).mean(0) + 1e-6
    down, across = np.abs(np.fft.fftfreq(size)[:, None]), np.fft.rfftfreq(size)[None]
    radius = np.hypot(down, across)
    bands = [(radius > low) & (radius <= high) for low, high in pairwise(BANDS)]
    shares = [float(np.log(power[band].sum() / power.sum())) for band in bands]
    uneven = [float(np.log(power[b & (down > 2 * across)].mean() / power[b & (across > 2 * down)].mean())) for b in bands]
    peaks = [float(np.log(power[band].max() / np.median(power[band]))) for band in bands[1:]]
    return shares + uneven + peaks


def _log(value: float) -> float:
    """Logarithm that a zero does not break."""
    return float(np.log(value + 1e-3))
