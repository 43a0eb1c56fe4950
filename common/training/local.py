"""One site's round of training: state in, state out. A site, the pooled baseline and a hospital alone all run this."""

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays, check_arrays, get_arrays
from common.models.multimodal import MultiModalViT
from common.objectives.classification import class_balance
from common.objectives.teacher import update_teacher
from common.training.device import autocast, choose_device, place
from common.training.optimizer import make_optimizer, set_rates
from common.training.probing import probe_round
from common.training.schedule import cosine, teacher_temperature
from common.training.step import Centers, batch_loss
from common.training.trainable import is_head_round, trained_names
from common.training.update import LocalUpdate
from common.training.views import make_views


def train_round(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    *,
    round_number: int,
    site_seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> LocalUpdate:
    """Train `config.training.local_epochs` epochs from the global arrays.

    Args:
        model: lends its frozen weights; its own trained arrays are neither read nor changed.
        arrays: the global model's.
        round_number: from 1.
        site_seed: of this site and round; equal seeds give equal bytes on one machine with one number of threads.
        progress: called with steps done and steps in all.

    Raises:
        FederationError: arrays that are not this model's.
    """
    check_arrays(arrays, get_arrays(model))
    if is_head_round(config, round_number):
        return probe_round(model, arrays, patients, config, site_seed=site_seed)
    began = time.monotonic()
    device = choose_device()
    place(model, device)
    generator = torch.Generator().manual_seed(site_seed)
    student = {name: torch.tensor(array, device=device) for name, array in sorted(arrays.items())}
    trained = {name: student[name].requires_grad_() for name in trained_names(student, config, round_number)}
    teacher = {name: value.detach().clone() for name, value in student.items()}
    optimizer = make_optimizer(trained, config)
    balance = class_balance(torch.as_tensor(patients.labels), len(config.task.classes), config.objective.class_balance)
    centers, sums = Centers(), dict.fromkeys(("classification", "dino", "ibot", "koleo"), 0.0)
    steps = config.training.local_epochs * math.ceil(len(patients) / config.training.batch_size)
    for step, (x, present, labels) in enumerate(_batches(patients, config, generator)):
        done = (round_number - 1 + step / steps) / config.federation.rounds
        set_rates(optimizer, config, done + 1 / (steps * config.federation.rounds))
        views = make_views(x.to(device), present, config.objective, model.patch_size, generator)
        objective = config.objective
        temperature = teacher_temperature(objective.teacher_temperature_start, objective.teacher_temperature, done)
        with autocast(device, config.training.precision):
            terms, centers = batch_loss(
                model, student, teacher, views, labels.to(device), balance, centers, objective, temperature
            )
        _update(optimizer, torch.stack(list(terms.values())).sum(), config.training.gradient_clip)
        teacher = update_teacher(teacher, student, cosine(objective.teacher_momentum, 1.0, done))
        sums = {name: total + (float(terms[name].detach()) if name in terms else 0.0) for name, total in sums.items()}
        if progress is not None:
            progress(step + 1, steps)
    metrics = {name: total / steps for name, total in sums.items()}
    metrics |= {"loss": sum(metrics.values()), "seconds": time.monotonic() - began}
    update = {name: value.detach().cpu().float().numpy().copy() for name, value in sorted(student.items())}
    return LocalUpdate(update, len(patients), int((patients.labels >= 0).sum()), metrics)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, clip: float) -> None:
    """One step of the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if clip:
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def _batches(patients: SiteData, config: RunConfig, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Every patient once an epoch, each with some of its slices drawn at random."""
    for _ in range(config.training.local_epochs):
        order = torch.randperm(len(patients), generator=generator)
        for chosen in torch.split(order, config.training.batch_size):
            x, present, labels = patients.take(np.asarray(chosen))
            take = min(config.training.slices_per_step, x.shape[1])
            slices = torch.rand(x.shape[:2], generator=generator).argsort(1)[:, :take]
            yield x[torch.arange(len(x)).unsqueeze(1), slices], present, labels
