"""The teacher: an exponential moving average of the trained arrays only, on the same frozen weights.

Every round it starts as the global model: it is stateless, survives any drop-out, and brings to an unlabelled site what the
labelled ones have learned. Mean teacher: Tarvainen and Valpola, NeurIPS 2017.
"""

import torch
from torch import Tensor


@torch.no_grad()
def update_teacher(teacher: dict[str, Tensor], student: dict[str, Tensor], momentum: float) -> dict[str, Tensor]:
    """`momentum * teacher + (1 - momentum) * student`, array by array."""
    return {name: torch.lerp(student[name].detach(), teacher[name], momentum) for name in teacher}
