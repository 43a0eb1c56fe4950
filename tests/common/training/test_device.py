"""Moving a model must not spoil it. The CPU moves nothing, so the device here is PyTorch's `meta`, which has no data."""

import torch
from torch import nn

from common.training.device import place


def test_a_model_that_moves_in_inference_mode_can_still_be_trained() -> None:
    model = nn.Linear(2, 2)
    with torch.inference_mode():
        place(model, torch.device("meta"))
    assert model.weight.device.type == "meta"
    assert not model.training
    assert not any(parameter.is_inference() for parameter in model.parameters())
