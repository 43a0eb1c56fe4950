"""The section of a run of findings, and its sentence at the top of the page."""

from dataclasses import dataclass

from server.report.decode import Measure
from server.report.findings import Findings, Measured, Model, Patient
from server.report.page.values import interval_text, number, patients_text

NAMES = {"pooled": "Pooled"}
RARE = 10  # patients with, or without, a finding: fewer tell little of it


@dataclass(frozen=True)
class Row:
    """One finding, or one model or subset by its means."""

    name: str
    strong: bool
    found: Measured
    difference: Measure


@dataclass(frozen=True)
class Section:
    """What the page shows."""

    findings: tuple[Row, ...]  # the last one is the mean
    rows: tuple[Row, ...]  # models
    subsets: tuple[Row, ...]
    names: tuple[str, ...]
    patients: tuple[Patient, ...]
    threshold: float | None
    cautions: tuple[str, ...]
    left_out: tuple[str, ...]


def read(found: Findings | None) -> Section | None:
    """The section; None where the run is of another task."""
    if found is None:
        return None
    each = tuple(Row(name, False, one, Measure()) for name, one in found.external.by_finding.items())
    subsets = sorted(found.subsets.items(), key=lambda pair: -pair[0].count("+"))
    return Section(
        findings=(*each, Row("Mean", True, found.external.mean, Measure())),
        rows=(_row("Federated", found.external, strong=True), *(_row(NAMES.get(n, n), m) for n, m in found.baselines.items())),
        subsets=tuple(_row(name, one) for name, one in subsets),
        names=tuple(found.external.by_finding),
        patients=found.patients,
        threshold=found.threshold,
        cautions=_cautions(found),
        left_out=found.left_out,
    )


def headline(found: Findings) -> str:
    """The result in one sentence."""
    mean, known = found.external.mean, found.external.by_finding
    if not mean.n:
        return "No finding is known of any external patient: they were predicted, and nothing could be measured."
    measured = [name for name, one in known.items() if one.auroc.value is not None]
    if not measured:
        return f"On {patients_text(mean.n)} of an external hospital, AUROC is defined for no finding."
    sure = f"95% interval {interval_text(mean.auroc)}" if interval_text(mean.auroc) else "no interval"
    over = f"{len(measured)} findings" if len(measured) > 1 else measured[0]
    kind = "a mean AUROC" if len(measured) > 1 else "an AUROC"
    reach = f"the federated model reaches {kind} of {number(mean.auroc.value)} over {over}"
    return f"On {patients_text(mean.n)} of an external hospital, {reach} ({sure})."


def beside(found: Findings) -> str:
    """How the baselines did, in one sentence, or nothing."""
    known = {name: one.mean.auroc.value for name, one in found.baselines.items() if one.mean.auroc.value is not None}
    parts = [f"{NAMES.get(name, name)} {number(value)}" for name, value in known.items()]
    return f"Beside it, with the same patients: {', '.join(parts)}." if parts else ""


def _row(name: str, model: Model, *, strong: bool = False) -> Row:
    return Row(name, strong, model.mean, model.difference)


def _cautions(found: Findings) -> tuple[str, ...]:
    """What the means do not show."""
    told = []
    for name, one in found.external.by_finding.items():
        n, positive = one.n or 0, one.positive or 0
        if n and positive in (0, n):
            who = "Nobody" if not positive else "Everybody"
            told.append(f"{who} of whom it is known has {name}: only the Brier score is defined, and the means are without it.")
        elif not n:
            told.append(f"{name} is known of no external patient, and the means are without it.")
        elif min(positive, n - positive) < RARE:
            told.append(f"{name}: {positive} of {n} have it. Read the interval, not the point.")
    if found.unknown:
        told.append(f"Of {patients_text(found.unknown)} no finding is known: predicted, and not measured.")
    return tuple(told)
