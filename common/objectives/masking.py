"""Masks for the student: whole modalities, and blocks of patches.

Full-modality masking: MM-DINOv2 (Scholz et al., MICCAI 2025) masks exactly one modality in every student view, so two or
three missing ones are never seen; `any` masks 0 to M-1 of those present. Block masks: iBOT (Zhou et al., ICLR 2022), the same
layout in every modality and slice of a patient. B patients, S slices, M modalities, P = h x w patches.
"""

import math

import torch
from torch import Tensor


def sample_masked_modalities(present: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Choose the modalities that are masked whole; at least one present modality stays to be seen.

    Args:
        present: [B, M] bool.
        kind: `none`, `one` (the paper's) or `any` (uniformly 0 to m-1 of a patient's m).
        generator: on the CPU.

    Returns:
        [B, M] bool, only where present.
    """
    counts = present.sum(1)
    draw = torch.rand(len(present), generator=generator)
    if kind == "none":
        number = torch.zeros_like(counts)
    elif kind == "one":
        number = (counts > 1).long()
    else:
        number = (draw * counts).long().clamp(max=counts - 1)
    return _random_members(present, number, generator)


def drop_modalities(present: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Take 1 to m-1 modalities from some patients, tokens and all, as if they had never been acquired.

    Args:
        present: [B, M] bool.
        chance: of a patient with more than one modality to lose some.
        generator: on the CPU.

    Returns:
        The `present` that remains, at least one a patient.
    """
    counts = present.sum(1)
    loses = (torch.rand(len(present), generator=generator) < chance) & (counts > 1)
    draw = torch.rand(len(present), generator=generator)
    number = 1 + (draw * (counts - 1)).long().clamp(max=(counts - 2).clamp(min=0))
    return present & ~_random_members(present, number * loses, generator)


def drop_covariates(covariates: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Hide what is known of some patients, so that the model learns to answer without.

    Args:
        covariates: [B, Q] of Q covariates, NaN where one is missing.
        chance: of all of a patient's to be hidden together; where there are several, each of the rest is hidden by it again.
        generator: on the CPU; nothing is drawn where there are none.
    """
    B, Q = covariates.shape
    if not Q:
        return covariates
    hidden = torch.rand(B, 1, generator=generator) < chance
    if Q > 1:
        hidden = hidden | (torch.rand(B, Q, generator=generator) < chance)
    return covariates.masked_fill(hidden, torch.nan)


def sample_block_masks(
    batch: int, grid: tuple[int, int], share: float, ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """One rectangle of patches for a share of the patients.

    Args:
        batch: B, patients.
        grid: h, w patches.
        share: of patients that get a block.
        ratio: smallest and largest part of the patches that a block covers; its aspect is log-uniform in 1/2 to 2.
        generator: on the CPU.

    Returns:
        [B, P] bool.
    """
    h, w = grid
    draws = torch.rand(batch, 5, generator=generator).tolist()
    masks = torch.zeros(batch, h, w, dtype=torch.bool)
    for row, (chosen, area, aspect, top, left) in enumerate(draws):
        if chosen >= share:
            continue
        patches = (ratio[0] + (ratio[1] - ratio[0]) * area) * h * w
        stretch = math.exp((2 * aspect - 1) * math.log(2) / 2)
        height = min(h, max(1, round(math.sqrt(patches) * stretch)))
        width = min(w, max(1, round(patches / height)))
        y, x = int(top * (h - height + 1)), int(left * (w - width + 1))
        masks[row, y : y + height, x : x + width] = True
    return masks.view(batch, h * w)


def student_masks(present: Tensor, modalities: Tensor, blocks: Tensor, slices: int) -> Tensor:
    """Whole-modality masks OR block masks, only where there is something to mask.

    Args:
        present: [B, M] bool.
        modalities: [B, M] bool.
        blocks: [B, P] bool.
        slices: S.

    Returns:
        [B, S, M, P] bool.
    """
    masks = (modalities.unsqueeze(2) | blocks.unsqueeze(1)) & present.unsqueeze(2)
    return masks.unsqueeze(1).expand(-1, slices, -1, -1)


def _random_members(present: Tensor, number: Tensor, generator: torch.Generator) -> Tensor:
    """[B, M] bool: `number[b]` of the present modalities of each patient, uniformly."""
    order = torch.rand(present.shape, generator=generator).masked_fill(~present, 2.0).argsort(1).argsort(1)
    return (order < number.unsqueeze(1)) & present
