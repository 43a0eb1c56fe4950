"""What an image is like as an image: contrast, sharpness, noise, spikes, ghosts. Networks trained on photographs overlook these.

M modalities, S slices, H = W pixels.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

AIR = 0.02  # below it a pixel is background
BANDS = (0.0, 0.06, 0.12, 0.25, 0.5)  # cycles a pixel
STATISTICS = 19


def image_statistics(images: Array) -> NDArray[np.float64]:
    """Statistics of each modality, over all its slices together.

    Args:
        images: [S, M, H, W], intensities 0 to 1.

    Returns:
        [M, STATISTICS], finite also for an empty image.
    """
    return np.stack([_of_one(images[:, m].astype(np.float64)) for m in range(images.shape[1])])


def _of_one(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """[S, H, W] to [STATISTICS]."""
    inside = image[image > AIR]
    inside = inside if inside.size else np.zeros(1)
    mean, deviation = inside.mean(), inside.std() + 1e-3
    standard = (inside - mean) / deviation
    found = [len(inside) / image.size, mean, deviation, (standard**3).mean(), np.log((standard**4).mean() + 1e-3)]
    found += list(np.quantile(inside, (0.05, 0.25, 0.5, 0.75, 0.95)))
    found.append(np.log((image > 0.99).mean() + 1e-3))  # clipped at the top
    down, across = np.abs(np.diff(image, axis=1)).mean(), np.abs(np.diff(image, axis=2)).mean()
    found += [np.log((down + across) / deviation + 1e-3), np.log((down + 1e-4) / (across + 1e-4))]
    return np.array(found + _spectrum(image))


def _spectrum(image: NDArray[np.float64]) -> list[float]:
    """Log shares of power by frequency band, and how far single frequencies stand out of their surroundings."""
    size = image.shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    power = (np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2).mean(0)
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    total = power.sum() + 1e-6
    bands = [(radius > low) & (radius <= high) for low, high in pairwise(BANDS)]
    shares = [float(np.log(power[band].sum() / total + 1e-6)) for band in bands]
    peaks = [float(np.log((power[band].max() + 1e-6) / (np.median(power[band]) + 1e-6))) for band in bands[-2:]]
    return shares + peaks
