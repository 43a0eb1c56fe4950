"""How well a proposed mask agrees with a drawn one, by MONAI's own measures; and the mean over patients with its interval.

N patients, X, Y, Z voxels.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics.bootstrap import Interval, bca_interval, draw_counts, leave_one_out, t_interval

MEASURES = ("dice", "jaccard", "hd95_mm")
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """Of one patient.

    Attributes:
        dice, jaccard: 0 to 1; 0 where nothing is proposed.
        hd95_mm: 95th percentile of the distances between the two surfaces, in mm; None where nothing is proposed.
        drawn_ml, proposed_ml: volumes.
    """

    dice: float
    jaccard: float
    hd95_mm: float | None
    drawn_ml: float
    proposed_ml: float

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def agreement(proposed: Mask, drawn: Mask, spacing: tuple[float, float, float]) -> Agreement:
    """Measure one patient.

    Args:
        proposed: [X, Y, Z].
        drawn: likewise.
        spacing: of the voxels in mm.

    Raises:
        ValueError: nothing is drawn, so that nothing can be measured.
    """
    if not drawn.any():
        raise ValueError("expected a drawn mask that marks something")
    import torch  # noqa: PLC0415  commands that only read reports import this file
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou  # type: ignore[attr-defined]  # noqa: PLC0415

    ml = float(np.prod(spacing)) / 1000
    volumes = {"drawn_ml": float(drawn.sum()) * ml, "proposed_ml": float(proposed.sum()) * ml}
    if not proposed.any():
        return Agreement(0.0, 0.0, None, **volumes)
    one, two = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (proposed, drawn))
    dice, jaccard = (float(measure(one, two, include_background=True)) for measure in (compute_dice, compute_iou))
    with warnings.catch_warnings():  # MONAI calls its own functions by arguments that it deprecates
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_hausdorff_distance(one, two, include_background=True, percentile=95, spacing=list(spacing))
    return Agreement(dice, jaccard, float(distance), **volumes)


def summary(found: Sequence[Mapping[str, Any]], *, bootstrap: int, generator: np.random.Generator) -> dict[str, Any]:
    """Means over patients, each {value, low, high, n}, with BCa intervals by resampling patients.

    Args:
        found: `Agreement.as_json` of each.
        bootstrap: resamples; 0: no intervals.
        generator: draws the resamples; equal ones, equal resamples.

    Returns:
        By measure; `n`, patients; `empty`, those for whom nothing was proposed, who have no distance.
    """
    counts = draw_counts(len(found), bootstrap, generator)
    told: dict[str, Any] = {name: _mean(_column(found, name), counts) for name in MEASURES}
    return {"n": len(found), "empty": sum(row["hd95_mm"] is None for row in found), **told}


def dice_difference(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], *, bootstrap: int, generator: np.random.Generator
) -> Interval:
    """Mean Dice of `first` minus that of `second`, {value, low, high}, paired by patient on the resamples of `summary`."""
    values = _column(first, "dice") - _column(second, "dice")
    counts = draw_counts(len(values), bootstrap, generator)
    value: Interval = {"value": float(values.mean()) if len(values) else None, "low": None, "high": None}
    if counts is None or value["value"] is None:
        return value
    return value | t_interval(value["value"], counts @ values / counts.sum(1), len(values))


def _column(found: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if row[name] is None else row[name] for row in found], np.float64)


def _mean(values: NDArray[np.float64], counts: NDArray[np.float64] | None) -> dict[str, Any]:
    """Of those who have the measure: {value, low, high, n}."""
    here = np.isfinite(values)
    n = int(here.sum())
    result: dict[str, Any] = {"value": float(values[here].mean()) if n else None, "low": None, "high": None, "n": n}
    if counts is None or n < 2:
        return result
    without = leave_one_out(n)
    jackknife = without @ values[here] / without.sum(1)
    return result | bca_interval(float(result["value"]), _weighted(values, counts), jackknife, n)


def _weighted(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean on each resample, of those in it who have the measure; NaN where nobody has."""
    here = np.isfinite(values)
    total = counts[:, here].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total > 0, counts[:, here] @ values[here] / total, np.nan))
