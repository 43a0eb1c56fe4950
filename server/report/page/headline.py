"""The top of the page: the result in one sentence, the baselines beside it, and cautions."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.report.decode import Measure
from server.report.evaluation import Detectable, Evaluation
from server.report.page import findings, segmentation
from server.report.page.classes import read_confusion
from server.report.page.comparison import ALONE, Row, comparison
from server.report.page.values import interval_text, number, patients_text, percent
from server.report.report import Report

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
    """The contents of the page's top, above all sections."""

    n: int  # labelled external patients
    hospital: str
    headline: str
    beside: str
    caution: str
    tiles: tuple[Tile, ...]


def read(report: Report) -> Top:
    """The top of the page."""
    external, rows = report.external, comparison(report)
    return Top(
        n=external.n or 0,
        hospital=report.provenance.hospital or "the external hospital",
        headline=headline(report),
        beside=_beside_of(report, rows),
        caution=caution(external),
        tiles=_tiles(rows[0], external),
    )


def headline(report: Report) -> str:
    """The result in one sentence."""
    if report.segmentation:
        return segmentation.headline(report.segmentation)
    if report.findings:
        return findings.headline(report.findings)
    external, mcc, n = report.external, report.external.mcc, report.external.n or 0
    if not n:
        return NO_LABELS
    if mcc.value is None:
        known = sum(1 for count in external.support.values() if count)
        why = " (all of one class)" if known == 1 and n > 1 else ""
        return f"On {patients_text(n)} of an external hospital{why}, MCC is not defined."
    reach = f"On {patients_text(n)} of an external hospital, the federated model reaches MCC {number(mcc.value)}"
    return f"{reach} (95% interval {interval_text(mcc)})." if interval_text(mcc) else f"{reach} (no interval)."


def detectable_text(found: Detectable | None) -> str:
    """The smallest difference that so many patients would show, in a sentence; nothing where it is not known."""
    if not found:
        return ""
    often = f" in {percent(found.power)} of such studies" if found.power is not None else ""
    sure = f" by {percent(max(found.level, 1 - found.level))} intervals" if found.level is not None else ""
    return (
        f"With {patients_text(found.n)}, two models must differ by {number(found.difference)} in MCC or more for the difference "
        f"to be seen{often}{sure}. A smaller one may be real and still not show: not seeing it is no proof that there is none."
    )


def _beside_of(report: Report, rows: Sequence[Row]) -> str:
    """By the task."""
    if report.segmentation:
        return segmentation.beside(report.segmentation)
    return findings.beside(report.findings) if report.findings else _beside(rows)


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


def caution(external: Evaluation) -> str:
    """Cautions: few patients, classes without patients, a model that predicts one class for everybody."""
    n = external.n or 0
    absent = [name for name, count in external.support.items() if not count]
    if not n:
        return ""
    advice = "too few to conclude anything" if n < VERY_FEW_PATIENTS else "read the intervals, not the points"
    few = f"Only {n} labelled {'patient' if n == 1 else 'patients'}: {advice}. " if n < FEW_PATIENTS else ""
    lack = f"No external patient is known to have {' or '.join(absent)}: nothing is measured for that." if absent else ""
    return " ".join(filter(None, (few.strip(), lack, _one_answer(external))))


def _one_answer(external: Evaluation) -> str:
    """A model that predicts one class for everybody has MCC 0 by definition, with an interval of no width."""
    rows = read_confusion(external)
    named = [rows[c].name for c in range(len(rows)) if any(row.guesses[c] for row in rows)]
    if len(named) != 1 or sum(row.support > 0 for row in rows) < 2:
        return ""
    return f"The model named {named[0]} for every patient: its MCC is 0 by definition, and the interval has no meaning."


def _tiles(row: Row, external: Evaluation) -> tuple[Tile, ...]:
    return (
        Tile("MCC", row.mcc, "1 perfect, 0 guessing"),
        Tile("Balanced accuracy", row.balanced_accuracy, "1 perfect"),
        Tile("AUROC", row.auroc, "1 perfect, 0.5 guessing"),
        Tile("Brier score", row.brier, "0 perfect, 2 worst"),
        Tile("Calibration error", external.ece, "0 perfect"),
    )
