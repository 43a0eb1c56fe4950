"""The bin of split conformal prediction against sorting the scores."""

import math

import numpy as np
import pytest

from common.evaluation.conformal import conformal_bin


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("patients", [1, 4, 9, 19, 100])
def test_the_bin_holds_the_ranked_score(patients, coverage) -> None:
    scores = np.random.default_rng(patients).integers(0, 30, patients)
    rank = math.ceil(round((patients + 1) * coverage, 9))
    expected = None if rank > patients else np.sort(scores)[rank - 1]
    assert conformal_bin(np.bincount(scores, minlength=30), coverage) == expected


def test_without_patients_there_is_none() -> None:
    assert conformal_bin(np.zeros(5, np.float32), 0.9) is None
