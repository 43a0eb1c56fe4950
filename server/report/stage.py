"""`stage` of report.json: which global arrays were kept, and what held-back patients said of each candidate."""

from dataclasses import dataclass
from typing import Any

from server.report.decode import listed, names, real, table, whole


@dataclass(frozen=True)
class Candidate:
    """Arrays that could have been kept. `round`: None where they are of several."""

    name: str
    round: int | None
    loss: float | None  # a patient, calibrated
    recall: float | None  # mean over the classes, before offsets


@dataclass(frozen=True)
class Stage:
    """What was kept. `why`: where nobody was asked, or nobody answered; else ""."""

    asked: str
    kept: str
    why: str
    sites: tuple[str, ...]
    patients: int | None
    candidates: tuple[Candidate, ...]
    failures: tuple[tuple[str, str], ...]


def decode_stage(value: Any) -> Stage | None:
    """From report.json; None where the last round was kept without a question."""
    entry = table(value)
    if not entry:
        return None
    return Stage(
        asked=str(entry.get("asked") or ""),
        kept=str(entry.get("kept") or ""),
        why=str(entry.get("why") or ""),
        sites=names(entry.get("sites")),
        patients=whole(entry.get("patients")),
        candidates=tuple(_candidate(each) for each in listed(entry.get("candidates"))),
        failures=tuple((str(site), str(why)) for site, why in table(entry.get("failures")).items()),
    )


def _candidate(value: Any) -> Candidate:
    entry = table(value)
    return Candidate(str(entry.get("name") or ""), whole(entry.get("round")), real(entry.get("loss")), real(entry.get("recall")))
