from typing import Any

import pytest
import torch

from common.adapters.registry import ADAPTERS
from common.config.run import config_from_table
from common.errors import ConfigError
from common.model_files.merge import merge
from common.models.arrays import arrays_sha256, get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT

BEFORE = {
    "lora": "c77f4da24c2b24cb",
    "bottleneck": "c106c93def71b904",
    "bitfit": "f5d51b6e41ec96d5",
    "head": "f5787075ef4d1793",
}


def model_of(**model: Any) -> MultiModalViT:
    table = {"model": {"backbone": "fedmri_vit_mini", "weights": "random", **model}, "data": {"size": 32}}
    return build_model(config_from_table(table)).eval()


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
@torch.inference_mode()
def test_an_untrained_adapter_changes_nothing(adapter: str) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = model_of(adapter="full").vit.forward_features(x)
    torch.testing.assert_close(model_of(adapter=adapter).vit.forward_features(x), plain)


@pytest.mark.parametrize(
    "adapter",
    [
        {"name": "lora", "rank": 0},
        {"name": "lora", "targets": ["qkv", "proj", "fc1", "fc2"]},
        {"name": "dora"},
        {"name": "bottleneck"},
        {"name": "bitfit"},
    ],
)
@torch.inference_mode()
def test_rank_0_and_adapters_that_start_at_zero_are_the_frozen_backbone_to_the_bit(adapter: dict[str, Any]) -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = model_of(adapter=adapter, train_norms=False)
    assert torch.equal(model.vit.forward_features(x), model_of(adapter="head").vit.forward_features(x))
    added = {name for name in get_arrays(model) if name.startswith("vit.")}
    assert bool(added) == (adapter.get("rank") != 0)


@pytest.mark.parametrize("adapter", ["lora", "dora", "bitfit", "bottleneck"])
@torch.no_grad()
def test_merged_is_unmerged(adapter: str) -> None:
    everywhere = {"targets": ["qkv", "proj", "fc1", "fc2"]} if adapter in ("lora", "dora") else {}
    model, generator = model_of(adapter={"name": adapter, **everywhere}), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    x = torch.rand(2, 3, 32, 32, generator=generator)
    found = model.vit.forward_features(x)
    assert (found - model_of(adapter="head").vit.forward_features(x)).abs().max() > 0.1
    torch.testing.assert_close(merge(model).vit.forward_features(x), found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_every_trained_array_gets_a_gradient_and_no_frozen_one_does(adapter: str) -> None:
    everywhere = {"targets": ["qkv", "proj", "fc1", "fc2"]} if adapter in ("lora", "dora") else {}
    model = model_of(adapter={"name": adapter, **everywhere})
    x = torch.rand(3, 1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    present = torch.ones(3, 4, dtype=torch.bool)
    masks = torch.rand(3, 1, 4, 16, generator=torch.Generator().manual_seed(0)) < 0.3
    said = model(x, present, masks, masks)
    weights = torch.arange(3.0) - 0.7
    (said.logits @ weights).square().sum().backward(retain_graph=True)
    (said.patch_logits @ weights).square().sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(get_arrays(model))


@pytest.mark.parametrize(
    ("adapter", "part"),
    [
        ("lora", "attn.qkv.lora_a"),
        ("dora", "attn.qkv.magnitude"),
        ("bottleneck", "mlp.down"),
        ("bitfit", "attn.qkv.bias"),
        ("full", "mlp.fc1.weight"),
    ],
)
def test_kinds_train_what_their_name_says(adapter: str, part: str) -> None:
    names = get_arrays(model_of(adapter=adapter, train_norms=False))
    vit = {name for name in names if name.startswith("vit.")}
    assert any(part in name for name in vit)
    assert "head.prototypes" in names
    assert not any(name.startswith("vit.") for name in get_arrays(model_of(adapter="head")))


def test_only_the_last_blocks_are_adapted() -> None:
    names = get_arrays(model_of(blocks=2, train_norms=False))
    assert {name.split(".")[2] for name in names if "lora" in name} == {"3", "4"}
    with pytest.raises(ConfigError, match="has 5 blocks, got 9"):
        model_of(blocks=9)


def test_a_target_that_the_backbone_lacks_is_refused() -> None:
    """EVA-02's gated MLP has `fc1_g` and `fc1_x` instead."""
    config = {
        "model": {"backbone": "eva02_base_patch14_224", "weights": "random", "adapter": {"targets": ["fc1"]}},
        "data": {"size": 28},
    }
    with pytest.raises(ConfigError, match="no linear map 'fc1'"):
        build_model(config_from_table(config))


def test_arrays_have_the_names_and_the_start_that_they_had_before_adapters_were_values() -> None:
    """SHA-256 of names, shapes and values of the arrays that commit 2a60dec made of the same configurations.

    Not of `full`: timm draws the backbone's random start, and its bits are those of the processor.
    """
    found = {}
    for adapter in BEFORE:
        settings: dict[str, object] = {"rank": 3} if adapter in ("lora", "bottleneck") else {}
        settings |= {"targets": ["fc2", "qkv"]} if adapter == "lora" else {}
        found[adapter] = arrays_sha256(get_arrays(model_of(adapter={"name": adapter, **settings}, blocks=2)))[:16]
    assert found == BEFORE
