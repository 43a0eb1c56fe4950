"""The interface of a task: a frozen dataclass in a file of this room, and a line in `common.tasks.registry`.

Letters: N patients, C outputs.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from common.decoders.decoder import Decoder

if TYPE_CHECKING:  # configurations name tasks, and are parsed by commands that must not wait for what measures need
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Task(Protocol):
    """Its settings and mechanism.

    Attributes:
        name: `task.name` of a configuration.
        term: name of the loss term (`common.objectives`) that trains the head on the targets.
        exclusive: a patient has one of `classes`, so that probabilities add up to one. What calibrates, explains or counts
            classes has a meaning then alone: other tasks refuse it, or leave it out and say so.
    """

    name: ClassVar[str]
    term: ClassVar[str]
    exclusive: ClassVar[bool]

    @property
    def decoder(self) -> Decoder | None:
        """What gives each pixel an answer: then the target is the mask that somebody drew. None: one answer for a patient."""

    @property
    def label(self) -> str:
        """Column of participants.tsv that holds the target; site.toml may name another. "": no table has it, or several have."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of participants.tsv that hold the target; (): no table has it."""

    @property
    def words(self) -> tuple[str, ...]:
        """What a cell of these columns may say, for messages; a task may understand others, too."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or values, as reports and predictions write them."""

    @property
    def outputs(self) -> int:
        """C, of the head."""

    def target(self, word: str) -> int | None:
        """The class or value that a table's word stands for; None: unknown to this task."""

    def joined(self, found: Sequence[int | None]) -> int:
        """The label of a patient, from the targets of the columns in their order (None: nothing is known); -1: none."""

    def named(self, label: int) -> tuple[str, ...]:
        """Those of `classes` that a label says the patient has; label is 0 or more."""

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Of logits [..., C], over the temperature, probabilities of the same shape."""

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
