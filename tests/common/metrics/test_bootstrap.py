"""The bootstrap against scikit-learn and torchmetrics on the resampled patients themselves, and its intervals against scipy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from common.metrics.bootstrap import (
    JACKKNIFE,
    MEASURES,
    bca_interval,
    draw_counts,
    leave_one_out,
    mcc,
    measure_all,
    t_interval,
)
from tests.common.evaluation.made_up import hospital


def by_scikit_learn(labels, p):
    """What it says of patients who have all the classes."""
    guess, classes = p.argmax(1), range(p.shape[1])
    hot = np.eye(len(classes))[labels]
    return {
        "mcc": sk.matthews_corrcoef(labels, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, guess),
        "macro_f1": sk.f1_score(labels, guess, average="macro", labels=np.unique(labels)),
        "auroc_macro": np.mean([sk.roc_auc_score(hot[:, c], p[:, c]) for c in classes]),
        "brier": ((p - hot) ** 2).sum(1).mean(),
    }


def by_torchmetrics(labels, p):
    """The same; its counts are float32."""
    truth, scores, classes = torch.from_numpy(labels), torch.from_numpy(p), p.shape[1]
    return {
        "mcc": tm.multiclass_matthews_corrcoef(scores, truth, classes),
        "balanced_accuracy": tm.multiclass_recall(scores, truth, classes, average="macro"),
        "macro_f1": tm.multiclass_f1_score(scores, truth, classes, average="macro"),
        "auroc_macro": tm.multiclass_auroc(scores, truth, classes, average="macro"),
    }


@pytest.mark.parametrize("other", [by_scikit_learn, by_torchmetrics])
@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize("decimals", [1, 12])  # rounded: many ties
def test_a_resample_is_measured_as_its_patients_are(other, classes, decimals):
    generator = np.random.default_rng(classes)
    labels, p = hospital(generator, 40, classes)
    p = np.round(p, decimals) + 1e-3
    p /= p.sum(1, keepdims=True)
    counts = draw_counts(40, 30, generator)
    drawn = measure_all(labels, p, counts)
    compared = 0
    for r, row in enumerate(counts.astype(int)):
        rows = np.repeat(np.arange(40), row)
        if set(labels[rows]) == set(range(classes)):
            compared += 1
            for name, value in other(labels[rows], p[rows]).items():
                assert drawn[name][r] == pytest.approx(float(value), abs=1e-6), name
    assert compared > 20


def test_two_classes_are_measured_as_scikit_learn_measures_them():
    labels, p = hospital(np.random.default_rng(1), 30, 2)
    found = measure_all(labels, p, np.ones((1, 30)))
    for name, value in by_scikit_learn(labels, p).items():
        assert found[name][0] == pytest.approx(value, abs=1e-12), name


def test_what_is_not_defined_is_nan_and_one_guess_has_mcc_zero():
    labels, p = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    found = measure_all(labels, p, np.array([[1.0, 1, 1, 1], [2, 2, 0, 0]]))
    assert found["mcc"][0] == 0.0
    assert np.isnan(found["mcc"][1])
    assert found["auroc_macro"][0] == 1.0
    assert np.isnan(found["auroc_macro"][1])
    assert found["balanced_accuracy"].tolist() == [0.5, 1.0]
    assert np.isnan(mcc(np.array([[[5.0, 0], [0, 0]]])))[0]


def test_resamples_have_as_many_patients_and_the_jackknife_one_fewer():
    counts = draw_counts(30, 200, np.random.default_rng(0))
    assert (counts.sum(1) == 30).all()
    assert counts.mean(0) == pytest.approx(np.ones(30), abs=0.4)
    indices = np.random.default_rng(0).integers(0, 30, (200, 30))
    assert counts[7].tolist() == np.bincount(indices[7], minlength=30).tolist()
    assert draw_counts(1, 200, np.random.default_rng(0)) is None
    assert draw_counts(30, 0, np.random.default_rng(0)) is None
    assert leave_one_out(5).tolist() == (1 - np.eye(5)).tolist()
    many = leave_one_out(3 * JACKKNIFE)
    assert many.shape == (JACKKNIFE, 3 * JACKKNIFE)
    assert (many.sum(1) == 3 * JACKKNIFE - 1).all()


@pytest.mark.parametrize("skew", [0.3, 1.0, 2.0])
def test_bca_is_scipys(skew):
    """Any statistic will do: the mean of skewed numbers."""
    x = np.exp(skew * np.random.default_rng(4).normal(size=40))
    theirs = stats.bootstrap((x,), np.mean, n_resamples=500, method="BCa", rng=np.random.default_rng(0))
    ours = bca_interval(x.mean(), theirs.bootstrap_distribution, leave_one_out(40) @ x / 39, 40)
    assert (ours["low"], ours["high"]) == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)
    shifted = stats.bootstrap((x,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(0))
    assert ours["high"] > shifted.confidence_interval.high  # the correction does something


def test_t_interval_of_a_mean_is_students():
    x = np.random.default_rng(5).normal(size=15)
    counts = draw_counts(15, 40_000, np.random.default_rng(1))
    ours = t_interval(x.mean(), counts @ x / 15, 15)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), rel=0.02)


def test_no_interval_where_few_resamples_count():
    drawn = np.array([np.nan] * 6 + [0.1] * 5)
    nothing = {"low": None, "high": None}
    assert bca_interval(0.1, drawn, np.ones(4), 4) == nothing
    assert t_interval(0.1, drawn, 4) == nothing
    assert t_interval(0.1, drawn[6:], 4) == {"low": 0.1, "high": 0.1}
    assert bca_interval(0.1, np.append(drawn[2:], [0.1, 0.2]), np.full(4, np.nan), 4)["low"] == 0.1


def test_no_interval_where_every_resample_gives_one_value() -> None:
    """Six patients who are all answered rightly prove no MCC of exactly 1."""
    labels, probabilities = np.array([0, 0, 1, 1, 2, 2]), np.eye(3)[[0, 0, 1, 1, 2, 2]]
    counts = draw_counts(6, 500, np.random.default_rng(0))
    assert counts is not None
    drawn, without = (
        measure_all(labels, probabilities, counts)["mcc"],
        measure_all(labels, probabilities, leave_one_out(6))["mcc"],
    )
    assert np.nanmin(drawn) == 1
    assert bca_interval(1.0, drawn, without, 6) == {"low": None, "high": None}
    assert t_interval(0.0, np.zeros(500), 6) == {"low": 0.0, "high": 0.0}  # of a model to itself


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(0, 6))
@settings(max_examples=60, deadline=None)
def test_intervals_are_in_order_and_within_what_was_drawn(seed, n, skill):
    generator = np.random.default_rng(seed)
    labels, p = hospital(generator, n, 3, skill)
    drawn, without = (measure_all(labels, p, c) for c in (draw_counts(n, 25, generator), leave_one_out(n)))
    values = measure_all(labels, p, np.ones((1, n)))
    for name in MEASURES:
        if np.isfinite(values[name][0]):
            found = bca_interval(values[name][0], drawn[name], without[name], n)
            if found["low"] is not None:
                assert np.nanmin(drawn[name]) <= found["low"] <= found["high"] <= np.nanmax(drawn[name])
