"""KoLeo: embeddings of a batch spread evenly (Sablayrolles et al., ICLR 2019, eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-8


@dataclass(frozen=True)
class KoLeo(Term):
    """Distance between patients, in each global view by itself."""

    name: ClassVar[str] = "koleo"
    why_not_private: ClassVar[str] = "KoLeo pushes each patient from their nearest neighbour in the batch"
    in_ssl_rounds: ClassVar[bool] = True

    weight: float = ranged(0.1, 0.0, 100.0)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Mean over the global views."""
        import torch

        return torch.stack([koleo_loss(view) for view in step.embeddings]).mean(), state


def koleo_loss(embedding: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest other patient, on the unit sphere.

    Args:
        embedding: [B, E].

    Returns:
        Scalar; zero for fewer than two patients.
    """
    import torch
    from torch.nn import functional

    if len(embedding) < 2:
        return embedding.sum() * 0
    z = functional.normalize(embedding.float(), dim=-1)
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-2).argmax(1)
    distance = functional.pairwise_distance(z, z[nearest], eps=EPSILON)
    return -torch.log(distance + EPSILON).mean()
