"""The mean features of a federation, measured in one round and from then on taken off before the head.

Features of a pre-trained backbone share a large part: on phantoms the mean of all patients is longer than what tells one from
another. Whatever step an optimizer takes along that mean moves every patient's logits together, so that small batches turn the
decision towards one class while the ranking stays (docs/results.md). Without the mean, a step moves what tells patients apart.

Each site sends the mean over its patients, and the aggregator averages these as it does any change: nothing else has to travel.
N patients, M modalities, D width.
"""

import time

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import SiteData
from common.models.trained_model import TrainedModel
from common.training.plain import told_terms
from common.training.subset_embeddings import embed_subsets
from common.training.trainable import CENTRE
from common.training.update import LocalUpdate


def centre_round(trained: TrainedModel, patients: SiteData) -> LocalUpdate:
    """A round that measures this site's mean features and trains nothing.

    Args:
        trained: the global model, whose mean is still zero.
        patients: those of the site that train, labelled or not.
    """
    began, start = time.monotonic(), trained.arrays
    embeddings = embed_subsets(trained, patients, patients.present[None])[0].numpy()
    mean = mean_parts(embeddings.reshape(len(patients), *start[CENTRE].shape), patients.present)
    arrays = {name: array.copy() for name, array in sorted(start.items())}
    arrays[CENTRE] = start[CENTRE] + (mean / trained.model.width**0.5).astype(np.float32)
    metrics = dict.fromkeys((*told_terms(trained.config.objective), "loss"), 0.0) | {"seconds": time.monotonic() - began}
    return LocalUpdate(arrays, len(patients), int((patients.labels >= 0).sum()), metrics)


def mean_parts(parts: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of each part over the patients who have it.

    Args:
        parts: [N, 1 + M, D], CLS first; zeros where the modality is absent.
        present: [N, M].

    Returns:
        [1 + M, D]. A modality that no patient of the site has takes the mean over the other modalities: zeros would pull the
        federation's mean to zero for those who have it.
    """
    here = np.concatenate([np.ones_like(present[:, :1]), present], axis=1).astype(np.float64)
    counts = here.sum(0)
    means = (parts * here[:, :, None]).sum(0, dtype=np.float64) / np.maximum(counts, 1)[:, None]
    others = means[1:][counts[1:] > 0].mean(0)
    return np.asarray(np.where(counts[:, None] > 0, means, others))
