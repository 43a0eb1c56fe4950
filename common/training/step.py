"""The loss of one batch: MM-DINOv2's objective (Scholz et al., MICCAI 2025), each term weighted by the configuration.

B patients, V views, K prototypes of which the first C are the classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from common.config import ObjectiveConfig
from common.models.multimodal import MultiModalViT, Output
from common.objectives.classification import ClassBalance, classification_loss
from common.objectives.dino import dino_loss, teacher_targets, update_center
from common.objectives.ibot import ibot_loss
from common.objectives.koleo import koleo_loss
from common.training.views import View

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Centers:
    """EMA of the teacher's logits, of patients and of patches; None before the first batch of a round."""

    patient: Tensor | None = None
    patch: Tensor | None = None


def batch_loss(
    model: MultiModalViT,
    student: Parameters,
    teacher: Parameters,
    views: tuple[list[View], list[View]],
    labels: Tensor,
    balance: ClassBalance,
    centers: Centers,
    config: ObjectiveConfig,
    temperature: float,
) -> tuple[dict[str, Tensor], Centers]:
    """All terms of one batch, already weighted.

    Args:
        student, teacher: trained arrays by name; the teacher's take no gradient.
        views: global and local.
        labels: [B], negative where there is none.
        temperature: of the teacher, now.

    Returns:
        The weighted terms by name, to be added up, and the next centers.
    """
    globals_, locals_ = views
    said = [functional_call(model, student, (v.x, v.present, v.masks, v.masks)) for v in globals_]
    said_local = [functional_call(model, student, (v.x, v.present)) for v in locals_]
    classes = len(balance.weights)
    logits = torch.stack([o.logits for o in (*said, *said_local)]).float()
    scores = logits[..., :classes].reshape(-1, classes) / config.student_temperature
    repeated = labels.repeat(len(logits))
    terms = {
        "classification": config.classification * classification_loss(scores, repeated, balance, config.label_smoothing),
        "koleo": config.koleo * sum((koleo_loss(o.embedding) for o in said), logits.new_zeros(())) / len(said),
    }
    if not (config.dino or config.ibot):
        return terms, centers
    seen = _teacher_views(model, teacher, globals_)
    centers = Centers(
        update_center(centers.patient, torch.cat([o.logits for o in seen]), config.center_momentum),
        update_center(centers.patch, torch.cat([o.patch_logits for o in seen]), config.center_momentum),
    )
    terms["dino"] = config.dino * _dino(logits, seen, centers, config, temperature)
    terms["ibot"] = config.ibot * _ibot(said, seen, centers, config, temperature)
    return terms, centers


@torch.no_grad()
def _teacher_views(model: MultiModalViT, teacher: Parameters, views: list[View]) -> list[Output]:
    """The teacher sees the global views whole: no masks."""
    return [functional_call(model, teacher, (v.x, v.present, None, v.masks)) for v in views]


def _dino(logits: Tensor, seen: list[Output], centers: Centers, config: ObjectiveConfig, temperature: float) -> Tensor:
    """Teacher's two global views against all other student views."""
    assert centers.patient is not None
    targets = teacher_targets(torch.stack([o.logits for o in seen]).float(), centers.patient, temperature)
    return dino_loss(logits, targets, config.student_temperature, skip_same=True)


def _ibot(said: list[Output], seen: list[Output], centers: Centers, config: ObjectiveConfig, temperature: float) -> Tensor:
    """Masked patches of both global views."""
    assert centers.patch is not None
    targets = teacher_targets(torch.cat([o.patch_logits for o in seen]).float(), centers.patch, temperature)
    return ibot_loss(torch.cat([o.patch_logits for o in said]).float(), targets, config.student_temperature)
