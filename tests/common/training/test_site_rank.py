"""A site that trains a smaller rank, against a model that has that rank."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.adapters.lora import LoRA
from common.config.run import RunConfig, config_from_table
from common.models.arrays import Arrays
from common.models.build import build_model
from common.training.local import train_round
from common.training.private import private_round
from common.training.site_rank import first_components, whole
from tests.common.training.test_trainable import PLAIN, PRIVATE, config_of, moved, site_of


def of_rank(rank: int, **sections: Any) -> RunConfig:
    """Of equal scale alpha / rank, whatever the rank."""
    config = config_of("both", **sections)
    return replace(config, model=replace(config.model, adapter=LoRA(rank=rank, alpha=2.0 * rank)))


def test_the_first_components_and_back() -> None:
    arrays = {"x.lora_b": np.ones((5, 4), np.float32), "x.lora_a": np.ones((4, 3), np.float32), "head": np.ones(2, np.float32)}
    cut = first_components(arrays, 2)
    assert {name: array.shape for name, array in cut.items()} == {"x.lora_b": (5, 2), "x.lora_a": (2, 3), "head": (2,)}
    back = whole(cut, arrays)
    assert {name: array.sum() for name, array in back.items()} == {"x.lora_b": 10, "x.lora_a": 6, "head": 2}
    assert not back["x.lora_b"][:, 2:].any()
    assert all(first_components(arrays, 0)[name] is arrays[name] for name in arrays)
    assert whole(arrays, arrays)["head"] is arrays["head"]
    assert {n: a.shape for n, a in first_components(arrays, 9).items()} == {n: a.shape for n, a in arrays.items()}


def test_training_at_a_smaller_rank_is_training_a_model_of_that_rank() -> None:
    large, small = of_rank(4, **PLAIN), of_rank(2, **PLAIN)
    model = build_model(large)
    start = moved(model)
    update = train_round(model, start, site_of(), large, round_number=1, site_seed=5, rank=2).arrays
    alone = train_round(build_model(small), first_components(start, 2), site_of(), small, round_number=1, site_seed=5).arrays
    assert all(array.tobytes() == alone[name].tobytes() for name, array in first_components(update, 2).items())
    assert {name: array.shape for name, array in update.items()} == {name: array.shape for name, array in start.items()}
    assert all(not array[2:].any() for name, array in update.items() if name.endswith("lora_a"))


def test_a_private_round_adds_no_noise_to_components_that_the_site_does_not_train() -> None:
    config = of_rank(4, **PRIVATE, privacy={"enabled": True, "steps": 2, "sample_rate": 0.5})
    model = build_model(config)
    update = private_round(
        model, moved(model), site_of(), config, round_number=1, site_seed=5, charge=lambda _: None, rank=1
    ).arrays
    a, b = ([array for name, array in update.items() if name.endswith(part)] for part in ("lora_a", "lora_b"))
    assert all(not array[1:].any() and array[0].all() for array in a)
    assert all(not array[:, 1:].any() and array[:, 0].all() for array in b)


def test_a_head_round_leaves_all_components_as_they_are() -> None:
    config = of_rank(4, **PLAIN, training={"head_rounds": 1, "head_steps": 1})
    model = build_model(config)
    start = moved(model)
    update = train_round(model, start, site_of(), config, round_number=1, site_seed=0, rank=2).arrays
    assert all(update[name].tobytes() == start[name].tobytes() for name in start if not name.startswith("head."))


@pytest.mark.parametrize("kept", [3, 7])
def test_a_residual_travels_beside_the_backbone_and_no_round_trains_it(kept: int) -> None:
    table = {**PLAIN, "federation": {"rounds": 6, "low_rank": {"name": "residual", "kept_rank": kept}}}
    config = config_of("both", **table)
    model, plain = build_model(config), build_model(config_of("both", **PLAIN))
    assert model.backbone_sha256 == plain.backbone_sha256
    start = moved(model)
    residuals = {name for name in start if ".residual_" in name}
    for name in (name for name in start if name.endswith("lora_b")):
        outputs, inputs = len(start[name]), start[name.replace("lora_b", "lora_a")].shape[1]
        assert start[name.replace("lora_b", "residual_b")].shape == (outputs, kept)
        assert start[name.replace("lora_b", "residual_a")].shape == (kept, inputs)
    assert len(residuals) == 4
    update = train_round(model, start, site_of(), config, round_number=1, site_seed=0).arrays
    assert {name for name in start if update[name].tobytes() == start[name].tobytes()} == residuals
    blind = {name: np.zeros_like(array) if name in residuals else array for name, array in start.items()}
    other: Arrays = train_round(model, blind, site_of(), config, round_number=1, site_seed=0).arrays
    assert any(not np.array_equal(other[name], update[name]) for name in start if name not in residuals)  # it is computed with


def test_without_a_residual_the_model_is_what_it_was() -> None:
    names = build_model(config_of("both", **PLAIN)).state_dict().keys()
    assert not [name for name in names if "residual" in name]
    assert config_from_table({}).federation.low_rank.residual_rank == 0
