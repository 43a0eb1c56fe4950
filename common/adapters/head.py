"""No adapter: the backbone stays as it is, and only the tokens and the head are trained."""

from dataclasses import dataclass
from typing import ClassVar

from common.adapters.adapter import Adapter


@dataclass(frozen=True)
class HeadOnly(Adapter):
    """Trains nothing of the backbone."""

    name: ClassVar[str] = "head"
    trains_norms: ClassVar[bool] = False
