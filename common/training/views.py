"""The views of one batch: two global crops with masks, several local ones (DINO's multi-crop).

V views, B patients, S slices, M modalities, P patches, Q clinical covariates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.config.sections import ObjectiveConfig
from common.data.augmentation import apply_crops, sample_crops
from common.data.dataset import Batch
from common.objectives.masking import (
    drop_covariates,
    drop_modalities,
    sample_block_masks,
    sample_masked_modalities,
    student_masks,
)

GLOBAL_VIEWS = 2


@dataclass(frozen=True)
class Views:
    """Crops of one size, view after view, so that the model runs over all of them at once.

    Attributes:
        x: [V B, S, M, h, w].
        present: [V B, M], what the model may use.
        masks: [V B, S, M, P] of global views, None of local ones.
        covariates: [V B, Q].
    """

    x: Tensor
    present: Tensor
    masks: Tensor | None
    covariates: Tensor


def make_views(batch: Batch, config: ObjectiveConfig, patch: int, generator: torch.Generator) -> tuple[Views, Views | None]:
    """Cut the global and the local views of one batch.

    Args:
        batch: its x on the device, the rest on the CPU.
        config: scales, sizes, masking and the dropout of modalities and covariates.
        patch: edge of a patch in pixels.
        generator: on the CPU.

    Returns:
        Two global views, masked each in its own way, and `config.local_crops` local ones (None for 0).
    """
    seen = global_views(batch, GLOBAL_VIEWS, config, patch, generator)
    if not config.local_crops:
        return seen, None
    x, present, _, covariates = batch
    size = x.shape[-1]
    local = max(patch, round(size * config.local_size / patch) * patch)
    crops = _cut(x, config.local_crops, (config.local_scale, config.global_scale), local, generator)
    kept = drop_modalities(present.repeat(config.local_crops, 1), config.modality_dropout, generator)
    known = drop_covariates(covariates.repeat(config.local_crops, 1), config.covariate_dropout, generator)
    return seen, Views(crops, kept.to(x.device), None, known.to(x.device))


def global_views(batch: Batch, views: int, config: ObjectiveConfig, patch: int, generator: torch.Generator) -> Views:
    """Some global views of one batch, masked each in its own way.

    Args:
        batch: its x on the device, the rest on the CPU.
        views: V.
        config: scale, masking and dropout.
        patch: edge of a patch in pixels.
        generator: on the CPU.
    """
    x, present, _, covariates = batch
    size = x.shape[-1]
    crops = _cut(x, views, (config.global_scale, 1.0), size, generator)
    kept = drop_modalities(present.repeat(views, 1), config.modality_dropout, generator)
    masks = _masks(kept, x.shape[1], (size // patch, size // patch), config, generator)
    known = drop_covariates(covariates.repeat(views, 1), config.covariate_dropout, generator)
    return Views(crops, kept.to(x.device), masks.to(x.device), known.to(x.device))


def some_slices(x: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """x [B, S, M, H, W] with `number` of each patient's slices, drawn at random; all where they have no more."""
    chosen = torch.rand(x.shape[:2], generator=generator).argsort(1)[:, : min(number, x.shape[1])]
    return x[torch.arange(len(x)).unsqueeze(1), chosen.to(x.device)]


def _cut(x: Tensor, views: int, scale: tuple[float, float], size: int, generator: torch.Generator) -> Tensor:
    """[V B, S, M, size, size]: each patient's crops, one geometry a view."""
    B, M = x.shape[0], x.shape[2]
    return torch.cat([apply_crops(x, sample_crops(B, M, scale, generator), size) for _ in range(views)])


def _masks(present: Tensor, slices: int, grid: tuple[int, int], config: ObjectiveConfig, generator: torch.Generator) -> Tensor:
    """[V B, S, M, P]: what the student does not see of its global views."""
    ratio = (config.block_mask_low, config.block_mask_high)
    blocks = sample_block_masks(len(present), grid, config.block_mask_share, ratio, generator)
    hidden = sample_masked_modalities(present, config.masked_modalities, generator)
    return student_masks(present, hidden, blocks, slices)
