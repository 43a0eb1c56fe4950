"""Rigid registration of one modality to another of the same patient, and whether to believe it.

Mattes mutual information (Mattes et al. 2003) from coarse to fine, from two starts; then once more the other way round: where
the two do not undo each other, neither is believed. One thread and fixed seeds: the same images give the same answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813  # the name that everybody knows it by
from numpy.typing import NDArray

from client.data.volume import Volume

LEVELS = ((4.0, 0.25), (2.0, 0.1), (1.0, 0.02))  # mm of the grid, and share of its voxels that is looked at
BINS = 32
MAX_SHIFT, MAX_TURN = 60.0, 30.0  # mm and degrees: a head in one scanner moves less within one study
MAX_INCONSISTENCY = 2.0  # mm over the head
MIN_OVERLAP = 0.4  # of the reference's head that the other image must cover
_SEED = 20250131
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Registration:
    """Where the points of the reference lie in the other image's world, and how far that is to be believed."""

    matrix: Floats  # 4 x 4, mm, RAS
    information: tuple[float, float]  # mutual information before and after, in nats
    inconsistency: float  # mm: largest distance over the head between a point and its way there and back
    overlap: float  # share of the reference's head that lies inside the other image
    shift: float  # mm, of the head's centre
    turn: float  # degrees

    @property
    def problem(self) -> str:
        """Why it is not believed; "" where it is."""
        if self.information[1] <= 0 or self.information[1] < self.information[0] - 1e-3:
            return f"the images agree less after it ({self.information[1]:.3f}) than before ({self.information[0]:.3f} nats)"
        if self.inconsistency > MAX_INCONSISTENCY:
            return f"there and back differ by {self.inconsistency:.1f} mm (more than {MAX_INCONSISTENCY:g})"
        if self.shift > MAX_SHIFT or self.turn > MAX_TURN:
            return f"it moves the head by {self.shift:.0f} mm and {self.turn:.0f} degrees"
        if self.overlap < MIN_OVERLAP:
            return f"the images share {self.overlap:.0%} of the head"
        return ""


def register(reference: Volume, other: Volume) -> Registration:
    """Find the rigid motion between two images of one head."""
    fixed, moving = to_image(reference), to_image(other)
    with _one_thread():
        forward, before, after = _align(fixed, moving)
        backward, _, _ = _align(moving, fixed)
    matrix, back = _matrix(forward), _matrix(backward)
    head = head_points(reference)
    there = apply(matrix, head)
    inside = _inside(other, there)
    centre = head.mean(axis=0, keepdims=True)
    return Registration(
        matrix=matrix,
        information=(before, after),
        inconsistency=float(np.linalg.norm(apply(back, there) - head, axis=1).max()),
        overlap=float(inside.mean()),
        shift=float(np.linalg.norm(apply(matrix, centre) - centre)),
        turn=float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))),
    )


def to_image(volume: Volume) -> sitk.Image:
    """As SimpleITK holds it, float32; DICOM's axes."""
    image = sitk.GetImageFromArray(np.asarray(volume.voxels, np.float32).transpose(2, 1, 0))
    affine = _FLIP @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def to_transform(matrix: Floats) -> sitk.AffineTransform:
    """A motion in RAS as SimpleITK's transform of DICOM's axes."""
    lps = _FLIP @ matrix @ _FLIP
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def head_points(volume: Volume, spacing: float = 8.0) -> Floats:
    """`[N, 3]` points of the world (RAS) inside the head: what is brighter than a tenth of the brightest."""
    steps = np.maximum(1, np.round(spacing / np.linalg.norm(volume.affine[:3, :3], axis=0)).astype(int))
    coarse = volume.voxels[:: steps[0], :: steps[1], :: steps[2]]
    low, high = float(coarse.min()), float(np.percentile(coarse, 99.5))
    index = np.argwhere(coarse > low + 0.1 * (high - low)) * steps
    if not len(index):
        index = np.argwhere(np.ones(coarse.shape, bool)) * steps
    return apply(volume.affine, index.astype(float))


def _align(fixed: sitk.Image, moving: sitk.Image) -> tuple[sitk.Euler3DTransform, float, float]:
    """The motion, and mutual information before and after, both on the second level's grid."""
    centres = sitk.CenteredTransformInitializerFilter.MOMENTS
    starts = [sitk.Euler3DTransform(), sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), centres)]
    finest = 0.75 * min(*fixed.GetSpacing(), *moving.GetSpacing())
    grids = [(grid, share) for number, (grid, share) in enumerate(LEVELS) if number == 0 or grid >= finest]
    levels = [(_level(fixed, grid), _level(moving, grid), share) for grid, share in grids]
    tried = [_optimise(*levels[0], _rigid(fixed, candidate)) for candidate in starts]
    best = max(tried, key=lambda pair: pair[1])[0]
    for level in levels[1:]:
        best, _ = _optimise(*level, best)
    first, second, _ = levels[min(1, len(levels) - 1)]
    identity = sitk.Euler3DTransform()
    return best, _information(first, second, identity), _information(first, second, best)


def _rigid(fixed: sitk.Image, start: sitk.Transform) -> sitk.Euler3DTransform:
    """The start as a rotation about the middle of the fixed image, and a shift."""
    middle = np.array(fixed.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in fixed.GetSize()]))
    basis = np.array([start.TransformPoint((middle + axis).tolist()) for axis in (*np.eye(3), np.zeros(3))])
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetMatrix((basis[:3] - basis[3]).T.ravel().tolist(), 1e-4)
    transform.SetTranslation((basis[3] - middle).tolist())
    return transform


def _level(image: sitk.Image, grid: float) -> sitk.Image:
    """Smoothed and resampled to an isotropic grid, no finer than `grid`; axes stay."""
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    smooth = sitk.SmoothingRecursiveGaussian(image, [max(0.5 * grid, 0.01)] * 3) if min(size) >= 4 else image
    counts = np.maximum(1, np.ceil((size - 1) * spacing / grid).astype(int) + 1)
    return sitk.Resample(
        smooth, counts.tolist(), sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [grid] * 3, image.GetDirection(), 0.0
    )


def _method(share: float) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _optimise(
    fixed: sitk.Image, moving: sitk.Image, share: float, start: sitk.Euler3DTransform
) -> tuple[sitk.Euler3DTransform, float]:
    """One level; returns the motion and its mutual information, minus infinity where the images do not meet."""
    method = _method(share)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=100, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # too few samples fall into the other image
        return start, -np.inf
    return transform, -float(method.GetMetricValue())


def _information(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    method = _method(1.0)
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError:
        return 0.0


def _matrix(transform: sitk.Transform) -> Floats:
    points = np.array([transform.TransformPoint(axis.tolist()) for axis in (*np.eye(3), np.zeros(3))])
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = (points[:3] - points[3]).T, points[3]
    return _FLIP @ lps @ _FLIP


def apply(matrix: Floats, points: Floats) -> Floats:
    """`[N, 3]` points moved by a 4 x 4 matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _inside(volume: Volume, points: Floats) -> NDArray[np.bool_]:
    index = apply(np.asarray(np.linalg.inv(volume.affine), float), points)
    return np.asarray(((index >= -0.5) & (index <= np.array(volume.voxels.shape) - 0.5)).all(axis=1))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
