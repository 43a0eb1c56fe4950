"""Batched augmentation on the device: crops for DINO's views, flips, rotations, and the intensity changes that scanners make.

Parameters are sampled from the passed generator first; `apply_crops` is their deterministic twin. One geometry a patient and
view: its slices and modalities stay registered. Where slices lie along several axes, crop and rotation are the same to each
image's own rows and columns; a mirrored patient is mirrored from left to right in every plane.

B patients, S slices, M modalities, H x W pixels.
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


def apply_crops(x: Tensor, crops: Crops, size: int, mirrors: Tensor | None = None) -> Tensor:
    """Cut and change the views that `crops` describes.

    Args:
        x: [B, S, M, H, W], intensities 0 to 1.
        crops: one for each of the B patients.
        size: edge of the result in pixels.
        mirrors: bool [B, S], in which images a mirrored patient is mirrored (`common.config.axes.Axis`); None: in all.

    Returns:
        [B, S, M, size, size].
    """
    B, S, M, H, W = x.shape
    crops = Crops(*(t.to(x.device) for t in (crops.affine, crops.gamma, crops.gain, crops.ramp)))
    affine = crops.affine if mirrors is None else _by_plane(crops.affine, mirrors.to(x.device)).flatten(0, 1)
    together = x.reshape(len(affine), -1, H, W)  # images of one geometry: a patient's, or those of one slice
    grid = functional.affine_grid(affine, [*together.shape[:2], size, size], align_corners=False)
    y = functional.grid_sample(together, grid, align_corners=False).view(B, S, M, size, size)
    field = 1 + (grid.view(B, -1, size, size, 2) * crops.ramp.view(B, 1, 1, 1, 2)).sum(-1)  # fixed to the patient, as a coil is
    y = y.clamp(0, 1) ** crops.gamma.view(B, 1, M, 1, 1) * crops.gain.view(B, 1, M, 1, 1)
    return y * field.unsqueeze(2)


def apply_geometry(masks: Tensor, crops: Crops, size: int, mirrors: Tensor | None = None) -> Tensor:
    """What `apply_crops` makes of where things lie, without what it makes of intensities.

    Args:
        masks: [B, S, H, W], 0 to 1.
        crops: as of `apply_crops`.
        size: as of `apply_crops`.
        mirrors: as of `apply_crops`.

    Returns:
        [B, S, size, size].
    """
    still = torch.ones(len(masks), 1)
    return apply_crops(masks.unsqueeze(2), Crops(crops.affine, still, still, torch.zeros(len(masks), 2)), size, mirrors).squeeze(
        2
    )


def _by_plane(affine: Tensor, mirrors: Tensor) -> Tensor:
    """[B, S, 2, 3]: each image's own, without the flip where a mirrored patient's image is not mirrored."""
    flipped = torch.linalg.det(affine[:, :, :2]) < 0
    back = torch.where(flipped[:, None] & ~mirrors, -1.0, 1.0)
    columns, others = affine[:, None, :, :1] * back[..., None, None], affine[:, None, :, 1:].expand(*back.shape, -1, -1)
    return torch.cat([columns, others], -1)
