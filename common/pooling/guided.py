"""Attention that masks teach and that needs none: a linear probe for tumour on patch tokens says how much each of them counts.

One query a modality is fitted by least squares from a token to the part of its patch that is tumour. The fit is closed, from sums
over the patients with a mask; sites without masks learn it from the others. In the first round each site fits it and the server
averages, as it averages the head: that round pools by the mean, since no query is there yet. Later rounds keep it still.
Weights are a softmax over the tokens of all slices (ABMIL: Ilse et al., ICML 2018): a query of zero is the mean, and prediction
asks for no mask.

B patients, S slices, M modalities, P patches of a slice, D width.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.pooling.attention import softmax_weights, standardised
from common.pooling.pooling import Pooling
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from common.pooling.pooling import Values

RIDGE = 0.01  # of a standardised token's variance: a site of one patient fits something modest


@dataclass(frozen=True)
class Guided(Pooling):
    """How sharply the probe's answer weights: `exp(sharpness * part)`, part from 0 (none of the patch is tumour) to 1 (all)."""

    name: ClassVar[str] = "guided"
    fits: ClassVar[bool] = True
    sharpness: float = ranged(8.0, 0.0, 100.0)

    def start(self, modalities: int, width: int, generator: "Generator") -> "dict[str, Tensor]":
        """The queries, [M, D], zero."""
        import torch

        del generator
        return {"query": torch.zeros(modalities, width)}

    def weights(self, patches: "Tensor", values: "Values") -> "Tensor":
        """[B, S, M, P]."""
        scores = (standardised(patches) * values["query"].float().unsqueeze(1)).sum(-1)
        return softmax_weights(self.sharpness * scores)

    def sums(self, patches: "Tensor", present: "Tensor", lesion: "Tensor") -> "Tensor":
        """For each modality the second moments of [token, 1, part] over patients with a mask, [M, D + 2, D + 2] in float64."""
        import torch

        masked = lesion.flatten(1).any(1)
        tokens = standardised(patches).double().transpose(1, 2)  # [B, M, S, P, D]
        part = lesion.double().unsqueeze(1).unsqueeze(4).expand(*tokens.shape[:4], 1)
        rows = torch.cat([tokens, torch.ones_like(part), part], -1)
        each = [rows[masked & present[:, m], m].flatten(0, 2) for m in range(present.shape[1])]
        return torch.stack([row.T @ row for row in each])

    def solve(self, sums: "Tensor", values: "Values") -> "dict[str, Tensor]":
        """The queries; a modality that no patient with a mask has keeps what it had."""
        import torch

        D = sums.shape[-1] - 2
        ridge = RIDGE * torch.eye(D + 1, dtype=sums.dtype, device=sums.device)
        ridge[D, D] = 0.0  # the constant is free
        query = values["query"].detach().clone()
        for m, total in enumerate(sums):
            count = total[D, D]
            if count > 0:
                query[m] = torch.linalg.solve(total[:-1, :-1] / count + ridge, total[:-1, -1] / count)[:D].to(query.dtype)
        return {"query": query}
