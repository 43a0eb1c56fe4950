"""Poolings by hand: where their weights lie, against naive loops, and what of them is trained."""

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config.run import RunConfig, config_from_json, config_from_table
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.embedding import patient_embedding
from common.models.multimodal import MultiModalViT
from common.pooling.attention import Attention
from common.pooling.centre import Centre
from common.pooling.mean import Mean
from common.pooling.pooling import Pooling
from common.pooling.registry import POOLINGS
from common.training.trainable import trained_names

GENERATOR = torch.Generator().manual_seed(3)
PATCHES = torch.randn(2, 3, 4, 16, 8, generator=GENERATOR)  # [B, S, M, P, D]
QUERIES = {"attention": torch.randn(8, generator=GENERATOR), "guided": torch.randn(4, 8, generator=GENERATOR)}
QUERIES["taught"] = QUERIES["guided"]


def config_of(pooling: object, **training: object) -> RunConfig:
    model = {"backbone": "fedmri_vit_mini", "weights": "random", "pooling": pooling}
    model |= {"public_features": "made elsewhere"} if pooling == "taught" else {}
    trained = {"head_rounds": 2} | training
    return config_from_table({"model": model, "data": {"size": 32, "slices": 2}, "training": trained})


def pooled(weights: Tensor) -> Tensor:
    """[B, M, D]: the weighted means of PATCHES."""
    return (PATCHES * weights.unsqueeze(-1)).sum((1, 3))


@pytest.mark.parametrize(("edge", "part", "inner"), [(14, 0.43, 6), (8, 0.43, 4), (14, 1.0, 14), (8, 0.01, 2), (7, 0.01, 1)])
def test_the_centre_is_an_inner_square_of_whole_patches(edge: int, part: float, inner: int) -> None:
    weights = Centre(part).weights(torch.zeros(1, 5, 2, edge * edge, 3), {}).view(edge, edge)
    first = (edge - inner) // 2
    expected = np.zeros((edge, edge))
    expected[first : first + inner, first : first + inner] = 1 / (5 * inner**2)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


def test_attention_begins_as_the_mean() -> None:
    attention = Attention()
    weights = attention.weights(PATCHES, attention.start(4, 8, GENERATOR))
    torch.testing.assert_close(pooled(weights), PATCHES.mean((1, 3)))


def test_attention_is_a_softmax_over_the_tokens_of_all_slices() -> None:
    """Against a loop over patients and modalities, in numpy."""
    found = pooled(Attention().weights(PATCHES, {"query": QUERIES["attention"]})).numpy()
    tokens, query = PATCHES.double().numpy(), QUERIES["attention"].double().numpy()
    for b in range(2):
        for m in range(4):
            rows = tokens[b, :, m].reshape(-1, 8)
            normed = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
            e = np.exp(normed @ query / np.sqrt(8))
            np.testing.assert_allclose(found[b, m], (e / e.sum()) @ rows, atol=1e-5)


@pytest.mark.parametrize("pooling", [kind() for kind in POOLINGS.values()], ids=lambda pooling: pooling.name)
def test_weights_are_parts_of_one_and_of_one_modality_alone(pooling: Pooling) -> None:
    values = {"query": QUERIES[pooling.name]} if pooling.name in QUERIES else {}
    weights = pooling.weights(PATCHES, values)
    if weights is None:
        return
    whole = weights.expand(PATCHES.shape[:4])
    assert (whole >= 0).all()
    torch.testing.assert_close(whole.sum((1, 3)), torch.ones(2, 4))
    other = PATCHES.clone()
    other[:, :, 1] = 7.0  # what an absent modality holds changes nothing of the others
    torch.testing.assert_close(pooling.weights(other, values).expand(PATCHES.shape[:4])[:, :, [0, 2, 3]], whole[:, :, [0, 2, 3]])


def test_an_embedding_of_the_centre_is_the_mean_embedding_of_its_patches() -> None:
    cls, present = torch.randn(2, 3, 8, generator=GENERATOR), torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]]).bool()
    inner = [5, 6, 9, 10]  # of 4 x 4
    found = patient_embedding(cls, PATCHES, present, Centre(0.5).weights(PATCHES, {}))
    torch.testing.assert_close(found, patient_embedding(cls, PATCHES[:, :, :, inner], present))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_model_pools_as_it_is_told(pooling: str) -> None:
    model = moved(config_of(pooling))
    x = torch.rand(3, 2, 4, 32, 32, generator=GENERATOR)
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0]]).bool()
    with torch.inference_mode():
        cls, patches = model.features(x, present)
        weights = POOLINGS[pooling]().weights(patches, dict(model.pool))
        expected = patient_embedding(cls, patches, present, weights)
        torch.testing.assert_close(model(x, present).embedding, expected)
        plain = patient_embedding(cls, patches, present)
    assert (pooling == "mean") == torch.equal(expected, plain)


def moved(config: RunConfig) -> MultiModalViT:
    model = build_model(config, public="nowhere").eval()
    with torch.no_grad():
        for value in model.pool.values():
            value.copy_(torch.randn(value.shape, generator=GENERATOR))
    return model


def test_a_pooling_that_trains_nothing_adds_no_array_and_draws_nothing() -> None:
    mean, centre = (get_arrays(build_model(config_of(pooling))) for pooling in ("mean", "centre"))
    assert list(mean) == list(centre)
    assert all(np.array_equal(mean[name], centre[name]) for name in mean)
    for pooling in ("attention", "guided"):
        other = get_arrays(build_model(config_of(pooling)))
        assert other.keys() - mean.keys() == {"pool.query"}
        assert all(np.array_equal(mean[name], other[name]) for name in mean)


def test_tuning_rounds_train_the_query_and_head_rounds_leave_it() -> None:
    config = config_of("attention", head_rounds=1)
    names = list(get_arrays(build_model(config)))
    assert "pool.query" not in trained_names(names, config, 1)
    assert "pool.query" in trained_names(names, config, 2)


def test_a_query_that_no_round_trains_is_refused() -> None:
    with pytest.raises(ConfigError, match="trained in tuning rounds"):
        config_of("attention", head_rounds=20)
    config_of("centre", head_rounds=20)


def test_settings_stand_beside_the_name_and_travel() -> None:
    config = config_of({"name": "centre", "part": 0.6})
    assert config.model.pooling == Centre(0.6)
    assert config_from_json(config.to_json()) == config
    assert config_from_table({}).model.pooling == Mean()
    with pytest.raises(ConfigError, match=r"model\.pooling\.part"):
        config_of({"name": "centre", "part": 1.5})
