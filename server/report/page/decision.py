"""The decision: for how many patients each class is named, before and after the class offsets, and on whom they were fitted."""

from dataclasses import dataclass

from server.report.decision import Counts, Decision, Patients
from server.report.decode import NO_MEASURE, Measure
from server.report.page.comparison import verdict
from server.report.page.values import difference_text, signed

OFFSETS = (
    "A model can order patients well and still name one class for too many. So each class has an offset, fitted together with "
    "the temperature on patients held out inside the training hospitals, each class weighing the same, and shrunk towards 0 "
    "where they are few: {offsets} are added to the log-probabilities. The external patients had no part in it."
)
FLATTERS = "The held-back patients fitted the offsets: what is named for them afterwards flatters."


@dataclass(frozen=True)
class Row:
    """One line of the table: a group of patients, and what they have, or what is named for them."""

    who: str
    what: str
    mcc: Measure
    auroc: float | None
    counts: Counts


@dataclass(frozen=True)
class Section:
    """The section's content. `said` are its sentences, `alarm` one to be seen before them; "": none."""

    alarm: str
    said: tuple[str, ...]
    classes: tuple[str, ...]
    rows: tuple[Row, ...]


def read(found: Decision | None) -> Section | None:
    """The section; None where a report has nothing of it."""
    if not found:
        return None
    rows = _rows("external", found.external, offsets=bool(found.offsets))
    if found.held_back:
        rows += _rows("held back", found.held_back, offsets=bool(found.offsets))
    return Section(found.disagreement, _said(found), found.classes, rows)


def _said(found: Decision) -> tuple[str, ...]:
    if not found.offsets:
        return (found.no_offsets,) if found.no_offsets else ()
    named = ", ".join(f"{name} {signed(b)}" for name, b in zip(found.classes, found.offsets, strict=True))
    gain = f"MCC on the external patients, after minus before: {difference_text(found.gain)}"
    judged = verdict(found.gain, "the offsets helped", "the offsets did harm")
    said = (OFFSETS.format(offsets=named), f"{gain}: {judged}.")
    return (*said, FLATTERS) if found.held_back else said


def _rows(who: str, found: Patients, *, offsets: bool) -> tuple[Row, ...]:
    """The truth, then what is named; without offsets there is no before."""
    after = Row(who, "named", found.after.mcc, found.after.auroc, found.after.predicted)
    rows = (Row(who, "have it", NO_MEASURE, None, found.truth),)
    if not offsets:
        return (*rows, after)
    before = Row(who, "named without offsets", found.before.mcc, found.before.auroc, found.before.predicted)
    return (*rows, before, after)
