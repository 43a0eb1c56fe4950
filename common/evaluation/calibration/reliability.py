"""How reliable probabilities are: reliability diagrams, coverage of the prediction sets, risk against coverage.

Measured on patients that fitted nothing. N patients, C classes.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.evaluation.calibration.calibration import SMALLEST, Calibration, prediction_sets
from common.evaluation.wilson import wilson_interval
from common.metrics.classification import BINS, expected_calibration_error

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS = 20  # of the abstention curve


def report_calibration(labels: NDArray[Any], probabilities: NDArray[Any], calibration: Calibration) -> dict[str, Any]:
    """`calibration` of report.json, but for `failures`.

    Args:
        labels: of the external patients [N], below 0: unlabelled, left out.
        probabilities: [N, C], uncalibrated.
        calibration: of the sites' held-back patients.

    Returns:
        `temperature`, `sites`, `patients`, `offsets` in the order of the classes; `before` and `after` of `trust`; `conformal` of
        `conformal_report`; `abstention` of `abstention_curve`.
    """
    labelled = np.asarray(labels) >= 0
    truth, raw = np.asarray(labels, np.int64)[labelled], np.asarray(probabilities, np.float64)[labelled]
    after = calibration.scaling.apply(raw)
    told = {name: value for name, value in asdict(calibration).items() if name in ("temperature", "sites", "patients", "offsets")}
    return {
        **told,
        "sites": list(calibration.sites),
        "offsets": list(calibration.offsets),
        "before": trust(truth, raw),
        "after": trust(truth, after),
        "conformal": conformal_report(truth, after, calibration),
        "abstention": abstention_curve(truth, after),
    }


def trust(labels: Ints, probabilities: Floats) -> dict[str, Any]:
    """Calibration of labelled patients; None where there are none.

    Returns:
        `ece` (Guo et al. 2017, equation 3), `brier` summed over classes, `nll` a patient, and `reliability`: a
        {low, high, n, confidence, accuracy} for each of 15 equal bins of the most likely class's probability.
    """
    if not len(labels):
        return {"ece": None, "brier": None, "nll": None, "reliability": reliability(labels, probabilities)}
    own = probabilities[np.arange(len(labels)), labels]
    return {
        "ece": expected_calibration_error(labels, probabilities),
        "brier": float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean()),
        "nll": float(-np.log(np.maximum(own, SMALLEST)).mean()),
        "reliability": reliability(labels, probabilities),
    }


def reliability(labels: Ints, probabilities: Floats) -> list[dict[str, Any]]:
    """Mean confidence against accuracy by bins of confidence; bins hold their left edge, the last both."""
    confidence = probabilities.max(axis=1, initial=0.0)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    found = []
    for number in range(BINS):
        inside = bins == number
        means = {"confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean())} if inside.any() else {}
        entry = {"low": float(edges[number]), "high": float(edges[number + 1]), "n": int(inside.sum())}
        found.append({**entry, "confidence": None, "accuracy": None, **means})
    return found


def conformal_report(labels: Ints, calibrated: Floats, calibration: Calibration) -> dict[str, Any]:
    """How often the sets hold the truth, with a Wilson interval, and how large they are.

    Returns:
        `coverage` as promised, `threshold`, `observed` {value, low, high}, `mean_size`, `sizes` {size: patients}.
    """
    sets = prediction_sets(calibrated, calibration.set_threshold) if len(labels) else np.empty((0, 1), bool)
    inside = int(sets[np.arange(len(labels)), labels].sum())
    sizes = sets.sum(axis=1)
    return {
        "coverage": calibration.coverage,
        "threshold": calibration.set_threshold,
        "observed": wilson_interval(inside, len(labels))._asdict(),
        "mean_size": float(sizes.mean()) if len(sizes) else None,
        "sizes": {str(size): int((sizes == size).sum()) for size in np.unique(sizes)},
    }


def abstention_curve(labels: Ints, calibrated: Floats) -> list[dict[str, Any]]:
    """Risk against coverage (El-Yaniv & Wiener, JMLR 2010): errors among the patients that the model is surest of.

    Patients of equal confidence come together: nothing tells which of them to leave to a person.

    Returns:
        {coverage, risk, low, high} at about twenty coverages up to 1, the surest first; empty without patients.
    """
    if not len(labels):
        return []
    confidence = calibrated.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], (calibrated.argmax(axis=1) != labels)[order].cumsum()
    wanted = np.ceil(np.arange(1, POINTS + 1) / POINTS * len(labels) - 1e-9).astype(int)
    takes = sorted({int((ranked >= ranked[take - 1]).sum()) for take in wanted})
    found = []
    for take in takes:
        share = wilson_interval(int(wrong[take - 1]), take)
        found.append({"coverage": take / len(labels), "risk": share.value, "low": share.low, "high": share.high})
    return found
