"""From a patient's tokens to the one vector that the head sees.

B patients, S slices, M modalities, P patches of one modality, D width, E = (1 + M) D, K rows of a projection.
"""

import torch
from torch import Tensor, nn


def less_mean(embedding: Tensor, present: Tensor, centre: Tensor) -> Tensor:
    """Embeddings [B, E] less the mean features [1 + M, D] (`feature_centre`) of the parts that are there, by present [B, M]."""
    here = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
    mean = centre.float() * centre.shape[1] ** 0.5
    off: Tensor = (mean * here.unsqueeze(2)).flatten(1)
    return embedding - off


def projected(embedding: Tensor, projection: Tensor | None) -> Tensor:
    """Embeddings [..., E] along the rows of a projection [K, E], as unit vectors [..., K]; as they are where there is none."""
    if projection is None:
        return embedding
    with torch.autocast(embedding.device.type, enabled=False):
        return nn.functional.normalize(embedding.float() @ projection.float().T, dim=-1)


def patient_embedding(cls: Tensor, patches: Tensor, present: Tensor, weights: Tensor | None = None) -> Tensor:
    """Pool slices to one vector: CLS averaged over slices, beside the (weighted) mean patch token of each modality.

    Modalities stay apart: their mean would blur what tells the classes apart (bright on T2 *and* dark on FLAIR). Each part is
    standardised by itself, so that the zeros of an absent modality stand for an average one.

    Args:
        cls: [B, S, D].
        patches: [B, S, M, P, D].
        present: [B, M] bool.
        weights: of the patch tokens, as `Pooling.weights` gives them; None: all alike.

    Returns:
        [B, (1 + M) D].
    """
    pooled = patches.mean((1, 3)) if weights is None else (patches * weights.unsqueeze(4)).sum((1, 3)).to(patches.dtype)
    parts = torch.cat([cls.mean(1).unsqueeze(1), pooled], dim=1).float()  # [B, 1 + M, D]
    parts = nn.functional.layer_norm(parts, parts.shape[-1:])
    here = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
    return (parts * here.unsqueeze(2)).flatten(1)
