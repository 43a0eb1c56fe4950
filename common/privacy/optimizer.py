"""Opacus' DPOptimizer with noise from the operating system. Clipping and scaling are Opacus' own."""

from typing import Any

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from common.privacy.gradients import Parameters
from common.privacy.noise import noised

# Opacus' float32 norms come out short, by 3e-6 for 300,000 values and 6e-5 for 3,000,000, and what it clips by them too long: so
# patients are clipped to a little less than the noise is measured by, and the bound is one.
CLIP_MARGIN = 1e-3


class SystemNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """DP-SGD's step (Abadi et al., CCS 2016, algorithm 1): clip each patient, add up, add noise, divide by the expected number.

    Args:
        optimizer: over leaves that take gradients.
        noise_multiplier: of `max_grad_norm`.
        max_grad_norm: a patient's largest share in the sum.
        expected_patients: sampling rate times patients of the site, not a count of the sample: that one is private.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, noise_multiplier: float, max_grad_norm: float, expected_patients: float
    ) -> None:
        clip = max_grad_norm * (1 - CLIP_MARGIN)
        super().__init__(optimizer, noise_multiplier=noise_multiplier, max_grad_norm=clip, expected_batch_size=expected_patients)
        self.noise_std = noise_multiplier * max_grad_norm

    @property
    def params(self) -> list[Any]:
        """Those that the step moves. What it holds still is not clipped by, gets no noise, and no decay."""
        return [p for p in super().params if getattr(p, "grad_sample", ()) is not None]

    def take(self, parameters: Parameters, gradients: Parameters) -> None:
        """One step from per-patient gradients [n, *shape]; with n = 0 it is noise alone, and counts all the same.

        Args:
            parameters: what moves, all that the optimizer holds or some of it.
            gradients: theirs.
        """
        for parameter in super().params:
            parameter.grad_sample = None
        for name, parameter in parameters.items():
            parameter.grad_sample = gradients[name]  # type: ignore[attr-defined]
        self.step()
        self.zero_grad(set_to_none=True)

    def add_noise(self) -> None:
        """Replaces Opacus' generators, which are seeded or need torchcsprng."""
        for parameter in self.params:
            total: Tensor = parameter.summed_grad  # type: ignore[attr-defined]
            parameter.grad = noised(total, self.noise_std) if self.noise_std else total
