"""One gradient for each patient, from the patient's own views.

What a patient adds to a step is bounded by clipping, so their views must be their own: their randomness comes from the step and
their row, not from a stream that they share with the rest of the sample (taking them out would change the others' crops, and so
their gradients). V views, S slices, M modalities, Q clinical covariates, K prototypes, n patients of a sample.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from common.config.axes import mirrored, on_volumes
from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.multimodal import MultiModalViT
from common.objectives.term import StepOutputs, weighted_losses
from common.privacy.gradients import Parameters, looped_gradients, mapped_gradients
from common.training.device import autocast, choose_device
from common.training.private_random import own_generator
from common.training.round import Point
from common.training.step import teacher_temperature_now
from common.training.views import make_views


class Example(NamedTuple):
    """One patient in one step: all that their loss needs besides the parameters."""

    x: Tensor  # [V, S, M, H, W]
    present: Tensor  # [V, M]
    masks: Tensor  # [V, S, M, P]
    whole: Tensor  # [1, M], what they have: the teacher sees it all
    label: Tensor  # scalar, negative for none
    covariates: Tensor  # [V, Q]
    known: Tensor  # [1, Q], what is known of them: the teacher is told it all


def draw_example(model: MultiModalViT, patients: SiteData, row: int, config: RunConfig, seed: tuple[int, int]) -> Example:
    """Cut one patient's slices and views, from randomness of their own."""
    generator = own_generator(*seed, row)
    slices = torch.randperm(patients.images.shape[1], generator=generator)[: config.training.slices_per_step]
    slices = slices.sort().values if on_volumes(config.data) else slices  # all of them, in their order
    batch, known, device = patients.take([row], slices=slices[None].numpy()), mirrored(config.data), choose_device()
    some = batch._replace(x=batch.x.to(device), mirrors=None if all(known) else torch.tensor(known)[None, slices])
    views, _ = make_views(some, config.objective, model.patch_size, generator, thickness=model.thickness)
    assert views.masks is not None
    label, known = batch.labels[0].to(device), batch.covariates.to(device)
    return Example(views.x, views.present.cpu(), views.masks, batch.present, label, views.covariates, known)


def patient_gradients(model: MultiModalViT, point: Point, examples: list[Example], config: RunConfig) -> Parameters:
    """Gradients [n, *shape] of each patient's loss, before clipping; by vmap where all patients fit in memory at once."""
    method = config.privacy.gradients
    if method == "auto":
        method = "vmap" if next(iter(point.trained.values())).is_cuda else "loop"
    answers = [_teacher_logits(model, point, example, config) for example in examples]
    if method == "loop" or not examples:
        return looped_gradients(
            lambda p, i: _loss(model, p, point, examples[i], answers[i], config), point.trained, len(examples)
        )
    return _mapped(model, point, examples, answers, config)


def _mapped(model: MultiModalViT, point: Point, examples: list[Example], answers: list[Tensor], config: RunConfig) -> Parameters:
    """By vmap over the patients whose views have the same modalities: theirs are the same operations."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(tuple(example.present.flatten().tolist()), []).append(i)
    gradients = {name: value.new_zeros((len(examples), *value.shape)) for name, value in point.trained.items()}
    for members in groups.values():
        first = examples[members[0]]

        def loss(p: Parameters, patient: tuple[Tensor, ...], first: Example = first) -> Tensor:
            x, masks, label, covariates, answer = patient
            example = first._replace(x=x, masks=masks, label=label, covariates=covariates)
            return _loss(model, p, point, example, answer, config)

        own = [(e.x, e.masks, e.label, e.covariates, answers[i]) for i, e in ((i, examples[i]) for i in members)]
        inputs = tuple(torch.stack(values) for values in zip(*own, strict=True))
        for name, value in mapped_gradients(loss, point.trained, inputs).items():
            gradients[name][members] = value
    return gradients


def _loss(model: MultiModalViT, trained: Parameters, point: Point, example: Example, answer: Tensor, config: RunConfig) -> Tensor:
    """One patient's loss; nothing of any other patient is in it.

    Args:
        model: lends the frozen weights.
        trained: the arrays to differentiate by, in the place of the point's.
        point: the round's state.
        example: one patient's views, masks and label.
        answer: of `_teacher_logits`.
        config: classes, temperatures and precision are read.
    """
    device = example.x.device
    with autocast(device, config.training.precision):
        said = functional_call(
            model, {**trained, **point.fixed}, (example.x, example.present.to(device), example.masks, None, example.covariates)
        )
    outputs = StepOutputs(
        logits=said.logits.float().unsqueeze(1),
        patch_logits=said.patch_logits,
        embeddings=said.embedding.unsqueeze(1),
        labels=example.label.view(1),
        classes=len(config.task.classes),
        exclusive=config.task.exclusive,
        teacher_logits=answer,
        teacher_patch_logits=said.patch_logits,
        parameters=trained,
        received=point.received,
        student_temperature=config.objective.student_temperature,
        teacher_temperature=teacher_temperature_now(config, point),
    )
    losses, _ = weighted_losses(point.terms, outputs, point.states)
    return torch.stack(list(losses.values())).sum()


@torch.no_grad()
def _teacher_logits(model: MultiModalViT, point: Point, example: Example, config: RunConfig) -> Tensor:
    """[1, 1, K]: of the patient's first crop, with every modality that they have and nothing masked; [0] where no term asks."""
    device = example.x.device
    if not point.needs_teacher:
        return torch.empty(0, device=device)
    with autocast(device, config.training.precision):
        said = functional_call(model, point.teachers, (example.x[:1], example.whole.to(device), None, None, example.known))
    logits: Tensor = said.logits.float().unsqueeze(1)
    return logits
