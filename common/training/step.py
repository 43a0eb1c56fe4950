"""The loss of one batch: MM-DINOv2's objective (Scholz et al., MICCAI 2025), each term weighted by the configuration.

B patients, V views, K prototypes of which the first C are the classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from common.config.run import ObjectiveConfig
from common.models.multimodal import MultiModalViT, Output
from common.objectives.classification import ClassBalance, classification_loss
from common.objectives.dino import dino_loss, teacher_targets, update_center
from common.objectives.ibot import ibot_loss
from common.objectives.koleo import koleo_loss
from common.training.views import GLOBAL_VIEWS, Views

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
    views: tuple[Views, Views | None],
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
    global_views, local_views = views
    said = functional_call(model, student, (global_views.x, global_views.present, global_views.masks, global_views.masks))
    cosines = [said.logits]
    if local_views is not None:
        cosines.append(functional_call(model, student, (local_views.x, local_views.present)).logits)
    logits = torch.cat(cosines).float()
    classes = len(balance.weights)
    scores = logits[:, :classes] / config.student_temperature
    repeated = labels.repeat(len(logits) // len(labels))
    spread = [koleo_loss(view) for view in said.embedding.chunk(GLOBAL_VIEWS)]
    terms = {
        "classification": config.classification * classification_loss(scores, repeated, balance, config.label_smoothing),
        "koleo": config.koleo * torch.stack(spread).mean(),
    }
    if not (config.dino or config.ibot):
        return terms, centers
    seen = _teacher(model, teacher, global_views)
    centers = Centers(
        update_center(centers.patient, seen.logits, config.center_momentum),
        update_center(centers.patch, seen.patch_logits, config.center_momentum),
    )
    assert centers.patient is not None
    assert centers.patch is not None
    targets = teacher_targets(seen.logits, centers.patient, temperature)
    B = len(labels)
    by_view = logits.view(-1, B, logits.shape[-1]), targets.view(-1, B, targets.shape[-1])
    terms["dino"] = config.dino * dino_loss(*by_view, config.student_temperature, skip_same=True)
    targets = teacher_targets(seen.patch_logits, centers.patch, temperature)
    terms["ibot"] = config.ibot * ibot_loss(said.patch_logits, targets, config.student_temperature)
    return terms, centers


@torch.no_grad()
def _teacher(model: MultiModalViT, teacher: Parameters, views: Views) -> Output:
    """The teacher sees the global views whole: nothing is masked, the student's masked patches are read."""
    output: Output = functional_call(model, teacher, (views.x, views.present, None, views.masks))
    return output
