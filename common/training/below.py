"""What is computed once for several questions about the same patients: the blocks below the meeting of the modalities.

B patients of one batch, S slices, M modalities, D width.
"""

import numpy as np
import torch
from torch import Tensor

from common.data.dataset import SiteData
from common.models.multimodal import Alone, MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.forward import forward_batches

ABOVE = ("head.", "pool.", "feature_centre", "projection", "mask_token")  # arrays that come into play later, or in training only


def below(trained: TrainedModel, patients: SiteData) -> Alone | None:
    """The first blocks' outputs; None where no block stands below, or where the patients are more than one batch."""
    if not trained.model.apart or len(patients) > trained.config.evaluation.batch_size:
        return None
    [alone] = forward_batches(trained, patients, lambda model, x, present, _: model.alone(x, present))
    assert isinstance(alone, Alone)
    return alone


def untouched_below(trained: TrainedModel) -> bool:
    """Whether those blocks give what the untouched backbone gives: nothing that was trained comes in before the meeting."""
    model = trained.model
    later = model.backbone.blocks[model.apart :]
    above = {id(value) for block in later for value in block.parameters()} | set(map(id, model.backbone.norms(later)))
    own = dict(model.named_parameters())
    for name, array in trained.arrays.items():
        value = own.get(name)
        if name.startswith(ABOVE) or id(value) in above:
            continue
        if value is None or not np.array_equal(value.detach().cpu().numpy(), array):
            return False
    return True


def apart_above(model: MultiModalViT, alone: Alone, present: Tensor) -> list[Tensor | None]:
    """The last blocks over each modality by itself: tokens [b S, N, D] of those who have it, as the plain backbone gives."""
    found: list[Tensor | None] = []
    for m in range(present.shape[1]):
        rows = present[:, m]
        z = torch.cat([alone.prefix[rows, :, m], alone.patches[rows, :, m]], dim=2).flatten(0, 1)
        found.append(model.backbone.encode(z, model.apart, len(model.backbone.blocks), alone.rope) if rows.any() else None)
    return found
