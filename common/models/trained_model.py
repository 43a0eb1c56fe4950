"""A model, its trained arrays and its configuration: what a prediction needs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.config.run import RunConfig
from common.models.arrays import Arrays

if TYPE_CHECKING:  # a command knows the name before torch is there
    from common.models.multimodal import MultiModalViT


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model, its trained arrays, and the run's configuration.

    Attributes:
        model: lends its frozen weights; its own trained arrays are those of the untouched model, and are not changed.
        arrays: what training made of them; none: the untouched model.
        config: of the run.
    """

    model: "MultiModalViT"
    arrays: Arrays
    config: RunConfig
