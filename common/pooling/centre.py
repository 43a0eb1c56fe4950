"""The mean of the patch tokens in the middle of each slice: slices are cut around the tumour, where its mask is known.

A square of the window's inner part counts, the rim does not: no mask is needed here, but the window must be near the tumour.
The middle is that of the view: a random crop of training moves the tumour away from it by a little, as a hospital's centre does.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.pooling.pooling import Pooling
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Tensor

    from common.pooling.pooling import Values


@dataclass(frozen=True)
class Centre(Pooling):
    """Settings of the inner square, and its weights. A part of 1 is the mean of all."""

    name: ClassVar[str] = "centre"
    part: float = ranged(0.43, 0.01, 1.0)  # of the window's edge; patches count whose middle lies inside

    def weights(self, patches: "Tensor", values: "Values") -> "Tensor":
        """[1, 1, 1, P], each of S slices alike."""
        import torch

        del values
        S, P = patches.shape[1], patches.shape[3]
        edge = math.isqrt(P)
        # From the middle, in halves of the edge; where no patch's middle is inside, the innermost ones are.
        away = ((torch.arange(edge, device=patches.device) * 2 + 1 - edge).abs() / edge).float()
        inside = away <= max(self.part, float(away.min()))
        square = (inside.unsqueeze(0) & inside.unsqueeze(1)).flatten()
        return (square / (square.sum() * S)).view(1, 1, 1, P)
