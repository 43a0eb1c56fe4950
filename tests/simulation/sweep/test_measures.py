"""The table's numbers against scikit-learn and plain loops over resamples, seeds and patients."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss, matthews_corrcoef

from common.metrics.bootstrap import draw_counts
from simulation.sweep.measures import Answers, balanced_log_loss, compare, on_resamples

PATIENTS, RESAMPLES = 12, 40


def arm(seed: int, sharpness: float) -> list[Answers]:
    """Two seeds, in each of which every patient answers in two folds, in another order."""
    generator = np.random.default_rng(seed)
    truth = np.arange(PATIENTS) % 3
    found = []
    for _ in range(2):
        patients = np.concatenate([generator.permutation(PATIENTS), np.arange(PATIENTS)])
        logits = generator.normal(size=(2 * PATIENTS, 3)) + sharpness * np.eye(3)[truth[patients]]
        found.append(Answers(patients, truth[patients], np.exp(logits) / np.exp(logits).sum(1, keepdims=True)))
    return found


def naive(one: Answers, counts: np.ndarray) -> tuple[float, float]:
    """Log-loss and MCC of one seed, each patient's answers repeated as often as the patient was drawn."""
    rows = [row for row, patient in enumerate(one.patients) for _ in range(int(counts[patient]))]
    truth, said = one.labels[rows], one.probabilities[rows]
    if set(truth) != {0, 1, 2}:
        return float("nan"), matthews_corrcoef(truth, said.argmax(1))
    shares = [1 / (truth == label).sum() for label in truth]  # each class weighs the same
    return log_loss(truth, said, sample_weight=shares), matthews_corrcoef(truth, said.argmax(1))


def test_a_known_value() -> None:
    labels, said = np.array([0, 0, 0, 1]), np.array([[0.5, 0.5]] * 3 + [[0.75, 0.25]])
    assert balanced_log_loss(labels, said, np.ones((1, 4)))[0] == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_every_resample_is_what_a_loop_finds() -> None:
    counts = draw_counts(PATIENTS, RESAMPLES, np.random.default_rng(5))
    assert counts is not None
    found = on_resamples(arm(0, 1.0), counts)
    loop = np.array([np.mean([naive(one, row) for one in arm(0, 1.0)], axis=0) for row in counts])
    assert found["log_loss"] == pytest.approx(loop[:, 0], nan_ok=True)
    assert found["mcc"] == pytest.approx(loop[:, 1])


def test_values_and_paired_differences() -> None:
    first, second = arm(0, 1.0), arm(1, 2.0)
    one, two = compare([first, second], PATIENTS, RESAMPLES, seed=5)
    assert one is not None
    assert two is not None
    once = np.ones(PATIENTS)
    counts = draw_counts(PATIENTS, RESAMPLES, np.random.default_rng(5))
    for place, name in enumerate(("log_loss", "mcc")):
        values = [[naive(answers, once)[place] for answers in which] for which in (first, second)]
        assert one[name]["seeds"] == pytest.approx(values[0])
        assert two[name]["value"] == pytest.approx(np.mean(values[1]))
        assert one[name]["low"] < one[name]["value"] < one[name]["high"]
        assert one[name]["difference"] is None
        drawn = [[np.mean([naive(a, row)[place] for a in which]) for row in counts] for which in (second, first)]
        away = np.array(drawn[0]) - np.array(drawn[1])
        spread = away[np.isfinite(away)].std(ddof=1) * np.sqrt(PATIENTS / (PATIENTS - 1))
        reach, middle = stats.t.ppf(0.975, PATIENTS - 1) * spread, np.mean(values[1]) - np.mean(values[0])
        told = two[name]["difference"]
        assert [told["value"], told["low"], told["high"]] == pytest.approx([middle, middle - reach, middle + reach])


def test_an_arm_without_figures_has_none_and_nobody_differs_from_it() -> None:
    one, two = compare([None, arm(0, 1.0)], PATIENTS, RESAMPLES, seed=5)
    assert one is None
    assert two is not None
    assert two["mcc"]["difference"] is None
    assert compare([arm(0, 1.0)], 0, RESAMPLES, seed=5) == [None]


def test_without_resamples_there_is_no_interval() -> None:
    _, two = compare([arm(0, 1.0), arm(1, 2.0)], PATIENTS, 0, seed=5)
    assert two is not None
    assert two["mcc"]["low"] is None
    assert two["mcc"]["difference"]["value"] is not None
    assert two["mcc"]["difference"]["low"] is None
