"""Dice and cross entropy against MONAI's and a loop; who has no mask has no part."""

import dataclasses

import pytest
import torch
from monai.losses import DiceLoss  # type: ignore[attr-defined]

from common.objectives.segmentation import SMOOTH, Segmentation, cross_entropy, dice_loss
from tests.common.objectives.made_up_steps import step_of


def pixels(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 2, 8, 8, generator=generator)
    return logits, (torch.rand(logits.shape, generator=generator) < 0.3).float()


def test_dice_is_monais() -> None:
    logits, truth = pixels()
    monai = DiceLoss(sigmoid=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    expected = torch.stack(
        [monai(a.flatten(0, 1).unsqueeze(1), b.flatten(0, 1).unsqueeze(1)) for a, b in zip(logits, truth, strict=True)]
    )
    torch.testing.assert_close(dice_loss(logits, truth), expected.mean())


def test_the_closed_forms() -> None:
    truth = torch.zeros(1, 1, 1, 4, 4)
    truth[..., :2] = 1.0  # 8 of 16 pixels
    sure = torch.full_like(truth, 50.0)
    assert float(dice_loss(sure, truth)) == pytest.approx(1 - (2 * 8 + SMOOTH) / (16 + 8 + SMOOTH))
    assert float(dice_loss(torch.where(truth > 0, 50.0, -50.0), truth)) == pytest.approx(0, abs=1e-6)
    assert float(cross_entropy(torch.zeros_like(truth), truth)) == pytest.approx(0.6931472)


def test_only_drawn_masks_count_and_they_count_for_their_share() -> None:
    logits, truth = pixels()
    step = step_of(labels=torch.tensor([0, -1, 0]), dense=logits, lesions=truth)
    term = Segmentation(weight=1.0, dice=0.3)
    loss, _ = term.loss(step, {})
    some, true = logits[:, [0, 2]], truth[:, [0, 2]]
    assert float(loss) == pytest.approx(float(2 / 3 * (0.3 * dice_loss(some, true) + 0.7 * cross_entropy(some, true))))
    nobody, _ = term.loss(dataclasses.replace(step, labels=torch.tensor([-1, -1, -1])), {})
    assert float(nobody) == 0


def test_private_runs_are_told_why_not() -> None:
    [refusal] = Segmentation(weight=1.0).refusals()
    assert "patients of a batch together" in refusal.why
    assert not Segmentation().refusals()
