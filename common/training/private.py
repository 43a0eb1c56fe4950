"""One site's round of private training: DP-SGD whose example is the patient (Abadi et al., CCS 2016), state in, state out.

What a patient adds to a step is bounded by clipping, so his views must be his own: their randomness comes from the step and his
row, not from a stream that he shares with the rest of the sample (taking him out would change the others' crops, and so their
gradients). Head rounds (`training.head_rounds`) take their steps on features.
V views, S slices, M modalities, K prototypes, n patients of a sample.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays, check_arrays, get_arrays
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.objectives.consistency import consistency_loss, labelled_loss
from common.objectives.teacher import update_teacher
from common.privacy.charge import Charge
from common.privacy.gradients import Parameters, looped_gradients, mapped_gradients
from common.privacy.noise import system_sample
from common.privacy.optimizer import SystemNoiseOptimizer
from common.training.device import autocast, choose_device, place
from common.training.optimizer import make_optimizer, set_rates
from common.training.private_probing import embed_patients, head_gradients
from common.training.private_random import own_generator
from common.training.schedule import cosine, teacher_temperature
from common.training.trainable import is_head_round, trained_names
from common.training.update import LocalUpdate
from common.training.views import make_views


class Example(NamedTuple):
    """One patient in one step: all that his loss needs besides the parameters."""

    x: Tensor  # [V, S, M, H, W]
    present: Tensor  # [V, M]
    masks: Tensor  # [V, S, M, P]
    whole: Tensor  # [1, M], what he has: the teacher sees it all
    label: Tensor  # scalar, negative for none


def private_round(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    *,
    round_number: int,
    site_seed: int,
    charge: Callable[[Charge], None],
    progress: Callable[[int, int], None] | None = None,
) -> LocalUpdate:
    """Take `config.privacy.steps` private steps from the global arrays.

    Args:
        model, arrays, patients, round_number, progress: as in `common.training.local.train_round`.
        site_seed: of the views. Sampling and noise come from the operating system.
        charge: told what the round will cost before any patient is touched; raises where the budget refuses.

    Returns:
        The update. It alone is private: the counts beside it are not, and no loss is told.
    """
    check_arrays(arrays, get_arrays(model))
    privacy, began = config.privacy, time.monotonic()
    charge(Charge(privacy.noise_multiplier, privacy.sample_rate, privacy.steps))
    device = choose_device()
    place(model, device)
    values = {name: torch.tensor(array, device=device) for name, array in sorted(arrays.items())}
    student = {name: values[name].requires_grad_() for name in trained_names(values, config, round_number)}
    fixed = {name: value for name, value in values.items() if name not in student}
    teacher = {name: value.detach().clone() for name, value in student.items()}
    inner = make_optimizer(student, config)
    optimizer = SystemNoiseOptimizer(
        inner,
        noise_multiplier=privacy.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_patients=privacy.sample_rate * len(patients),
    )
    features = None
    if is_head_round(config, round_number):
        features = embed_patients(TrainedModel(model, arrays, config), patients)
    for step in range(privacy.steps):
        done = (round_number - 1 + step / privacy.steps) / config.federation.rounds
        set_rates(inner, config, done + 1 / (privacy.steps * config.federation.rounds))
        rows = system_sample(len(patients), privacy.sample_rate)
        if features is None:
            examples = [draw_example(model, patients, int(row), config, (site_seed, step)) for row in rows]
            gradients = patient_gradients(model, student, teacher | fixed, examples, config, done)
        else:
            gradients = head_gradients(model, student, features, rows, config)
        optimizer.take(student, gradients)
        teacher = update_teacher(teacher, student, cosine(config.objective.teacher_momentum, 1.0, done))
        if progress is not None:
            progress(step + 1, privacy.steps)
    update = {name: value.detach().cpu().float().numpy().copy() for name, value in sorted((student | fixed).items())}
    labelled = int((patients.labels >= 0).sum())
    return LocalUpdate(update, len(patients), labelled, {"seconds": time.monotonic() - began})


def draw_example(model: MultiModalViT, patients: SiteData, row: int, config: RunConfig, seed: tuple[int, int]) -> Example:
    """Cut one patient's slices and views, from randomness of his own."""
    generator = own_generator(*seed, row)
    x, present, label = patients.take([row])
    slices = torch.randperm(x.shape[1], generator=generator)[: config.training.slices_per_step]
    device = choose_device()
    views, _ = make_views(x[:, slices].to(device), present, config.objective, model.patch_size, generator)
    assert views.masks is not None
    return Example(views.x, views.present.cpu(), views.masks, present, label[0].to(device))


def patient_gradients(
    model: MultiModalViT, student: Parameters, teacher: Parameters, examples: list[Example], config: RunConfig, done: float
) -> Parameters:
    """Gradients [n, *shape] of each patient's loss, before clipping.

    Args:
        teacher: its arrays, and those that the round does not train.
        done: part of the run that is done.
    """
    method = config.privacy.gradients
    if method == "auto":
        method = "vmap" if next(iter(student.values())).is_cuda else "loop"
    targets = [_targets(model, teacher, example, config, done) for example in examples]
    fixed = {name: value for name, value in teacher.items() if name not in student}
    if method == "loop" or not examples:
        return looped_gradients(
            lambda p, i: _loss(model, {**p, **fixed}, examples[i], targets[i], config), student, len(examples)
        )
    return _mapped(model, student, fixed, examples, targets, config)


def _mapped(
    model: MultiModalViT,
    student: Parameters,
    fixed: Parameters,
    examples: list[Example],
    targets: list[Tensor],
    config: RunConfig,
) -> Parameters:
    """By vmap over the patients whose views have the same modalities: theirs are the same operations."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(tuple(example.present.flatten().tolist()), []).append(i)
    gradients = {name: value.new_zeros((len(examples), *value.shape)) for name, value in student.items()}
    for members in groups.values():
        first = examples[members[0]]

        def loss(p: Parameters, patient: tuple[Tensor, ...], first: Example = first) -> Tensor:
            x, masks, label, target = patient
            return _loss(model, {**p, **fixed}, Example(x, first.present, masks, first.whole, label), target, config)

        inputs = tuple(
            torch.stack(values)
            for values in zip(*[(examples[i].x, examples[i].masks, examples[i].label, targets[i]) for i in members], strict=True)
        )
        for name, value in mapped_gradients(loss, student, inputs).items():
            gradients[name][members] = value
    return gradients


def _loss(model: MultiModalViT, parameters: Parameters, example: Example, target: Tensor, config: RunConfig) -> Tensor:
    """One patient's loss; nothing of any other patient is in it."""
    objective, device = config.objective, example.x.device
    with autocast(device, config.training.precision):
        logits = functional_call(model, dict(parameters), (example.x, example.present.to(device), example.masks)).logits.float()
    temperature = objective.student_temperature
    labelled = labelled_loss(logits, example.label, len(config.data.classes), temperature, objective.label_smoothing)
    agreed = consistency_loss(logits, target, temperature)
    total: Tensor = objective.classification * labelled + config.privacy.consistency * agreed
    return total


@torch.no_grad()
def _targets(model: MultiModalViT, teacher: Parameters, example: Example, config: RunConfig, done: float) -> Tensor:
    """[K]: what the teacher says of the patient's first crop, with every modality that he has and nothing masked."""
    device, objective = example.x.device, config.objective
    with autocast(device, config.training.precision):
        logits = functional_call(model, dict(teacher), (example.x[:1], example.whole.to(device))).logits.float()
    temperature = teacher_temperature(objective.teacher_temperature_start, objective.teacher_temperature, done)
    targets: Tensor = (logits[0] / temperature).softmax(-1)
    return targets
