"""Embeddings of masked crops for head rounds, each view of a patient drawn from randomness of its own.

A view depends on the seed of the run, its number and the patient, and on nobody else: the pooled and local baselines see the same
ones, and need not compute them again. N patients, V views, M modalities, E width of an embedding.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import Batch, SiteData
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.forward import forward_batches
from common.training.kept import Kept
from common.training.subset_embeddings import behind_front
from common.training.subsets import embed_alone
from common.training.views import Views, global_views, slices_of_step


def embed_views(trained: TrainedModel, patients: SiteData, numbers: Sequence[int]) -> Tensor:
    """Embeddings [V, N, E] in float32 of the patients' images alone; each is computed once (`Kept`).

    Args:
        trained: a model and its arrays.
        patients: N.
        numbers: [V], of the views, from 0.
    """
    kept, config = Kept(trained, patients), trained.config
    names = [_name(number, config) for number in numbers]
    new: dict[int, dict[str, NDArray[np.float32]]] = {}
    for number, name in zip(numbers, names, strict=True):
        rows = [row for row in range(len(patients)) if kept.lacks(row, name)]
        for row, one in zip(rows, _compute(trained, patients, {row: kept.hashes[row] for row in rows}, number), strict=True):
            new.setdefault(row, {})[name] = one.cpu().numpy()
    kept.add(new)
    views = torch.from_numpy(np.array([[kept.get(row, name) for row in range(len(patients))] for name in names]))
    parts = views.unflatten(-1, (-1, trained.model.width))  # CLS, then the modalities: an absent one's part is all zeros
    return behind_front(trained, views, (parts[..., 1:, :] != 0).any(-1))


def _name(number: int, config: RunConfig) -> str:
    """What the store calls it: all that decides how the view is drawn."""
    drawn = hashlib.sha256(f"{config.seed} {config.objective}".encode()).hexdigest()[:16]
    return f"view {number} {drawn}"


def _compute(trained: TrainedModel, patients: SiteData, hashes: dict[int, str], number: int) -> list[Tensor]:
    """One view of some patients, by row, before the mean features are taken off; each of them has equally many slices."""
    config = trained.config
    slices = 1 + number % patients.images.shape[1]

    def of_batch(model: MultiModalViT, x: Tensor, present: Tensor, covariates: Tensor, chosen: list[int]) -> Tensor:
        drawn = []
        for i, row in enumerate(chosen):
            generator = _own_generator(config.seed, number, hashes[row])
            whole = Batch(x[i : i + 1], present[i : i + 1].cpu(), torch.empty(0), covariates[i : i + 1].cpu())
            batch = slices_of_step(whole, config.data, slices, generator)
            drawn.append(global_views(batch, 1, config.objective, model.patch_size, generator, thickness=model.thickness))
        views = _together(drawn)
        return embed_alone(model, model.alone(views.x, views.present, views.masks, hidden=views.hidden), views.present)

    found = forward_batches(trained, patients, of_batch, rows=np.array(list(hashes), np.int64), asked=True)
    return [one for batch in found for one in batch]


def _together(views: Sequence[Views]) -> Views:
    """One view of each of several patients."""
    parts = ("x", "present", "masks", "covariates", "hidden")
    x, present, masks, covariates, hidden = (torch.cat([getattr(view, part) for view in views]) for part in parts)
    return Views(x, present, masks, covariates, hidden=hidden)


def _own_generator(seed: int, number: int, patient: str) -> torch.Generator:
    """For one view of one patient; the same in every run of one seed, whichever site or baseline asks."""
    digest = hashlib.sha256(f"view {seed} {number} {patient}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
