"""Performance of one trained model on every subset of the modalities, such as without FLAIR.

N patients, M modalities, C classes.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.evaluation.calibration.calibration import UNSCALED, Scaling
from common.evaluation.comparison import measure, measure_difference
from common.models.trained_model import TrainedModel
from common.training.predict import predict_subsets

Floats = NDArray[np.float64]
Members = tuple[bool, ...]  # [M], of one subset


def modality_subsets(trained: TrainedModel, patients: SiteData, *, full: Floats, scaling: Scaling = UNSCALED) -> dict[str, Any]:
    """`modality_subsets` of report.json, of the labelled patients.

    Args:
        trained: a model and its arrays.
        patients: N; those without a label are left out.
        full: calibrated probabilities [N, C] from all present modalities, which need not be had again.
        scaling: of the calibration.
    """
    labelled = patients.labelled
    if not len(labelled):
        return {}
    some, full = patients.select(labelled), full[labelled]
    answers = answer_subsets(trained, some, full=full, scaling=scaling)
    return measure_subsets(answers, some.labels, full, trained.config)


def measure_subsets(answers: Mapping[str, Floats], labels: NDArray[np.int64], full: Floats, config: RunConfig) -> dict[str, Any]:
    """The measures of every subset, and the drop against all modalities.

    Args:
        answers: by subset, [N, C], NaN where a patient has none of it.
        labels: [N]; below 0: left out.
        full: [N, C], from all present modalities.
        config: the task, the bootstrap and the seed are read.

    Returns:
        Each subset in the shape of `common.metrics.classification.evaluate`, and `drop` {value, low, high}: MCC of `full`
        minus that of the subset, paired by patient on the same resamples. A patient with none of a subset is left out of it on
        both sides, so that `n` differs between subsets; a subset that no labelled patient has any of is not there.
    """
    results = {}
    for name, probabilities in answers.items():
        rows = np.flatnonzero(np.isfinite(probabilities).all(1) & (labels >= 0))
        if len(rows):
            drop = measure_difference(labels[rows], full[rows], probabilities[rows], config)
            results[name] = {**measure(labels[rows], probabilities[rows], config), "drop": drop}
    return results


def answer_subsets(
    trained: TrainedModel, patients: SiteData, *, full: Floats, scaling: Scaling | None = UNSCALED
) -> dict[str, Floats]:
    """Calibrated probabilities [N, C] from every subset, "t1", "t1+t1c", ...; NaN where a patient has none of it.

    What a patient has of a subset decides, so a patient without T2 is asked once for T1 and for T1 with T2, and never again for
    all they have. What each modality is by itself is computed once for all subsets. `scaling` None: probabilities as they are.
    """
    M = patients.present.shape[1]
    has = [tuple(row) for row in patients.present.tolist()]
    within = {n: [s for s in subsets_of(M) if s != here and _within(s, here)] for n, here in enumerate(has)}
    asked = {subset: np.full(full.shape, np.nan) for subset in subsets_of(M)}
    for row, subset, raw in predict_subsets(trained, patients, within):
        asked[subset][row] = raw
    for found in asked.values():
        if scaling is None:
            break
        answered = np.isfinite(found).all(1)
        found[answered] = scaling.apply(found[answered])
    for row, members in enumerate(has):
        asked[members][row] = full[row]
    nothing = np.full(full.shape[1], np.nan)
    answers = {}
    for subset in asked:
        left = [tuple(row) for row in (patients.present & np.array(subset)).tolist()]
        rows = [asked[some][n] if any(some) else nothing for n, some in enumerate(left)]
        answers[name_of(subset, trained.config.data.modalities)] = np.array(rows).reshape(full.shape)
    return answers


def subsets_of(modalities: int) -> Iterator[Members]:
    """All subsets but the empty one, the smallest first."""
    for size in range(1, modalities + 1):
        for chosen in combinations(range(modalities), size):
            yield tuple(m in chosen for m in range(modalities))


def name_of(subset: Members, modalities: tuple[str, ...]) -> str:
    """Such as "t1+flair"."""
    return "+".join(name for name, chosen in zip(modalities, subset, strict=True) if chosen)


def _within(subset: Members, other: Members) -> bool:
    """Whether all of a subset are in another."""
    return all(here or not chosen for chosen, here in zip(subset, other, strict=True))
