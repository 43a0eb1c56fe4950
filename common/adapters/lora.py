"""LoRA: Hu et al., ICLR 2022, eq. 3. A frozen linear map plus a trained one of low rank r: `y = W x + b + (alpha / r) B A x`.

The mean of the sites' products B A is not the product of their mean B and mean A, unless all sites share one of the two: so a
round may hold one of them still (`factor`). With "b", A stays at its seeded start (FFA-LoRA: Sun et al., ICLR 2024). With
"alternate", A is still in odd rounds after the head rounds, B in even ones (RoLoRA: Chen et al., arXiv 2502.01755). With "step",
both travel, and the steps inside a round move one each in turns, B first: no gradient or noise of one meets that of the other
(LA-LoRA: Liu et al., arXiv 2602.19926, whose smoothing of gradients is left out). What is made of a mean that is not exact:
`federation.low_rank`.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.adapters.adapter import PAIR, RESIDUAL, Adapter
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
    square map's, three quarters of qkv's), and noise of B never multiplies noise of A; with "step" neither does within a step.
    """

    name: ClassVar[str] = "lora"
    pairs: ClassVar[bool] = True
    rank: int = ranged(8, 0, 256)  # 0: no map is adapted, the backbone stays as it is
    alpha: float = ranged(16.0, 0.0, 1024.0)
    targets: tuple[str, ...] = ("qkv",)  # of qkv, proj, fc1, fc2
    factor: str = choice("both", "both", "b", "alternate", "step")

    def __post_init__(self) -> None:
        require_targets(self.targets)

    @property
    def places(self) -> tuple[str, ...]:
        """The targets."""
        return self.targets if self.rank else ()

    def start(self, weight: "Tensor | None", width: int, generator: "Generator") -> "dict[str, Tensor]":
        """A [r, I] at random, B [O, r] zero."""
        del width
        return low_rank_start(weight, self.rank, generator)

    def forward(self, frozen: "Map", weight: "Tensor | None", bias: "Tensor | None", values: "Values", x: "Tensor") -> "Tensor":
        """Through the two small maps, never through their product."""
        from torch.nn.functional import linear

        del weight, bias
        b, a = _stacked(values)
        return frozen(x) + self.alpha / self.rank * linear(linear(x, a), b)

    def weight(self, frozen: "Tensor", values: "Values") -> "Tensor":
        """W + (alpha / r) B A (section 4.1)."""
        b, a = _stacked(values)
        return frozen + self.alpha / self.rank * (b @ a)

    @property
    def exact_mean(self) -> bool:
        """Where a factor is still in every round."""
        return self.factor in ("b", "alternate")

    def still(self, number: int) -> tuple[str, ...]:
        """B starts at zero, and A learns nothing from it: B is first."""
        if not self.exact_mean:
            return ()
        return ("lora_b",) if self.factor == "alternate" and number % 2 == 0 else ("lora_a",)

    def still_in_step(self, step: int) -> tuple[str, ...]:
        """B is first here, too."""
        if self.factor != "step":
            return ()
        return ("lora_b",) if step % 2 else ("lora_a",)


def _stacked(values: "Values") -> "tuple[Tensor, Tensor]":
    """B and A; beside a residual the two of a larger rank, whose product is the sum of both."""
    import torch

    b, a = (values[name] for name in PAIR)
    if RESIDUAL[0] not in values:
        return b, a
    return torch.cat([b, values[RESIDUAL[0]]], dim=1), torch.cat([a, values[RESIDUAL[1]]], dim=0)


def residual_start(weight: "Tensor", rank: int) -> "dict[str, Tensor]":
    """A residual of zero, [O, R] and [R, I]."""
    outputs, inputs = weight.shape
    return dict(zip(RESIDUAL, (weight.new_zeros(outputs, rank), weight.new_zeros(rank, inputs)), strict=True))


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
