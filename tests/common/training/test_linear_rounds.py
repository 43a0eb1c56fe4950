"""Head rounds of the linear head by gradient descent, against softmax regression written out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.config.run import RunConfig, config_from_table
from common.data.dataset import WHOLE, SiteData
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.training import probing
from common.training.local import train_round
from common.training.trainable import head_rounds_until, is_undecided

Floats = NDArray[np.float64]
RATE, SMOOTHING, TEMPERATURE, WIDTH = 2e-4, 0.1, 0.1, 480


def config_of(pooling: str = "mean", centred: bool = False, **training: object) -> RunConfig:
    model = {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1, "head": "linear", "head_hidden": 0}
    return config_from_table(
        {
            "data": {"modalities": ["t1", "flair"], "slices": 2, "size": 32},
            "model": {**model, "pooling": pooling, "centre_features": centred},
            "objective": {"local_crops": 0, "modality_dropout": 0.0, "terms": {"classification": {"weight": 1.0}}},
            "training": {"head_rounds": 4, "head_optimizer": "sgd", "head_learning_rate": RATE, **training},
            "federation": {"rounds": 4},
        }
    )


def site_of(name: str, patients: int) -> SiteData:
    generator = np.random.default_rng(patients)
    images = generator.random((patients, 2, 2, 32, 32)).astype(np.float16)
    lesions = np.zeros((patients, 2, 32, 32), np.uint8)
    lesions[:, :, 8:16, 8:16] = WHOLE
    ids = tuple(f"{name}{i}" for i in range(patients))
    return SiteData(name, ids, images, np.ones((patients, 2), bool), np.arange(patients) % 3, name, lesions=lesions)


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> dict[str, Floats]:
    """In the place of embeddings: random ones."""
    found = {name: np.random.default_rng(seed).normal(size=(n, WIDTH)) for name, n, seed in (("a", 4, 1), ("b", 9, 2))}

    def shown(_: Any, patients: SiteData, copies: Any) -> torch.Tensor:
        return torch.from_numpy(found[patients.name]).float().unsqueeze(0)

    monkeypatch.setattr(probing, "embed_subsets", shown)
    return found


def federated(config: RunConfig, rounds: Sequence[int]) -> Arrays:
    """Rounds of two hospitals, averaged by patients."""
    model, sites = build_model(config), [site_of("a", 4), site_of("b", 9)]
    arrays = get_arrays(model)
    for number in rounds:
        sent = [train_round(model, arrays, site, config, round_number=number, site_seed=1).arrays for site in sites]
        arrays = {name: ((4 * sent[0][name] + 9 * sent[1][name]) / 13).astype(np.float32) for name in arrays}
    return arrays


def descended(x: Floats, labels: NDArray[np.int64], steps: int, momentum: float) -> Floats:
    """Softmax regression by heavy-ball descent from zero, weights [C, E]."""
    weights, bias, speed, bias_speed = np.zeros((3, WIDTH)), np.zeros(3), 0.0, 0.0
    target = (1 - SMOOTHING) * np.eye(3)[labels] + SMOOTHING / 3
    for _ in range(steps):
        scores = np.exp((x @ weights.T + bias) / TEMPERATURE)
        wrong = (scores / scores.sum(1, keepdims=True) - target) / TEMPERATURE / len(x)
        speed, bias_speed = momentum * speed + wrong.T @ x, momentum * bias_speed + wrong.sum(0)
        weights, bias = weights - RATE * speed, bias - RATE * bias_speed
    return np.asarray(weights)


def test_a_step_a_round_is_descent_on_all_hospitals_patients_together(features: dict[str, Floats]) -> None:
    arrays = federated(config_of(head_steps=1), (1, 2, 3, 4))
    labels = np.concatenate([np.arange(4) % 3, np.arange(9) % 3])
    expected = descended(np.concatenate([features["a"], features["b"]]), labels, 4, 0.0)
    np.testing.assert_allclose(arrays["head.patient.weight"], expected, rtol=1e-3, atol=1e-7)


def test_the_steps_of_one_hospital_have_momentum_and_follow_no_axes(features: dict[str, Floats]) -> None:
    """Turned features give turned weights: what AdamW's equal steps along every axis would not."""
    model, site, config = build_model(config_of()), site_of("b", 9), config_of(head_steps=5)
    start = get_arrays(model)
    own = train_round(model, start, site, config, round_number=1, site_seed=1).arrays["head.patient.weight"]
    np.testing.assert_allclose(own, descended(features["b"], site.labels, 5, 0.9), rtol=1e-3, atol=1e-7)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0]
    features["b"] = features["b"] @ turn
    turned = train_round(model, start, site, config, round_number=1, site_seed=1).arrays["head.patient.weight"]
    np.testing.assert_allclose(turned, own @ turn, rtol=1e-3, atol=1e-6)


def test_the_head_waits_for_the_features_that_it_will_see() -> None:
    """A round that fits the pooling, before one that takes off what is then the mean, moves the pooling alone."""
    for centred, moved in ((True, {"pool.query"}), (False, {"pool.query", "head.patient.weight", "head.patient.bias"})):
        config = config_of("guided", centred, head_steps=2)
        model = build_model(config)
        start = get_arrays(model)
        update = train_round(model, start, site_of("b", 9), config, round_number=1, site_seed=1)
        assert {name for name, array in update.arrays.items() if not np.array_equal(array, start[name])} == moved
        assert [head_rounds_until(config, n) for n in (1, 2, 3, 4)] == ([0, 0, 1, 2] if centred else [1, 2, 3, 4])
        assert [is_undecided(config, n) for n in (1, 2, 3, 4)] == [centred, centred, False, False]


def test_without_head_rounds_every_round_decides_and_self_supervised_ones_do_not() -> None:
    assert not is_undecided(config_of(head_rounds=0), 1)
    pretrained = config_from_table({"training": {"ssl_rounds": 2, "head_rounds": 1}, "federation": {"rounds": 4}})
    assert [is_undecided(pretrained, n) for n in (1, 2, 3, 4)] == [True, True, False, False]
