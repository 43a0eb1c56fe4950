"""The views of one batch: two global crops with masks, several local ones (DINO's multi-crop).

B patients, S slices, M modalities, P patches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.config import ObjectiveConfig
from common.data.augmentation import apply_crops, sample_crops
from common.objectives.masking import drop_modalities, sample_block_masks, sample_masked_modalities, student_masks


@dataclass(frozen=True)
class View:
    """One crop of a batch.

    Attributes:
        x: [B, S, M, h, w].
        present: [B, M], what the student may use.
        masks: [B, S, M, P] of a global view, None of a local one.
    """

    x: Tensor
    present: Tensor
    masks: Tensor | None


def make_views(
    x: Tensor, present: Tensor, config: ObjectiveConfig, patch: int, generator: torch.Generator
) -> tuple[list[View], list[View]]:
    """Cut the global and the local views of one batch.

    Args:
        x: [B, S, M, H, W] on the device.
        present: [B, M] bool, on the CPU.
        patch: edge of a patch in pixels.

    Returns:
        Two global views, masked each in its own way, and `config.local_crops` local ones.
    """
    size = x.shape[-1]
    local = max(patch, round(size * config.local_size / patch) * patch)
    globals_ = [_view(x, present, config, patch, size, generator, masked=True) for _ in range(2)]
    locals_ = [_view(x, present, config, patch, local, generator, masked=False) for _ in range(config.local_crops)]
    return globals_, locals_


def _view(
    x: Tensor,
    present: Tensor,
    config: ObjectiveConfig,
    patch: int,
    size: int,
    generator: torch.Generator,
    *,
    masked: bool,
) -> View:
    """Sample one view, then cut it."""
    B, S, M = x.shape[:3]
    scale = (config.global_scale, 1.0) if masked else (config.local_scale, config.global_scale)
    crops = apply_crops(x, sample_crops(B, M, scale, generator), size)
    kept = drop_modalities(present, config.modality_dropout, generator)
    if not masked:
        return View(crops, kept.to(x.device), None)
    grid = (size // patch, size // patch)
    ratio = (config.block_mask_low, config.block_mask_high)
    blocks = sample_block_masks(B, grid, config.block_mask_share, ratio, generator)
    hidden = sample_masked_modalities(kept, config.masked_modalities, generator)
    return View(crops, kept.to(x.device), student_masks(kept, hidden, blocks, S).to(x.device))
