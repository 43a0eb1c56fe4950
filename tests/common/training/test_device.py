"""Device and precision. Moving a model must not spoil it: the CPU moves nothing, so it moves to PyTorch's `meta` device."""

import pytest
import torch
from torch import nn

from common.training.device import autocast, place


def test_a_model_that_moves_in_inference_mode_can_still_be_trained() -> None:
    model = nn.Linear(2, 2)
    with torch.inference_mode():
        place(model, torch.device("meta"))
    assert model.weight.device.type == "meta"
    assert not model.training
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_a_cpu_computes_in_bf16_only_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    a = torch.rand(4, 4)
    for precision, kind in (("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert (a @ a).dtype == kind
