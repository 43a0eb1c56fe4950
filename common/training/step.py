"""Outputs of student and teacher for one batch's views, as the loss terms read them (MM-DINOv2: Scholz et al., MICCAI 2025).

B patients, V views, K prototypes of which the first C are the classes.
"""

import torch
from torch import Tensor

from common.config.run import RunConfig
from common.models.multimodal import Output
from common.objectives.term import StepOutputs
from common.training.replicas import Replicas
from common.training.round import Point
from common.training.schedule import teacher_temperature
from common.training.views import GLOBAL_VIEWS, Views


def view_outputs(
    model: Replicas, point: Point, views: tuple[Views, Views | None], labels: Tensor, config: RunConfig
) -> StepOutputs:
    """Run the student over all views, and the teacher over the global ones where a term needs it.

    Args:
        model: lends its frozen weights, on one device or several.
        point: the student's and the teacher's arrays.
        views: global and local.
        labels: [B], negative where there is none.
        config: classes and temperatures are read.
    """
    global_views, local_views = views
    student = model.lend({**point.trained, **point.fixed})
    masks, known = global_views.masks, global_views.covariates
    seen_by_student = (global_views.x, global_views.present, masks, masks, known, global_views.hidden)
    lesions = global_views.lesions
    said = model(student, seen_by_student, dense=lesions is not None)
    cosines = [said.logits]
    if local_views is not None:
        cosines.append(model(student, (local_views.x, local_views.present, None, None, local_views.covariates)).logits)
    logits, B = torch.cat(cosines).float(), len(labels)
    seen = _teacher(model, point, global_views) if point.needs_teacher else None
    return StepOutputs(
        logits=logits.view(-1, B, logits.shape[-1]),
        patch_logits=said.patch_logits,
        embeddings=said.embedding.view(GLOBAL_VIEWS, B, -1),
        labels=labels,
        classes=len(config.task.classes),
        exclusive=config.task.exclusive,
        teacher_logits=logits.new_zeros(0, B, logits.shape[-1]) if seen is None else seen.logits.view(-1, B, logits.shape[-1]),
        teacher_patch_logits=said.patch_logits[:0] if seen is None else seen.patch_logits,
        parameters=point.trained,
        received=point.received,
        student_temperature=config.objective.student_temperature,
        teacher_temperature=teacher_temperature_now(config, point),
        dense=None if said.dense is None else said.dense.unflatten(0, (GLOBAL_VIEWS, B)),
        lesions=None if lesions is None else lesions.unflatten(0, (GLOBAL_VIEWS, B)),
    )


def teacher_temperature_now(config: RunConfig, point: Point) -> float:
    """It rises over the first part of a run."""
    return teacher_temperature(config.objective.teacher_temperature_start, config.objective.teacher_temperature, point.done)


@torch.no_grad()
def _teacher(model: Replicas, point: Point, views: Views) -> Output:
    """The teacher sees the global views whole: nothing is masked, the student's masked patches are read."""
    return model(model.lend(point.teachers), (views.x, views.present, None, views.masks, views.covariates))
