"""Class offsets beside the temperature, softmax(log p / T + b): bias-corrected scaling (Alexandari et al., ICML 2020).

A model may rank patients well and still name one class for too many: then its log-probabilities are off by a constant for each
class. The offsets are those of largest likelihood once the shares of the classes among the held-back patients are taken out,

    p(y | patient) in the sum of losses  =  softmax(log p / T + b + log share)_y,

the balanced softmax (Ren et al., NeurIPS 2020, equation 3; logit-adjusted loss, Menon et al., ICLR 2021, equation 10), which is
consistent for the balanced error: each class weighs the same in what b is for, however many patients of it are held back. A loss
weighted by class would need the sites to be asked once more, or to tell sums of a class of which they have one patient.

A Gaussian prior on b shrinks it. Its width, 0.3, says that a model whose classes are off by more than a third is rare. It was
looked at on phantoms of seeds 31 to 34, 18 held-back patients each (docs/results.md): a width of log 3, which so few patients
hardly resist, cost more decisions than it mended; narrow ones lowered the external log-loss and cost none. Many outweigh it.

T and a = b + log share are fitted together, from the summed loss at the points of a fixed grid: one array in an answer that the
sites give anyway, of all their held-back patients together. The first class's a is 0, since equal offsets change nothing.

N patients, C classes, T temperatures, A steps of an offset.
"""

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.evaluation.calibration.calibration import PRIOR, TEMPERATURES, Floats, Scaling, log_softmax, logarithm

GRID_TEMPERATURES: Floats = TEMPERATURES[::4]  # four an octave; 1 is among them
STEPS: Floats = np.arange(-12, 13) / 2.0  # of a, from -6 to 6
WIDTH = 0.3  # standard deviation of each offset before any patient has been seen
MOST_CLASSES = 4  # the grid has C axes


def why_no_offsets(config: RunConfig) -> str:
    """Why a run of this configuration fits none, as a sentence; "" where it does."""
    reasons = (
        (config.privacy.enabled, "a private run holds nobody back: sums over held-back patients would leave without noise"),
        (not config.evaluation.holdout, "nobody is held back to fit them on (evaluation.holdout = 0)"),
        (not config.evaluation.offsets, "they are switched off (evaluation.offsets = false)"),
        (config.secure.enabled, "the updates are masked (secure.enabled), and the sums for them would leave in the clear"),
        (len(config.task.classes) > MOST_CLASSES, f"they are fitted for at most {MOST_CLASSES} classes"),
    )
    return next((f"No class offsets: {reason}." for off, reason in reasons if off), "")


def grid_shape(classes: int) -> tuple[int, ...]:
    """[T, A, ...], an A for each class but the first."""
    return (len(GRID_TEMPERATURES), *[len(STEPS)] * (classes - 1))


def offset_sums(labels: NDArray[np.int64], probabilities: NDArray[Any]) -> Floats:
    """Negative log-likelihood of softmax(log p / T + a) at each point of the grid, summed over patients: zeros for no patient.

    Args:
        labels: [N], each a class.
        probabilities: [N, C], uncalibrated.

    Returns:
        `grid_shape(C)`.
    """
    logits, classes = logarithm(probabilities), probabilities.shape[1]
    added = np.stack([np.zeros(len(STEPS) ** (classes - 1)), *_points(classes).T])  # [C, A ...]
    factors, own = np.exp(added), added[labels].sum(axis=0)
    sums = []
    for temperature in GRID_TEMPERATURES:
        logs = log_softmax(logits / temperature)
        known = logs[np.arange(len(logs)), labels].sum()
        sums.append(np.log(np.exp(logs) @ factors).sum(axis=0) - own - known)
    return np.asarray(np.maximum(sums, 0.0)).reshape(grid_shape(classes))


def fit_scaling(sums: NDArray[Any], counts: NDArray[Any]) -> Scaling | None:
    """The most probable temperature and offsets (MAP).

    Args:
        sums: as `offset_sums`, added up over sites.
        counts: held-back patients of each class [C], over all sites.

    Returns:
        Offsets that add up to 0; None where a class has no patient, or where they would lie beyond the grid.
    """
    found = _best(sums, counts)
    if found is None:
        return None
    point, shift, _, shares = found
    octaves = math.log(GRID_TEMPERATURES[1] / GRID_TEMPERATURES[0])
    added = np.concatenate([[0.0], STEPS[list(point[1:])] + shift[1:] * (STEPS[1] - STEPS[0])])
    offsets = added - shares
    temperature = float(GRID_TEMPERATURES[point[0]] * math.exp(shift[0] * octaves))
    return Scaling(temperature, tuple(float(b) for b in offsets - offsets.mean()))


def scaling_loss(sums: NDArray[Any], counts: NDArray[Any]) -> float | None:
    """What `fit_scaling` makes smallest, and how small; None where it finds nothing."""
    found = _best(sums, counts)
    return None if found is None else found.loss


class _Best(NamedTuple):
    """The smallest loss: the grid's point, the way from there in steps, the loss at its end, log shares of the classes."""

    point: tuple[int, ...]
    shift: Floats
    loss: float
    shares: Floats


def _best(sums: NDArray[Any], counts: NDArray[Any]) -> _Best | None:
    counts = np.asarray(counts, np.float64)
    if not counts.all():
        return None
    shares = np.log(counts / counts.sum())
    loss = np.asarray(sums, np.float64) + _prior(shares)
    point = tuple(int(here) for here in np.unravel_index(int(loss.argmin()), loss.shape))
    if any(here in (0, len(STEPS) - 1) for here in point[1:]):
        return None
    shift, gain = _newton(loss, point)
    return _Best(point, shift, float(loss[point]) - gain, shares)


def _points(classes: int) -> Floats:
    """The grid of a without the temperatures, [A ..., C - 1]."""
    return np.array(list(product(STEPS, repeat=classes - 1)))


def _prior(shares: Floats) -> Floats:
    """Minus the log prior at each point of the grid, but for a constant."""
    classes = len(shares)
    points = np.insert(_points(classes), 0, 0.0, axis=1) - shares
    offsets = points - points.mean(axis=1, keepdims=True)
    of_offsets = 0.5 * (offsets**2).sum(axis=1) / WIDTH**2
    of_temperature = 0.5 * (np.log(GRID_TEMPERATURES) / PRIOR) ** 2
    return np.asarray((of_temperature[:, None] + of_offsets).reshape(grid_shape(classes)))


def _newton(loss: Floats, point: tuple[int, ...]) -> tuple[Floats, float]:
    """One Newton step from the grid's best point, by differences of its neighbours: where between them the minimum lies.

    Returns:
        Parts of a step along each axis, -1 to 1, 0 along the temperature where that is at its edge; how much smaller the loss is
        there.
    """
    axes = [axis for axis, here in enumerate(point) if 0 < here < loss.shape[axis] - 1]

    def at(moves: Mapping[int, int]) -> float:
        return float(loss[tuple(here + moves.get(axis, 0) for axis, here in enumerate(point))])

    slope, bend = np.zeros(len(axes)), np.zeros((len(axes), len(axes)))
    for i, one in enumerate(axes):
        before, here, after = at({one: -1}), at({}), at({one: 1})
        slope[i], bend[i, i] = (after - before) / 2, before - 2 * here + after
        for j, other in enumerate(axes[:i]):
            corners = (u * v * at({one: u, other: v}) for u, v in product((-1, 1), repeat=2))
            bend[i, j] = bend[j, i] = sum(corners) / 4
    shift = np.zeros(loss.ndim)
    if not axes or np.linalg.eigvalsh(bend).min() <= 0:
        return shift, 0.0
    way = np.clip(-np.linalg.solve(bend, slope), -1.0, 1.0)
    shift[axes] = way
    return shift, float(-slope @ way - way @ bend @ way / 2)
