"""Clipping written out, to hold Opacus to."""

import torch
from torch import Tensor

from common.privacy.gradients import Parameters


def clipped_sum(gradients: Parameters, max_norm: float) -> dict[str, Tensor]:
    """What leaves clipping, before noise: every patient's gradient, shortened to `max_norm` over all parameters, added up.

    Training clips in Opacus' optimizer; this is the independent word on it.
    """
    norms = torch.stack([value.flatten(1).double().norm(dim=1) for value in gradients.values()]).norm(dim=0)
    factors = (max_norm / norms.clamp(min=1e-12)).clamp(max=1.0)
    return {name: torch.einsum("n,n...->...", factors, value.double()) for name, value in gradients.items()}
