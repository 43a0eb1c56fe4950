"""The first rounds: fit the head on features, and leave the backbone as it is (LP-FT: Kumar et al., ICLR 2022).

A random head would send noise through the adapters and spoil pre-trained features before it has learned anything. Features need
one forward pass; the head's steps on them cost next to nothing. N patients, E width of their embeddings.
"""

import time

import torch
from torch import Tensor
from torch.func import functional_call

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.objectives.classification import class_balance, classification_loss
from common.objectives.masking import drop_modalities
from common.training.forward import embed, forward_batches
from common.training.trainable import HEAD
from common.training.update import LocalUpdate

# Of each patient: once as it is, else always with modalities dropped, where the run drops any. With two copies, and dropped by a
# chance of 0.3, the head saw one in seven lacking something, and was wrong where much was missing.
COPIES = 8


def probe_round(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig, *, site_seed: int) -> LocalUpdate:
    """Fit the head by classification; every other array, and all of an unlabelled site's, comes back as it was.

    Args:
        model, arrays, patients, config: as in `common.training.local.train_round`.
        site_seed: of the modalities that are dropped.
    """
    began = time.monotonic()
    labelled = patients.select(patients.labelled)
    update = {name: array.copy() for name, array in sorted(arrays.items())}
    loss = 0.0
    if len(labelled):
        embeddings, labels = _embed(TrainedModel(model, arrays, config), labelled, torch.Generator().manual_seed(site_seed))
        head, loss = _fit(model, arrays, embeddings, labels, torch.as_tensor(patients.labels), config)
        update |= head
    metrics = {"classification": loss, "dino": 0.0, "ibot": 0.0, "koleo": 0.0, "loss": loss, "seconds": time.monotonic() - began}
    return LocalUpdate(update, len(patients), len(labelled), metrics)


def _embed(trained: TrainedModel, patients: SiteData, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Embeddings [COPIES N, E] from all slices, and their labels; [N, E] where the run drops no modalities."""
    config, has = trained.config, torch.from_numpy(patients.present)
    copies = [has]
    if config.objective.modality_dropout:  # drawn batch by batch: equal seeds give what they have always given
        batches = torch.split(has, config.evaluation.batch_size)
        copies += [torch.cat([drop_modalities(some, 1.0, generator) for some in batches]) for _ in range(COPIES - 1)]
    embeddings = [found for present in copies for found in forward_batches(trained, patients, embed, present=present.numpy())]
    labels = torch.as_tensor(patients.labels, device=embeddings[0].device)
    return torch.cat(embeddings), labels.repeat(len(copies))


def _fit(
    model: MultiModalViT, arrays: Arrays, embeddings: Tensor, labels: Tensor, site_labels: Tensor, config: RunConfig
) -> tuple[Arrays, float]:
    """AdamW on all embeddings at once. Returns the head's arrays and the last loss."""
    head = {
        name.removeprefix(HEAD): torch.tensor(array, device=embeddings.device, requires_grad=True)
        for name, array in sorted(arrays.items())
        if name.startswith(HEAD)
    }
    optimizer = torch.optim.AdamW(head.values(), lr=config.training.head_learning_rate, weight_decay=config.training.weight_decay)
    classes, objective = len(config.data.classes), config.objective
    balance = class_balance(site_labels, classes, objective.class_balance)
    loss = embeddings.new_zeros(())
    for _ in range(config.training.head_steps):
        scores = functional_call(model.head, head, (embeddings,))[:, :classes] / objective.student_temperature
        loss = classification_loss(scores, labels, balance, objective.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {HEAD + name: value.detach().cpu().numpy().copy() for name, value in head.items()}, float(loss.detach())
