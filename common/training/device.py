"""The device and the precision of a model: a GPU in bf16 where there is one."""

from contextlib import AbstractContextManager

import torch
from torch import nn


def choose_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def and_its_like(device: torch.device) -> tuple[torch.device, ...]:
    """The device that was chosen, first, and those that do the same work as well: GPUs of its model that this process sees.

    Another model, such as the card of a screen beside that of a trainer, might lack the memory for an equal part.
    """
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        return (device,)
    first = torch.cuda.current_device() if device.index is None else device.index
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    others = [number for number, name in enumerate(names) if number != first and name == names[first]]
    return (device, *(torch.device("cuda", number) for number in others))


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model for use, and so that it can still be trained: tensors that move in inference mode never take gradients."""
    with torch.inference_mode(False):
        model.to(device).eval()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision for the forward pass.

    Args:
        device: that the model is on.
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU. On a CPU bf16 comes where it is asked for by name only: two machines,
            with and without a matrix unit for it (AMX), must not answer differently for one configuration.
    """
    wanted = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
