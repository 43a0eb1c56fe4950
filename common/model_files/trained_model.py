"""A trained model, in the parts that predictions are made of."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.config.run import RunConfig
from common.evaluation.calibration.calibration import Calibration
from common.models.arrays import Arrays

if TYPE_CHECKING:
    from common.models.multimodal import MultiModalViT


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model in the parts that `predict` and `features` take.

    Attributes:
        model: its own parameters are the untouched ones.
        arrays: what training made of them.
        calibration: None where the run has none.
        reference: sums for out-of-distribution scores; empty where the run has none.
    """

    model: "MultiModalViT"
    arrays: Arrays
    config: RunConfig
    calibration: Calibration | None = None
    reference: Arrays = field(default_factory=dict)
