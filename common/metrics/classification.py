"""Measures of classification (MCC, balanced accuracy, AUROC, ...), with intervals over patients.

scikit-learn computes the values; `common.metrics.bootstrap` the same measures on all resamples at once, where scikit-learn would
take a minute. It is imported by whoever measures: a site that trains need not wait for it. A value that is not defined is None,
never NaN, so that a result is always valid JSON.

Letters: N patients, C classes, R resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import FedMRIError
from common.metrics.bootstrap import (
    MEASURES,
    NO_INTERVAL,
    Floats,
    Interval,
    Ints,
    bca_interval,
    confusion,
    draw_counts,
    leave_one_out,
    mcc,
    measure_all,
    t_interval,
)

BINS = 15  # of the calibration error, equally wide (Guo et al., ICML 2017)


def evaluate(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    *,
    bootstrap: int,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Measure predictions against the truth: the shape of `external` in report.json.

    The intervals are 95% BCa intervals of a bootstrap over patients (`common.metrics.bootstrap`). A resample on which
    a
    measure is not defined is left out of its interval: for AUROC one that lacks a class that the patients have, for MCC one with
    a single true class. No interval (None) for fewer than two patients, or where under half of the resamples count. The
    calibration error gets none: it is biased upward on few patients, on resamples of them twice, and a percentile interval held
    the true value in none of 150 simulated hospitals of 60 patients. How often the others do: `bench/coverage.py`.

    Args:
        labels: true class index of each patient [N]; below 0: unlabelled, left out.
        probabilities: [N, C], each row sums to 1.
        classes: the C names, in the order of the columns.
        bootstrap: resamples R; 0: no intervals.
        generator: draws the resamples.

    Returns:
        `n` labelled patients; `support` {class: patients}; `mcc` {value, low, high} (Gorodkin 2004; None where one true class
        only); `balanced_accuracy` and `macro_f1`, both over the classes that occur in the truth; `auroc` {macro, per_class}
        one against the rest, `macro` the mean over the defined ones; `ece` of the most likely class, 15 equal bins, from 0 to 1;
        `brier` summed over the classes, from 0 to 2 (Brier 1950); `confusion` [C][C], rows are the truth; `intervals`
        {balanced_accuracy, macro_f1, auroc_macro, brier: {low, high}}.

    Raises:
        ValueError: shapes that do not fit, a label of no class, rows that are no probabilities.
        FedMRIError: probabilities that are not finite (training diverged).
    """
    labels, probabilities = labelled_only(labels, probabilities, len(classes))
    values, per_class = _values(labels, probabilities)
    intervals: dict[str, Interval] = {name: dict(NO_INTERVAL) for name in MEASURES}
    counts = draw_counts(len(labels), bootstrap, generator)
    if counts is not None:
        drawn, without = (measure_all(labels, probabilities, c) for c in (counts, leave_one_out(len(labels))))
        intervals |= {
            name: bca_interval(value, drawn[name], without[name], len(labels))
            for name in MEASURES
            if (value := values[name]) is not None
        }
    return {
        "n": len(labels),
        "support": {name: int((labels == c).sum()) for c, name in enumerate(classes)},
        "mcc": {"value": values["mcc"], **intervals.pop("mcc")},
        "balanced_accuracy": values["balanced_accuracy"],
        "macro_f1": values["macro_f1"],
        "auroc": {"macro": values["auroc_macro"], "per_class": dict(zip(classes, per_class, strict=True))},
        "ece": values["ece"],
        "brier": values["brier"],
        "confusion": _confusion(labels, probabilities).tolist(),
        "intervals": intervals,
    }


def paired_difference(
    labels: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    bootstrap: int,
    generator: np.random.Generator,
) -> dict[str, float | None]:
    """MCC of `first` minus MCC of `second` on the same patients, with a 95% interval over the same resamples for both.

    Args:
        labels: [N], below 0: left out.
        first: probabilities [N, C].
        second: probabilities [N, C].
        bootstrap: resamples; 0: no interval.
        generator: draws the resamples.

    Returns:
        {value, low, high}; None where not defined, as in `evaluate`.

    Raises:
        ValueError, FedMRIError: as `evaluate`.
    """
    from sklearn import metrics as sk  # noqa: PLC0415  see the module's docstring

    truth, first = labelled_only(labels, first, first.shape[-1])
    _, second = labelled_only(labels, second, first.shape[-1])
    if len(np.unique(truth)) < 2:
        return {"value": None, **NO_INTERVAL}
    value = sk.matthews_corrcoef(truth, first.argmax(1)) - sk.matthews_corrcoef(truth, second.argmax(1))
    counts = draw_counts(len(truth), bootstrap, generator)
    if counts is None:
        return {"value": float(value), **NO_INTERVAL}
    drawn = [mcc(confusion(truth, p.argmax(1), p.shape[1], counts)) for p in (first, second)]
    return {"value": float(value), **t_interval(float(value), drawn[0] - drawn[1], len(truth))}


def labelled_only(labels: NDArray[Any], probabilities: NDArray[Any], classes: int) -> tuple[Ints, Floats]:
    """The labelled patients' truth [N] and probabilities [N, C] in float64, checked."""
    truth, p = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if p.ndim != 2 or p.shape[1] != classes or truth.shape != p.shape[:1]:
        raise ValueError(f"Expected labels [N] and probabilities [N, {classes}]; got {truth.shape} and {p.shape}.")
    if truth.max(initial=-1) >= classes:
        raise ValueError(f"Expected labels below {classes}, the number of classes; got {truth.max()}.")
    if not np.isfinite(p).all():
        raise FedMRIError("The model's predictions are not finite: training diverged. Lower the learning rate.")
    sums = p.sum(axis=1, keepdims=True)
    if (p < -1e-6).any() or (np.abs(sums - 1) > 1e-2).any():
        raise ValueError("Expected probabilities: each row from 0 to 1 and summing to 1.")
    # torchmetrics takes anything outside [0, 1], by rounding too, for logits.
    return truth[truth >= 0], np.clip(p / sums, 0, 1)[truth >= 0]


def _values(labels: Ints, probabilities: Floats) -> tuple[dict[str, float | None], list[float | None]]:
    """Each measure on the patients as they are, and the AUROC of each class."""
    from sklearn import metrics as sk  # noqa: PLC0415  see the module's docstring

    names = ("mcc", "balanced_accuracy", "macro_f1", "auroc_macro", "ece", "brier")
    classes = probabilities.shape[1]
    if not len(labels):
        return dict.fromkeys(names), [None] * classes
    guess, here = probabilities.argmax(1), np.unique(labels)
    diverse = len(here) > 1
    per_class = [
        float(sk.roc_auc_score(labels == c, probabilities[:, c])) if diverse and c in here else None for c in range(classes)
    ]
    defined = [value for value in per_class if value is not None]
    values = (
        float(sk.matthews_corrcoef(labels, guess)) if diverse else None,
        # Balanced accuracy is the mean recall over the true classes; sklearn's own function warns of others among the guesses.
        float(sk.recall_score(labels, guess, labels=here, average="macro", zero_division=0)),
        float(sk.f1_score(labels, guess, labels=here, average="macro", zero_division=0)),
        float(np.mean(defined)) if defined else None,
        expected_calibration_error(labels, probabilities),
        float(sk.brier_score_loss(labels, probabilities, labels=range(classes), scale_by_half=False)),
    )
    return dict(zip(names, values, strict=True)), per_class


def _confusion(labels: Ints, probabilities: Floats) -> Ints:
    """Patients by truth and guess [C, C]."""
    counts = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    return counts


def expected_calibration_error(labels: Ints, probabilities: Floats) -> float:
    """Of the most likely class (Guo et al. 2017, equation 3): the mean distance of confidence and accuracy, bin by bin.

    Args:
        labels: [N].
        probabilities: [N, C].
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="right")
    gaps = np.bincount(bins, confidence - right)  # in each bin: its patients times confidence - accuracy
    return float(np.abs(gaps).sum() / len(labels))
