"""Bottleneck adapters: Houlsby et al., ICML 2019, after the MLP, in the residual branch: a frozen MLP, then `y + U gelu(V y)`.

With a nonlinearity inside it cannot be merged: it stays a module of its own in a release.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.adapters.adapter import Adapter
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from common.adapters.adapter import Map, Values


@dataclass(frozen=True)
class Bottleneck(Adapter):
    """Settings of a bottleneck adapter, and what it computes. U starts at zero."""

    name: ClassVar[str] = "bottleneck"
    mergeable: ClassVar[bool] = False
    rank: int = ranged(8, 1, 256)

    @property
    def places(self) -> tuple[str, ...]:
        """The MLP as a whole."""
        return ("mlp",)

    def start(self, weight: "Tensor | None", width: int, generator: "Generator") -> "dict[str, Tensor]":
        """V [r, D] at random, U [D, r] zero."""
        import torch

        del weight
        down = torch.randn(self.rank, width, generator=generator) / math.sqrt(width)
        return {"down": down, "up": torch.zeros(width, self.rank)}

    def forward(self, frozen: "Map", weight: "Tensor | None", bias: "Tensor | None", values: "Values", x: "Tensor") -> "Tensor":
        """[..., D] to [..., D]."""
        from torch.nn.functional import gelu, linear

        del weight, bias
        y = frozen(x)
        return y + linear(gelu(linear(y, values["down"])), values["up"])
