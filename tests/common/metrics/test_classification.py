"""Metrics against formulas written out naively, and the bootstrap against simulated hospitals."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torchmetrics.functional import classification as tm

from common.errors import FedMRIError
from common.metrics.classification import BINS, evaluate, paired_difference
from tests.common.evaluation.made_up import hospital

CLASSES = ("a", "b", "c")


def measure(labels, probabilities, classes=CLASSES, bootstrap=0, seed=0):
    return evaluate(labels, probabilities, classes, bootstrap=bootstrap, generator=np.random.default_rng(seed))


def naive_mcc(labels, guess, classes):
    """Gorodkin 2004, equation 8: the triple sum over the confusion matrix."""
    table = [
        [sum(1 for t, g in zip(labels, guess, strict=True) if (t, g) == (i, j)) for j in range(classes)] for i in range(classes)
    ]
    span = range(classes)
    top = sum(table[k][k] * table[m][n] - table[n][k] * table[k][m] for k in span for n in span for m in span)
    rows, columns = [sum(r) for r in table], [sum(c) for c in zip(*table, strict=True)]
    n = len(labels)
    return top / math.sqrt(sum(r * (n - r) for r in rows) * sum(c * (n - c) for c in columns))


def naive_auroc(positive, scores):
    """The share of pairs that stand in the right order; a tie counts half."""
    pairs = [
        (p, q) for p, yes in zip(scores, positive, strict=True) if yes for q, no in zip(scores, positive, strict=True) if not no
    ]
    return sum(1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs) / len(pairs)


def naive_ece(labels, probabilities):
    """Guo et al. 2017, equation 3: by bins of the largest probability."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for label, row in zip(labels, probabilities, strict=True):
        bins.setdefault(int(max(row) * BINS), []).append((max(row), int(np.argmax(row)) == label))
    gaps = [abs(sum(p for p, _ in b) - sum(right for _, right in b)) for b in bins.values()]
    return sum(gaps) / len(labels)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_values_equal_naive_formulas(classes, seed):
    labels, p = hospital(np.random.default_rng(seed), 50, classes)
    found = measure(labels, p, [f"class-{c}" for c in range(classes)])
    guess = p.argmax(1)
    recalls = [np.mean(guess[labels == c] == c) for c in range(classes)]
    aurocs = [naive_auroc(labels == c, p[:, c]) for c in range(classes)]
    f1 = [2 * np.sum((guess == c) & (labels == c)) / (np.sum(guess == c) + np.sum(labels == c)) for c in range(classes)]
    assert found["mcc"]["value"] == pytest.approx(naive_mcc(labels, guess, classes))
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert list(found["auroc"]["per_class"].values()) == pytest.approx(aurocs)
    assert found["auroc"]["macro"] == pytest.approx(np.mean(aurocs))
    assert found["ece"] == pytest.approx(naive_ece(labels, p), abs=1e-6)
    assert found["brier"] == pytest.approx(
        np.mean([sum((row[c] - (t == c)) ** 2 for c in range(classes)) for t, row in zip(labels, p, strict=True)])
    )
    assert found["confusion"] == [[int(np.sum((labels == t) & (guess == g))) for g in range(classes)] for t in range(classes)]


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("skill", [0.0, 1.2])
def test_values_equal_scikit_learn_and_torchmetrics(classes, skill):
    labels, p = hospital(np.random.default_rng(9), 80, classes, skill)
    found = measure(labels, p, [f"class-{c}" for c in range(classes)])
    guess, hot = p.argmax(1), np.eye(classes)[labels]
    truth, scores = torch.from_numpy(labels), torch.from_numpy(p)
    area = [sk.roc_auc_score(hot[:, c], p[:, c]) for c in range(classes)]
    both = {
        "mcc": (sk.matthews_corrcoef(labels, guess), tm.multiclass_matthews_corrcoef(scores.argmax(1), truth, classes)),
        "balanced_accuracy": (sk.balanced_accuracy_score(labels, guess), tm.multiclass_recall(scores, truth, classes)),
        "macro_f1": (sk.f1_score(labels, guess, average="macro"), tm.multiclass_f1_score(scores, truth, classes)),
        "auroc": (np.mean(area), tm.multiclass_auroc(scores, truth, classes)),
        "brier": (sk.brier_score_loss(labels, p, scale_by_half=False), ((scores - torch.from_numpy(hot)) ** 2).sum(1).mean()),
        "ece": (_ece_by_calibration_curve(labels, p), tm.multiclass_calibration_error(scores, truth, classes, 15)),
    }
    for name, others in both.items():
        value = found[name]
        value = value["value"] if name == "mcc" else value["macro"] if name == "auroc" else value
        for other in others:
            assert value == pytest.approx(float(other), abs=1e-6), name
    each = tm.multiclass_auroc(scores, truth, classes, average="none")
    assert list(found["auroc"]["per_class"].values()) == pytest.approx(area, abs=1e-6)
    assert area == pytest.approx(each.tolist(), abs=1e-6)
    assert found["confusion"] == sk.confusion_matrix(labels, guess).tolist()
    assert found["confusion"] == tm.multiclass_confusion_matrix(scores, truth, classes).tolist()


def _ece_by_calibration_curve(labels, p):
    """scikit-learn has the bins of the error, not the error."""
    right, sure = p.argmax(1) == labels, p.max(1)
    accuracy, confidence = calibration_curve(right, sure, n_bins=15)
    sizes = np.histogram(sure, np.linspace(0, 1, 16))[0]
    return float(np.sum(sizes[sizes > 0] * np.abs(accuracy - confidence)) / len(labels))


def test_unlabelled_patients_are_left_out():
    labels, p = hospital(np.random.default_rng(1), 30)
    hidden = np.where(np.arange(30) % 3 == 0, -1, labels)
    assert measure(hidden, p, bootstrap=50) == measure(labels[hidden >= 0], p[hidden >= 0], bootstrap=50)


@pytest.mark.parametrize("labels", [[], [-1, -1], [2], [1, 1, 1, 1], [0, 2], [0, 1, 2]])
def test_what_is_not_defined_is_none_and_json_stays_valid(labels):
    p = np.random.default_rng(0).dirichlet([1, 1, 1], len(labels)).reshape(-1, 3)
    found = measure(np.array(labels, int), p, bootstrap=40)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    known = {t for t in labels if t >= 0}
    assert (found["mcc"]["value"] is None) == (len(known) < 2)
    assert (found["auroc"]["macro"] is None) == (len(known) < 2)
    assert {c: v is None for c, v in found["auroc"]["per_class"].items()} == {
        c: len(known) < 2 or i not in known for i, c in enumerate(CLASSES)
    }
    assert (found["brier"] is None) == (found["n"] == 0)
    if found["n"] < 2:
        assert found["mcc"]["low"] is None
        assert all(span == {"low": None, "high": None} for span in found["intervals"].values())


def test_no_resamples_no_interval():
    found = measure(*hospital(np.random.default_rng(1), 30))
    assert found["mcc"]["low"] is found["mcc"]["high"] is None
    assert set(found["intervals"]) == {"balanced_accuracy", "macro_f1", "auroc_macro", "brier"}


@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_intervals_are_ordered_and_in_range(seed, n, classes):
    generator = np.random.default_rng(seed)
    labels, p = hospital(generator, n, classes)
    found = measure(labels, p, [str(c) for c in range(classes)], bootstrap=20, seed=seed)
    for span, least, most in ((found["mcc"], -1, 1), *((s, 0, 2) for s in found["intervals"].values())):
        if span["low"] is not None:
            assert least <= span["low"] <= span["high"] <= most


def test_the_same_generator_gives_the_same_interval():
    labels, p = hospital(np.random.default_rng(1), 30)
    assert measure(labels, p, bootstrap=50, seed=4) == measure(labels, p, bootstrap=50, seed=4)
    assert measure(labels, p, bootstrap=50, seed=4) != measure(labels, p, bootstrap=50, seed=5)


def test_paired_difference_is_tighter_than_unpaired_and_signed():
    generator = np.random.default_rng(2)
    labels, good = hospital(generator, 60, skill=1.5)
    worse = 0.7 * good + 0.3 * generator.dirichlet([1, 1, 1], 60)
    found = paired_difference(labels, good, worse, bootstrap=200, generator=np.random.default_rng(0))
    a, b = measure(labels, good, bootstrap=200), measure(labels, worse, bootstrap=200)
    assert found["value"] == pytest.approx(a["mcc"]["value"] - b["mcc"]["value"])
    assert found["low"] <= found["value"] <= found["high"]
    assert found["high"] - found["low"] < a["mcc"]["high"] - b["mcc"]["low"] - (a["mcc"]["low"] - b["mcc"]["high"])
    same = paired_difference(labels, good, good, bootstrap=20, generator=generator)
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert paired_difference(np.array([1]), good[:1], good[:1], bootstrap=9, generator=generator)["value"] is None


@pytest.mark.parametrize(
    ("labels", "probabilities", "error", "says"),
    [
        ([0, 1], np.ones((2, 2)) / 2, ValueError, "probabilities"),
        ([0], np.ones((2, 3)) / 3, ValueError, "labels"),
        ([0, 3], np.ones((2, 3)) / 3, ValueError, "below 3"),
        ([0, 1], np.array([[2.0, -1, 0], [0, 0, 1]]), ValueError, "from 0 to 1"),
        ([0, 1], np.full((2, 3), np.nan), FedMRIError, "not finite"),
    ],
)
def test_wrong_input_is_refused(labels, probabilities, error, says):
    with pytest.raises(error, match=says):
        measure(np.array(labels), probabilities)


def test_a_thousand_resamples_of_forty_patients_are_quick():
    labels, p = hospital(np.random.default_rng(3), 40)
    start = time.process_time()
    measure(labels, p, bootstrap=1000)
    assert time.process_time() - start < 6  # about 1.2 s; room for a busy machine


@pytest.mark.slow
def test_the_intervals_hold_the_true_value_about_95_times_in_100():
    """200 simulated hospitals of 60 patients, two models each; the truth is that of 300 000. `bench/coverage.py` has the figures.

    Binomial error of a share of 0.95: 0.015; a right interval is outside of the limits less than once in a thousand.
    """
    generator = np.random.default_rng(11)
    truth = spans(*models(generator, 300_000), bootstrap=0)
    names = tuple(truth)
    held, half_held = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for seed in range(200):
        for name, (_, low, high) in spans(*models(generator, 60), bootstrap=300, seed=seed).items():
            held[name] += low <= truth[name][0] <= high
            half_held[name] += abs(truth[name][0] - (low + high) / 2) <= (high - low) / 4
    assert all(0.90 <= count / 200 <= 0.99 for count in held.values()), held
    assert all(count / 200 < 0.85 for count in half_held.values()), half_held  # the test refuses an interval of half the width


def models(generator, n) -> tuple[Any, Any, Any]:
    labels, first = hospital(generator, n)
    second = first ** generator.uniform(0.2, 1.2, (n, 1)) * np.exp(generator.normal(0, 1.0, first.shape))
    return labels, first, second / second.sum(1, keepdims=True)


def spans(labels, first, second, bootstrap, seed=0):
    found = measure(labels, first, bootstrap=bootstrap, seed=seed)
    paired = paired_difference(labels, first, second, bootstrap=bootstrap, generator=np.random.default_rng(seed))
    rows = {name: (found[name], *found["intervals"][name].values()) for name in ("balanced_accuracy", "macro_f1", "brier")}
    area = {"auroc": (found["auroc"]["macro"], *found["intervals"]["auroc_macro"].values())}
    return rows | area | {"mcc": tuple(found["mcc"].values()), "difference": tuple(paired.values())}
