"""Measures of several findings, against scikit-learn on the patients of whom each is known."""

import numpy as np
import pytest
from sklearn import metrics as sk

from common.errors import FedMRIError
from common.metrics.findings import difference, evaluate, known_only
from common.ternary import NO, UNKNOWN, YES, encode

NAMES = ("oedema", "effusion", "nodule")


def made(n: int = 60, seed: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers [N, 3], labels [N] and probabilities that know something of them [N, 3]."""
    generator = np.random.default_rng(seed)
    answers = generator.choice([NO, YES, UNKNOWN], (n, 3), p=(0.5, 0.3, 0.2))
    labels = np.array([encode(row) for row in answers.tolist()])
    lift = np.where(answers == YES, 0.25, 0.0)
    return answers, labels, np.clip(generator.uniform(0, 0.75, (n, 3)) + lift, 0, 1).round(2)


def test_each_finding_is_measured_as_scikit_learn_does() -> None:
    answers, labels, p = made()
    found = evaluate(labels, p, NAMES, threshold=0.4, bootstrap=0, generator=np.random.default_rng(0))
    assert found["n"] == (answers != UNKNOWN).any(1).sum()
    means: dict[str, list[float]] = {"auroc": [], "balanced_accuracy": [], "mcc": [], "brier": []}
    for f, name in enumerate(NAMES):
        known = answers[:, f] != UNKNOWN
        truth, said = answers[known, f] == YES, p[known, f]
        told = found["by_finding"][name]
        assert (told["n"], told["positive"]) == (known.sum(), truth.sum())
        wanted = {
            "auroc": sk.roc_auc_score(truth, said),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, said > 0.4),
            "mcc": sk.matthews_corrcoef(truth, said > 0.4),
            "brier": sk.brier_score_loss(truth, said),
        }
        for measure, value in wanted.items():
            assert told[measure]["value"] == pytest.approx(value)
            assert told[measure]["low"] is None
            means[measure].append(float(value))
    assert {m: found["mean"][m]["value"] for m in means} == pytest.approx({m: np.mean(v) for m, v in means.items()})


def test_intervals_are_those_of_a_loop_over_resamples_and_hold_the_value() -> None:
    """The mean's percentiles by a naive loop over the same resamples lie near the BCa interval's ends."""
    answers, labels, p = made(200)
    found = evaluate(labels, p, NAMES, threshold=0.5, bootstrap=400, generator=np.random.default_rng(1))
    kept = labels >= 0
    answers, p = answers[kept], p[kept]
    generator, values = np.random.default_rng(1), []
    for rows in generator.integers(0, len(p), (400, len(p))):
        a, q = answers[rows], p[rows]
        values.append(np.mean([sk.roc_auc_score(a[k, f] == YES, q[k, f]) for f in range(3) for k in [a[:, f] != UNKNOWN]]))
    mean = found["mean"]["auroc"]
    assert mean["low"] < mean["value"] < mean["high"]
    assert (mean["low"], mean["high"]) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=0.01)


def test_a_finding_of_nobody_is_not_defined_and_not_in_the_mean() -> None:
    answers, _, p = made()
    answers[:, 2] = np.where(answers[:, 2] == YES, NO, answers[:, 2])
    answers[:, 1] = UNKNOWN
    labels = np.array([encode(row) for row in answers.tolist()])
    found = evaluate(labels, p, NAMES, threshold=0.5, bootstrap=50, generator=np.random.default_rng(0))
    assert found["by_finding"]["nodule"]["auroc"] == {"value": None, "low": None, "high": None}
    assert found["by_finding"]["nodule"]["mcc"]["value"] is None
    assert found["by_finding"]["nodule"]["brier"]["value"] is not None
    assert found["by_finding"]["effusion"]["n"] == 0
    assert found["by_finding"]["effusion"]["brier"]["value"] is None
    assert found["mean"]["auroc"]["value"] == found["by_finding"]["oedema"]["auroc"]["value"]
    nothing = evaluate(np.full(3, -1), p[:3], NAMES, threshold=0.5, bootstrap=50, generator=np.random.default_rng(0))
    assert (nothing["n"], nothing["mean"]["auroc"]["value"]) == (0, None)


def test_the_difference_is_paired_by_patient() -> None:
    _, labels, p = made(150)
    worse = np.random.default_rng(9).uniform(0, 1, p.shape)
    found = difference(labels, p, worse, bootstrap=200, generator=np.random.default_rng(2))
    one, other = (
        evaluate(labels, each, NAMES, threshold=0.5, bootstrap=0, generator=np.random.default_rng(2)) for each in (p, worse)
    )
    assert found["value"] == pytest.approx(one["mean"]["auroc"]["value"] - other["mean"]["auroc"]["value"])
    assert found["low"] is not None
    assert 0 < found["low"] < found["value"]
    same = difference(labels, p, p, bootstrap=200, generator=np.random.default_rng(2))
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_what_is_no_probability_is_refused() -> None:
    _, labels, p = made()
    with pytest.raises(ValueError, match="from 0 to 1"):
        known_only(labels, p + 1, 3)
    with pytest.raises(ValueError, match="below 27"):
        known_only(labels + 27, p, 3)
    with pytest.raises(FedMRIError, match="diverged"):
        known_only(labels, p * np.nan, 3)
