"""The forest plot: the federated model beside its baselines on the same patients, and the differences paired by patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.page.values import Measure, measure, table

ALONE = "this hospital alone"
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


def comparison(report: Mapping[str, Any]) -> tuple[Row, ...]:
    """The federated model first, then the baselines that the report has."""
    baselines = table(report["baselines"])
    rows = [measured("Federated", "hospitals train together; patients stay", report["external"], federated=True)]
    if "pooled" in baselines:
        rows.append(measured("Pooled", "all patients in one place", baselines["pooled"]))
    for site, entry in table(baselines.get("local")).items():
        rows.append(measured(site, ALONE, entry))
    if "linear_probe" in baselines:
        rows.append(measured("Linear probe", "untrained features, logistic regression", baselines["linear_probe"]))
    return tuple(rows)


def measured(name: str, note: str, entry: Any, *, federated: bool = False) -> Row:
    """A row from what `common.evaluation.metrics.metrics.evaluate` returned."""
    result = table(entry)
    spans = table(result.get("intervals"))
    return Row(
        name=name,
        note=note if result else "no result",
        federated=federated,
        mcc=measure(result.get("mcc")),
        balanced_accuracy=measure(result.get("balanced_accuracy"), spans.get("balanced_accuracy")),
        auroc=measure(table(result.get("auroc")).get("macro"), spans.get("auroc_macro")),
        brier=measure(result.get("brier"), spans.get("brier")),
        difference=measure(result.get("difference")),
    )


def verdict(difference: Measure, better: str = BETTER, worse: str = WORSE) -> str:
    """A paired difference in words: only an interval that leaves 0 out tells the two apart."""
    if difference.low is None or difference.high is None:
        return "no interval"
    low, high = round(difference.low, 2), round(difference.high, 2)  # as printed: "0.00 to 0.42" must not read as better
    return better if low > 0 else worse if high < 0 else CHANCE
