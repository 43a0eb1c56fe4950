"""Several findings of each patient, yes or no each: what a chest X-ray shows, or IDH with 1p/19q and MGMT.

Each is a column of participants.tsv. One may be unknown of a patient of whom another is known: what is known is learnt from and
measured, what is not is left out of both. No finding excludes another, and each has a probability of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from common.errors import ConfigError
from common.schema import ranged
from common.ternary import MOST, NO, UNKNOWN, YES, answer_at, encode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

WORDS = {
    YES: ("yes", "y", "true", "1", "positive", "present"),
    NO: ("no", "n", "false", "0", "negative", "absent"),
}
MEANING = {word: answer for answer, words in WORDS.items() for word in words}


@dataclass(frozen=True)
class Findings:
    """See `common.tasks.task.Task`; its measures are in `common.metrics.findings`. A label is a number of `common.ternary`."""

    name: ClassVar[str] = "findings"
    term: ClassVar[str] = "findings"
    exclusive: ClassVar[bool] = False
    decoder: ClassVar[None] = None
    findings: tuple[str, ...] = ("idh_mutant", "codeleted_1p19q", "mgmt_methylated")  # columns of participants.tsv
    threshold: float = ranged(0.5, 0.0, 1.0)  # a finding is told where its probability is above

    def __post_init__(self) -> None:
        names = [name.strip().lower() for name in self.findings]
        if not all(names) or len(set(names)) != len(names) or not 1 <= len(names) <= MOST:
            raise ConfigError(
                f"task.findings: expected 1 to {MOST} different columns of participants.tsv; got {list(self.findings)}."
            )

    @property
    def label(self) -> str:
        """No column has all of it."""
        return ""

    @property
    def columns(self) -> tuple[str, ...]:
        """One for each finding."""
        return self.findings

    @property
    def words(self) -> tuple[str, ...]:
        """Others say the same, such as 1 and 0 (`WORDS`); upper and lower case are one."""
        return ("yes", "no")

    @property
    def classes(self) -> tuple[str, ...]:
        """The findings."""
        return self.findings

    @property
    def outputs(self) -> int:
        """One for each finding."""
        return len(self.findings)

    def target(self, word: str) -> int | None:
        """Whether a cell says that the finding is there; numbers by value, for a spreadsheet with a gap writes 1 as 1.0."""
        try:
            return MEANING.get(f"{float(word):g}")
        except ValueError:
            return MEANING.get(word.strip().lower())

    def joined(self, found: Sequence[int | None]) -> int:
        """All findings as one number."""
        return encode([UNKNOWN if answer is None else answer for answer in found])

    def named(self, label: int) -> tuple[str, ...]:
        """The findings that are known to be there."""
        return tuple(name for place, name in enumerate(self.findings) if answer_at(label, place) == YES)

    def answers(self, label: int) -> dict[str, bool | None]:
        """By finding whether it is there; None: unknown."""
        known = {YES: True, NO: False, UNKNOWN: None}
        return {name: known[answer_at(label, place)] for place, name in enumerate(self.findings)}

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Of each finding by itself."""
        return logits.sigmoid()

    def evaluate(
        self,
        labels: "NDArray[Any]",
        probabilities: "NDArray[Any]",
        *,
        bootstrap: int,
        generator: "np.random.Generator",
    ) -> dict[str, Any]:
        """`findings` alone: see `common.metrics.findings.evaluate`."""
        from common.metrics.findings import evaluate

        found = evaluate(labels, probabilities, self.findings, threshold=self.threshold, bootstrap=bootstrap, generator=generator)
        return {"findings": found}

    def curves(self, labels: "NDArray[Any]", probabilities: "NDArray[Any]") -> dict[str, Any]:
        """None."""
        del labels, probabilities
        return {}
