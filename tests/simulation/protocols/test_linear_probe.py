"""The probe against scikit-learn's, its federated twin against the pooled fit, and what it may choose by."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.errors import DataError
from simulation.probe import linear_probe
from simulation.protocols.federated_probe import FederatedProbe
from simulation.protocols.linear_probe import FOLDS, STRENGTHS, LinearProbe, balanced_log_loss, fit_and_answer, stratified
from simulation.protocols.protocol import Training
from simulation.protocols.softmax_regression import LARGEST, Sample, gradient_sum, hessian_sum, loss_sum, newton


def made(classes=3, patients=42, width=8, signal=1.0, least=(1, 1, 1)):
    generator = np.random.default_rng(classes)
    y = np.minimum(np.arange(patients) % (classes + 1), classes - 1)  # the last class is twice as frequent
    x = generator.normal(size=(patients, width)) * generator.uniform(0.1, 9, width) + signal * np.eye(width)[y] + 4
    x[generator.random(x.shape) < 0.05] = np.nan
    sites = np.sort(np.arange(patients) % len(least))
    return Training(x, y, classes + 1, sites, least), generator.normal(size=(9, width)) + 4


def sklearns(strength):
    model = LogisticRegression(C=strength, class_weight="balanced", tol=1e-12, max_iter=100000, solver="newton-cg")
    return make_pipeline(SimpleImputer(), StandardScaler(), model)


@pytest.mark.parametrize("strength", [1e-3, 1.0])
@pytest.mark.parametrize(("classes", "width"), [(2, 5), (3, 8), (3, 100)])  # the last: more features than patients
def test_it_is_scikit_learns(classes, width, strength):
    training, asked = made(classes, width=width)
    expected = sklearns(strength).fit(training.x, training.y).predict_proba(asked)
    found = fit_and_answer(training, asked, strength)
    np.testing.assert_allclose(found[:, :classes], expected, atol=1e-6)
    assert not found[:, classes].any()


def test_at_the_baselines_strength_it_is_the_baseline():
    training, asked = made()
    expected = linear_probe(training.x[:, None], training.y, asked[:, None], classes=4)
    np.testing.assert_allclose(fit_and_answer(training, asked, 0.01), expected, atol=1e-3)


@pytest.mark.parametrize(("classes", "width"), [(2, 5), (3, 60)])
def test_the_federated_fit_is_the_pooled_one(classes, width):
    training, asked = made(classes, width=width, least=(1, 1, 1, 1))
    found = FederatedProbe(0.1).answer(training, asked, np.random.default_rng(0))
    np.testing.assert_allclose(found.probabilities[0], fit_and_answer(training, asked, 0.1), atol=1e-5)
    assert found.parameters == classes * (width + 1)


def test_gradient_and_hessian_are_the_derivatives_of_the_loss():
    generator = np.random.default_rng(1)
    own = Sample(generator.normal(size=(7, 4)), np.arange(7) % 3, generator.uniform(0.5, 2, 7))
    w = generator.normal(size=12)
    slope = approx_fprime(w, lambda v: loss_sum(v.reshape(3, 4), own), 1e-6)
    np.testing.assert_allclose(gradient_sum(w.reshape(3, 4), own).ravel(), slope, atol=1e-4)
    bend = approx_fprime(w, lambda v: gradient_sum(v.reshape(3, 4), own).ravel(), 1e-6)
    np.testing.assert_allclose(hessian_sum(w.reshape(3, 4), own), bend, atol=1e-4)


def test_a_site_or_feature_of_too_few_patients_tells_nothing():
    training, asked = made(least=(1, 1, 15))  # each has 14
    with_two = training.select(training.sites < 2)
    for protocol in (FederatedProbe(),):
        found, expected = (protocol.answer(t, asked, np.random.default_rng(0)).probabilities for t in (training, with_two))
        np.testing.assert_array_equal(found, expected)
    few, _ = made(least=(5, 5, 5))
    few.x[few.sites == 1, 3] = np.nan
    few.x[np.flatnonzero(few.sites == 1)[:4], 3] = 1e3
    none = few.x.copy()
    none[few.sites == 1, 3] = np.nan
    same = Training(none, few.y, 4, few.sites, few.least)
    found, expected = (FederatedProbe().answer(t, asked, np.random.default_rng(0)).probabilities for t in (few, same))
    np.testing.assert_array_equal(found, expected)


def test_the_strength_is_chosen_by_folds_of_training_patients():
    training, asked = made(signal=2.0)
    said, _ = LinearProbe().choose(training, np.random.default_rng(5))
    fold = stratified(training.y, FOLDS, np.random.default_rng(5))
    losses = []
    for strength in STRENGTHS:
        told = np.zeros((42, 3))
        for number in range(FOLDS):
            model = sklearns(strength).fit(training.x[fold != number], training.y[fold != number])
            told[fold == number] = model.predict_proba(training.x[fold == number])
        losses.append(np.mean([-np.log(told[training.y == c, c]).mean() for c in range(3)]))
    assert said == STRENGTHS[int(np.argmin(losses))]
    assert said not in (STRENGTHS[0], STRENGTHS[-1])  # nothing would be told by an end
    one = LinearProbe().answer(training, asked, np.random.default_rng(5)).probabilities
    alone = LinearProbe().answer(training, asked[:1] * 1, np.random.default_rng(5)).probabilities
    np.testing.assert_allclose(one[:, :1], alone, rtol=1e-12)  # whoever else is asked changes nothing


def test_folds_hold_each_patient_once_and_every_class_alike():
    y = np.repeat([0, 1, 2], [11, 5, 7])
    fold = stratified(y, 5, np.random.default_rng(0))
    for c in range(3):
        sizes = np.bincount(fold[y == c], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert np.ptp(np.bincount(fold)) <= 1
    np.testing.assert_array_equal(fold, stratified(y, 5, np.random.default_rng(0)))
    assert (fold != stratified(y, 5, np.random.default_rng(1))).any()


def test_one_class_one_patient_and_too_many_features():
    training, asked = made()
    same = training.select(training.y == 1)
    for protocol in (LinearProbe(), FederatedProbe()):
        said = protocol.answer(same, asked, np.random.default_rng(0))
        np.testing.assert_array_equal(said.probabilities[0], np.eye(4)[[1] * 9])
        assert said.parameters == 0
    rare = training.select([*np.flatnonzero(training.y != 0).tolist(), 0])
    assert "one patient" in LinearProbe().answer(rare, asked, np.random.default_rng(0)).chosen
    with pytest.raises(DataError, match=str(LARGEST)):
        newton([Sample(np.ones((2, LARGEST)), np.arange(2), np.ones(2))], 2, 1.0)


def test_a_model_that_says_no_number_is_never_chosen() -> None:
    y, said = np.array([0, 1]), np.array([[0.9, 0.1], [0.5, 0.5]])
    assert balanced_log_loss(y, said) == pytest.approx(-(np.log(0.9) + np.log(0.5)) / 2)
    said[1] = np.nan
    assert balanced_log_loss(y, said) == np.inf
