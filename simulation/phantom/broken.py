"""Broken physics: what no working scanner makes, to see whether it is noticed.

Each fault strikes one image of a patient, the others stay as they are; swapping strikes two. The brain mask is applied again at
the end, as any skull-stripping would. Images [X, Y, Z]; a slice's k-space is the Fourier transform over X and Y, Y phase-encoded.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.noise_field import Array

Fault = Callable[[NDArray[np.float64], NDArray[np.bool_], np.random.Generator], NDArray[np.float64]]


def break_images(images: dict[str, Array], fault: str, generator: np.random.Generator) -> dict[str, Array]:
    """The patient's images with one fault.

    Args:
        images: by modality, zero outside the brain.
        fault: one of `FAULTS`.
        generator: of which image is struck, and how.

    Raises:
        KeyError: no such fault.
    """
    if fault == "swapped":
        return _swap(images)
    struck = sorted(images)[int(generator.integers(len(images)))]
    image = images[struck].astype(np.float64)
    brain = image > 0
    broken = np.where(brain, np.clip(_STRIKES[fault](image, brain, generator), 1.0, 30000.0), 0.0)
    return {**images, struck: broken.astype(np.float32)}


def _swap(images: dict[str, Array]) -> dict[str, Array]:
    """T1 for FLAIR and FLAIR for T1, as after a mistaken export; of a patient without, the first modality and the last."""
    order = [m for m in ("t1", "t1c", "t2", "flair") if m in images]
    one, other = order[0], order[-1]
    return {**images, one: images[other], other: images[one]}


def _inverted(image: NDArray[np.float64], brain: NDArray[np.bool_], _: np.random.Generator) -> NDArray[np.float64]:
    """Bright is dark and dark is bright."""
    low, high = np.percentile(image[brain], (0.5, 99.5))
    return np.asarray(low + high - image)


def _spikes(image: NDArray[np.float64], brain: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.float64]:
    """Three k-space points of each slice get a spark: herringbone stripes, half as strong as the brain is bright."""
    space = np.fft.fft2(image, axes=(0, 1))
    x, y, z = image.shape
    for layer in range(z):
        for _ in range(3):
            angle, radius = generator.uniform(0.0, 2.0 * np.pi), generator.uniform(0.12, 0.4)  # cycles a voxel
            place = int(radius * np.cos(angle) * x) % x, int(radius * np.sin(angle) * y) % y, layer
            space[place] += 0.5 * image[brain].mean() * x * y * np.exp(1j * generator.uniform(0.0, 2.0 * np.pi))
    return np.abs(np.fft.ifft2(space, axes=(0, 1)))


def _ghosts(image: NDArray[np.float64], brain: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.float64]:
    """The head sways along the phase-encoded axis by several voxels while lines are read one after the other."""
    del brain
    lines = np.fft.fftfreq(image.shape[1])
    sway = generator.uniform(4.0, 7.0) * np.sin(2.0 * np.pi * (np.arange(lines.size) / generator.uniform(3.0, 6.0)))
    space = np.fft.fft2(image, axes=(0, 1)) * np.exp(-2j * np.pi * lines * sway)[None, :, None]
    return np.abs(np.fft.ifft2(space, axes=(0, 1)))


def _undersampled(image: NDArray[np.float64], brain: NDArray[np.bool_], _: np.random.Generator) -> NDArray[np.float64]:
    """Only the middle eighth of the phase-encoded lines was read: blurred and ringing along one axis."""
    del brain
    kept = np.abs(np.fft.fftfreq(image.shape[1])) < 1.0 / 16.0
    return np.abs(np.fft.ifft2(np.fft.fft2(image, axes=(0, 1)) * kept[None, :, None], axes=(0, 1)))


def _noise(image: NDArray[np.float64], brain: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.float64]:
    """No anatomy at all: uniform noise of the image's range."""
    return generator.uniform(0.0, float(np.percentile(image[brain], 99.5)), image.shape)


def _saturated(image: NDArray[np.float64], brain: NDArray[np.bool_], _: np.random.Generator) -> NDArray[np.float64]:
    """Too much receiver gain: half of the brain is as bright as can be."""
    return np.minimum(image, np.percentile(image[brain], 50.0))


_STRIKES: dict[str, Fault] = {
    "ghosts": _ghosts,
    "inverted": _inverted,
    "noise": _noise,
    "saturated": _saturated,
    "spikes": _spikes,
    "undersampled": _undersampled,
}
FAULTS = tuple(sorted([*_STRIKES, "swapped"]))
