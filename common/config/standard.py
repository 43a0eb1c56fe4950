"""The standard intensity scale of a modality (Nyul and Udupa, MRM 1999; deciles as in Nyul, Udupa and Zhang, TMI 2000).

Between the two percentiles of a volume's foreground that become 0 and 1 lie nine landmarks, its deciles. The standard ones are
their means over the patients of all sites; `common.data.harmonisation` maps each volume's own to them.
"""

from dataclasses import dataclass

from common.config.modalities import MODALITIES
from common.errors import ConfigError

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)  # of the foreground


@dataclass(frozen=True)
class Standard:
    """One modality's.

    Attributes:
        name: of the modality; one without an intensity rule of its own.
        landmarks: at `PERCENTILES`, rising, from 0 to 1.
    """

    name: str
    landmarks: tuple[float, ...]

    def __post_init__(self) -> None:
        named = [name for name, row in MODALITIES.items() if row.quantity is None]
        if self.name not in named:
            raise ConfigError(f"data.standard: expected one of {', '.join(named)} as a name, got {self.name!r}.")
        marks = self.landmarks
        if len(marks) != len(PERCENTILES) or list(marks) != sorted(marks) or not all(0 <= mark <= 1 for mark in marks):
            raise ConfigError(
                f"data.standard, {self.name!r}: expected {len(PERCENTILES)} rising landmarks from 0 to 1, got {list(marks)}."
            )
