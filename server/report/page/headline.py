"""The top of the page: the result in one sentence, what stands beside it, what a reader must know before reading on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.report.page.classes import read_confusion
from server.report.page.comparison import ALONE, Row, comparison
from server.report.page.values import Measure, interval_text, measure, number, patients_text, percent, real, table, whole

FEW_PATIENTS, VERY_FEW_PATIENTS = 30, 10
NO_LABELS = "The external patients have no labels: they were predicted, and nothing could be measured."


@dataclass(frozen=True)
class Tile:
    """One measure of the whole, with its scale in words."""

    name: str
    measure: Measure
    scale: str


@dataclass(frozen=True)
class Top:
    """What stands above all sections."""

    n: int  # labelled external patients
    hospital: str
    headline: str
    beside: str
    caution: str
    tiles: tuple[Tile, ...]


def read(report: Mapping[str, Any]) -> Top:
    """The top of a report that `server.report.report.assemble` made."""
    external, rows = table(report["external"]), comparison(report)
    hospital = table(report["provenance"]).get("external")
    return Top(
        n=whole(external.get("n")) or 0,
        hospital=hospital if isinstance(hospital, str) and hospital else "the external hospital",
        headline=headline(report),
        beside=_beside(rows),
        caution=caution(external),
        tiles=_tiles(rows[0], external),
    )


def headline(report: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    external, mcc = table(report["external"]), measure(table(report["external"]).get("mcc"))
    n = whole(external.get("n")) or 0
    if not n:
        return NO_LABELS
    if mcc.value is None:
        known = sum(1 for count in table(external.get("support")).values() if count)
        why = " (all of one class)" if known == 1 and n > 1 else ""
        return f"On {patients_text(n)} of an external hospital{why}, MCC is not defined."
    reach = f"On {patients_text(n)} of an external hospital, the federated model reaches MCC {number(mcc.value)}"
    return f"{reach} (95% interval {interval_text(mcc)})." if interval_text(mcc) else f"{reach} (no interval)."


def detectable_text(entry: Mapping[str, Any]) -> str:
    """The smallest difference that so many patients would show, in a sentence; nothing where it is not known."""
    n, difference, power, level = whole(entry.get("n")), *(real(entry.get(key)) for key in ("difference", "power", "level"))
    if n is None or difference is None:
        return ""
    often = f" in {percent(power)} of such studies" if power is not None else ""
    sure = f" by {percent(max(level, 1 - level))} intervals" if level is not None else ""
    return (
        f"With {patients_text(n)}, two models must differ by {number(difference)} in MCC or more for the difference to be "
        f"seen{often}{sure}. A smaller one may be real and still not show: not seeing it is no proof that there is none."
    )


def _beside(rows: Sequence[Row]) -> str:
    """How the baselines did, in one sentence, or nothing."""
    local = [row for row in rows if row.note == ALONE and row.mcc.value is not None]
    parts = []
    if local:
        best = max(local, key=lambda row: row.mcc.value or 0.0)
        parts.append(f"the best hospital alone {number(best.mcc.value)} ({best.name})")
    for name, words in (("Pooled", "pooled training"), ("Linear probe", "the linear probe")):
        parts += [f"{words} {number(row.mcc.value)}" for row in rows if row.name == name and row.mcc.value is not None]
    return f"Beside it, with the same patients: {', '.join(parts)}." if parts else ""


def caution(external: Mapping[str, Any]) -> str:
    """Few patients, classes that are not there, a model that names one class for everybody."""
    n = whole(external.get("n")) or 0
    absent = [str(name) for name, count in table(external.get("support")).items() if not count]
    if not n:
        return ""
    advice = "too few to conclude anything" if n < VERY_FEW_PATIENTS else "read the intervals, not the points"
    few = f"Only {n} labelled {'patient' if n == 1 else 'patients'}: {advice}. " if n < FEW_PATIENTS else ""
    lack = f"No external patient is known to have {' or '.join(absent)}: nothing is measured for that." if absent else ""
    return " ".join(filter(None, (few.strip(), lack, _one_answer(external))))


def _one_answer(external: Mapping[str, Any]) -> str:
    """A model that tells no patient from another has MCC 0 by definition, with an interval of no width."""
    rows = read_confusion(external)
    named = [rows[c].name for c in range(len(rows)) if any(row.guesses[c] for row in rows)]
    if len(named) != 1 or sum(row.support > 0 for row in rows) < 2:
        return ""
    return f"The model named {named[0]} for every patient: its MCC is 0 by definition, and the interval has no meaning."


def _tiles(row: Row, external: Mapping[str, Any]) -> tuple[Tile, ...]:
    return (
        Tile("MCC", row.mcc, "1 perfect, 0 guessing"),
        Tile("Balanced accuracy", row.balanced_accuracy, "1 perfect"),
        Tile("AUROC", row.auroc, "1 perfect, 0.5 guessing"),
        Tile("Brier score", row.brier, "0 perfect, 2 worst"),
        Tile("Calibration error", measure(external.get("ece")), "0 perfect"),
    )
