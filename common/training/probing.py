"""The first rounds: fit the head on features, and leave the backbone as it is (LP-FT: Kumar et al., ICLR 2022).

A random head would send noise through the adapters and spoil pre-trained features before it has learned anything. Features need
one forward pass, which later head rounds need not repeat (`common.training.kept`); the head's steps on them cost next to nothing.

Where the run takes clinical covariates, one more copy of each patient has no image at all (an embedding of zeros) and all that is
known of them. Beside images the head soon answers right for all patients that it trains on, and then has nothing left to learn
from an age; alone, ages are what they are, a logistic regression, and at another hospital they count as much as they should.
N patients, E width of their embeddings, Q clinical covariates.
"""

from collections.abc import Mapping
from functools import cache, partial

import torch
from torch import Tensor
from torch.func import functional_call

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.objectives.masking import drop_covariates, drop_modalities
from common.objectives.term import StepOutputs
from common.training.device import choose_device
from common.training.plain import PlainGradients, told_terms
from common.training.round import Parameters, Point
from common.training.subset_embeddings import embed_subsets
from common.training.trainable import HEAD
from common.training.view_embeddings import embed_views

# Of each patient: once as it is, else always with modalities dropped, where the run drops any. With two copies, and dropped by a
# chance of 0.3, the head saw one in seven lacking something, and was wrong where much was missing.
COPIES = 8
MOMENTUM = 0.9


def head_rule(
    model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig, generator: torch.Generator, number: int
) -> PlainGradients:
    """The rule of a head round: descent on the features of all labelled patients at once; an unlabelled site takes no step.

    Args:
        model: lends its frozen weights.
        arrays: the global model's.
        patients: the site's that train.
        config: `objective`, `training`, `task` and `evaluation.batch_size` are read.
        generator: draws the modalities that are dropped, and in each step the covariates.
        number: of the head round, from 1, among those that train.
    """
    labelled = patients.select(patients.labelled)
    covariates, chance = torch.from_numpy(labelled.covariates), config.objective.covariate_dropout

    @cache
    def features() -> tuple[Tensor, Tensor]:
        trained = TrainedModel(model, arrays, config)
        if config.training.head_views:
            images, labels = _embed_views(trained, labelled, number)
        else:
            images, labels = _embed(trained, labelled, generator)
        return _with_covariates_alone(images, labels, labelled)

    def outputs(point: Point) -> StepOutputs:
        embeddings, labels = features()
        known = _known(covariates, len(labels) // len(labelled), chance, generator).to(labels.device)
        return head_outputs(
            model, point.trained, embeddings.unsqueeze(0), labels, point.received, config, covariates=known.unsqueeze(0)
        )

    return PlainGradients(
        steps=config.training.head_steps if len(labelled) else 0,
        outputs=outputs,
        make_optimizer=partial(_optimizer, config=config),
        set_rates=lambda optimizer, done: None,
        clip=0.0,
        precision="fp32",
        summary=lambda losses: losses[-1] if losses else 0.0,
        told=told_terms(config.objective),
    )


def head_outputs(
    model: MultiModalViT,
    head: Mapping[str, Tensor],
    embeddings: Tensor,
    labels: Tensor,
    received: Mapping[str, Tensor],
    config: RunConfig,
    *,
    covariates: Tensor | None = None,
) -> StepOutputs:
    """The head's outputs for features, for the terms that run on them.

    Args:
        model: lends the head's architecture.
        head: the head's arrays by their full names.
        embeddings: [V, N, E], copies of each patient in the place of views.
        labels: [N].
        received: the head's arrays as the round began with them.
        config: classes and temperatures are read.
        covariates: [V, N, Q], NaN where one is missing or hidden; None: nothing is known.
    """
    own = {name.removeprefix(HEAD): value for name, value in head.items()}
    known = None if covariates is None else covariates.flatten(0, 1)
    logits = functional_call(model.head, own, (embeddings.flatten(0, 1), known)).unflatten(0, embeddings.shape[:2])
    return StepOutputs(
        logits=logits,
        patch_logits=logits.new_zeros(0, logits.shape[-1]),
        embeddings=embeddings,
        labels=labels,
        classes=len(config.task.classes),
        exclusive=config.task.exclusive,
        teacher_logits=logits.new_zeros(0, *logits.shape[1:]),
        teacher_patch_logits=logits.new_zeros(0, logits.shape[-1]),
        parameters=head,
        received=received,
        student_temperature=config.objective.student_temperature,
        teacher_temperature=config.objective.teacher_temperature,
    )


def _optimizer(head: Parameters, config: RunConfig) -> torch.optim.Optimizer:
    """One rate throughout: a head round is a fit of its own."""
    if config.training.head_optimizer == "sgd":
        return torch.optim.SGD(head.values(), lr=config.training.head_learning_rate, momentum=MOMENTUM)
    return torch.optim.AdamW(head.values(), lr=config.training.head_learning_rate, weight_decay=config.training.weight_decay)


def _embed(trained: TrainedModel, patients: SiteData, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Embeddings [COPIES N, E] from all slices, and their labels; [N, E] where the run drops no modalities.

    Where there are covariates N rows of zeros follow.
    """
    config, has = trained.config, torch.from_numpy(patients.present)
    copies = [has]
    if config.objective.modality_dropout:  # drawn batch by batch: equal seeds give what they have always given
        batches = torch.split(has, config.evaluation.batch_size)
        copies += [torch.cat([drop_modalities(some, 1.0, generator) for some in batches]) for _ in range(COPIES - 1)]
    embeddings = embed_subsets(trained, patients, torch.stack(copies).numpy()).to(choose_device())
    return embeddings.flatten(0, 1), torch.as_tensor(patients.labels, device=embeddings.device).repeat(len(copies))


def _embed_views(trained: TrainedModel, patients: SiteData, number: int) -> tuple[Tensor, Tensor]:
    """Embeddings [(1 + V) N, E] of the patients as they are and of V views each, and their labels.

    A head fitted to whole images alone learns what a crop, a mask or a missing modality takes away: on phantoms views raised the
    external AUROC by 0.07 (docs/results.md). They are the global views of the tuning rounds, new ones in each
    head round: kept ones from earlier rounds in their place taught less (docs/results.md).

    Args:
        trained: a model and its arrays.
        patients: N, labelled.
        number: of the head round, from 1, among those that train.
    """
    views = trained.config.training.head_views
    whole = embed_subsets(trained, patients, patients.present[None])
    drawn = embed_views(trained, patients, range(views * (number - 1), views * number))
    embeddings = torch.cat([whole, drawn]).to(choose_device())
    return embeddings.flatten(0, 1), torch.as_tensor(patients.labels, device=embeddings.device).repeat(len(embeddings))


def _with_covariates_alone(images: Tensor, labels: Tensor, patients: SiteData) -> tuple[Tensor, Tensor]:
    """One more copy of each patient, without an image, where the run has covariates."""
    if not patients.covariates.shape[1]:
        return images, labels
    rows = len(patients)
    return torch.cat([images, torch.zeros_like(images[:rows])]), torch.cat([labels, labels[:rows]])


def _known(covariates: Tensor, copies: int, chance: float, generator: torch.Generator) -> Tensor:
    """[copies N, Q]: some hidden beside images, all known in the last copy, which has none."""
    if not covariates.shape[1]:
        return covariates.repeat(copies, 1)
    return torch.cat([drop_covariates(covariates.repeat(copies - 1, 1), chance, generator), covariates])
