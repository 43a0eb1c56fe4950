"""Patients asked with several subsets of their modalities: the blocks below the meeting of the modalities run once for all.

The first blocks see each modality by itself (`model.joint_blocks`), so what is left out is left out above them, and the numbers
are the same. M modalities, B patients of a batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.data.dataset import SiteData
from common.models.embedding import patient_embedding
from common.models.multimodal import Alone, MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.forward import forward_batches

Subset = tuple[bool, ...]  # [M]
OfSubset = Callable[[MultiModalViT, Alone, Tensor, Tensor], Tensor]


def forward_subsets(
    trained: TrainedModel,
    patients: SiteData,
    wanted: Mapping[int, Sequence[Subset]],
    function: OfSubset,
    *,
    slices: Sequence[int] | None = None,
    known: Alone | None = None,
) -> Iterator[tuple[int, Subset, Tensor]]:
    """What `function` makes of each wanted subset of each row, with the row and the subset, batch by batch.

    Args:
        trained: a model and its arrays.
        patients: of whom the rows are.
        wanted: by row, subsets of the modalities that the patient has.
        function: of the model with the trained arrays inside, what comes before the modalities meet, present [B, M] and
            covariates [B, Q], to B results.
        slices: those that are looked at; None: all.
        known: `alone` of all the patients, from all slices (`common.training.below`), where it is known.
    """
    rows = [row for row, subsets in wanted.items() if len(subsets)]

    def of_batch(
        model: MultiModalViT, x: Tensor, present: Tensor, covariates: Tensor, batch: list[int]
    ) -> list[tuple[int, Subset, Tensor]]:
        if known is None:
            alone = model.alone(x if slices is None else x[:, slices], present)
        else:
            alone = known.take(batch) if slices is None else known.take(batch).some_slices(slices)
        found = list[tuple[int, Subset, Tensor]]()
        for turn in range(max(len(wanted[row]) for row in batch)):
            some = [i for i, row in enumerate(batch) if len(wanted[row]) > turn]
            use = [wanted[batch[i]][turn] for i in some]
            answers = function(model, alone.take(some), torch.tensor(use, device=x.device), covariates[some])
            found += [(batch[i], subset, answer) for i, subset, answer in zip(some, use, answers, strict=True)]
        return found

    for found in forward_batches(trained, patients, of_batch, rows=np.array(rows, np.int64), asked=True):
        yield from found


def embed_alone(model: MultiModalViT, alone: Alone, present: Tensor, _: Tensor | None = None) -> Tensor:
    """The patients' embeddings [B, E] in float32, of their images alone, before the mean features are taken off."""
    cls, patches = model.together(alone, present)
    return patient_embedding(cls, patches, present, model.token_weights(patches)).float()
