"""The interface of a task: a frozen dataclass in a file of this room, and a line in `common.tasks.registry`.

Letters: N patients, C outputs.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from common.decoders.decoder import Decoder

if TYPE_CHECKING:  # configurations name tasks, and are parsed by commands that must not wait for what measures need
    import numpy as np
    from numpy.typing import NDArray


class Task(Protocol):
    """Its settings and mechanism.

    Attributes:
        name: `task.name` of a configuration.
        term: name of the loss term (`common.objectives`) that trains the head on the targets.
    """

    name: ClassVar[str]
    term: ClassVar[str]

    @property
    def decoder(self) -> Decoder | None:
        """What gives each pixel an answer: then the target is the mask that somebody drew. None: one answer for a patient."""

    @property
    def label(self) -> str:
        """Column of participants.tsv that holds the target; site.toml may name another. "": no table has it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or values, as reports and predictions write them."""

    @property
    def outputs(self) -> int:
        """C, of the head."""

    def target(self, word: str) -> int | None:
        """The class or value that a table's word stands for; None: unknown to this task."""

    def evaluate(
        self,
        labels: "NDArray[Any]",
        probabilities: "NDArray[Any]",
        *,
        bootstrap: int,
        generator: "np.random.Generator",
    ) -> dict[str, Any]:
        """Measures with intervals: an entry such as `external` of report.json. The page shows a section for each that is there.

        Args:
            labels: [N], below 0: unlabelled, left out.
            probabilities: [N, C].
            bootstrap: resamples; 0: no intervals.
            generator: draws the resamples.
        """

    def curves(self, labels: "NDArray[Any]", probabilities: "NDArray[Any]") -> dict[str, Any]:
        """What `external` of report.json has besides, to be drawn."""
