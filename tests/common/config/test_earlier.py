"""Configurations as commit 2a60dec wrote them, in the words of today."""

import pytest

from common.adapters.adapter import Adapter
from common.adapters.bitfit import BitFit
from common.adapters.bottleneck import Bottleneck
from common.adapters.dora import DoRA
from common.adapters.full import Full
from common.adapters.head import HeadOnly
from common.adapters.lora import LoRA
from common.config.run import config_from_table

TOLD = {"rank": 3, "alpha": 4.0, "targets": ["proj"]}  # of every adapter, as JSON held them all


@pytest.mark.parametrize(
    ("model", "adapter"),
    [
        ({"adapter": "lora", "lora_factor": "b", **TOLD}, LoRA(3, 4.0, ("proj",), "b")),
        ({"adapter": "bottleneck", "lora_factor": "both", **TOLD}, Bottleneck(3)),
        ({"adapter": "bitfit", "lora_factor": "both", **TOLD}, BitFit()),
        ({"adapter": "head", "lora_factor": "both", **TOLD}, HeadOnly()),
        ({"adapter": "full", "lora_factor": "both", **TOLD}, Full()),
        ({"rank": 3}, LoRA(rank=3)),
        ({"adapter": {"name": "dora", "alpha": 2.0}, "rank": 3}, DoRA(rank=3, alpha=2.0)),
        ({}, LoRA()),
    ],
)
def test_settings_that_stood_beside_the_adapters_name(model: dict[str, object], adapter: Adapter) -> None:
    config = config_from_table({"model": {"blocks": 1, **model}})
    assert config.model.adapter == adapter
    assert config.model.blocks == 1
