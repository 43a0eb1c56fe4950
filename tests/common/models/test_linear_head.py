"""The linear head: nothing is drawn, products and sums, covariates beside them, and what does not fit it is refused."""

import re

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.linear_head import LinearHead


def config_of(seed: int = 0, **model: object) -> RunConfig:
    section = {"backbone": "fedmri_vit_mini", "weights": "random", "head": "linear", "head_hidden": 0, "prototypes": 2, **model}
    return config_from_table({"data": {"size": 32, "slices": 2, "covariates": ["age"]}, "model": section, "seed": seed})


def test_it_starts_at_zero_whatever_the_seed() -> None:
    heads = [{n: a for n, a in get_arrays(build_model(config_of(seed))).items() if n.startswith("head.")} for seed in (0, 1)]
    assert {name: array.shape for name, array in heads[0].items()} == {
        "head.patient.weight": (5, 5 * 160),
        "head.patient.bias": (5,),
        "head.patch.weight": (5, 160),
        "head.patch.bias": (5,),
        "head.covariates.weight": (3, 2),
    }
    assert all(not array.any() for head in heads for array in head.values())


def test_logits_are_products_and_ages_are_added_to_those_of_the_classes() -> None:
    head = build_model(config_of()).head
    assert isinstance(head, LinearHead)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in head.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
        z, tokens = torch.randn(3, 800, generator=generator), torch.randn(3, 4, 160, generator=generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, told, patches = head(z), head(z, torch.tensor([[65.0], [float("nan")], [50.0]])), head.patches(tokens)
    weights = {name: np.asarray(value.detach(), np.float64) for name, value in head.named_parameters()}
    by_hand = np.einsum("be,ke->bk", z, weights["patient.weight"]) + weights["patient.bias"]
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        patches, np.einsum("bpd,kd->bpk", tokens, weights["patch.weight"]) + weights["patch.bias"], rtol=1e-4, atol=1e-3
    )
    added = np.zeros((3, 5))
    added[0, :3] = 3 * weights["covariates.weight"].sum(1)  # a standard deviation above the centre, and known
    added[2, :3] = 3 * weights["covariates.weight"][:, 1]
    np.testing.assert_allclose(told - found, added, atol=1e-4)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"model": {"head": "linear"}}, 'model.head = "linear" has no hidden layer, and model.head_hidden is 128'),
        (
            {"model": {"head": "linear", "head_hidden": 0}, "training": {"ssl_rounds": 2}},
            'model.head = "linear" cannot run with training.ssl_rounds = 2',
        ),
        (
            {"training": {"head_optimizer": "sgd"}, "privacy": {"enabled": True}},
            'training.head_optimizer = "sgd" cannot run with privacy.enabled',
        ),
        ({"model": {"head": "square"}}, "model.head"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(table: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        config_from_table(table)
