"""BitFit: Ben Zaken et al., ACL 2022. The biases of the adapted blocks are trained, and no array is added."""

from dataclasses import dataclass
from typing import ClassVar

from common.adapters.adapter import Adapter


@dataclass(frozen=True)
class BitFit(Adapter):
    """Trains biases."""

    name: ClassVar[str] = "bitfit"

    def trains(self, parameter: str) -> bool:
        """Every bias."""
        return parameter.endswith("bias")
