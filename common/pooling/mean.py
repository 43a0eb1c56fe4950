"""The plain mean of all patch tokens, beside which MM-DINOv2's CLS token stands alone (average pooling of DINOv2's probes)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.pooling.pooling import Pooling

if TYPE_CHECKING:
    from torch import Tensor

    from common.pooling.pooling import Values


@dataclass(frozen=True)
class Mean(Pooling):
    """All patches alike."""

    name: ClassVar[str] = "mean"

    def weights(self, patches: "Tensor", values: "Values") -> None:
        """None: all alike."""
        del patches, values
