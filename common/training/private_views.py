"""One gradient for each patient, from the patient's own views.

What a patient adds to a step is bounded by clipping, so their views must be their own: their randomness comes from the step and
their row, not from a stream that they share with the rest of the sample (taking them out would change the others' crops, and so
their gradients). V views, S slices, M modalities, Q clinical covariates, K prototypes, n patients of a sample.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from common.config.axes import mirrored, on_volumes
from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.multimodal import MultiModalViT, Output
from common.models.per_patient import NoPatientRuleError, PerPatient
from common.objectives.term import StepOutputs, weighted_losses
from common.privacy.gradients import Parameters, batched_gradients, looped_gradients
from common.training.device import autocast, choose_device
from common.training.private_random import own_generator
from common.training.round import Point
from common.training.step import teacher_temperature_now
from common.training.views import Views, make_views

# Tokens times width of the patients of one pass: of each, a block that gradients flow through keeps some 80 bytes.
PIECE = {"cpu": 2**20, "cuda": 2**23}


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
    batch, mirrors, device = patients.take([row], slices=slices[None].numpy()), mirrored(config.data), choose_device()
    some = batch._replace(x=batch.x.to(device), mirrors=None if all(mirrors) else torch.tensor(mirrors)[None, slices])
    views, _ = make_views(some, config.objective, model.patch_size, generator, thickness=model.thickness)
    assert views.masks is not None
    label, known = batch.labels[0].to(device), batch.covariates.to(device)
    return Example(views.x, views.present.cpu(), views.masks, batch.present, label, views.covariates, known)


def patient_gradients(model: MultiModalViT, point: Point, examples: list[Example], config: RunConfig) -> Parameters:
    """Gradients [n, *shape] of each patient's loss, before clipping.

    All patients at once, where every layer that holds a trained array has a rule for it (`common.models.per_patient`), and else
    one after the other; `privacy.gradients` may ask for the latter.
    """
    if config.privacy.gradients == "loop" or not examples:
        return _looped(model, point, examples, config)
    try:
        return _batched(model, point, examples, config)
    except NoPatientRuleError:
        return _looped(model, point, examples, config)


def _looped(model: MultiModalViT, point: Point, examples: list[Example], config: RunConfig) -> Parameters:
    """One patient's graph at a time."""

    def loss(trained: Parameters, i: int) -> Tensor:
        arrays, some = {**trained, **point.fixed}, examples[i : i + 1]
        said, [answer] = _said(model, arrays, _views(some), config), _answers(model, point, some, config)
        return _loss(point, config, trained, said, examples[i].label, answer)

    return looped_gradients(loss, point.trained, len(examples))


def _batched(model: MultiModalViT, point: Point, examples: list[Example], config: RunConfig) -> Parameters:
    """Piece by piece of the patients, all views of a piece that have equally many modalities in one pass."""
    gradients = {name: value.new_zeros((len(examples), *value.shape)) for name, value in point.trained.items()}
    shared = {name: nn.Parameter(value, requires_grad=False) for name, value in point.fixed.items()}
    for piece in _pieces(examples, model.width):
        some = examples[piece]
        labels, answers = torch.stack([example.label for example in some]), _answers(model, point, some, config)

        def losses(own: Parameters, some: list[Example] = some, labels: Tensor = labels, answers: Tensor = answers) -> Tensor:
            said = _said_by_each(model, own, shared, some, config)
            axes = Output._make((0, 0, None, None))  # patch logits are of no patch: nothing reads them here
            of_each = vmap(partial(_loss, point, config), in_dims=(0, axes, 0, 0))
            found: Tensor = of_each(own, said, labels, answers)
            return found

        for name, value in batched_gradients(losses, point.trained, len(some)).items():
            gradients[name][piece] = value
    return gradients


def _pieces(examples: list[Example], width: int) -> Iterator[slice]:
    """Consecutive patients of a `PIECE` together, or one who has more."""
    begin, held, most = 0, 0, PIECE[examples[0].x.device.type]
    for i, example in enumerate(examples):
        values = int(example.present.sum()) * example.masks.shape[1] * example.masks.shape[3] * width
        if held and held + values > most:
            yield slice(begin, i)
            begin, held = i, 0
        held += values
    yield slice(begin, len(examples))


def _said_by_each(
    model: MultiModalViT, own: Parameters, shared: Mapping[str, nn.Parameter], some: list[Example], config: RunConfig
) -> Output:
    """The student's answers to all views: embeddings [n, V, E] and logits [n, V, K].

    Views go together that have equally many modalities, whichever these are: so a view has as many rows as any other wherever
    the model looks. Each brings a copy of its patient's own arrays.

    Args:
        model: lends the frozen weights.
        own: [n, *shape], a copy of the trained arrays for each patient.
        shared: the other arrays that travel.
        some: n patients.
        config: the precision is read.
    """
    views = _views(some)
    counts, owner = views.present.sum(1), torch.arange(len(some)).repeat_interleave(len(some[0].x))
    rows = [(counts == count).nonzero().squeeze(1) for count in counts.unique()]
    found = []
    for chosen in rows:
        copies = {name: PerPatient.of(value[owner[chosen]]) for name, value in own.items()}
        found.append(_said(model, {**copies, **shared}, _chosen(views, chosen), config))
    order = torch.cat(rows).argsort()
    logits, embedding = (torch.cat(parts)[order] for parts in zip(*((one.logits, one.embedding) for one in found), strict=True))
    patients = (len(some), -1)
    return found[0]._replace(logits=logits.unflatten(0, patients), embedding=embedding.unflatten(0, patients))


def _views(some: list[Example]) -> Views:
    """All views of some patients, patient after patient."""
    parts = zip(*((e.x, e.present, e.masks, e.covariates) for e in some), strict=True)
    return Views(*(torch.cat(part) for part in parts))


def _chosen(views: Views, rows: Tensor) -> Views:
    """Those of these numbers."""
    assert views.masks is not None
    return Views(views.x[rows], views.present[rows], views.masks[rows], views.covariates[rows])


def _said(model: MultiModalViT, arrays: Mapping[str, Tensor], views: Views, config: RunConfig) -> Output:
    """The student's embeddings [V, E] and logits [V, K] in float32, and no patch logits."""
    device = views.x.device
    with autocast(device, config.training.precision):
        given = (views.x, views.present.to(device), views.masks, None, views.covariates)
        said: Output = functional_call(model, dict(arrays), given)
    return said._replace(logits=said.logits.float())


def _loss(point: Point, config: RunConfig, trained: Parameters, said: Output, label: Tensor, answer: Tensor) -> Tensor:
    """One patient's loss; nothing of any other patient is in it.

    Args:
        point: the round's state.
        config: classes and temperatures are read.
        trained: the arrays to differentiate by, in the place of the point's.
        said: the student's embeddings [V, E] and logits [V, K] of their views.
        label: scalar.
        answer: of the teacher, as `_answers` gives it.
    """
    outputs = StepOutputs(
        logits=said.logits.unsqueeze(1),
        patch_logits=said.patch_logits,
        embeddings=said.embedding.unsqueeze(1),
        labels=label.view(1),
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
def _answers(model: MultiModalViT, point: Point, some: list[Example], config: RunConfig) -> Tensor:
    """[n, 1, 1, K]: the teacher's of each patient's first crop, with every modality that they have and nothing masked.

    [n, 0] where no term asks.
    """
    device = some[0].x.device
    if not point.needs_teacher:
        return torch.empty(len(some), 0, device=device)
    x, whole, known = (torch.cat(values) for values in zip(*((e.x[:1], e.whole, e.known) for e in some), strict=True))
    with autocast(device, config.training.precision):
        said: Output = functional_call(model, point.teachers, (x, whole.to(device), None, None, known))
    return said.logits.float().view(len(some), 1, 1, -1)
