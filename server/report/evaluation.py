"""The measures of a model on a group of patients, as `common.metrics.classification.evaluate` returned them, read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.report.decode import NO_MEASURE, Measure, listed, measure, real, table, whole

Point = tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation; what was not measured is None, empty, or a `Measure` without a value."""

    n: int | None = None  # labelled patients
    support: Mapping[str, int] = field(default_factory=dict)  # class -> patients who have it
    mcc: Measure = NO_MEASURE
    balanced_accuracy: Measure = NO_MEASURE
    macro_f1: Measure = NO_MEASURE
    auroc: Measure = NO_MEASURE  # mean over the classes
    auroc_of: Mapping[str, Measure] = field(default_factory=dict)  # by class
    brier: Measure = NO_MEASURE
    ece: Measure = NO_MEASURE
    confusion: tuple[tuple[int, ...], ...] = ()  # [truth][prediction]; empty where it does not fit the classes
    roc: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)  # class -> (false, true positive rate)
    difference: Measure = NO_MEASURE  # in MCC, paired by patient; against whom depends on where it stands
    drop: Measure = NO_MEASURE  # of a subset of the modalities: the full set's MCC minus this one's


@dataclass(frozen=True)
class Detectable:
    """The least difference in MCC that `n` patients would show in `power` of such studies."""

    n: int
    difference: float
    power: float | None
    level: float | None


def decode_evaluation(value: Any) -> Evaluation | None:
    """From report.json; None where there is no result."""
    entry = table(value)
    if not entry:
        return None
    spans, auroc = table(entry.get("intervals")), table(entry.get("auroc"))
    support = {str(name): whole(count) or 0 for name, count in table(entry.get("support")).items()}
    return Evaluation(
        n=whole(entry.get("n")),
        support=support,
        mcc=measure(entry.get("mcc")),
        balanced_accuracy=measure(entry.get("balanced_accuracy"), spans.get("balanced_accuracy")),
        macro_f1=measure(entry.get("macro_f1"), spans.get("macro_f1")),
        auroc=measure(auroc.get("macro"), spans.get("auroc_macro")),
        auroc_of={str(name): measure(value) for name, value in table(auroc.get("per_class")).items()},
        brier=measure(entry.get("brier"), spans.get("brier")),
        ece=measure(entry.get("ece")),
        confusion=_confusion(entry.get("confusion"), len(support)),
        roc={str(name): _curve(table(curve)) for name, curve in table(entry.get("roc")).items()},
        difference=measure(entry.get("difference")),
        drop=measure(entry.get("drop")),
    )


def decode_detectable(value: Any) -> Detectable | None:
    """From `detectable` of report.json, or of a comparison of two runs; None where it is not known."""
    entry = table(value)
    n, difference = whole(entry.get("n")), real(entry.get("difference"))
    if n is None or difference is None:
        return None
    return Detectable(n, difference, real(entry.get("power")), real(entry.get("level")))


def _confusion(value: Any, classes: int) -> tuple[tuple[int, ...], ...]:
    rows = tuple(tuple(whole(count) or 0 for count in listed(counts)) for counts in listed(value))
    return rows if len(rows) == classes and all(len(row) == classes for row in rows) else ()


def _curve(entry: Mapping[str, Any]) -> tuple[Point, ...]:
    pairs = zip(listed(entry.get("fpr")), listed(entry.get("tpr")), strict=False)
    numbers = ((real(fpr), real(tpr)) for fpr, tpr in pairs)
    return tuple((fpr, tpr) for fpr, tpr in numbers if fpr is not None and tpr is not None)
