"""Which voxels of each patient are tumour: a decoder on patch tokens, measured by Dice, Jaccard and Hausdorff distance.

A mask that somebody drew is the target, so that a patient with one is a labelled patient; no table is read for it. Slices and
windows come from the brain alone: where a mask places them, its tumour is given away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from common.decoders.decoder import Decoder
from common.decoders.registry import DECODERS
from common.errors import ConfigError
from common.schema import one_of, ranged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation:
    """See `common.tasks.task.Task`; its measures are in `common.evaluation.segmentation`."""

    name: ClassVar[str] = "segmentation"
    term: ClassVar[str] = "segmentation"
    exclusive: ClassVar[bool] = False
    decoder: Decoder = one_of("unet", DECODERS)
    threshold: float = ranged(0.5, 0.0, 1.0)  # a voxel is tumour where its probability is above
    components: int = ranged(0, 0, 1000)  # so many of the largest connected parts are kept; 0: all

    @property
    def label(self) -> str:
        """No column of a table."""
        return ""

    @property
    def columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def words(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        """What a drawn mask marks."""
        return ("tumour",)

    @property
    def outputs(self) -> int:
        """The head serves the self-supervised terms alone; one output stands for the task, so that it is never empty."""
        return 1

    def target(self, word: str) -> int | None:
        """No word of a table stands for a mask."""
        del word
        return None

    def joined(self, found: Sequence[int | None]) -> int:
        """No column says anything."""
        del found
        return -1

    def named(self, label: int) -> tuple[str, ...]:
        """What the mask marks."""
        del label
        return self.classes

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Of each voxel by itself."""
        return logits.sigmoid()

    def evaluate(
        self,
        labels: "NDArray[Any]",
        probabilities: "NDArray[Any]",
        *,
        bootstrap: int,
        generator: "np.random.Generator",
    ) -> dict[str, Any]:
        """There is nothing of the kind.

        Raises:
            ConfigError: always: whoever asks measures one class a patient.
        """
        del labels, probabilities, bootstrap, generator
        raise ConfigError(
            f'task.name = "{self.name}" gives no class of a patient, and this measures classes. Use fedmri-sim run.'
        )

    def curves(self, labels: "NDArray[Any]", probabilities: "NDArray[Any]") -> dict[str, Any]:
        """None."""
        del labels, probabilities
        return {}
