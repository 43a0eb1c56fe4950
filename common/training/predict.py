"""Class probabilities of patients, and frozen features for the linear probe.

N patients, B of a batch, S slices, M modalities, C classes, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.multimodal import Alone, MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.below import apart_above
from common.training.forward import forward_batches
from common.training.subsets import Subset, forward_subsets


def predict(
    trained: TrainedModel, patients: SiteData, *, present: NDArray[np.bool_] | None = None, alone: Alone | None = None
) -> NDArray[np.float64]:
    """The task's probabilities of every patient, from all slices and all present modalities.

    Args:
        trained: a model and its arrays.
        patients: N, with M modalities.
        present: [N, M], to leave out modalities that patients do have; None: as they are.
        alone: of these patients (`common.training.below`), where it is known.

    Returns:
        [N, C]; of classes that exclude each other rows add up to one.
    """
    classes, temperature = len(trained.config.task.classes), trained.config.objective.student_temperature
    use = None if present is None else np.logical_and(patients.present, present)

    def logits(model: MultiModalViT, x: Tensor, here: Tensor, covariates: Tensor) -> Tensor:
        cosines: Tensor = (
            model(x, here, covariates=covariates).logits
            if alone is None
            else model.head(model.embed(*model.together(alone, here), here), covariates)
        )
        return cosines[:, :classes].double() / temperature

    rows = [trained.config.task.probabilities(found).cpu() for found in forward_batches(trained, patients, logits, present=use)]
    return np.asarray(torch.cat(rows))


def predict_subsets(
    trained: TrainedModel, patients: SiteData, wanted: Mapping[int, Sequence[Subset]]
) -> Iterator[tuple[int, Subset, NDArray[np.float64]]]:
    """Class probabilities [C] of patients as if they had some of their modalities only; to rounding those that `predict` gives.

    Args:
        trained: a model and its arrays.
        patients: of whom the rows are.
        wanted: by row, subsets of the modalities that the patient has.

    Yields:
        Row, subset, probabilities.
    """
    classes, temperature = len(trained.config.task.classes), trained.config.objective.student_temperature

    def probabilities(model: MultiModalViT, alone: Alone, present: Tensor, covariates: Tensor) -> Tensor:
        cls, patches = model.together(alone, present)
        cosines: Tensor = model.head(model.embed(cls, patches, present), covariates)
        return trained.config.task.probabilities(cosines[:, :classes].double() / temperature)

    for row, subset, found in forward_subsets(trained, patients, wanted, probabilities):
        yield row, subset, np.asarray(found.cpu())


def frozen_features(
    model: MultiModalViT, patients: SiteData, config: RunConfig, *, pooled: bool = False, alone: Alone | None = None
) -> NDArray[np.float64]:
    """Features of each modality by the untouched backbone alone: CLS and mean patch token, averaged over slices.

    Args:
        model: fresh from `build_model`: its adapters still add nothing.
        patients: N, with M modalities.
        config: modalities, batch size and precision are read.
        pooled: patch tokens as the model pools them, in place of their plain mean.
        alone: of these patients, by blocks that nothing trained has touched (`common.training.below`), where it is known.

    Returns:
        [N, M, 2D], NaN where a modality is absent.
    """
    features = np.full((len(patients), len(config.data.modalities), 2 * model.width), np.nan)
    start = 0
    for found in forward_batches(TrainedModel(model, {}, config), patients, partial(_apart, pooled=pooled, alone=alone)):
        features[start : start + len(found)] = found.cpu().numpy()
        start += len(found)
    return features


def _apart(model: MultiModalViT, x: Tensor, present: Tensor, _: Tensor, pooled: bool, alone: Alone | None) -> Tensor:
    """Each modality through the plain backbone, [B, M, 2D]; NaN where it is absent."""
    B, S, M = x.shape[:3]
    seen = 1 if model.thickness > 1 else S  # images of a patient that the backbone sees at once: a volume is one
    found = x.new_full((B, M, 2 * model.width), torch.nan)
    known = apart_above(model, alone, present) if alone is not None else [None] * M
    prefixes = model.backbone.prefixes
    for m in range(M):
        rows = present[:, m]
        if rows.any():
            tokens = known[m]
            tokens = model.backbone.features(model.pixels(x[rows, :, m])) if tokens is None else tokens
            parts = (
                torch.cat([tokens[:, 0], tokens[:, prefixes:].mean(1)], dim=-1).view(-1, seen, 2 * model.width).mean(1).float()
            )
            patches = tokens[:, prefixes:].view(-1, seen, 1, tokens.shape[1] - prefixes, model.width)
            weights = model.token_weights(patches) if pooled else None
            if weights is not None:
                parts[:, model.width :] = (patches * weights.unsqueeze(4)).sum((1, 2, 3))
            found[rows, m] = parts
    return found
