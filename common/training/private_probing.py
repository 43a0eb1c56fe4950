"""Private head rounds: the head's own steps of DP-SGD on features, while the backbone and its adapters stay as they are.

The first rounds of `common.training.probing`, with a bounded share for each patient. A patient's features cost one forward
pass; what is noised is the head alone, a few thousand values. N patients, C copies of each (with all modalities, with some
dropped, and, where there are covariates, without any image: see `probing`), E width of their embeddings, Q clinical covariates.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import arrays_sha256
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.objectives.masking import drop_covariates, drop_modalities
from common.objectives.term import weighted_losses
from common.privacy.gradients import Parameters, mapped_gradients
from common.training.forward import embed, forward_batches
from common.training.private_random import own_generator
from common.training.probing import head_outputs
from common.training.round import Point
from common.training.trainable import HEAD

KEPT = 16  # sites whose features are kept in this process: 0.5 MB a hundred patients


class Features(NamedTuple):
    """The backbone's features of a site's patients."""

    embeddings: Tensor  # [N, C, E]
    labels: Tensor  # [N], negative for none
    covariates: Tensor  # [N, C, Q]

    def to(self, device: str) -> "Features":
        """The same elsewhere."""
        return Features(*(part.to(device) for part in self))


_kept: dict[str, Tensor] = {}


def embed_patients(trained: TrainedModel, patients: SiteData) -> Features:
    """The features of every patient; kept for the next head round, which has the same backbone and adapters."""
    model, config = trained.model, trained.config
    below = {name: array for name, array in trained.arrays.items() if not name.startswith(HEAD)}
    settings = (config.model, config.objective.modality_dropout, config.training.precision, config.seed)
    key = f"{patients.key} {arrays_sha256(below)} {model.backbone_sha256} {settings}"
    if key not in _kept:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = _embed(trained, patients)
    images, labels = _kept[key], torch.as_tensor(patients.labels, device=_kept[key].device)
    if not patients.covariates.shape[1]:
        return Features(images, labels, images.new_empty(*images.shape[:2], 0))
    return Features(
        torch.cat([images, torch.zeros_like(images[:, :1])], dim=1), labels, _covariates(patients, config).to(labels.device)
    )


def _covariates(patients: SiteData, config: RunConfig) -> Tensor:
    """[N, 3, Q]: all that is known, less beside the second copy, where each patient's own randomness hides some of it."""
    whole, chance = torch.from_numpy(patients.covariates), config.objective.covariate_dropout
    fewer = [drop_covariates(row, chance, own_generator(config.seed, 1, i)) for i, row in enumerate(torch.split(whole, 1))]
    return torch.stack([whole, torch.cat(fewer), whole], dim=1)


def _embed(trained: TrainedModel, patients: SiteData) -> Tensor:
    """Run every patient through the backbone, from all slices. Which modalities they lose is drawn from their own randomness."""
    config, has = trained.config, torch.from_numpy(patients.present)
    chance = config.objective.modality_dropout
    fewer = [drop_modalities(here, chance, own_generator(config.seed, 0, i)) for i, here in enumerate(torch.split(has, 1))]
    copies = [
        torch.cat(list(forward_batches(trained, patients, embed, present=present.numpy()))) for present in (has, torch.cat(fewer))
    ]
    return torch.stack(copies, dim=1)


def head_gradients(
    model: MultiModalViT, point: Point, features: Features, rows: NDArray[np.int64], config: RunConfig
) -> Parameters:
    """Gradients [n, *shape] of the sampled patients' losses, before clipping; of classification, zeros for one without a label.

    Args:
        model: lends the head's architecture.
        point: of a head round.
        features: of all patients, computed once a round.
        rows: [n], may be empty.
        config: classes and temperatures are read.
    """
    if not len(rows):
        return {name: value.new_zeros((0, *value.shape)) for name, value in point.trained.items()}

    def loss(head: Parameters, patient: tuple[Tensor, ...]) -> Tensor:
        embeddings, label, known = patient
        outputs = head_outputs(
            model, head, embeddings.unsqueeze(1), label.view(1), point.received, config, covariates=known.unsqueeze(1)
        )
        losses, _ = weighted_losses(point.terms, outputs, point.states)
        return torch.stack(list(losses.values())).sum()

    chosen = torch.as_tensor(rows, device=features.labels.device)
    return mapped_gradients(loss, point.trained, tuple(part[chosen] for part in features))
