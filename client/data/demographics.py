"""Age and sex from a DICOM header, as `participants.tsv` may hold them."""

import re
from datetime import date

from pydicom.dataset import Dataset

OLDEST = 89  # above, an age names few people: HIPAA's Safe Harbor and BIDS write 89+
MISSING = "n/a"
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def age(dataset: Dataset) -> str:
    """Whole years at the time of the study; `89+` above 89; `n/a` where it is unknown."""
    years = _told(str(dataset.get("PatientAge", "") or "")) or _reckoned(dataset)
    if years is None or not 0 <= years < 130:
        return MISSING
    return f"{OLDEST}+" if years > OLDEST else str(int(years))


def sex(dataset: Dataset) -> str:
    """`F`, `M` or `n/a`."""
    word = str(dataset.get("PatientSex", "") or "").strip().upper()
    return word if word in ("F", "M") else MISSING


def _told(text: str) -> float | None:
    """DICOM's age string: three digits and a unit."""
    found = re.fullmatch(r"\s*(\d{1,3})([YMWD])\s*", text.upper())
    return int(found[1]) * _YEARS[found[2]] if found else None


def _reckoned(dataset: Dataset) -> float | None:
    """From the birthday to the study's day."""
    born, taken = (_day(str(dataset.get(tag, "") or "")) for tag in ("PatientBirthDate", "StudyDate"))
    if born is None or taken is None:
        return None
    return float(taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day)))


def _day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None
