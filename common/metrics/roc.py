"""ROC curves for the report, one class against the rest.

Letters: N patients, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics.classification import labelled_only

POINTS = 200  # of a curve: as many as can be told apart on a screen


def roc_curves(labels: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """False and true positive rates as the threshold falls, from (0, 0) to (1, 1).

    Args:
        labels: [N], below 0: left out.
        probabilities: [N, C].
        classes: the C names.

    Returns:
        {class: {"fpr": [...], "tpr": [...]}}, at most `POINTS` points each; where the curve is straight, its ends only. A class
        that no patient has, or every patient, has no curve.

    Raises:
        ValueError, FedMRIError: as `common.metrics.classification.evaluate`.
    """
    from sklearn.metrics import roc_curve  # noqa: PLC0415  whoever trains does not need it

    truth, p = labelled_only(labels, probabilities, len(classes))
    curves = {}
    for c, name in enumerate(classes):
        if 0 < (truth == c).sum() < len(truth):
            fpr, tpr, _ = roc_curve(truth == c, p[:, c])
            kept = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), POINTS)).round().astype(int))
            curves[name] = {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist()}
    return curves
