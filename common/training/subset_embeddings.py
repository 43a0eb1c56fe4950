"""Embeddings of patients who lack modalities, each computed once: by patient and subset of modalities.

N patients, C copies of each, M modalities, E width of an embedding.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.embedding import less_mean, projected
from common.models.trained_model import TrainedModel
from common.training.kept import Kept
from common.training.subsets import Subset, embed_alone, forward_subsets
from common.training.trainable import CENTRE, PROJECTION

AHEAD = 16  # subsets of a patient that are computed at once, where later rounds will ask for others than this one


def embed_subsets(trained: TrainedModel, patients: SiteData, copies: NDArray[np.bool_]) -> Tensor:
    """Embeddings [C, N, E] in float32, from all slices, of the patients' images alone; each is computed once (`Kept`).

    Args:
        trained: a model and its arrays.
        patients: N.
        copies: [C, N, M], what the model may use in each copy; of each patient at least one.
    """
    kept = Kept(trained, patients)
    asked = [list(dict.fromkeys(map(tuple, rows))) for rows in copies.transpose(1, 0, 2).tolist()]
    missing = {row: [s for s in subsets if kept.lacks(row, name_of(s))] for row, subsets in enumerate(asked)}
    missing = {row: _ahead(subsets, patients.present[row], trained.config) for row, subsets in missing.items() if subsets}
    missing = {row: [s for s in subsets if kept.lacks(row, name_of(s))] for row, subsets in missing.items()}
    new: dict[int, dict[str, NDArray[np.float32]]] = {}
    for row, subset, one in forward_subsets(trained, patients, missing, embed_alone):
        new.setdefault(row, {})[name_of(subset)] = one.cpu().numpy()
    kept.add(new)
    found = np.stack([[kept.get(n, name_of(subset)) for n, subset in enumerate(map(tuple, copy))] for copy in copies.tolist()])
    return behind_front(trained, torch.from_numpy(found), torch.from_numpy(copies))


def name_of(subset: Subset) -> str:
    """What the store calls it."""
    return "modalities " + "".join("01"[here] for here in subset)


def behind_front(trained: TrainedModel, embeddings: Tensor, present: Tensor) -> Tensor:
    """Embeddings [..., E] behind the model's `Front`; present [..., M]."""
    if CENTRE not in trained.arrays:
        return embeddings
    less = less_mean(embeddings.flatten(0, -2), present.flatten(0, -2), torch.from_numpy(trained.arrays[CENTRE]))
    kept = torch.from_numpy(trained.arrays[PROJECTION]) if PROJECTION in trained.arrays else None
    return projected(less.view_as(embeddings), kept)


def _ahead(subsets: Sequence[Subset], present: NDArray[np.bool_], config: RunConfig) -> list[Subset]:
    """The subsets, and all others of the patient where later rounds will draw them and little is to be computed for each."""
    others = config.training.head_rounds > 1 and config.objective.modality_dropout > 0 and not config.training.head_views
    if not others or not config.model.joint_blocks or 2 ** int(present.sum()) > AHEAD:
        return list(subsets)
    choices = product(*((True, False) if here else (False,) for here in present.tolist()))
    return [subset for subset in choices if any(subset)]
