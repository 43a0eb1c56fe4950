"""KoLeo: embeddings of a batch spread evenly (Sablayrolles et al., ICLR 2019, eq. 2)."""

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-8


def koleo_loss(embedding: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest other patient, on the unit sphere.

    Args:
        embedding: [B, D].

    Returns:
        Scalar; zero for fewer than two patients.
    """
    if len(embedding) < 2:
        return embedding.sum() * 0
    z = functional.normalize(embedding.float(), dim=-1)
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-2).argmax(1)
    distance = functional.pairwise_distance(z, z[nearest], eps=EPSILON)
    return -torch.log(distance + EPSILON).mean()
