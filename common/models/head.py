"""The prototype head: its outputs are the class logits (MM-DINOv2), its last layer is weight-normed (DINO, Caron et al., 2021).

The paper's head (2048 hidden, 256 bottleneck) would outweigh the adapters; this one is kept narrow. Patch tokens have a
projection of their own and share the prototypes. B patients, D width, E width of a patient's embedding, K prototypes of which the
first C are the classes, Q clinical covariates.
"""

import torch
from torch import Tensor, nn

from common.models.covariates import CovariateLogits, with_known


class PrototypeHead(nn.Module):
    """Projection to a unit sphere and cosine with K unit prototypes.

    Args:
        embedding: E.
        width: D of the backbone.
        hidden: width of the hidden layer, 0 for none.
        bottleneck: dimension of the sphere.
        prototypes: K.
        generator: for the starting values.
        covariates: what clinical covariates add to the class cosines; None: the model takes none.
    """

    def __init__(
        self,
        embedding: int,
        width: int,
        hidden: int,
        bottleneck: int,
        prototypes: int,
        generator: torch.Generator,
        covariates: CovariateLogits | None = None,
    ) -> None:
        super().__init__()
        self.hidden = _linear(embedding, hidden, generator) if hidden else None
        self.patient = _linear(hidden or embedding, bottleneck, generator)
        self.patch = _linear(width, bottleneck, generator)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck, generator=generator))
        self.covariates = covariates

    def forward(self, embedding: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Patient embeddings [B, E] to cosines [B, K]; what is known of the patients [B, Q] is added to those of the classes.

        Covariates None or [B, 0]: nothing is known.
        """
        z = embedding if self.hidden is None else nn.functional.gelu(self.hidden(embedding))
        return with_known(self._cosine(self.patient(z)), self.covariates, covariates)

    def patches(self, tokens: Tensor) -> Tensor:
        """Patch tokens [..., D] to cosines [..., K]."""
        return self._cosine(self.patch(tokens))

    def _cosine(self, z: Tensor) -> Tensor:
        """Unit vectors against unit prototypes, in float32: the loss divides them by small temperatures."""
        with torch.autocast(z.device.type, enabled=False):
            z = nn.functional.normalize(z.float(), dim=-1)
            return nn.functional.linear(z, nn.functional.normalize(self.prototypes.float(), dim=-1))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer that starts from the passed generator (truncated normal, 0.02, zero bias, as DINO's head)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
