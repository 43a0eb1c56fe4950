"""Few-shot: who is drawn, and that nobody else is seen."""

import numpy as np
import pytest

from common.errors import ConfigError, DataError
from simulation.protocols.federated_few_shot import FederatedFewShot
from simulation.protocols.few_shot import FewShot, draw
from simulation.protocols.linear_probe import FIXED, fit_and_answer
from simulation.protocols.protocol import Training

Y = np.repeat([0, 2, 1], [20, 9, 16])


def test_draws_are_balanced_and_repeat_from_the_seed():
    for shots in (1, 2, 4, 8):
        rows = draw(Y, shots, np.random.default_rng(3))
        np.testing.assert_array_equal(np.bincount(Y[rows]), [shots] * 3)
        assert len(set(rows.tolist())) == 3 * shots
        np.testing.assert_array_equal(rows, draw(Y, shots, np.random.default_rng(3)))
    assert (draw(Y, 8, np.random.default_rng(3)) != draw(Y, 8, np.random.default_rng(4))).any()


def test_only_drawn_patients_are_seen_and_each_draw_answers():
    generator = np.random.default_rng(0)
    x, asked = generator.normal(size=(45, 4)), generator.normal(size=(6, 4))
    training = Training(x, Y, 3, np.zeros(45, np.int64), (1,))
    found = FewShot(2, draws=3).answer(training, asked, np.random.default_rng(9)).probabilities
    drawn, again = np.random.default_rng(9), []
    for number in range(3):
        rows = draw(Y, 2, drawn)
        again += rows.tolist()
        np.testing.assert_array_equal(found[number], fit_and_answer(training.select(rows), asked, FIXED))
    x[np.setdiff1d(np.arange(45), again)] = 1e6
    np.testing.assert_array_equal(found, FewShot(2, draws=3).answer(training, asked, np.random.default_rng(9)).probabilities)


def test_the_federated_one_is_the_pooled_one_where_every_site_has_enough():
    generator = np.random.default_rng(0)
    x, asked, sites = generator.normal(size=(45, 4)), generator.normal(size=(6, 4)), np.arange(45) % 3
    training = Training(x, Y, 3, sites, (2, 2, 2))
    pooled = FewShot(8, draws=2).answer(training, asked, np.random.default_rng(9)).probabilities
    found = FederatedFewShot(8, draws=2).answer(training, asked, np.random.default_rng(9))
    np.testing.assert_allclose(found.probabilities, pooled, atol=1e-5)
    assert "sums" in found.told


def test_a_site_with_too_few_drawn_patients_tells_no_sum_of_them():
    generator = np.random.default_rng(0)
    x, asked, sites = generator.normal(size=(45, 4)), generator.normal(size=(6, 4)), (np.arange(45) % 9 == 0).astype(np.int64)
    answers = []
    for value in (0.0, 50.0):
        x[sites == 1] = value
        training = Training(x, Y, 3, sites, (1, 20))
        answers.append(FederatedFewShot(8, draws=2).answer(training, asked, np.random.default_rng(9)).probabilities)
    np.testing.assert_array_equal(answers[0], answers[1])
    with pytest.raises(DataError, match="min_patients"):
        FederatedFewShot(1).answer(Training(x, Y, 3, sites, (20, 20)), asked, np.random.default_rng(9))


def test_refusals():
    with pytest.raises(DataError, match="9 labelled"):
        draw(Y, 16, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="--shots"):
        FewShot(0)
    with pytest.raises(ConfigError, match="--draws"):
        FewShot(1, draws=0)
