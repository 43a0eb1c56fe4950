"""Calibration of the probabilities: reliability before and after temperature scaling, and on whom it was fitted."""

from dataclasses import dataclass

from markupsafe import Markup

from common.evaluation.calibration.calibration import TEMPERATURES
from server.report.calibration import Bin, Calibration, Reliability
from server.report.page.chart import UNIT, Chart, Line, counts, draw
from server.report.page.values import and_text, number, patients_text, wilson

FEW_PATIENTS = 50  # below which a temperature is rough
NO_SITE = "No site gave held-out patients to calibrate on, so the probabilities are as the model has them."
TOO_SURE = "The model was overconfident: its probabilities were made less extreme."
NOT_SURE_ENOUGH = "The model was underconfident: its probabilities were made more extreme."
UNCHANGED = "It changes nothing."
SAME = "Which class is most likely stays the same."
OFFSET = "Class offsets were fitted with it: they alone change which class is most likely (see the decision)."
ROUGH = "That is few: the number is rough."
AT_THE_EDGE = "It lies at the edge of what is tried: these probabilities should not be relied on."
MEASURES = (("ece", "Calibration error (ECE)"), ("brier", "Brier score"), ("nll", "Negative log-likelihood"))


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
class Section:
    """The section's content. `said` are its sentences."""

    said: tuple[str, ...]
    sides: tuple[Side, ...]
    rows: tuple[Before, ...]
    bins: bool
    failures: tuple[tuple[str, str], ...]


def read(found: Calibration | None) -> Section | None:
    """The section; None where a run was not calibrated."""
    if not found:
        return None
    before, after = found.before, found.after
    sides = tuple(_side(name, each) for name, each in (("Before", before), ("After", after)) if each and each.bins)
    rows = tuple(Before(name, getattr(before, key, None), getattr(after, key, None)) for key, name in MEASURES)
    return Section(
        said=_said(found),
        sides=sides,
        rows=tuple(row for row in rows if row.before is not None or row.after is not None),
        bins=bool(sides),
        failures=found.failures,
    )


def _said(found: Calibration) -> tuple[str, ...]:
    """The temperature, from whom it came, and what it does."""
    temperature, sites, patients = found.temperature, found.sites, found.patients
    if temperature is None:
        return ()
    if temperature == 1 and (not sites or patients == 0):  # nobody was held back, or nobody who has a label
        return (NO_SITE,)
    how = TOO_SURE if temperature > 1 else NOT_SURE_ENOUGH if temperature < 1 else UNCHANGED
    count = patients_text(patients) if patients is not None else "patients whose number a site keeps to itself"
    source = f" It was fitted on {count} of {and_text(sites)} who were held out of training." if sites else ""
    if sites and patients is not None and patients < FEW_PATIENTS:
        source += f" {ROUGH}"
    if not TEMPERATURES[0] < temperature < TEMPERATURES[-1]:
        source += f" {AT_THE_EDGE}"
    return (
        f"One number, the temperature {number(temperature)}, corrects all probabilities.{source} The external patients had no "
        f"part in it. {how} {OFFSET if found.offsets else SAME}",
    )


def _side(name: str, found: Reliability) -> Side:
    filled = [each for each in found.bins if each.n]
    label = f"{name}: share right against mean probability in {len(filled)} bins"
    spans = []
    for each in filled:
        share = wilson(round(each.accuracy * each.n), each.n)
        spans.append((each.confidence, share.low or 0.0, share.high or 0.0))
    dots = tuple((each.confidence, each.accuracy) for each in filled)
    lines = (Line(((0.0, 0.0), (1.0, 1.0)), "guide"), Line(dots, dots=True))
    chart = Chart(lines, UNIT, UNIT, label, "how sure the model was", "share right", spans=tuple(spans))
    bars = counts(tuple(((each.low + each.high) / 2, each.n) for each in found.bins), UNIT)
    return Side(name, found.ece, found.brier, found.bins, draw(chart, 230), bars)
