"""The model as one fixed graph, for ONNX and TorchScript: no grouping of patients, absent modalities masked in the attention.

`MultiModalViT` groups patients by how many modalities they have, so that absent ones cost nothing; which groups there are depends
on the data, and no exported graph can follow that. Here every modality has its tokens, and no token looks at those of an absent
one: a key that gets weight zero is as good as a key that is not there.

B patients, S slices, M modalities, H x W pixels, P patches of one modality, R prefix tokens, D width, C classes,
Q clinical covariates.
"""

import torch
from torch import Tensor, nn

from common.models.multimodal import Features, MultiModalViT


class DenseModel(nn.Module):
    """From images to calibrated probabilities.

    Args:
        model: merged (`common.model_files.merge`) or not; in evaluation mode.
        classes: C.
        temperature: of the softmax over cosines: the student's times the calibration's.
        offsets: of the calibration, one a class; empty: none.
    """

    def __init__(self, model: MultiModalViT, classes: int, temperature: float, offsets: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.temperature = temperature
        self.register_buffer("offsets", torch.tensor(offsets or [0.0]), persistent=False)

    def forward(self, images: Tensor, present: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Images [B, S, M, H, W] in 0 to 1 and present [B, M] bool, at least one a patient, to probabilities [B, C].

        Covariates [B, Q] are as a table has them, a category by its place among the values, and NaN where one is missing.
        """
        cls, patches = self.features(images, present)
        logits = self.model.head(self.model.embed(cls, patches, present), covariates)
        probabilities: Tensor = (logits[:, : self.classes] / self.temperature + self.offsets).softmax(-1)
        return probabilities

    def features(self, images: Tensor, present: Tensor) -> Features:
        """As `MultiModalViT.features`, but that an absent modality's patches hold anything finite."""
        model = self.model
        B, S, M = images.shape[:3]
        shown = torch.where(present.view(B, 1, M, 1, 1), images, torch.zeros_like(images))
        prefix, tokens, rope = model.tokens(shown, None)
        P, D = tokens.shape[-2:]
        R, apart, blocks = prefix.shape[1], model.apart, len(model.backbone.blocks)
        joined, merged = tokens.reshape(B * S, M * P, D), prefix.expand(B * S, -1, -1)
        if apart:
            z = torch.cat([prefix.expand(B * S * M, -1, -1), tokens.reshape(B * S * M, P, D)], dim=1)
            z = model.backbone.encode(z, 0, apart, rope)
            share = present.float() / present.float().sum(1, keepdim=True)  # the mean over present modalities
            merged = (z[:, :R].view(B, S, M, R, D) * share.view(B, 1, M, 1, 1)).sum(2).reshape(B * S, R, D)
            joined = z[:, R:].reshape(B * S, M * P, D)
        positions = None if rope is None else rope.repeat(M, 1)
        z = model.backbone.encode(torch.cat([merged, joined], dim=1), apart, blocks, positions, _keys(present, S, R, P))
        return Features(z[:, 0].view(B, S, D), z[:, R:].view(B, S, M, P, D))


def _keys(present: Tensor, slices: int, prefixes: int, patches: int) -> Tensor:
    """Which tokens may be looked at, [B S, 1, 1, R + M P]: the prefix, and the patches of present modalities."""
    B, M = present.shape
    prefix = torch.ones_like(present[:, :1]).expand(B, prefixes)
    tokens = present.unsqueeze(2).expand(B, M, patches).reshape(B, M * patches)
    keys = torch.cat([prefix, tokens], dim=1)
    return keys.unsqueeze(1).expand(B, slices, -1).reshape(B * slices, 1, 1, -1)
