"""`twins` of report.json: the same person in two folders, or at two hospitals, and what became of it."""

from dataclasses import dataclass
from typing import Any

from server.report.decode import listed, real, table, whole


@dataclass(frozen=True)
class TwinPair:
    """One person under two names, SITE/PATIENT. `left_out`: the one of the two who takes no part; "": both do."""

    external: bool  # the second is the external hospital's
    first: str
    second: str
    overlap: float | None
    left_out: str


@dataclass(frozen=True)
class Twins:
    """What the comparison before the first round found.

    Attributes:
        pairs: in simulation, where the folders are the researcher's.
        patients, incomparable: how many were compared, and of how many of them the images are too small.
        sites: at a real federation, what each hospital says it left out; None where its policy keeps the number.
        failures: hospitals that had no part in it, and why.
    """

    pairs: tuple[TwinPair, ...]
    patients: int | None
    incomparable: int | None
    sites: tuple[tuple[str, int | None], ...]
    failures: tuple[tuple[str, str], ...]


def decode_twins(value: Any) -> Twins | None:
    """From report.json; None where nobody looked."""
    entry = table(value)
    if not entry:
        return None
    return Twins(
        pairs=tuple(_pair(each) for each in listed(entry.get("pairs"))),
        patients=whole(entry.get("patients")),
        incomparable=whole(entry.get("incomparable")),
        sites=tuple((str(site), whole(count)) for site, count in table(entry.get("sites")).items()),
        failures=tuple((str(site), str(why)) for site, why in table(entry.get("failures")).items()),
    )


def _pair(value: Any) -> TwinPair:
    entry = table(value)
    first, second, left_out = (str(entry.get(key) or "") for key in ("first", "second", "left_out"))
    return TwinPair(entry.get("kind") == "external", first, second, real(entry.get("overlap")), left_out)
