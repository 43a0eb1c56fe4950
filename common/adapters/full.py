"""Full training: every weight of the backbone is trained and sent. For pre-training, and for small backbones."""

from dataclasses import dataclass
from typing import ClassVar

from common.adapters.adapter import Adapter


@dataclass(frozen=True)
class Full(Adapter):
    """Trains the whole backbone."""

    name: ClassVar[str] = "full"
    trains_norms: ClassVar[bool] = False
    trains_backbone: ClassVar[bool] = True
