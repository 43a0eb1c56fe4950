"""Fits a pooling that learns from tumour masks (`common.pooling.guided`): one pass over the site's patients who have one."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from common.data.dataset import WHOLE, SiteData
from common.models.arrays import Arrays
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.pooling.pooling import POOL
from common.training.forward import forward_batches


def fitted_pooling(trained: TrainedModel, patients: SiteData) -> Arrays:
    """The pooling's arrays as this site's masks would have them, under the names that travel; none where nothing is fitted.

    Args:
        trained: the global model as the round received it.
        patients: the site's that train, labelled or not, with `lesions`: all zeros where nobody has a mask.

    Raises:
        ValueError: nobody has looked for masks, which would leave the pooling unfitted in silence.
    """
    pooling = trained.config.model.pooling
    if not pooling.fits:
        return {}
    if patients.lesions is None:
        raise ValueError(f"Pooling {pooling.name!r} learns from masks, and the patients of {patients.name} were opened without.")
    if not patients.lesions.any():
        return {}
    rows = np.flatnonzero(patients.lesions.any(axis=(1, 2, 3)))
    total, start = torch.zeros(()), 0
    for patches, present in forward_batches(trained, patients, _tokens, rows=rows):
        lesion = _by_patch(patients.lesions[rows[start : start + len(patches)]], patches)
        total = total.to(patches.device) + pooling.sums(patches, present, lesion)
        start += len(patches)
    own = {name.removeprefix(POOL): array for name, array in trained.arrays.items() if name.startswith(POOL)}
    values = {name: torch.from_numpy(array).to(total.device) for name, array in own.items()}
    return {POOL + name: value.cpu().numpy() for name, value in pooling.solve(total, values).items()}


def _tokens(model: MultiModalViT, x: Tensor, present: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    """Patch tokens [B, S, M, P, D] in float32, and present [B, M]."""
    return model.features(x, present).patches.float(), present


def _by_patch(lesions: np.ndarray, patches: Tensor) -> Tensor:
    """The part of each patch that is tumour, [B, S, P], of lesions [B, S, H, W] in 0 to `WHOLE`."""
    edge = lesions.shape[-1] // int(patches.shape[3] ** 0.5)
    part = torch.from_numpy(lesions.astype(np.float32) / WHOLE).to(patches.device)
    return avg_pool2d(part, edge).flatten(2)
