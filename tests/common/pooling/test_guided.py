"""The pooling that masks teach: its fit against scikit-learn's ridge, who takes part in it, and prediction without a mask."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from common.config.run import RunConfig, config_from_table
from common.data.dataset import WHOLE, SiteData
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.pooling.guided import RIDGE, Guided
from common.training.guide import fitted_pooling
from common.training.local import train_round
from common.training.predict import predict

RNG = np.random.default_rng(0)
PRESENT = np.array([[1, 1], [1, 0], [1, 1]], bool)
FITTED = {"pool.query"}


def tokens(patients: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches [B, S, M, P, D], of which one direction tells the tumour, and the part of each patch that is tumour [B, S, P]."""
    lesion = torch.tensor(RNG.random((patients, 2, 9)) * (RNG.random((patients, 2, 9)) < 0.4), dtype=torch.float32)
    patches = torch.tensor(RNG.normal(size=(patients, 2, 2, 9, 6)), dtype=torch.float32)
    patches[..., 0] += 3 * lesion.unsqueeze(2)
    return patches, lesion


def test_the_fit_is_ridge_regression_of_the_part_that_is_tumour() -> None:
    """A modality at a time, over the patients who have it and a mask; batches add up."""
    patches, lesion = tokens()
    lesion[2] = 0.0  # no mask
    pooling, here = Guided(), torch.from_numpy(PRESENT)
    total = sum(pooling.sums(patches[b : b + 1], here[b : b + 1], lesion[b : b + 1]) for b in range(3))
    assert isinstance(total, torch.Tensor)
    found = pooling.solve(total, pooling.start(2, 6, torch.Generator()))["query"].numpy()
    for m, rows in enumerate(([0, 1], [0])):
        x = patches[rows, :, m].reshape(-1, 6).double().numpy()
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        y = lesion[rows].reshape(-1).double().numpy()
        np.testing.assert_allclose(found[m], Ridge(alpha=RIDGE * len(y)).fit(x, y).coef_, atol=1e-5)


def test_what_was_fitted_finds_the_tumour_of_others_without_a_mask() -> None:
    patches, lesion = tokens(20)
    pooling, here = Guided(), torch.ones(20, 2, dtype=torch.bool)
    fitted = pooling.solve(pooling.sums(patches, here, lesion), pooling.start(2, 6, torch.Generator()))
    others, truth = tokens(20)
    weights = pooling.weights(others, fitted)
    torch.testing.assert_close(weights.sum((1, 3)), torch.ones(20, 2))
    for m in range(2):
        assert np.corrcoef(weights[:, :, m].numpy().ravel(), truth.numpy().ravel())[0, 1] > 0.6


def test_a_modality_that_nobody_has_keeps_its_query() -> None:
    patches, lesion = tokens()
    pooling, had = Guided(), {"query": torch.full((2, 6), 0.5)}
    fitted = pooling.solve(pooling.sums(patches, torch.tensor([[True, False]] * 3), lesion), had)["query"]
    assert (fitted[1] == 0.5).all()
    assert (fitted[0] != 0.5).any()
    assert (had["query"] == 0.5).all()


def config_of(**more: object) -> RunConfig:
    model = {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1, "pooling": "guided", "head_hidden": 0}
    return config_from_table(
        {
            "data": {"size": 32, "slices": 2},
            "model": model,
            "objective": {"local_crops": 0},
            "training": {"head_rounds": 2, "head_steps": 3, "batch_size": 4},
            "federation": {"rounds": 3},
            **more,
        }
    )


def site_of(masked: int = 3) -> SiteData:
    """Six patients with a bright square, of whom some have a mask of it."""
    images, lesions = RNG.random((6, 2, 4, 32, 32)) * 0.3, np.zeros((6, 2, 32, 32), np.uint8)
    for row in range(6):
        top, left = RNG.integers(0, 3, 2) * 8
        images[row, :, :, top : top + 8, left : left + 8] += 0.6
        lesions[row, :, top : top + 8, left : left + 8] = WHOLE if row < masked else 0
    ids, labels = tuple("abcdef"), np.arange(6) % 3
    return SiteData("s", ids, images.astype(np.float16), np.ones((6, 4), bool), labels, "key", lesions=lesions)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return config_of()


def test_head_rounds_fit_it_and_tuning_rounds_leave_it(config: RunConfig) -> None:
    """And the head of a round is fitted to what the received query pools, so that all sites' heads mean the same."""
    model, site = build_model(config).eval(), site_of()
    start = get_arrays(model)
    first = train_round(model, start, site, config, round_number=1, site_seed=1).arrays
    assert np.abs(first["pool.query"]).max() > 1e-3
    expected = fitted_pooling(TrainedModel(model, start, config), site)
    assert expected.keys() == FITTED
    assert np.array_equal(first["pool.query"], expected["pool.query"])
    maskless = replace(site, lesions=np.zeros((6, 2, 32, 32), np.uint8))
    without = train_round(model, start, maskless, config, round_number=1, site_seed=1).arrays
    assert all(np.array_equal(first[name], without[name]) for name in start if name not in FITTED)
    tuned = train_round(model, first, site, config, round_number=3, site_seed=1).arrays
    assert np.array_equal(tuned["pool.query"], first["pool.query"])
    assert any(not np.array_equal(tuned[name], first[name]) for name in start)
    asked = replace(site, lesions=None)  # prediction knows no mask
    pooled, plain = (
        predict(TrainedModel(model, arrays, config), asked) for arrays in (first, first | {"pool.query": start["pool.query"]})
    )
    assert np.abs(pooled - plain).max() > 1e-4


def test_only_patients_with_a_mask_take_part(config: RunConfig) -> None:
    model, site = build_model(config).eval(), site_of(masked=3)
    trained = TrainedModel(model, get_arrays(model), config)
    assert np.array_equal(
        fitted_pooling(trained, site)["pool.query"], fitted_pooling(trained, site.select([0, 1, 2]))["pool.query"]
    )
    assert fitted_pooling(trained, site.select([3, 4, 5])) == {}
    assert fitted_pooling(trained, SiteData.pool([site, site.select([4])], "two")).keys() == FITTED


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"training": {"head_rounds": 1}}, "head_rounds of 2 or more"),
        ({"site_level": {"enabled": True}}, "site_level.enabled"),
        ({"privacy": {"enabled": True}, "objective": {"local_crops": 0, "terms": {"koleo": {"weight": 0.0}}}}, "privacy.enabled"),
    ],
)
def test_runs_in_which_it_cannot_be_fitted_are_refused_by_name(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config_of(**more)
