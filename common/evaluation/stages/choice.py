"""Which candidate is kept: the one of smallest loss on held-back patients, at its own best temperature and offsets.

Each is judged as it will be used, calibrated: a stage is not turned down for a shift of the decision that the offsets mend, nor
for being too sure. With the shares of the classes taken out (`common.evaluation.calibration.offsets`) each class weighs the same.
What is chosen is one of few, by few patients: its own loss flatters, and the external hospital has no part in it.

K candidates, N patients, C classes, T temperatures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.evaluation.calibration.calibration import nll_sums, temperature_loss
from common.evaluation.calibration.offsets import offset_sums, scaling_loss, why_no_offsets
from common.evaluation.stages.candidates import AVERAGE, LAST

DIGITS = 3  # of a loss a patient: what is equal as printed is equally good


@dataclass(frozen=True)
class HeldBack:
    """What held-back patients say of one candidate, as sums.

    Attributes:
        nll: of `nll_sums` [T].
        confusion: patients by class and most likely class, uncalibrated [C, C]; rows are the truth.
        offsets: of `offset_sums`; None where no class offsets are fitted.
    """

    nll: NDArray[np.float64]
    confusion: NDArray[np.float64]
    offsets: NDArray[np.float64] | None

    @property
    def recall(self) -> float | None:
        """Share right by class, averaged over the classes that are there; None without patients."""
        known = self.confusion.sum(axis=1) > 0
        return float((np.diag(self.confusion)[known] / self.confusion.sum(axis=1)[known]).mean()) if known.any() else None


def why_no_choice(config: RunConfig) -> str:
    """Why a run of this configuration cannot choose by held-back patients, as a sentence; "" where it can, or need not."""
    if config.evaluation.stage in (LAST, AVERAGE):
        return ""
    reasons = (
        (config.privacy.enabled, "a private run holds nobody back: sums over held-back patients would leave without noise"),
        (not config.evaluation.holdout, "nobody is held back to choose by (evaluation.holdout = 0)"),
        (config.secure.enabled, "the updates are masked (secure.enabled), and the sums to choose by would leave in the clear"),
    )
    return next((f"The last round is kept: {reason}." for off, reason in reasons if off), "")


def held_back_sums(labels: NDArray[np.int64], probabilities: NDArray[np.float64], config: RunConfig) -> HeldBack:
    """The sums of some patients.

    Args:
        labels: [N], each a class.
        probabilities: [N, C], uncalibrated.
        config: says whether class offsets are fitted.
    """
    offsets = None if why_no_offsets(config) else offset_sums(labels, probabilities)
    return HeldBack(nll_sums(labels, probabilities), confusion(labels, probabilities), offsets)


def confusion(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Patients by class and most likely class [C, C]; rows are the truth."""
    classes = probabilities.shape[1]
    cells = np.bincount(labels * classes + probabilities.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.float64)


def losses(found: Sequence[HeldBack]) -> list[float]:
    """Each candidate's loss a patient, its prior included [K]; by temperature alone where not all have offsets."""
    counts = found[0].confusion.sum(axis=1)
    values = [None if one.offsets is None else scaling_loss(one.offsets, counts) for one in found]
    known = [value for value in values if value is not None]
    if len(known) < len(found):
        known = [temperature_loss(one.nll) for one in found]
    return [value / max(counts.sum(), 1.0) for value in known]


def choose(values: Sequence[float]) -> int:
    """Index of the smallest; the first of those that are equal as printed."""
    return int(np.argmin(np.round(values, DIGITS)))
