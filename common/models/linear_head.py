"""A linear head: logits are products with weights that start at zero, and nothing is drawn at random.

With `training.head_optimizer = "sgd"` a federation's head rounds are then gradient descent on a convex loss, softmax regression,
stopped early. Its steps follow the features whatever their axes are, so a direction in which patients hardly differ gets hardly
any weight: where hospitals have a dozen patients each, that is what carries over to the next one (docs/results.md). The prototype
head's random projection and AdamW's equal steps along every axis give such directions as much as the others.
B patients, D width, E width of a patient's embedding, K outputs of which the first C are the classes, Q clinical covariates.
"""

import torch
from torch import Tensor, nn

from common.models.covariates import CovariateLogits, with_known


class LinearHead(nn.Module):
    """Weights and biases for patients, and others for patch tokens.

    Args:
        embedding: E.
        width: D of the backbone.
        outputs: K.
        covariates: what clinical covariates add to the class logits; None: the model takes none.
    """

    def __init__(self, embedding: int, width: int, outputs: int, covariates: CovariateLogits | None = None) -> None:
        super().__init__()
        self.patient = _zeros(embedding, outputs)
        self.patch = _zeros(width, outputs)
        self.covariates = covariates

    def forward(self, embedding: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Patient embeddings [B, E] to logits [B, K]; what is known of the patients [B, Q] is added to those of the classes.

        Covariates None or [B, 0]: nothing is known.
        """
        return with_known(_apply(self.patient, embedding), self.covariates, covariates)

    def patches(self, tokens: Tensor) -> Tensor:
        """Patch tokens [..., D] to logits [..., K]."""
        return _apply(self.patch, tokens)


def _zeros(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _apply(layer: nn.Linear, z: Tensor) -> Tensor:
    """In float32: the loss divides by small temperatures."""
    with torch.autocast(z.device.type, enabled=False):
        found: Tensor = layer(z.float())
        return found
