"""A decoder in the manner of the U-Net (Ronneberger et al., MICCAI 2015) on tokens of several blocks.

As UNETR (Hatamizadeh et al., WACV 2022) it hands tokens of earlier blocks to finer maps, and as TransUNet (Chen et al.,
arXiv 2102.04306) convolutions of the image itself, which know what lies within a patch. Maps are enlarged by interpolation, so
that any patch size will do. Norms are group norms: they keep no statistics of patients, which would have to travel.

n slices, M modalities, D width, h x w patches, H x W pixels; a scale s is a map of H / s x W / s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.decoders.decoder import Decoder, mean_of_present, standardised
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from common.decoders.decoder import Values

LEVELS = 4  # blocks whose tokens are read, evenly over the backbone
WIDEST = 8  # times the width of the finest map: no map is wider
GROUP = 8  # channels of a norm


@dataclass(frozen=True)
class UNet(Decoder):
    """`width`: channels of the finest map; each coarser one has twice as many, up to eight times."""

    name: ClassVar[str] = "unet"
    width: int = ranged(16, 8, 256)

    def reads(self, depth: int) -> tuple[int, ...]:
        """Four blocks, evenly; fewer of a shallow backbone."""
        return tuple(sorted({max(1, round(depth * (number + 1) / LEVELS)) for number in range(LEVELS)}))

    def start(self, modalities: int, width: int, patch: int, levels: int, generator: "Generator") -> "dict[str, Tensor]":
        """Weights by He et al. (ICCV 2015), biases zero, norms one."""
        scales, values = scales_below(patch), dict[str, "Tensor"]()
        above = self.channels(scales[0])
        for level, scale in enumerate((scales[0], *scales)[:levels]):
            values[f"tokens_{level}"] = _drawn((modalities, self.channels(scale), width), width, generator)
        for scale in scales:
            finer = self.channels(scale // 2) if scale > 1 else modalities
            values |= _convolution(f"image_{scale}", finer, self.channels(scale), generator)
            values |= _convolution(f"up_{scale}", above + self.channels(scale), self.channels(scale), generator)
            above = self.channels(scale)
        out = _drawn((1, above, 1, 1), above, generator)
        return values | {"out_weight": out, "out_bias": out.new_zeros(1)}

    def channels(self, scale: int) -> int:
        """Of the map at a scale."""
        return self.width * min(scale, WIDEST)

    def logits(self, levels: "Sequence[Tensor]", images: "Tensor", present: "Tensor", values: "Values") -> "Tensor":
        """[n, H, W]."""
        import torch
        from torch.nn import functional

        fine = _image_maps(images, values)
        names = [f"tokens_{number}" for number in range(len(levels)) if f"tokens_{number}" in values]
        z, *tokens = (_projected(level, present, values[name]) for level, name in zip(reversed(levels), names, strict=False))
        for place, scale in enumerate(sorted(fine, reverse=True)):
            beside = fine[scale] + _enlarged(tokens[place], fine[scale]) if place < len(tokens) else fine[scale]
            z = _convolved(torch.cat([_enlarged(z, beside), beside], dim=1), f"up_{scale}", values)
        logits = functional.conv2d(z.float(), values["out_weight"].float(), values["out_bias"].float())
        return logits[:, 0]


def scales_below(patch: int) -> tuple[int, ...]:
    """Powers of two below a patch's edge, falling to 1: the maps finer than the grid of patches."""
    return tuple(1 << power for power in reversed(range(8)) if 1 << power < patch)


def _image_maps(images: "Tensor", values: "Values") -> "dict[int, Tensor]":
    """Convolutions of the image, by scale: each halves the map before it."""
    found, z, scale = {}, images, 1
    while f"image_{scale}_weight" in values:
        z = _convolved(z, f"image_{scale}", values, stride=1 if scale == 1 else 2)
        found[scale], scale = z, 2 * scale
    return found


def _enlarged(z: "Tensor", like: "Tensor") -> "Tensor":
    """A map at the size of another."""
    from torch.nn import functional

    return functional.interpolate(z, like.shape[-2:], mode="bilinear", align_corners=False)


def _projected(tokens: "Tensor", present: "Tensor", weight: "Tensor") -> "Tensor":
    """Tokens [n, M, D, h, w] by each modality's own map [M, C, D], and their mean over those that are there: [n, C, h, w]."""
    import torch

    parts = torch.einsum("nmdhw,mcd->nmchw", standardised(tokens), weight.to(tokens.dtype))
    return mean_of_present(parts, present)


def _convolved(z: "Tensor", name: str, values: "Values", stride: int = 1) -> "Tensor":
    """3 x 3 convolution, group norm, leaky ReLU."""
    from torch.nn import functional

    z = functional.conv2d(z, values[f"{name}_weight"], stride=stride, padding=1)
    z = functional.group_norm(z, z.shape[1] // GROUP, values[f"{name}_scale"], values[f"{name}_bias"])
    return functional.leaky_relu(z, 0.01)


def _convolution(name: str, inputs: int, outputs: int, generator: "Generator") -> "dict[str, Tensor]":
    """The arrays of `_convolved`."""
    import torch

    weight = _drawn((outputs, inputs, 3, 3), 9 * inputs, generator)
    return {f"{name}_weight": weight, f"{name}_scale": torch.ones(outputs), f"{name}_bias": torch.zeros(outputs)}


def _drawn(shape: tuple[int, ...], inputs: int, generator: "Generator") -> "Tensor":
    """Normal, with variance 2 / inputs."""
    import torch

    drawn: Tensor = torch.randn(shape, generator=generator) * (2 / inputs) ** 0.5
    return drawn
