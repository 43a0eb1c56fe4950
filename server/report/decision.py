"""`decision` of report.json: which class is named for whom, before and after the class offsets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.decode import Measure, measure, real, table, whole

Counts = tuple[int | None, ...]  # patients by class, in the order of the classes


@dataclass(frozen=True)
class Side:
    """Measures of the decision before or after the offsets; `predicted`: for how many patients each class is named."""

    mcc: Measure
    auroc: float | None
    predicted: Counts


@dataclass(frozen=True)
class Patients:
    """A group of patients: how many have each class, and what is named."""

    truth: Counts
    before: Side
    after: Side


@dataclass(frozen=True)
class Decision:
    """What the class offsets did, or why there are none. `held_back`: the sites' own patients; None where not known."""

    classes: tuple[str, ...]
    offsets: tuple[float | None, ...]
    no_offsets: str
    external: Patients
    gain: Measure
    held_back: Patients | None
    disagreement: str


def decode_decision(value: Any) -> Decision | None:
    """From report.json; None where a report has none."""
    entry = table(value)
    classes = tuple(str(name) for name in table(entry.get("truth")))
    if not classes:
        return None
    offsets, held = table(entry.get("offsets")), table(entry.get("held_back"))
    return Decision(
        classes=classes,
        offsets=tuple(real(offsets.get(name)) for name in classes) if offsets else (),
        no_offsets=str(entry.get("no_offsets") or ""),
        external=_patients(entry, classes),
        gain=measure(entry.get("gain")),
        held_back=_patients(held, classes) if held else None,
        disagreement=str(entry.get("disagreement") or ""),
    )


def _patients(entry: Mapping[str, Any], classes: tuple[str, ...]) -> Patients:
    before, after = (_side(table(entry.get(when)), classes) for when in ("before", "after"))
    return Patients(_counts(entry.get("truth"), classes), before, after)


def _side(entry: Mapping[str, Any], classes: tuple[str, ...]) -> Side:
    return Side(measure(entry.get("mcc")), real(entry.get("auroc")), _counts(entry.get("predicted"), classes))


def _counts(value: Any, classes: tuple[str, ...]) -> Counts:
    found = table(value)
    return tuple(whole(found.get(name)) for name in classes)
