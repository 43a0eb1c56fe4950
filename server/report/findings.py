"""A run of findings: its measures on the external patients, read back from report.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.report.decode import NO_MEASURE, Measure, listed, measure, names, real, table, whole


@dataclass(frozen=True)
class Measured:
    """One finding, or the mean over those for which a measure is defined."""

    auroc: Measure = NO_MEASURE
    balanced_accuracy: Measure = NO_MEASURE
    mcc: Measure = NO_MEASURE
    brier: Measure = NO_MEASURE
    n: int | None = None  # patients of whom it is known; of a mean, of whom any is
    positive: int | None = None  # of them, those who have it; None of a mean


@dataclass(frozen=True)
class Model:
    """One model, or one subset of the modalities."""

    mean: Measured = field(default_factory=Measured)
    by_finding: Mapping[str, Measured] = field(default_factory=dict)
    difference: Measure = NO_MEASURE  # in mean AUROC, paired by patient: the federated model, or all modalities, minus this one


@dataclass(frozen=True)
class Patient:
    """An external patient: by finding a probability, and whether it is there; None: unknown."""

    id: str
    modalities: tuple[str, ...]
    cells: tuple[tuple[float | None, bool | None], ...]  # in the order of the findings


@dataclass(frozen=True)
class Findings:
    """All of it.

    Attributes:
        threshold: above which probability a finding is told.
        unknown: patients of whom no finding is known.
        baselines: by name, as the page shows it.
        subsets: by modalities, such as "t1+flair".
    """

    external: Model
    threshold: float | None
    unknown: int | None
    left_out: tuple[str, ...]
    baselines: Mapping[str, Model]
    subsets: Mapping[str, Model]
    patients: tuple[Patient, ...]


def decode_findings(report: Mapping[str, Any]) -> Findings | None:
    """From a whole report.json; None where the run is of another task."""
    external = table(report.get("external"))
    entry = table(external.get("findings"))
    if not entry:
        return None
    baselines = table(report.get("baselines"))
    found = {str(name): value for name, value in baselines.items() if name != "local"}
    found |= {f"{site} alone": value for site, value in table(baselines.get("local")).items()}
    called = names(table(entry.get("by_finding")))
    return Findings(
        external=_model(external),
        threshold=real(entry.get("threshold")),
        unknown=whole(entry.get("unknown")),
        left_out=names(entry.get("left_out")),
        baselines={name: _model(table(value)) for name, value in found.items()},
        subsets={str(name): _model(table(value)) for name, value in table(report.get("modality_subsets")).items()},
        patients=tuple(_patient(table(one), called) for one in listed(report.get("patients"))),
    )


def _model(entry: Mapping[str, Any]) -> Model:
    found = table(entry.get("findings"))
    rows = table(found.get("by_finding")).items()
    return Model(
        mean=_measured({**table(found.get("mean")), "n": found.get("n")}),
        by_finding={str(name): _measured(table(value)) for name, value in rows},
        difference=measure(entry.get("difference") or entry.get("drop")),
    )


def _measured(entry: Mapping[str, Any]) -> Measured:
    auroc, balanced, mcc, brier = (measure(entry.get(name)) for name in ("auroc", "balanced_accuracy", "mcc", "brier"))
    return Measured(auroc, balanced, mcc, brier, whole(entry.get("n")), whole(entry.get("positive")))


def _patient(entry: Mapping[str, Any], called: tuple[str, ...]) -> Patient:
    known, said = table(entry.get("findings")), [real(value) for value in listed(entry.get("probabilities"))]
    said += [None] * (len(called) - len(said))
    answers = [value if isinstance(value := known.get(name), bool) else None for name in called]
    cells = tuple(zip(said, answers, strict=False))
    return Patient(str(entry.get("id", "")), names(entry.get("modalities")), cells)
