"""From intensities to what a backbone sees: slices as pictures of three channels, or whole volumes as z-scores.

B patients, S slices, M modalities, H x W pixels, h x w patches, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.models.backbones.backbone import Backbone


def pictures(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Slices [..., H, W] as images that the backbone knows, [n, 3, H, W]: one modality as three equal channels."""
    images: Tensor = (x.reshape(-1, 1, *x.shape[-2:]) - mean) / std
    return images


def volumes(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Layers [..., S, H, W] as volumes [n, S, H, W] in z-scores of the brain; air is 0, which is its mean."""
    whole = x.reshape(-1, *x.shape[-3:])
    return torch.where(whole > 0, (whole - mean[0]) / std[0], 0.0)


def grid_of(backbone: Backbone, x: Tensor, pixels: Callable[[Tensor], Tensor]) -> Tensor:
    """x [B, S, M, H, W] to patch embeddings [B S' M, h, w, D]: S' is S, or the layers of patches of whole volumes.

    Args:
        backbone: of slices or of volumes.
        x: intensities.
        pixels: `pictures` or `volumes`, with the backbone's own mean and standard deviation.
    """
    if backbone.thickness == 1:
        return backbone.grid(pixels(x))
    B, _, M = x.shape[:3]
    found: Tensor = backbone.grid(pixels(x.transpose(1, 2))).unflatten(0, (B, M))  # [B, M, S', h, w, D]
    return found.transpose(1, 2).flatten(0, 2)
