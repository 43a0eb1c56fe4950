"""Guided attention, its queries taught by public patients (`common.models.public_features`): no site's mask is asked for."""

from dataclasses import dataclass
from typing import ClassVar

from common.pooling.guided import Guided


@dataclass(frozen=True)
class Taught(Guided):
    """As `Guided`, but that no round fits it: what private rounds can have, for its queries are of nobody's patients."""

    name: ClassVar[str] = "taught"
    fits: ClassVar[bool] = False
