"""Whether a probability of 0.8 is right 8 times in 10: reliability before and after the temperature, and where that came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from common.evaluation.calibration.calibration import TEMPERATURES
from server.report.page.chart import UNIT, Chart, Line, counts, draw
from server.report.page.values import and_text, listed, names, number, patients_text, real, table, whole, wilson

FEW_PATIENTS = 50  # below which a temperature is rough
MEASURES = (("ece", "Calibration error (ECE)"), ("brier", "Brier score"), ("nll", "Negative log-likelihood"))


@dataclass(frozen=True)
class Bin:
    """The patients whose highest probability lies between `low` and `high`."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Side:
    """Reliability before or after the temperature."""

    name: str
    ece: float | None
    brier: float | None
    bins: tuple[Bin, ...]
    drawing: Markup
    counts: Markup


@dataclass(frozen=True)
class Before:
    """One measure, before and after."""

    name: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Calibration:
    """The section's content. `said` are its sentences."""

    said: tuple[str, ...]
    sides: tuple[Side, ...]
    rows: tuple[Before, ...]
    bins: bool
    failures: tuple[tuple[str, str], ...]


def read(entry: Mapping[str, Any]) -> Calibration | None:
    """From `calibration` of report.json; None where a run has none."""
    if not entry:
        return None
    before, after = table(entry.get("before")), table(entry.get("after"))
    sides = tuple(side for side in (_side("Before", before), _side("After", after)) if side.bins)
    rows = tuple(Before(name, real(before.get(key)), real(after.get(key))) for key, name in MEASURES)
    return Calibration(
        said=_said(entry),
        sides=sides,
        rows=tuple(row for row in rows if row.before is not None or row.after is not None),
        bins=bool(sides),
        failures=tuple((str(site), str(why)) for site, why in table(entry.get("failures")).items()),
    )


def _said(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The temperature, from whom it came, and what it does."""
    temperature, sites, patients = real(entry.get("temperature")), names(entry.get("sites")), whole(entry.get("patients"))
    if temperature is None:
        return ()
    if not sites and temperature == 1:
        return ("No site gave held-out patients to calibrate on, so the probabilities are as the model has them.",)
    how = (
        "The model was too sure of itself: its probabilities were drawn together."
        if temperature > 1
        else ("The model was not sure enough: its probabilities were drawn apart." if temperature < 1 else "It changes nothing.")
    )
    count = patients_text(patients) if patients is not None else "patients whose number a site keeps to itself"
    source = f" It was fitted on {count} of {and_text(sites)} who were held out of training." if sites else ""
    if sites and patients is not None and patients < FEW_PATIENTS:
        source += " That is few: the number is rough."
    if not TEMPERATURES[0] < temperature < TEMPERATURES[-1]:
        source += " It lies at the edge of what is tried: these probabilities should not be relied on."
    return (
        f"One number, the temperature {number(temperature)}, corrects all probabilities.{source} The external patients had no "
        f"part in it. {how} Which class is most likely stays the same.",
    )


def _side(name: str, entry: Mapping[str, Any]) -> Side:
    bins = tuple(found for found in (_bin(table(each)) for each in listed(entry.get("reliability"))) if found)
    filled = [each for each in bins if each.n]
    label = f"{name}: share right against mean probability in {len(filled)} bins"
    spans = []
    for each in filled:
        share = wilson(round(each.accuracy * each.n), each.n)
        spans.append((each.confidence, share.low or 0.0, share.high or 0.0))
    dots = tuple((each.confidence, each.accuracy) for each in filled)
    lines = (Line(((0.0, 0.0), (1.0, 1.0)), "guide"), Line(dots, dots=True))
    chart = Chart(lines, UNIT, UNIT, label, "how sure the model was", "share right", spans=tuple(spans))
    bars = counts(tuple(((each.low + each.high) / 2, each.n) for each in bins), UNIT)
    return Side(name, real(entry.get("ece")), real(entry.get("brier")), bins, draw(chart, 230), bars)


def _bin(entry: Mapping[str, Any]) -> Bin | None:
    """A bin; an empty one has neither mean probability nor share."""
    low, high, n = real(entry.get("low")), real(entry.get("high")), whole(entry.get("n"))
    confidence, accuracy = real(entry.get("confidence")), real(entry.get("accuracy"))
    if low is None or high is None or n is None or (n and (confidence is None or accuracy is None)):
        return None
    share = min(max(accuracy or 0.0, 0.0), 1.0)
    return Bin(low, high, n, confidence or 0.0, share)
