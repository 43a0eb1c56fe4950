"""What a decoder is: its settings, the blocks whose tokens it reads, and a pure function from them to a logit for each pixel.

The configuration names decoders, and a command parses one without waiting for torch: files of this room import torch where they
compute. n slices, M modalities, D width, h x w patches, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Values = Mapping[str, Tensor]

DECODER = "decoder."  # before the names of its arrays, among those that travel


class Decoder:
    """The base class of decoders, which are frozen dataclasses.

    Attributes:
        name: in `task.decoder`.
    """

    name: ClassVar[str]

    def reads(self, depth: int) -> tuple[int, ...]:
        """After which of a backbone's `depth` blocks it reads tokens, rising; the last is `depth`."""
        raise NotImplementedError

    def start(self, modalities: int, width: int, patch: int, levels: int, generator: "Generator") -> "dict[str, Tensor]":
        """The initial values of the arrays that it trains, by names without a dot.

        Args:
            modalities: M.
            width: D.
            patch: edge of a patch in pixels.
            levels: how many blocks' tokens it will be given.
            generator: for what starts at random, so that every site starts from the same values.
        """
        raise NotImplementedError

    def logits(self, levels: "Sequence[Tensor]", images: "Tensor", present: "Tensor", values: "Values") -> "Tensor":
        """A logit for each pixel, [n, H, W].

        Args:
            levels: tokens of the blocks that it reads, [n, M, D, h, w] each; anything finite where the modality is absent.
            images: [n, M, H, W], 0 to 1, zeros where the model may not look.
            present: bool [n, M], at least one a slice.
            values: the trained arrays.
        """
        raise NotImplementedError


def standardised(tokens: "Tensor") -> "Tensor":
    """Tokens [n, M, D, h, w] with mean 0 and deviation 1 over D: blocks differ in scale by far more than their content."""
    centred = tokens - tokens.mean(2, keepdim=True)
    result: Tensor = centred * (centred.square().mean(2, keepdim=True) + 1e-6).rsqrt()
    return result


def mean_of_present(parts: "Tensor", present: "Tensor") -> "Tensor":
    """The mean of parts [n, M, C, h, w] over the modalities that are there: a missing one changes no scale."""
    here = present.to(parts.dtype)
    weights = (here / here.sum(1, keepdim=True)).view(*here.shape, 1, 1, 1)
    return (parts * weights).sum(1)
