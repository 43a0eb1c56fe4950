"""A network like TransUNet (Chen et al., arXiv 2102.04306): a transformer on the coarsest features of a convolutional encoder.

What is theirs: a ViT whose patches are single places of the coarsest map (their section 3.2), and a cascade of enlargements, each
joined with the encoder's features of that resolution. What is not: the encoder is no ResNet-50 and nothing is pre-trained; it has
the widths and blocks of MONAI's U-Net, so that what differs beside that one is the transformer; sizes are for one processor.

n windows, M modalities, C channels, H x W pixels, h x w places of the coarsest map.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulation.peers.peer import Peer

POSITION = 0.02  # deviation of position embeddings at the start, as ViTs have it


@dataclass(frozen=True)
class TransUNet(Peer):
    """`channels`: of each resolution, the finest first. The ViT, as wide as the last, has `depth` blocks of `heads` heads."""

    name: ClassVar[str] = "transunet"
    channels: tuple[int, ...] = (16, 32, 64, 128)
    depth: int = 4
    heads: int = 4

    def network(self, modalities: int, size: int) -> nn.Module:
        """See `Peer`."""
        return _Network(self, modalities, size)


class _Network(nn.Module):
    def __init__(self, form: TransUNet, modalities: int, size: int) -> None:
        from monai.networks.blocks import ResidualUnit  # type: ignore[attr-defined]  # noqa: PLC0415  MONAI takes seconds
        from timm.models.vision_transformer import Block  # noqa: PLC0415

        super().__init__()
        before, edge = (modalities, *form.channels), size
        for _ in form.channels[1:]:
            edge = -(-edge // 2)  # as a convolution of stride 2 leaves it
        pairs = zip(before[:-1], form.channels, strict=True)
        self.encoder = nn.ModuleList(
            ResidualUnit(2, finer, here, strides=1 if place == 0 else 2) for place, (finer, here) in enumerate(pairs)
        )
        width = form.channels[-1]
        self.embedding = nn.Conv2d(width, width, 1)
        self.places = nn.Parameter(torch.randn(1, edge * edge, width) * POSITION)
        self.transformer = nn.Sequential(
            *(Block(width, form.heads, qkv_bias=True) for _ in range(form.depth)), nn.LayerNorm(width)
        )
        steps = zip(form.channels[:0:-1], form.channels[-2::-1], strict=True)
        self.decoder = nn.ModuleList(ResidualUnit(2, coarse + fine, fine) for coarse, fine in steps)
        self.out = nn.Conv2d(form.channels[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, M, H, W] to logits [n, 1, H, W]."""
        z, found = images, list[Tensor]()
        for block in self.encoder:
            z = block(z)
            found.append(z)
        tokens = self.embedding(z).flatten(2).transpose(1, 2) + self.places  # [n, h w, C]
        z = self.transformer(tokens).transpose(1, 2).reshape_as(z)
        for block, beside in zip(self.decoder, reversed(found[:-1]), strict=True):
            larger = functional.interpolate(z, beside.shape[-2:], mode="bilinear", align_corners=False)
            z = block(torch.cat([larger, beside], dim=1))
        logits: Tensor = self.out(z)
        return logits
