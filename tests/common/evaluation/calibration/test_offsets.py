"""Class offsets against scipy's own minimum on pooled patients, and against shifts that were put there."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import norm
from sklearn.metrics import log_loss

from common.cli import config_path
from common.config.run import config_from_table, load_config
from common.evaluation.calibration.calibration import PRIOR, Scaling
from common.evaluation.calibration.offsets import (
    GRID_TEMPERATURES,
    STEPS,
    WIDTH,
    fit_scaling,
    grid_shape,
    offset_sums,
    why_no_offsets,
)

BALANCED = (1 / 3, 1 / 3, 1 / 3)


def seen(n, shares=BALANCED, seed=0):
    """Labels by `shares`, and each patient's honest log-likelihoods: unit Gaussians two apart at the corners of a simplex."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), n, p=shares)
    labels[: len(shares)] = range(len(shares))
    centres = math.sqrt(2) * np.eye(len(shares))
    x = centres[labels] + rng.normal(size=(n, len(shares)))
    return labels, norm.logpdf(x[:, None] - centres).sum(2)


def counted(labels, classes):
    return np.bincount(labels, minlength=classes)


def exact(labels, probabilities):
    """Temperature and offsets by a general optimiser, on the patients themselves."""
    logits, classes = np.log(probabilities), probabilities.shape[1]
    shares = np.log(counted(labels, classes) / len(labels))

    def loss(x):
        b = x[1:] - x[1:].mean()
        told = log_softmax(logits / math.exp(x[0]) + b + shares, axis=1)
        return 0.5 * (x[0] / PRIOR) ** 2 + 0.5 * (b**2).sum() / WIDTH**2 - told[np.arange(len(labels)), labels].sum()

    found = minimize(loss, np.zeros(classes + 1), tol=1e-10).x
    return found[0], found[1:] - found[1:].mean()


@pytest.mark.parametrize("shares", [(0.6, 0.4), BALANCED, (0.7, 0.2, 0.1), (0.4, 0.3, 0.2, 0.1)])
@pytest.mark.parametrize(("n", "steepness"), [(14, 1.0), (60, 3.0), (300, 0.6)])
def test_they_are_where_a_general_optimiser_finds_them_on_pooled_patients(shares, n, steepness) -> None:
    labels, logits = seen(n, shares, seed=n)
    drift = np.linspace(-0.8, 0.9, len(shares))
    probabilities = softmax(steepness * logits + drift, axis=1)
    sums = np.sum([offset_sums(labels[k::3], probabilities[k::3]).astype(np.float32) for k in range(3)], axis=0)  # of three sites
    found = fit_scaling(sums, counted(labels, len(shares)))
    temperature, offsets = exact(labels, probabilities)
    assert found is not None
    assert math.log(found.temperature) == pytest.approx(temperature, abs=0.06)  # of an error of estimation ten times as large
    assert found.offsets == pytest.approx(offsets, abs=0.06)


def test_the_summed_loss_is_that_of_scikit_learn_and_adds_up_over_sites() -> None:
    labels, logits = seen(40)
    probabilities = softmax(2 * logits, axis=1)
    sums = offset_sums(labels, probabilities)
    assert sums.shape == grid_shape(3) == (25, 25, 25)
    for t, i, j in ((8, 12, 12), (0, 0, 24), (24, 20, 3), (12, 13, 9)):
        told = Scaling(float(GRID_TEMPERATURES[t]), (0.0, STEPS[i], STEPS[j])).apply(probabilities)
        assert sums[t, i, j] == pytest.approx(log_loss(labels, told, labels=range(3), normalize=False), rel=1e-9)
    assert offset_sums(labels[:15], probabilities[:15]) + offset_sums(labels[15:], probabilities[15:]) == pytest.approx(sums)
    assert not offset_sums(np.empty(0, np.int64), np.empty((0, 3))).any()
    assert (GRID_TEMPERATURES[8], STEPS[12]) == (1, 0)


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    sums = offset_sums(np.array([0, 1]), np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    assert np.isfinite(sums).all()


def test_a_drift_of_the_decision_is_undone() -> None:
    labels, logits = seen(6000)
    drift = np.array([0.7, -1.0, 0.3])
    found = fit_scaling(offset_sums(labels, softmax(2 * (logits + drift), axis=1)), counted(labels, 3))
    assert found is not None
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert found.offsets == pytest.approx(-drift, abs=0.12)
    assert sum(found.offsets) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.15, 0.15, 0.7)])
def test_how_many_patients_a_class_has_is_not_learnt(shares) -> None:
    """Honest likelihoods: the balanced decision is right as it is, whoever was held back."""
    labels, logits = seen(8000, shares)
    found = fit_scaling(offset_sums(labels, softmax(logits, axis=1)), counted(labels, 3))
    assert found is not None
    assert found.offsets == pytest.approx([0, 0, 0], abs=0.12)


def test_few_patients_move_it_little() -> None:
    """Three patients, all called the first class: without the prior the first's offset would have no bound."""
    found = fit_scaling(offset_sums(np.arange(3), np.tile([0.9, 0.05, 0.05], (3, 1))), np.ones(3))
    assert found is not None
    assert -0.3 < found.offsets[0] < -0.05
    honest = [fit_scaling(offset_sums(*few), counted(few[0], 3)) for few in map(calm, range(30))]
    assert np.abs([found.offsets for found in honest if found]).mean() < 0.5


def calm(seed):
    labels, logits = seen(6, seed=seed)
    return labels, softmax(logits, axis=1)


def test_without_a_patient_of_a_class_or_beyond_the_grid_there_are_none() -> None:
    labels, logits = seen(20)
    assert fit_scaling(offset_sums(labels, softmax(logits, axis=1)), np.array([10, 10, 0])) is None
    beyond = softmax(logits + np.array([0, 0, 30]), axis=1)
    assert fit_scaling(1e4 * offset_sums(labels, beyond), 1e4 * counted(labels, 3)) is None


def test_no_offset_keeps_the_ranking_and_zero_offsets_change_nothing() -> None:
    _, logits = seen(50)
    told = softmax(logits, axis=1)
    assert Scaling(1.5).apply(told) == pytest.approx(Scaling(1.5, (0.0, 0.0, 0.0)).apply(told))
    for one in range(3):
        for other in range(one):  # between two classes all patients keep their order
            odds = [np.log(p[:, one] / p[:, other]) for p in (told, Scaling(1.5, (0.4, -0.9, 0.5)).apply(told))]
            assert (np.argsort(odds[0]) == np.argsort(odds[1])).all()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"evaluation": {"holdout": 0.2}}, ""),
        ({"evaluation": {"holdout": 0.0}}, "nobody is held back"),
        ({"evaluation": {"holdout": 0.2, "offsets": False}}, "switched off"),
        ({"evaluation": {"holdout": 0.2}, "secure": {"enabled": True}}, "would leave in the clear"),
        ({"evaluation": {"holdout": 0.2}, "task": {"classes": list("abcde")}}, "at most 4 classes"),
    ],
)
def test_why_there_are_none_is_a_sentence(table, says) -> None:
    why = why_no_offsets(config_from_table(table))
    assert (why == "") is (says == "")
    assert says in why


def test_a_private_run_has_none() -> None:
    assert "holds nobody back" in why_no_offsets(load_config(config_path("private")))
