"""Metrics against formulas written out naively, and the bootstrap against simulated hospitals."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import FedMRIError
from common.evaluation.metrics import BINS, evaluate, paired_difference

CLASSES = ("a", "b", "c")


def hospital(generator, n, classes=3, skill=1.2):
    """Labels and probabilities of n patients, of some skill."""
    labels = generator.choice(classes, n, p=np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum())
    scores = np.exp(1.5 * (generator.normal(size=(n, classes)) + skill * np.eye(classes)[labels]))
    return labels, scores / scores.sum(axis=1, keepdims=True)


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


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("skill", [0.0, 1.0, 50.0])
def test_a_resample_is_measured_as_scikit_learn_measures_patients(classes, skill):
    """The quick path and the plain path are two implementations: feed the same resampled patients to both."""
    from common.evaluation import metrics

    generator = np.random.default_rng(5)
    labels, p = hospital(generator, 12, classes, skill)
    indices = generator.integers(0, 12, (25, 12))
    drawn = metrics._resampled(labels, p, indices)
    for r, rows in enumerate(indices):
        if set(labels[rows]) == set(labels):
            plain, _ = metrics._values(labels[rows], p[rows])
            for name in metrics.WITH_INTERVAL:
                assert drawn[name][r] == pytest.approx(plain[name], abs=1e-5), name
        elif len(set(labels[rows])) == 1:
            assert np.isnan(drawn["mcc"][r])
        else:
            assert np.isnan(drawn["auroc_macro"][r])


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
    """150 simulated hospitals of 60 patients; the truth is that of 200 000. Binomial error of a share of 0.95: 0.018."""
    generator = np.random.default_rng(11)
    truth = measure(*hospital(generator, 200_000))
    names = ("mcc", "balanced_accuracy", "macro_f1", "brier")
    held, half_held = dict.fromkeys(names, 0), 0
    for _ in range(150):
        found = measure(*hospital(generator, 60), bootstrap=120, seed=int(generator.integers(2**31)))
        for name in names:
            span, value = (found["mcc"], truth["mcc"]["value"]) if name == "mcc" else (found["intervals"][name], truth[name])
            held[name] += span["low"] <= value <= span["high"]
        middle, quarter = (found["mcc"]["low"] + found["mcc"]["high"]) / 2, (found["mcc"]["high"] - found["mcc"]["low"]) / 4
        half_held += abs(truth["mcc"]["value"] - middle) <= quarter
    assert all(0.87 <= count / 150 <= 0.995 for count in held.values()), held
    assert half_held / 150 < 0.85  # the test refuses an interval of half the width
