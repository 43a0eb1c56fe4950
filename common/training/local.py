"""A site's plain round, from global arrays to an update. Sites, the pooled baseline and single hospitals all run it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from common.config.run import RunConfig
from common.data.dataset import Batch, SiteData
from common.models.arrays import Arrays, check_arrays, get_arrays
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.models.without_compiler import without_compiler
from common.objectives.term import StepOutputs
from common.training.centring import centre_round
from common.training.device import and_its_like, autocast, choose_device, place
from common.training.guide import fitted_pooling
from common.training.optimizer import make_optimizer, set_rates
from common.training.plain import PlainGradients, told_terms
from common.training.probing import head_rule
from common.training.replicas import Replicas
from common.training.round import GradientRule, Point, first_point, local_round
from common.training.scaffold import Corrected
from common.training.schedule import place_of
from common.training.site_rank import first_components, whole
from common.training.step import view_outputs
from common.training.trainable import fits_pooling, head_rounds_until, head_waits, is_centre_round, is_head_round
from common.training.update import LocalUpdate
from common.training.views import make_views, take_step


@without_compiler()
def train_round(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    *,
    round_number: int,
    site_seed: int,
    drift: Arrays | None = None,
    progress: Callable[[int, int], None] | None = None,
    rank: int = 0,
    anchor: Arrays | None = None,
) -> LocalUpdate:
    """Train `config.training.local_epochs` epochs from the global arrays.

    Args:
        model: lends its frozen weights; its own trained arrays are neither read nor changed.
        arrays: the global model's.
        patients: the site's that train, labelled or not.
        config: of the run; every site has the same.
        round_number: from 1.
        site_seed: of this site and round; equal seeds give equal bytes on one machine with one number of threads.
        drift: what SCAFFOLD corrects the round by (`common.training.scaffold`).
        progress: called with steps done and steps in all.
        rank: that the site trains of low-rank pairs (`common.training.site_rank`); 0: the run's.
        anchor: what FedProx stays near; None: `arrays`.

    Raises:
        FederationError: arrays that are not this model's.
    """
    check_arrays(arrays, get_arrays(model))
    if is_centre_round(config, round_number):
        return centre_round(TrainedModel(model, arrays, config), patients)
    device = choose_device()
    place(model, device)
    generator = torch.Generator().manual_seed(site_seed)
    head = is_head_round(config, round_number)
    begun = first_components(arrays, 0 if head else rank)
    point = first_point(begun, torch.as_tensor(patients.labels), config, round_number, device)
    if anchor is not None:
        point = replace(point, received={name: torch.tensor(anchor[name], device=device) for name in point.trained})
    own = (
        head_rule(model, arrays, patients, config, generator, head_rounds_until(config, round_number))
        if head
        else view_rule(model, patients, config, generator, place_of(config, round_number).rounds)
    )
    rule: GradientRule = replace(own, steps=0) if head_waits(config, round_number) else own
    if drift:
        rule = Corrected(rule, {name: torch.tensor(array, device=device) for name, array in drift.items()})
    update = local_round(point, rule, patients, config, round_number=round_number, progress=progress)
    fitted = fitted_pooling(TrainedModel(model, arrays, config), patients) if fits_pooling(config, round_number) else {}
    return replace(update, arrays=whole(update.arrays, arrays) | fitted)


def view_rule(
    model: MultiModalViT, patients: SiteData, config: RunConfig, generator: torch.Generator, rounds: int
) -> PlainGradients:
    """The rule of a round on views of the patients, who come in a random order; `rounds`: of the schedule of rates."""
    batches, device = batches_of(patients, config, generator), choose_device()
    replicas = Replicas(model, and_its_like(device))

    def outputs(point: Point) -> StepOutputs:
        batch = next(batches)
        views = make_views(
            batch._replace(x=batch.x.to(device)), config.objective, model.patch_size, generator, thickness=model.thickness
        )
        with autocast(device, config.training.precision):
            return view_outputs(replicas, point, views, batch.labels.to(device), config)

    return PlainGradients(
        steps=config.training.local_epochs * math.ceil(len(patients) / config.training.batch_size),
        outputs=outputs,
        make_optimizer=partial(make_optimizer, config=config),
        set_rates=lambda optimizer, done: set_rates(optimizer, config, done, rounds),
        clip=config.training.gradient_clip,
        precision=config.training.precision,
        summary=_mean,
        told=told_terms(config.objective),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def batches_of(patients: SiteData, config: RunConfig, generator: torch.Generator) -> Iterator[Batch]:
    """Every patient once an epoch, each with some of its slices drawn at random; tumours where masks are the targets."""
    for _ in range(config.training.local_epochs):
        order = torch.randperm(len(patients), generator=generator)
        for chosen in torch.split(order, config.training.batch_size):
            rows, lesions = np.asarray(chosen), config.task.decoder is not None
            yield take_step(patients, rows, config.data, config.training.slices_per_step, generator, lesions=lesions)
