"""`calibration` of report.json: the temperature and what it did, prediction sets, risk by the share of patients answered for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.decode import Measure, listed, measure, names, real, table, whole


@dataclass(frozen=True)
class Bin:
    """The patients whose highest probability lies between `low` and `high`."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """The external patients before or after the temperature."""

    ece: float | None
    brier: float | None
    nll: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Conformal:
    """Prediction sets: coverage, promised and observed, and how many patients have a set of so many classes."""

    coverage: float | None
    observed: Measure
    mean_size: float | None
    threshold: float | None
    sizes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Calibration:
    """By whom and how the probabilities were calibrated. `abstention`: (share of patients answered for, risk)."""

    temperature: float | None
    offsets: tuple[float | None, ...]  # in the order of the classes; empty: none
    sites: tuple[str, ...]
    patients: int | None
    failures: tuple[tuple[str, str], ...]  # (site, why it gave nothing)
    before: Reliability | None
    after: Reliability | None
    conformal: Conformal | None
    abstention: tuple[tuple[float, Measure], ...]


def decode_calibration(value: Any) -> Calibration | None:
    """From report.json; None where a run has none."""
    entry = table(value)
    if not entry:
        return None
    points = (_point(table(each)) for each in listed(entry.get("abstention")))
    return Calibration(
        temperature=real(entry.get("temperature")),
        offsets=tuple(real(offset) for offset in listed(entry.get("offsets"))),
        sites=names(entry.get("sites")),
        patients=whole(entry.get("patients")),
        failures=tuple((str(site), str(why)) for site, why in table(entry.get("failures")).items()),
        before=_reliability(table(entry.get("before"))),
        after=_reliability(table(entry.get("after"))),
        conformal=_conformal(table(entry.get("conformal"))),
        abstention=tuple(sorted((point for point in points if point), key=lambda point: point[0])),
    )


def _reliability(entry: Mapping[str, Any]) -> Reliability | None:
    if not entry:
        return None
    bins = (_bin(table(each)) for each in listed(entry.get("reliability")))
    ece, brier, nll = (real(entry.get(key)) for key in ("ece", "brier", "nll"))
    return Reliability(ece, brier, nll, tuple(found for found in bins if found))


def _bin(entry: Mapping[str, Any]) -> Bin | None:
    """A bin; an empty one has neither mean probability nor share."""
    low, high, n = real(entry.get("low")), real(entry.get("high")), whole(entry.get("n"))
    confidence, accuracy = real(entry.get("confidence")), real(entry.get("accuracy"))
    if low is None or high is None or n is None or (n and (confidence is None or accuracy is None)):
        return None
    return Bin(low, high, n, confidence or 0.0, min(max(accuracy or 0.0, 0.0), 1.0))


def _conformal(entry: Mapping[str, Any]) -> Conformal | None:
    if not entry:
        return None
    coverage, mean_size, threshold = (real(entry.get(key)) for key in ("coverage", "mean_size", "threshold"))
    sizes = tuple((str(classes), whole(n)) for classes, n in table(entry.get("sizes")).items())
    return Conformal(coverage, measure(entry.get("observed")), mean_size, threshold, sizes)


def _point(entry: Mapping[str, Any]) -> tuple[float, Measure] | None:
    coverage, risk = real(entry.get("coverage")), real(entry.get("risk"))
    return None if coverage is None or risk is None else (coverage, measure(risk, entry))
