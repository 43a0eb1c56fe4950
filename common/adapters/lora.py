"""LoRA: Hu et al., ICLR 2022, eq. 3. A frozen linear map plus a trained one of low rank r: `y = W x + b + (alpha / r) B A x`.

The mean of the sites' products B A is not the product of their mean B and mean A, unless all sites share one of the two: so a
round may hold one of them still (`factor`). With "b", A stays at its seeded start (FFA-LoRA: Sun et al., ICLR 2024). With
"alternate", A is still in odd rounds after the head rounds, B in even ones (RoLoRA: Chen et al., arXiv 2502.01755).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.adapters.adapter import Adapter
from common.errors import ConfigError
from common.schema import choice, ranged

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from common.adapters.adapter import Map, Values

TARGETS = ("qkv", "proj", "fc1", "fc2")


@dataclass(frozen=True)
class LoRA(Adapter):
    """Settings of LoRA, and what it computes. B starts at zero.

    `factor`: which of B and A a round trains. Under differential privacy "b" has less noise: fewer values get any (half of a
    square map's, three quarters of qkv's), and noise of B never multiplies noise of A.
    """

    name: ClassVar[str] = "lora"
    rank: int = ranged(8, 1, 256)
    alpha: float = ranged(16.0, 0.0, 1024.0)
    targets: tuple[str, ...] = ("qkv",)  # of qkv, proj, fc1, fc2
    factor: str = choice("both", "both", "b", "alternate")

    def __post_init__(self) -> None:
        require_targets(self.targets)

    @property
    def places(self) -> tuple[str, ...]:
        """The targets."""
        return self.targets

    def start(self, weight: "Tensor | None", width: int, generator: "Generator") -> "dict[str, Tensor]":
        """A [r, I] at random, B [O, r] zero."""
        del width
        return low_rank_start(weight, self.rank, generator)

    def forward(self, frozen: "Map", weight: "Tensor | None", bias: "Tensor | None", values: "Values", x: "Tensor") -> "Tensor":
        """Through the two small maps, never through their product."""
        from torch.nn.functional import linear

        del weight, bias
        low = linear(x, values["lora_a"])
        return frozen(x) + self.alpha / self.rank * linear(low, values["lora_b"])

    def weight(self, frozen: "Tensor", values: "Values") -> "Tensor":
        """W + (alpha / r) B A (section 4.1)."""
        return frozen + self.alpha / self.rank * (values["lora_b"] @ values["lora_a"])

    def still(self, number: int) -> tuple[str, ...]:
        """B starts at zero, and A learns nothing from it: B is first."""
        if self.factor == "both":
            return ()
        return ("lora_b",) if self.factor == "alternate" and number % 2 == 0 else ("lora_a",)


def low_rank_start(weight: "Tensor | None", rank: int, generator: "Generator") -> "dict[str, Tensor]":
    """A [r, I] of variance 1 / I, as for a linear layer of gain 1, and B [O, r] zero: their product is none."""
    import torch

    if weight is None:
        raise ConfigError("model.adapter.targets: only linear maps have a low-rank part.")
    outputs, inputs = weight.shape
    start = torch.rand(rank, inputs, generator=generator) * 2 - 1
    return {"lora_a": start * math.sqrt(3.0 / inputs), "lora_b": torch.zeros(outputs, rank)}


def require_targets(targets: tuple[str, ...]) -> None:
    """Refuse targets that no backbone has, and none at all."""
    if not targets or any(target not in TARGETS for target in targets):
        raise ConfigError(f"model.adapter.targets: expected some of {', '.join(TARGETS)}; got {list(targets)}.")
