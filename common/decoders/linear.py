"""A linear head: each patch token of the last block gives one logit (a 1 x 1 convolution), which is interpolated to pixels.

As in DINOv2's linear evaluation on ADE20k (Oquab et al., TMLR 2024, section 7.4). n slices, M modalities, D width, h x w patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.decoders.decoder import Decoder, mean_of_present, standardised

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from common.decoders.decoder import Values


@dataclass(frozen=True)
class Linear(Decoder):
    """Weights of each modality, which start at zero: nothing is drawn at random."""

    name: ClassVar[str] = "linear"

    def reads(self, depth: int) -> tuple[int, ...]:
        """The last block's."""
        return (depth,)

    def start(self, modalities: int, width: int, patch: int, levels: int, generator: "Generator") -> "dict[str, Tensor]":
        """`weight` [M, D] and `bias` [1]."""
        import torch

        del patch, levels, generator
        return {"weight": torch.zeros(modalities, width), "bias": torch.zeros(1)}

    def logits(self, levels: "Sequence[Tensor]", images: "Tensor", present: "Tensor", values: "Values") -> "Tensor":
        """[n, H, W]."""
        from torch.nn import functional

        parts = (standardised(levels[-1].float()) * values["weight"].float()[..., None, None]).sum(2, keepdim=True)
        coarse = mean_of_present(parts, present) + values["bias"].float()
        fine: Tensor = functional.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=False)
        return fine[:, 0]
