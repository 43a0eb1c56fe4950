"""The views of one batch: two global crops with masks, several local ones (DINO's multi-crop).

V views, B patients, S slices, s of them, M modalities, P patches, Q clinical covariates.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.axes import mirrored, on_volumes
from common.config.sections import DataConfig, ObjectiveConfig
from common.data.augmentation import apply_crops, apply_geometry, sample_crops
from common.data.dataset import Batch, SiteData
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
        hidden: [V B, M] of global views, modalities of which the masks leave nothing.
        covariates: [V B, Q].
        lesions: [V B, S, h, w] of global views, where the batch has them.
    """

    x: Tensor
    present: Tensor
    masks: Tensor | None
    covariates: Tensor
    lesions: Tensor | None = None
    hidden: Tensor | None = None


def make_views(
    batch: Batch, config: ObjectiveConfig, patch: int, generator: torch.Generator, *, thickness: int = 1
) -> tuple[Views, Views | None]:
    """Cut the global and the local views of one batch.

    Args:
        batch: its x on the device, the rest on the CPU.
        config: scales, sizes, masking and the dropout of modalities and covariates.
        patch: edge of a patch in pixels.
        generator: on the CPU.
        thickness: of a patch in slices: masks are of layers of patches.

    Returns:
        Two global views, masked each in its own way, and `config.local_crops` local ones (None for 0).
    """
    seen = global_views(batch, GLOBAL_VIEWS, config, patch, generator, thickness=thickness)
    if not config.local_crops:
        return seen, None
    x, present, covariates = batch.x, batch.present, batch.covariates
    size = x.shape[-1]
    local = max(patch, round(size * config.local_size / patch) * patch)
    crops, _ = _cut(batch, config.local_crops, (config.local_scale, config.global_scale), local, generator)
    kept = drop_modalities(present.repeat(config.local_crops, 1), config.modality_dropout, generator)
    known = drop_covariates(covariates.repeat(config.local_crops, 1), config.covariate_dropout, generator)
    return seen, Views(crops, kept.to(x.device), None, known.to(x.device))


def global_views(
    batch: Batch, views: int, config: ObjectiveConfig, patch: int, generator: torch.Generator, *, thickness: int = 1
) -> Views:
    """Some global views of one batch, masked each in its own way.

    Args:
        batch: its x on the device, the rest on the CPU.
        views: V.
        config: scale, masking and dropout.
        patch: edge of a patch in pixels.
        generator: on the CPU.
        thickness: as of `make_views`.
    """
    x, present, covariates = batch.x, batch.present, batch.covariates
    size = x.shape[-1]
    crops, lesions = _cut(batch, views, (config.global_scale, 1.0), size, generator)
    kept = drop_modalities(present.repeat(views, 1), config.modality_dropout, generator)
    masks, hidden = _masks(kept, x.shape[1] // thickness, (size // patch, size // patch), config, generator)
    known = drop_covariates(covariates.repeat(views, 1), config.covariate_dropout, generator)
    return Views(crops, kept.to(x.device), masks.to(x.device), known.to(x.device), lesions, hidden.to(x.device))


def with_planes(batch: Batch, data: DataConfig) -> Batch:
    """The batch of whole patients, with `mirrors` where slices lie along an axis whose images stay as they are."""
    known = mirrored(data)
    return batch if all(known) else batch._replace(mirrors=torch.tensor(known).expand(len(batch.x), -1))


def slices_of_step(batch: Batch, data: DataConfig, number: int, generator: torch.Generator) -> Batch:
    """`some_slices`, with what their planes are; a volume stays whole."""
    known = with_planes(batch, data)
    return known if on_volumes(data) else some_slices(known, number, generator)


def take_step(
    patients: SiteData, rows: NDArray[np.int64], data: DataConfig, number: int, generator: torch.Generator, *, lesions: bool
) -> Batch:
    """What `slices_of_step` makes of these patients' batch; the other slices are not even read."""
    if on_volumes(data):
        return with_planes(patients.take(rows, lesions=lesions), data)
    chosen, known = draw_slices(len(rows), patients.images.shape[1], number, generator), mirrored(data)
    batch = patients.take(rows, slices=chosen.numpy(), lesions=lesions)
    return batch if all(known) else batch._replace(mirrors=torch.tensor(known)[chosen])


def draw_slices(patients: int, slices: int, number: int, generator: torch.Generator) -> Tensor:
    """Which `number` of each patient's slices, drawn at random, int64 [B, s]; all where they have no more."""
    return torch.rand((patients, slices), generator=generator).argsort(1)[:, : min(number, slices)]


def some_slices(batch: Batch, number: int, generator: torch.Generator) -> Batch:
    """The batch with `number` of each patient's slices, drawn at random; all where they have no more."""
    x, mirrors, lesions = batch.x, batch.mirrors, batch.lesions
    chosen = draw_slices(len(x), x.shape[1], number, generator)
    rows = torch.arange(len(x)).unsqueeze(1)
    kept = batch._replace(x=x[rows, chosen.to(x.device)], lesions=None if lesions is None else lesions[rows, chosen])
    return kept if mirrors is None else kept._replace(mirrors=mirrors.gather(1, chosen))


def _cut(
    batch: Batch, views: int, scale: tuple[float, float], size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Each patient's crops [V B, S, M, size, size], one geometry a view, and what of them is tumour [V B, S, size, size]."""
    x, B, M, lesions = batch.x, batch.x.shape[0], batch.x.shape[2], batch.lesions
    drawn = [sample_crops(B, M, scale, generator) for _ in range(views)]
    cut = torch.cat([apply_crops(x, one, size, batch.mirrors) for one in drawn])
    if lesions is None:
        return cut, None
    return cut, torch.cat([apply_geometry(lesions.to(x.device), one, size, batch.mirrors) for one in drawn])


def _masks(
    present: Tensor, slices: int, grid: tuple[int, int], config: ObjectiveConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """[V B, S, M, P]: what the student does not see of its global views; [V B, M]: the modalities of which it sees nothing."""
    ratio = (config.block_mask_low, config.block_mask_high)
    blocks = sample_block_masks(len(present), grid, config.block_mask_share, ratio, generator)
    hidden = sample_masked_modalities(present, config.masked_modalities, generator)
    return student_masks(present, hidden, blocks, slices), hidden
