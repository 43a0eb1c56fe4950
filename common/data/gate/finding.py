"""A finding: one thing about one patient's data, or the site's, that somebody should know.

Findings stay at the site. What leaves, by policy, are counts by code.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from common.errors import DataError


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
        where = ", ".join(part for part in (f"Patient {self.patient}" if self.patient else "", self.file) if part)
        return f"{where or 'Site'}: {self.found}; expected {self.expected}. {self.do} [{self.code}]"

    def of(self, patient: str, file: str = "") -> "Finding":
        """The same, of this patient and file."""
        return replace(self, patient=patient, file=self.file or file)


@dataclass(frozen=True)
class Kind:
    """A kind of finding, as the table in docs/hospital.md has it; a rule says which kinds it finds.

    Attributes:
        code: of its findings.
        level: of its findings, where a finding does not say another one.
        means: what it means, in one line.
    """

    code: str
    level: Level
    means: str

    def finding(self, found: str, expected: str, do: str, *, file: str = "", level: Level | None = None) -> Finding:
        """One of this kind; whose it is, and in which file, `Finding.of` says where the rule does not know."""
        return Finding("", self.code, level or self.level, file, found, expected, do)


class StaysOutError(DataError):
    """A patient who cannot be used; `findings` says why, and what else was found."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__(" ".join(str(one) for one in self.findings if one.level is Level.ERROR))

    def named(self, file: str) -> "StaysOutError":
        """The same, of this file."""
        return StaysOutError(one.of("", file) for one in self.findings)

    def __reduce__(self) -> tuple[type["StaysOutError"], tuple[tuple[Finding, ...]]]:
        """It crosses from the cache's worker processes."""
        return StaysOutError, (self.findings,)


def stay_out(findings: Iterable[Finding]) -> frozenset[str]:
    """The patients who stay out."""
    return frozenset(finding.patient for finding in findings if finding.level is Level.ERROR and finding.patient)
