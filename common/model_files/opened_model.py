"""A trained model as its file, or its run's folder, holds it."""

from dataclasses import dataclass, field

from common.errors import FedMRIError
from common.evaluation.calibration.calibration import UNSCALED, Calibration, Scaling
from common.models.arrays import Arrays
from common.models.trained_model import TrainedModel


@dataclass(frozen=True, eq=False)
class OpenedModel(TrainedModel):
    """A trained model with its run's calibration, and the moments for out-of-distribution scores.

    Attributes:
        calibration: None where the run has none.
        reference: sums for out-of-distribution scores; empty where the run has none.
        unfinished: how far its run was, in a sentence; "": nothing says that it has not finished.
    """

    calibration: Calibration | None = None
    reference: Arrays = field(default_factory=dict)
    unfinished: str = ""

    def __post_init__(self) -> None:
        offsets, classes = len(self.scaling.offsets), len(self.config.task.classes)
        if offsets not in (0, classes):
            raise FedMRIError(
                f"The calibration has {offsets} class offsets, the model {classes} classes. Take both from one run."
            )

    @property
    def scaling(self) -> Scaling:
        """The calibration's temperature and offsets; where there is no calibration it changes nothing."""
        return self.calibration.scaling if self.calibration else UNSCALED
