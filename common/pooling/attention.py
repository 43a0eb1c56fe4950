"""Attention over the patch tokens of all slices, by one trained query that all modalities share (ABMIL: Ilse et al., ICML 2018).

The query starts at zero, where every token has the same weight: the mean. It is trained in tuning rounds, with the adapters; head
rounds see tokens that the query of the moment has pooled.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.pooling.pooling import Pooling

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from common.pooling.pooling import Values


@dataclass(frozen=True)
class Attention(Pooling):
    """Softmax over a modality's tokens of their products with the query, after each token's own layer norm."""

    name: ClassVar[str] = "attention"
    trains: ClassVar[bool] = True

    def start(self, modalities: int, width: int, generator: "Generator") -> "dict[str, Tensor]":
        """The query, [D], zero."""
        import torch

        del modalities, generator
        return {"query": torch.zeros(width)}

    def weights(self, patches: "Tensor", values: "Values") -> "Tensor":
        """[B, S, M, P]."""
        return softmax_weights(standardised(patches) @ values["query"].float() / math.sqrt(patches.shape[-1]))


def standardised(patches: "Tensor") -> "Tensor":
    """Each token by its own mean and variance, in float32."""
    from torch.nn.functional import layer_norm

    return layer_norm(patches.float(), patches.shape[-1:])


def softmax_weights(scores: "Tensor") -> "Tensor":
    """Scores [B, S, M, P] to weights that are 1 in sum over S and P."""
    B, S, M, P = scores.shape
    return scores.transpose(1, 2).reshape(B, M, S * P).softmax(-1).view(B, M, S, P).transpose(1, 2)
