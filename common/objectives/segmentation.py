"""Segmentation: soft Dice and binary cross entropy of each pixel (Isensee et al., nnU-Net, Nature Methods 18:203, 2021).

Dice is over all labelled patients of a view together, as nnU-Net's 2D models have it: a slice without tumour has none of its own.
V global views, B patients, S slices, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Tensor

SMOOTH = 1.0  # pixels: a batch without tumour has a Dice too


@dataclass(frozen=True)
class Segmentation(Term):
    """The drawn masks of labelled patients, in every global view."""

    name: ClassVar[str] = "segmentation"
    why_not_private: ClassVar[str] = "Dice is over the patients of a batch together"

    weight: float = ranged(0.0, 0.0, 100.0)
    dice: float = ranged(0.5, 0.0, 1.0)  # share of Dice; the rest is cross entropy

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Mean over views, times the labelled share of the batch, as `classification` weighs it; 0 where nobody is labelled."""
        assert step.dense is not None
        assert step.lesions is not None
        known = (step.labels >= 0).to(step.dense.device)
        if not known.any():
            return step.dense.float().sum() * 0.0, state
        logits, truth = step.dense[:, known].float(), step.lesions[:, known].float()
        loss = self.dice * dice_loss(logits, truth) + (1 - self.dice) * cross_entropy(logits, truth)
        return loss * known.float().mean(), state


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of probabilities and truth (Milletari et al., 3DV 2016, without squares), each view by itself, then their mean.

    Args:
        logits: [V, B, S, H, W].
        truth: the same shape, the part of each pixel that is tumour.
    """
    p, t = logits.sigmoid().flatten(1), truth.flatten(1)
    return (1 - (2 * (p * t).sum(1) + SMOOTH) / (p.sum(1) + t.sum(1) + SMOOTH)).mean()


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over pixels. Args as `dice_loss`."""
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(logits, truth)
