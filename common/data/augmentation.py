"""Batched augmentation on the device: crops for DINO's views, flips, rotations, and the intensity changes that scanners make.

Parameters are sampled from the passed generator first; `apply_crops` is their deterministic twin. One geometry a patient and
view: its slices and modalities stay registered. B patients, S slices, M modalities, H x W pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MAX_ROTATION = math.radians(20.0)
GAMMA_SPREAD = 0.25  # of log gamma
GAIN_SPREAD = 0.10
RAMP_SPREAD = 0.15  # of the linear part of a receive-coil bias field, edge to centre


@dataclass(frozen=True)
class Crops:
    """One view's sampled parameters.

    Attributes:
        affine: [B, 2, 3] from output to input coordinates, as `affine_grid` takes them.
        gamma: [B, M], exponent.
        gain: [B, M], factor.
        ramp: [B, 2], slope of the bias field along x and y.
    """

    affine: Tensor
    gamma: Tensor
    gain: Tensor
    ramp: Tensor


def sample_crops(batch: int, modalities: int, scale: tuple[float, float], generator: torch.Generator) -> Crops:
    """Draw one view for each patient.

    Args:
        batch: B, patients.
        modalities: M; intensities are changed for each alone.
        scale: smallest and largest edge of the crop, of the field of view.
        generator: on the CPU.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    edge = scale[0] + (scale[1] - scale[0]) * uniform(batch)
    angle = (uniform(batch) * 2 - 1) * MAX_ROTATION
    flip = torch.where(uniform(batch) < 0.5, -1.0, 1.0)  # left and right
    shift = (uniform(batch, 2) * 2 - 1) * (1 - edge).clamp(min=0).unsqueeze(1)
    cos, sin = edge * torch.cos(angle), edge * torch.sin(angle)
    affine = torch.stack([torch.stack([flip * cos, -sin, shift[:, 0]], 1), torch.stack([flip * sin, cos, shift[:, 1]], 1)], 1)
    gamma = torch.exp((uniform(batch, modalities) * 2 - 1) * GAMMA_SPREAD)
    gain = 1 + (uniform(batch, modalities) * 2 - 1) * GAIN_SPREAD
    return Crops(affine, gamma, gain, (uniform(batch, 2) * 2 - 1) * RAMP_SPREAD)


def apply_crops(x: Tensor, crops: Crops, size: int) -> Tensor:
    """Cut and change the views that `crops` describes.

    Args:
        x: [B, S, M, H, W], intensities 0 to 1.
        crops: one for each of the B patients.
        size: edge of the result in pixels.

    Returns:
        [B, S, M, size, size].
    """
    B, S, M, H, W = x.shape
    crops = Crops(*(t.to(x.device) for t in (crops.affine, crops.gamma, crops.gain, crops.ramp)))
    grid = functional.affine_grid(crops.affine, [B, S * M, size, size], align_corners=False)
    y = functional.grid_sample(x.reshape(B, S * M, H, W), grid, align_corners=False).view(B, S, M, size, size)
    field = 1 + (grid * crops.ramp.view(B, 1, 1, 2)).sum(-1)  # fixed to the patient, as a coil is
    y = y.clamp(0, 1) ** crops.gamma.view(B, 1, M, 1, 1) * crops.gain.view(B, 1, M, 1, 1)
    return y * field.view(B, 1, 1, size, size)
