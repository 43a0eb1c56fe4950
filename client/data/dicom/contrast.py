"""Whether a T1 was taken after a contrast agent. Converters drop what tells it, so it is asked of the DICOM tags."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import TM

from client.data.dicom.descriptions import WITH_CONTRAST, WITHOUT_CONTRAST, says
from client.data.dicom.header import number, value

NO_AGENT = frozenset(
    {"", "NO", "NONE", "N", "N/A", "NA", "-", "0", "OHNE", "KEIN", "WITHOUT", "SANS", "SIN", "NO CONTRAST", "UNKNOWN"}
)


@dataclass(frozen=True)
class Contrast:
    """The answer for one T1 series."""

    given: bool
    confidence: float
    reasons: tuple[str, ...]


def contrast(dataset: Dataset, name: str) -> Contrast:
    """Weigh tags and name.

    Absence of tags is weak evidence: de-identification empties Contrast/Bolus Agent, and many scanners leave it to be typed.

    Args:
        dataset: header of a T1 series.
        name: its description.
    """
    evidence = [*_tags(dataset), *_time(dataset), *_name(name)]
    for_it = sum(weight for given, weight, _ in evidence if given)
    against = sum(weight for given, weight, _ in evidence if not given)
    if not evidence:
        return Contrast(False, 0.6, ("no tag and no word of a contrast agent",))
    reasons = tuple(reason for _, _, reason in evidence)
    return Contrast(for_it > against, max(for_it, against) / (for_it + against + 0.5), reasons)


def _tags(dataset: Dataset) -> list[tuple[bool, float, str]]:
    found = []
    agent = str(value(dataset, "ContrastBolusAgent") or "").strip()
    if agent.upper() not in NO_AGENT:
        found.append((True, 2.0, f"Contrast/Bolus Agent {agent!r}"))
    if value(dataset, "ContrastBolusAgentSequence") or value(dataset, "ContrastBolusIngredient"):
        found.append((True, 2.0, "a contrast agent is coded"))
    amounts = [tag for tag in ("ContrastBolusVolume", "ContrastBolusTotalDose") if (number(dataset, tag) or 0) > 0]
    if amounts:
        found.append((True, 2.0, f"{amounts[0]} {number(dataset, amounts[0]):g} ml"))
    if str(value(dataset, "ContrastBolusRoute") or "").upper() not in NO_AGENT:
        found.append((True, 1.0, "route of a contrast agent"))
    administered = str(value(dataset, "ContrastBolusAgentAdministered") or "").upper()
    if administered in ("YES", "NO"):
        found.append((administered == "YES", 4.0, f"Contrast/Bolus Agent Administered {administered}"))
    return found


def _time(dataset: Dataset) -> list[tuple[bool, float, str]]:
    """Whether it was acquired after the injection, which outweighs an agent that was typed in for the whole study."""
    taken = _clock(value(dataset, "AcquisitionTime") or str(value(dataset, "AcquisitionDateTime") or "")[8:])
    given = _clock(value(dataset, "ContrastBolusStartTime"))
    if taken is None or given is None:
        return []
    after = taken >= given
    return [(after, 6.0, f"acquired {'after' if after else 'before'} the injection")]


def _clock(found: Any) -> timedelta | None:
    try:
        time = TM(str(found)[:13]) if found else None
    except ValueError:
        return None
    return timedelta(hours=time.hour, minutes=time.minute, seconds=time.second) if time else None


def _name(name: str) -> list[tuple[bool, float, str]]:
    """What the name says of contrast: words for "without" first, for they hold words for "with"."""
    without = says(WITHOUT_CONTRAST, name)
    if without:
        return [(False, 1.5, f"name says without contrast ({without})")]
    word = says(WITH_CONTRAST, name)
    return [(True, 1.5, f"name says contrast ({word})")] if word else []
