"""A finding: one thing about one patient's data, or the site's, that somebody should know.

Findings stay at the site. What leaves, by policy, are counts by code.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """What follows from a finding."""

    ERROR = "error"  # the patient stays out
    WARNING = "warning"  # the patient is used, and perhaps not as meant
    NOTE = "note"  # how something was read that could have been read otherwise


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that was found.

    Attributes:
        patient: whose; "" for the site as a whole.
        code: stable, lower case with hyphens, such as `mask-outside`; scripts and the survey count by it.
        level: what follows.
        file: relative to the data folder; "" where no one file is meant.
        found: what is there, in the file's own numbers.
        expected: what would be right.
        do: what the hospital can do about it.
    """

    patient: str
    code: str
    level: Level
    file: str
    found: str
    expected: str
    do: str

    def __str__(self) -> str:
        """As one sentence after another, for a terminal or a log."""
        where = ", ".join(part for part in (f"patient {self.patient}" if self.patient else "", self.file) if part)
        return f"{where or 'site'}: {self.found}; expected {self.expected}. {self.do} [{self.code}]"


def stay_out(findings: Iterable[Finding]) -> frozenset[str]:
    """The patients who stay out."""
    return frozenset(finding.patient for finding in findings if finding.level is Level.ERROR and finding.patient)
