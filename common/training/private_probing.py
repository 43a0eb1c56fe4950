"""Private head rounds: the head's own steps of DP-SGD on features, while the backbone and its adapters stay as they are.

The first rounds of `common.training.probing`, with a bounded share for each patient. His features cost one forward pass; what is
noised is the head alone, a few thousand values. N patients, C copies of each (as he is, and with modalities dropped), E width of
their embeddings.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays, arrays_sha256
from common.models.multimodal import MultiModalViT
from common.objectives.masking import drop_modalities
from common.objectives.term import weighted_losses
from common.privacy.gradients import Parameters, mapped_gradients
from common.training.device import autocast, choose_device
from common.training.private_random import own_generator
from common.training.probing import head_outputs
from common.training.round import Point
from common.training.trainable import HEAD

KEPT = 16  # sites whose features are kept in this process: 0.5 MB a hundred patients


class Features(NamedTuple):
    """What the backbone says of a site's patients."""

    embeddings: Tensor  # [N, C, E]
    labels: Tensor  # [N], negative for none

    def to(self, device: str) -> "Features":
        """The same elsewhere."""
        return Features(self.embeddings.to(device), self.labels.to(device))


_kept: dict[str, Tensor] = {}


def embed_patients(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig) -> Features:
    """The features of every patient; kept for the next head round, which has the same backbone and adapters."""
    below = {name: array for name, array in arrays.items() if not name.startswith(HEAD)}
    settings = (config.model, config.objective.modality_dropout, config.training.precision, config.seed)
    key = f"{patients.key} {arrays_sha256(below)} {model.backbone_sha256} {settings}"
    if key not in _kept:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = _embed(model, arrays, patients, config)
    return Features(_kept[key], torch.as_tensor(patients.labels, device=_kept[key].device))


@torch.no_grad()
def _embed(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig) -> Tensor:
    """Run every patient through the backbone, from all slices. Which modalities he loses is drawn from his own randomness."""
    device = choose_device()
    values = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
    embeddings = []
    for start in range(0, len(patients), config.evaluation.batch_size):
        x, present, _ = patients.take(np.arange(start, min(start + config.evaluation.batch_size, len(patients))))
        chance = config.objective.modality_dropout
        fewer = [
            drop_modalities(here, chance, own_generator(config.seed, 0, start + i))
            for i, here in enumerate(torch.split(present, 1))
        ]
        with autocast(device, config.training.precision):
            copies = [
                functional_call(model, values, (x.to(device), here.to(device))).embedding.float()
                for here in (present, torch.cat(fewer))
            ]
        embeddings.append(torch.stack(copies, dim=1))
    return torch.cat(embeddings)


def head_gradients(
    model: MultiModalViT, point: Point, features: Features, rows: NDArray[np.int64], config: RunConfig
) -> Parameters:
    """Gradients [n, *shape] of the sampled patients' losses, before clipping; of classification, zeros for one without a label.

    Args:
        point: of a head round.
        rows: [n], may be empty.
    """
    if not len(rows):
        return {name: value.new_zeros((0, *value.shape)) for name, value in point.trained.items()}

    def loss(head: Parameters, patient: tuple[Tensor, ...]) -> Tensor:
        embeddings, label = patient
        outputs = head_outputs(model, head, embeddings.unsqueeze(1), label.view(1), point.received, config)
        losses, _ = weighted_losses(point.terms, outputs, point.states)
        return torch.stack(list(losses.values())).sum()

    chosen = torch.as_tensor(rows, device=features.labels.device)
    return mapped_gradients(loss, point.trained, (features.embeddings[chosen], features.labels[chosen]))
