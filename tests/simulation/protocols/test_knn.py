"""kNN against scikit-learn's, and its federated twin against a plain loop."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from common.errors import ConfigError, DataError
from simulation.protocols.federated_knn import FederatedKNN
from simulation.protocols.knn import KNN
from simulation.protocols.protocol import Training


def made(seed: int = 0, patients: int = 40, least: tuple[int, ...] = (1, 1, 1)) -> tuple[Training, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = np.arange(patients) % 3
    x = generator.normal(size=(patients, 6)) + 2 * np.eye(6)[y]
    return Training(x, y, 4, np.sort(np.arange(patients) % len(least)), least), generator.normal(size=(15, 6))


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (40, 1.0)])
def test_it_is_scikit_learns(k, temperature):
    training, asked = made()
    other = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature))
    expected = other.fit(training.x, training.y).predict_proba(asked)
    found = KNN(k, temperature).answer(training, asked, np.random.default_rng(0))
    np.testing.assert_allclose(found.probabilities[0, :, :3], expected, atol=1e-6)
    assert not found.probabilities[..., 3].any()
    assert found.parameters == 0


def test_what_is_absent_takes_the_training_mean_and_what_nobody_has_says_nothing():
    training, asked = made()
    training.x[3, 0] = asked[2, 1] = np.nan
    training.x[:, 5] = np.nan
    x, far = training.x[:, :5].copy(), asked[:, :5].copy()
    x[3, 0], far[2, 1] = np.nanmean(x[:, 0]), x[:, 1].mean()
    by_hand = Training(x, training.y, 4, training.sites, training.least)
    for protocol in (KNN(), FederatedKNN()):
        found, expected = (
            protocol.answer(*given, np.random.default_rng(0)).probabilities for given in [(training, asked), (by_hand, far)]
        )
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_sites_votes_are_summed():
    training, asked = made(least=(1, 9, 14))  # the third site has 13 patients, and tells nothing
    votes = np.zeros((15, 4))
    for q, one in enumerate(asked):
        for site, k in ((0, 5), (1, 9)):
            rows = np.flatnonzero(training.sites == site)
            near = [float(one @ training.x[r] / np.linalg.norm(one) / np.linalg.norm(training.x[r])) for r in rows]
            for place in np.argsort(near)[-k:]:
                votes[q, training.y[rows[place]]] += np.exp(near[place] / 0.07)
    found = FederatedKNN().answer(training, asked, np.random.default_rng(0))
    np.testing.assert_allclose(found.probabilities[0], votes / votes.sum(1, keepdims=True), atol=1e-9)
    assert "1 refused" in found.chosen


def test_where_all_vote_it_is_the_pooled_one():
    training, asked = made()
    pooled, federated = (kind(40).answer(training, asked, np.random.default_rng(0)) for kind in (KNN, FederatedKNN))
    np.testing.assert_allclose(federated.probabilities, pooled.probabilities, atol=1e-12)


def test_refusals():
    for k, temperature, word in ((0, 0.07, "--k"), (5, 0.0, "--temperature"), (5, float("nan"), "--temperature")):
        for kind in (KNN, FederatedKNN):
            with pytest.raises(ConfigError, match=word):
                kind(k, temperature)
    training, asked = made(least=(20, 20, 20))
    with pytest.raises(DataError, match="min_patients"):
        FederatedKNN().answer(training, asked, np.random.default_rng(0))
