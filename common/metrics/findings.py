"""Measures of several findings, yes or no each: AUROC, balanced accuracy, MCC and Brier score of each, and their means.

Each is measured on the patients of whom it is known. Intervals are of a bootstrap over patients (`common.metrics.bootstrap`), the
same resamples for every finding: a patient who is drawn is drawn with all that is known of them. A value that is not defined, as
where nobody or everybody has the finding, is None, never NaN.

Letters: N patients, F findings, R resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import FedMRIError
from common.metrics.bootstrap import (
    NO_INTERVAL,
    Floats,
    Interval,
    Ints,
    auroc,
    bca_interval,
    confusion,
    draw_counts,
    leave_one_out,
    mcc,
    t_interval,
)
from common.ternary import UNKNOWN, YES, answer_at

MEASURES = ("auroc", "balanced_accuracy", "mcc", "brier")
MEAN = "mean"

Table = dict[str, Floats]  # by measure [F, R]; NaN where it is not defined


def evaluate(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    names: Sequence[str],
    *,
    threshold: float,
    bootstrap: int,
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Measure predictions against what is known: `findings` of `external` in report.json.

    Args:
        labels: [N], of `common.ternary`; below 0: nothing is known, left out.
        probabilities: [N, F], each from 0 to 1.
        names: the F findings.
        threshold: a finding is told where its probability is above.
        bootstrap: resamples R; 0: no intervals.
        generator: draws the resamples.

    Returns:
        `n` patients of whom any finding is known; `threshold`; `mean` {measure: {value, low, high}} over the findings for which
        it is defined; `by_finding` {name: `n` patients of whom it is known, `positive` of them who have it, and the measures}.
        The Brier score is that of two classes, from 0 to 1 (`sklearn.metrics.brier_score_loss`). Intervals are 95% BCa ones, as
        in `common.metrics.classification.evaluate`; that of a mean counts the resamples on which every finding is defined.

    Raises:
        ValueError: shapes that do not fit, values that are no probabilities.
        FedMRIError: probabilities that are not finite (training diverged).
    """
    answers, p = known_only(labels, probabilities, len(names))
    values = measured(answers, p, threshold, np.ones((1, len(p))))
    counts = draw_counts(len(p), bootstrap, generator)
    drawn, without = (
        (None, None) if counts is None else (measured(answers, p, threshold, each) for each in (counts, leave_one_out(len(p))))
    )
    told = {
        measure: _with_intervals(
            values[measure], None if drawn is None or without is None else (drawn[measure], without[measure]), len(p)
        )
        for measure in MEASURES
    }
    return {
        "n": len(p),
        "threshold": threshold,
        MEAN: {measure: rows[-1] for measure, rows in told.items()},
        "by_finding": {
            name: {
                "n": int((answers[:, f] != UNKNOWN).sum()),
                "positive": int((answers[:, f] == YES).sum()),
                **{measure: rows[f] for measure, rows in told.items()},
            }
            for f, name in enumerate(names)
        },
    }


def difference(
    labels: NDArray[Any], first: NDArray[Any], second: NDArray[Any], *, bootstrap: int, generator: np.random.Generator
) -> Interval:
    """Mean AUROC of `first` minus that of `second` on the same patients, {value, low, high}; the same resamples for both.

    Args:
        labels: as `evaluate`.
        first: probabilities [N, F].
        second: probabilities [N, F].
        bootstrap: resamples; 0: no interval.
        generator: draws the resamples.
    """
    pair = [known_only(labels, p, p.shape[1]) for p in (first, second)]
    n = len(pair[0][1])
    values = [_mean(_auroc(*one, np.ones((1, n)))) for one in pair]
    value = float(values[0][0] - values[1][0])
    if not np.isfinite(value):
        return {"value": None, **NO_INTERVAL}
    counts = draw_counts(n, bootstrap, generator)
    if counts is None:
        return {"value": value, **NO_INTERVAL}
    defined = np.isfinite(_auroc(*pair[0], np.ones((1, n)))).ravel()
    drawn = [_auroc(*one, counts)[defined].mean(0) for one in pair]
    return {"value": value, **t_interval(value, drawn[0] - drawn[1], n)}


def known_only(labels: NDArray[Any], probabilities: NDArray[Any], findings: int) -> tuple[Ints, Floats]:
    """Answers and probabilities [N, F] of the patients of whom anything is known, checked; see `evaluate` for the errors."""
    codes, p = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if p.ndim != 2 or p.shape[1] != findings or codes.shape != p.shape[:1]:
        raise ValueError(f"Expected labels [N] and probabilities [N, {findings}]; got {codes.shape} and {p.shape}.")
    if codes.max(initial=-1) >= 3**findings:
        raise ValueError(f"Expected labels of {findings} findings, below {3**findings}; got {codes.max()}.")
    if not np.isfinite(p).all():
        raise FedMRIError("The model's predictions are not finite: training diverged. Lower the learning rate.")
    if (p < 0).any() or (p > 1).any():
        raise ValueError("Expected probabilities from 0 to 1.")
    answers = np.stack([answer_at(codes, place) for place in range(findings)], axis=1)
    return answers[codes >= 0], p[codes >= 0]


def measured(answers: Ints, probabilities: Floats, threshold: float, counts: Floats) -> Table:
    """Every measure of every finding on every resample [F, R].

    Args:
        answers: [N, F], of `common.ternary`.
        probabilities: [N, F].
        threshold: a finding is told where its probability is above.
        counts: [R, N], how often each patient was drawn.
    """
    table: Table = {name: np.full((answers.shape[1], len(counts)), np.nan) for name in MEASURES}
    table["auroc"] = _auroc(answers, probabilities, counts)
    for f, p in enumerate(probabilities.T):
        here = answers[:, f] != UNKNOWN
        truth, drawn = (answers[here, f] == YES).astype(np.int64), counts[:, here]
        cells = confusion(truth, (p[here] > threshold).astype(np.int64), 2, drawn)
        with np.errstate(invalid="ignore", divide="ignore"):
            table["balanced_accuracy"][f] = (cells.diagonal(axis1=1, axis2=2) / cells.sum(2)).mean(1)
            table["brier"][f] = drawn @ ((p[here] - truth) ** 2) / drawn.sum(1)
        table["mcc"][f] = mcc(cells)
    return table


def _auroc(answers: Ints, probabilities: Floats, counts: Floats) -> Floats:
    """[F, R]."""
    found = np.full((answers.shape[1], len(counts)), np.nan)
    for f, p in enumerate(probabilities.T):
        here = answers[:, f] != UNKNOWN
        truth = (answers[here, f] == YES).astype(np.int64)
        found[f] = auroc(truth, np.stack([1 - p[here], p[here]], axis=1), counts[:, here])
    return found


def _mean(rows: Floats) -> Floats:
    """Over the findings that are defined; of none NaN."""
    defined = rows[np.isfinite(rows).all(1)]
    return np.asarray(defined.mean(0)) if len(defined) else np.full(rows.shape[1], np.nan)


def _with_intervals(values: Floats, drawn: tuple[Floats, Floats] | None, patients: int) -> list[dict[str, float | None]]:
    """{value, low, high} of each finding, then of the mean over those whose value is defined.

    Args:
        values: [F, 1].
        drawn: on the resamples [F, R] and with patients left out [F, J]; None: no intervals.
        patients: N.
    """
    defined = np.isfinite(values[:, 0])
    rows = [(values[f, 0], [] if drawn is None else [each[f] for each in drawn]) for f in range(len(values))]
    if defined.any():
        rows.append((values[defined, 0].mean(), [] if drawn is None else [each[defined].mean(0) for each in drawn]))
    else:
        rows.append((np.nan, []))
    return [
        {
            "value": float(value) if np.isfinite(value) else None,
            **(bca_interval(float(value), each[0], each[1], patients) if each and np.isfinite(value) else NO_INTERVAL),
        }
        for value, each in rows
    ]
