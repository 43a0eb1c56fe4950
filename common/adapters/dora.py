"""DoRA, weight-decomposed LoRA: Liu et al., ICML 2024, eq. 5. Magnitude and direction of each row of a matrix are trained apart.

`W' = m V / |V|` with the direction `V = W + (alpha / r) B A`, `|V|` the norm of each of its rows (one an output), and the
magnitude m, which starts at `|W|`: so it starts exactly at the frozen map. The gradient goes through `|V|` as well (the paper's
section 4.3 leaves that part out to save memory).

The mean of the sites' matrices is not the matrix of their mean m, A and B, whichever of them is still: as LoRA's with
`factor = "both"`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.adapters.adapter import Adapter
from common.adapters.lora import low_rank_start, require_targets
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from common.adapters.adapter import Map, Values


@dataclass(frozen=True)
class DoRA(Adapter):
    """Settings of DoRA, and what it computes."""

    name: ClassVar[str] = "dora"
    rank: int = ranged(8, 1, 256)
    alpha: float = ranged(16.0, 0.0, 1024.0)
    targets: tuple[str, ...] = ("qkv",)  # of qkv, proj, fc1, fc2

    def __post_init__(self) -> None:
        require_targets(self.targets)

    @property
    def places(self) -> tuple[str, ...]:
        """The targets."""
        return self.targets

    def start(self, weight: "Tensor | None", width: int, generator: "Generator") -> "dict[str, Tensor]":
        """A [r, I] at random, B [O, r] zero, and the magnitude [O] of the frozen rows."""
        del width
        values = low_rank_start(weight, self.rank, generator)
        return values if weight is None else {**values, "magnitude": _row_norms(weight.detach())[:, 0].clone()}

    def forward(self, frozen: "Map", weight: "Tensor | None", bias: "Tensor | None", values: "Values", x: "Tensor") -> "Tensor":
        """Through the adapted matrix: its rows are scaled anew, so the frozen outputs cannot be kept."""
        from torch.nn.functional import linear

        del frozen
        assert weight is not None
        return linear(x, self.weight(weight, values), bias)

    def weight(self, frozen: "Tensor", values: "Values") -> "Tensor":
        """m V / |V|, row by row."""
        direction = frozen + self.alpha / self.rank * (values["lora_b"] @ values["lora_a"])
        return values["magnitude"].unsqueeze(1) / _row_norms(direction) * direction


def _row_norms(weight: "Tensor") -> "Tensor":
    """Euclidean norms of the rows, [O, 1]; a row of zeros has one that can be divided by."""
    from torch.linalg import vector_norm

    norms: Tensor = vector_norm(weight, dim=1, keepdim=True)
    return norms.clamp_min(1e-12)
