"""What one check of `fedmri-site doctor` found."""

from dataclasses import dataclass

OK, NOTE, WARNING, FAILED = "ok", "note", "warning", "FAILED"  # a note says what was not looked at, or cannot be known here


@dataclass(frozen=True)
class Finding:
    """The result of one check: a row.

    Attributes:
        level: one of the four above. Only FAILED keeps the site from taking part.
        advice: what to do; "" where there is nothing to do.
    """

    check: str
    level: str
    sentence: str
    advice: str = ""
