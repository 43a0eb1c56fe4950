"""The forest plot: the federated model beside its baselines on the same patients, and the differences paired by patient."""

from dataclasses import dataclass

from server.report.decode import Measure
from server.report.evaluation import Evaluation
from server.report.report import Baseline, Report

ALONE = "this hospital alone"
BASELINES = {
    "pooled": ("Pooled", "all patients in one place"),
    "linear_probe": ("Linear probe", "untrained features, logistic regression"),
}
CHANCE, BETTER, WORSE = "may be chance", "federated better", "federated worse"


@dataclass(frozen=True)
class Row:
    """One model, or one group of patients, measured."""

    name: str
    note: str
    federated: bool
    mcc: Measure
    balanced_accuracy: Measure
    auroc: Measure
    brier: Measure
    difference: Measure


def comparison(report: Report) -> tuple[Row, ...]:
    """The federated model first, then the baselines that the report has."""
    federated = measured("Federated", "hospitals train together; patients stay", report.external, federated=True)
    return (federated, *(_baseline(each) for each in report.baselines))


def measured(name: str, note: str, result: Evaluation | None, *, federated: bool = False) -> Row:
    """A row of what was measured."""
    note, found = (note, result) if result else ("no result", Evaluation())
    return Row(name, note, federated, found.mcc, found.balanced_accuracy, found.auroc, found.brier, found.difference)


def _baseline(baseline: Baseline) -> Row:
    name, note = BASELINES.get(baseline.kind, (baseline.site, ALONE))
    return measured(name, note, baseline.result)


def verdict(difference: Measure, better: str = BETTER, worse: str = WORSE) -> str:
    """A paired difference in words: only an interval that excludes 0 shows one."""
    if difference.low is None or difference.high is None:
        return "no interval"
    low, high = round(difference.low, 2), round(difference.high, 2)  # as printed: "0.00 to 0.42" must not read as better
    return better if low > 0 else worse if high < 0 else CHANCE
