"""A trained model as its file, or its run's folder, holds it."""

from dataclasses import dataclass, field

from common.evaluation.calibration.calibration import Calibration
from common.models.arrays import Arrays
from common.models.trained_model import TrainedModel


@dataclass(frozen=True, eq=False)
class OpenedModel(TrainedModel):
    """A trained model with its run's calibration, and the moments for out-of-distribution scores.

    Attributes:
        calibration: None where the run has none.
        reference: sums for out-of-distribution scores; empty where the run has none.
    """

    calibration: Calibration | None = None
    reference: Arrays = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """The calibration's temperature; 1 where there is no calibration."""
        return self.calibration.temperature if self.calibration else 1.0
