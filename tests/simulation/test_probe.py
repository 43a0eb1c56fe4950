"""The probe against planted structure and against a fit by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from common.errors import DataError
from simulation.probe import linear_probe


def features(generator, labels, modalities=2, width=4, signal=4.0):
    x = generator.normal(size=(len(labels), modalities, width))
    x[np.arange(len(labels)), 0, labels] += signal
    return x


def test_equals_standardising_and_fitting_by_hand():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x, test = features(generator, labels), features(generator, labels)
    flat, flat_test = x.reshape(60, -1), test.reshape(60, -1)
    mean, deviation = flat.mean(0), flat.std(0)
    model = LogisticRegression(class_weight="balanced", C=0.01, max_iter=5000).fit((flat - mean) / deviation, labels)
    found = linear_probe(x, labels, test, classes=3)
    np.testing.assert_allclose(found, model.predict_proba((flat_test - mean) / deviation), atol=1e-4)
    assert np.mean(found.argmax(1) == labels) > 0.8


def test_a_covariate_is_heard_among_a_thousand_features() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x, test = generator.normal(size=(60, 3, 400)), generator.normal(size=(60, 3, 400))  # images say nothing
    ages = np.stack([(labels == 1) * 1.5 - 0.5, np.ones(60)], axis=1).astype(np.float32)
    nothing = np.zeros_like(ages)
    told = linear_probe(x, labels, test, classes=3, covariates=(ages, ages))
    assert np.mean(told.argmax(1) == labels) > np.mean(linear_probe(x, labels, test, classes=3).argmax(1) == labels) + 0.2
    assert told[labels == 1, 1].min() > 0.6
    assert np.isfinite(linear_probe(x, labels, test, classes=3, covariates=(ages, nothing))).all()


def test_absent_modality_takes_the_training_mean():
    generator = np.random.default_rng(1)
    labels = np.arange(40) % 2
    x, test = features(generator, labels), features(generator, labels)[:5]
    x[7, 1] = np.nan
    by_hand, test_by_hand = x.copy(), test.copy()
    by_hand[7, 1] = np.nanmean(x[:, 1], axis=0)
    test[0, 0] = np.nan
    test_by_hand[0, 0] = x[:, 0].mean(axis=0)
    np.testing.assert_allclose(
        linear_probe(x, labels, test, classes=2), linear_probe(by_hand, labels, test_by_hand, classes=2), atol=1e-6
    )


def test_modality_that_no_training_patient_has():
    generator = np.random.default_rng(2)
    labels = np.arange(30) % 3
    x, test = features(generator, labels), features(generator, labels)
    x[:, 1] = np.nan
    found = linear_probe(x, labels, test, classes=3)
    assert np.isfinite(found).all()
    other = test.copy()
    other[:, 1] += 5
    np.testing.assert_array_equal(found, linear_probe(x, labels, other, classes=3))


def test_unlabelled_are_left_out_and_absent_classes_get_zero():
    generator = np.random.default_rng(3)
    labels = np.where(np.arange(30) % 3 == 1, -1, np.arange(30) % 3)
    x = features(generator, np.abs(labels))
    found = linear_probe(x, labels, x, classes=3)
    np.testing.assert_array_equal(found[:, 1], 0)
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_array_equal(found, linear_probe(x[labels >= 0], labels[labels >= 0], x, classes=3))


def test_one_class_only_and_none():
    x = np.random.default_rng(4).normal(size=(4, 2, 3))
    np.testing.assert_array_equal(linear_probe(x, np.array([2, 2, -1, 2]), x, classes=3), np.eye(3)[[2] * 4])
    with pytest.raises(DataError, match="label"):
        linear_probe(x, np.full(4, -1), x, classes=3)
    with pytest.raises(ValueError, match=r"\[N, M, F\]"):
        linear_probe(x, np.zeros(4), x[:, :1], classes=3)
