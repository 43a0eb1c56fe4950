"""The features from which the out-of-distribution score is computed: image statistics and backbone features of each patient.

Each modality is looked at by itself, and each pair for its agreement, so nothing said of one depends on which others there are.
N patients, M modalities, D width, F features of a modality: of the image, frozen, adapted, and its agreement with each modality.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.data.dataset import SiteData
from common.evaluation.ood.image_statistics import STATISTICS, image_statistics
from common.evaluation.ood.modality_agreement import AGREEMENTS, modality_agreement
from common.models.multimodal import Alone, MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.below import below, untouched_below
from common.training.predict import frozen_features
from common.training.subsets import embed_alone, forward_subsets

Matrix = NDArray[np.float64]

PROJECTED = 32  # numbers kept of the frozen features
ADAPTED = 8  # and of the adapted ones: few patients are held back, and with 32 numbers their Gaussians are too sure
ALONE = STATISTICS + PROJECTED + ADAPTED  # features of a modality by itself: of the image, frozen, adapted
KINDS = (slice(0, STATISTICS), slice(STATISTICS, STATISTICS + PROJECTED), slice(STATISTICS + PROJECTED, ALONE))
SLICES = 5  # of a patient at most, that the adapted backbone sees: fewer save time; with 2, real patients unlike these are missed


def features(
    trained: TrainedModel, patients: SiteData, present: NDArray[np.bool_] | None = None, alone: Alone | None = None
) -> Matrix:
    """The features of each modality of each patient.

    Args:
        trained: its model as `build_model` made it: its own arrays are those of the untouched backbone.
        patients: N, with M modalities.
        present: [N, M], to leave out modalities that patients do have; None: as they are.
        alone: of these patients (`common.training.below`), where it is known.

    Returns:
        [N, M, F], NaN where a modality is absent. F: the features of the modality alone, then its agreement with each modality.
    """
    here = patients.present if present is None else np.logical_and(patients.present, present)
    found = np.full((*here.shape, ALONE + here.shape[1] * AGREEMENTS), np.nan)
    for row, known in enumerate(here):
        found[row, :, KINDS[0]], found[row, :, ALONE:] = _image_features(patients.images[row].astype(np.float64), known)
    frozen, adapted = _by_backbone(trained, patients, alone)
    found[:, :, KINDS[1]], found[:, :, KINDS[2]] = _project(frozen, PROJECTED), _project(adapted, ADAPTED)
    return np.asarray(np.where(here[..., None], found, np.nan))


def _by_backbone(trained: TrainedModel, patients: SiteData, alone: Alone | None) -> tuple[Matrix, Matrix]:
    """The frozen and the adapted features [N, M, 2D], batch by batch: what both need is computed once."""
    size, parts = trained.config.evaluation.batch_size, []
    shared = untouched_below(trained)
    for start in range(0, len(patients), size):
        some = patients.select(np.arange(start, min(start + size, len(patients))))
        known = below(trained, some) if alone is None else alone
        frozen = frozen_features(trained.model, some, trained.config, alone=known if shared else None)
        parts.append((frozen, _adapted(trained, some, known)))
    width = 2 * trained.model.width
    nobody = np.empty((0, patients.present.shape[1], width))
    return np.concatenate([nobody, *(f for f, _ in parts)]), np.concatenate([nobody, *(a for _, a in parts)])


def _image_features(images: Matrix, here: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """[S, M, H, W] to statistics [M, STATISTICS] and agreement with each modality [M, M AGREEMENTS]."""
    modalities, known = len(here), np.flatnonzero(here)
    statistics = np.full((modalities, STATISTICS), np.nan)
    statistics[known] = image_statistics(images[:, known])
    pairs = np.full((modalities, modalities, AGREEMENTS), np.nan)
    for one, other in combinations(known, 2):
        pairs[one, other] = pairs[other, one] = modality_agreement(images[:, one], images[:, other])
    return statistics, pairs.reshape(modalities, modalities * AGREEMENTS)


def _adapted(trained: TrainedModel, patients: SiteData, known: Alone | None) -> Matrix:
    """The trained embedding of each modality by itself, of `SLICES` slices: CLS beside mean patch token, [N, M, 2D]."""
    width, modalities = trained.model.width, patients.present.shape[1]
    slices = np.unique((np.arange(SLICES) + 0.5) / SLICES * patients.images.shape[1] // 1).astype(np.int64)
    chosen = slices.tolist() if trained.model.thickness == 1 else None  # a volume is seen whole
    alone = {
        row: [tuple(one) for one in np.eye(modalities, dtype=bool)[here].tolist()] for row, here in enumerate(patients.present)
    }
    found = np.full((len(patients), modalities, 2 * width), np.nan)
    for row, subset, one in forward_subsets(trained, patients, alone, _less_mean, slices=chosen, known=known):
        parts, column = one.cpu().numpy().reshape(1 + modalities, width), subset.index(True)
        found[row, column] = np.concatenate([parts[0], parts[1 + column]])
    return found


def _less_mean(model: MultiModalViT, alone: Alone, present: Tensor, _: Tensor) -> Tensor:
    """Embeddings [B, E] less the mean features."""
    return model.centred(embed_alone(model, alone, present), present)


def _project(found: Matrix, numbers: int) -> Matrix:
    """[N, M, 2D] to [N, M, numbers]: random signs (Achlioptas, PODS 2001), the same for everybody."""
    signs = np.random.default_rng(0).integers(0, 2, (found.shape[2], numbers)) * 2.0 - 1.0
    return np.asarray(found @ signs / np.sqrt(found.shape[2]))


def only(found: Matrix, here: NDArray[np.bool_]) -> Matrix:
    """The same patients as if they had no modalities but those of `here` [N, M]; as `features` gives with `present`."""
    patients, modalities = here.shape
    kept = np.where(here[..., None], found, np.nan)
    agreement = kept[:, :, ALONE:].reshape(patients, modalities, modalities, AGREEMENTS)
    kept[:, :, ALONE:] = np.where(here[:, None, :, None], agreement, np.nan).reshape(
        patients, modalities, modalities * AGREEMENTS
    )
    return kept
