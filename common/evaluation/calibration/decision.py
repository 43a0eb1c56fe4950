"""Which class is named for whom, before and after the class offsets, and whether that fits the ranking.

A model can rank patients well (AUROC) and name one class for too many (MCC). N patients, C classes.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.evaluation.comparison import measure, measure_difference
from common.metrics.bootstrap import mcc

RANKS_WELL = 0.75  # AUROC, mean over the classes, from which a poor decision is a wasted ranking
BEYOND_CHANCE = 2.5  # standard errors; of three classes at once, about one in thirty is beyond by chance


def report_decision(
    labels: NDArray[Any],
    raw: NDArray[Any],
    after: NDArray[Any],
    config: RunConfig,
    offsets: tuple[float, ...],
    no_offsets: str,
    held_back: NDArray[Any] | None,
) -> dict[str, Any]:
    """`decision` of report.json.

    Args:
        labels: of the external patients [N], below 0: unlabelled, left out.
        raw: probabilities [N, C] as the model has them.
        after: probabilities [N, C] as the report has them.
        config: the task, the bootstrap and the seed are read.
        offsets: one a class, or none.
        no_offsets: why there are none.
        held_back: [2, C, C], the sites' held-back patients by class and answer, before and after; None: not known.

    Returns:
        `offsets` {class: offset}; `no_offsets`, a sentence or ""; `truth` {class: patients}; `before` and `after`
        {`mcc` {value, low, high}, `auroc` macro, `predicted` {class: patients}}; `gain` {value, low, high}, MCC after minus
        before, paired; `held_back` {`truth`, `before` and `after` {`mcc` value, `predicted`}} or None; `disagreement`, a
        sentence or "".
    """
    classes = config.task.classes
    found = {when: measure(labels, said, config) for when, said in (("before", raw), ("after", after))}
    counts = {when: np.array(one["confusion"], np.float64) for when, one in found.items()}
    return {
        "offsets": dict(zip(classes, offsets, strict=True)) if offsets else {},
        "no_offsets": no_offsets,
        "truth": found["after"]["support"],
        **{
            when: {"mcc": one["mcc"], "auroc": one["auroc"]["macro"], "predicted": _named(counts[when].sum(axis=0), classes)}
            for when, one in found.items()
        },
        "gain": measure_difference(labels, after, raw, config),
        "held_back": None if held_back is None else _held_back(held_back, classes),
        "disagreement": disagreement(counts["after"], found["after"]["auroc"]["macro"], classes),
    }


def disagreement(confusion: NDArray[Any], auroc: float | None, classes: tuple[str, ...]) -> str:
    """A sentence where the ranking is good and yet one class is named for too many, or too few; else "".

    Too many: McNemar's test (1947) of each class, its patients who are called another against others who are called it.

    Args:
        confusion: [C, C], rows are the truth.
        auroc: mean over the classes.
        classes: C names.
    """
    if auroc is None or auroc < RANKS_WELL:
        return ""
    right = np.diag(confusion)
    truth, named = confusion.sum(axis=1), confusion.sum(axis=0)
    wrong = np.maximum(truth + named - 2 * right, 1.0)
    beyond = (named - truth) / np.sqrt(wrong)
    worst = int(np.abs(beyond).argmax())
    if abs(beyond[worst]) <= BEYOND_CHANCE:
        return ""
    return (
        f"Ranking and decision disagree: the AUROC is {auroc:.2f}, but {classes[worst]} is named for {int(named[worst])} of "
        f"{int(truth.sum())} patients and {int(truth[worst])} have it. The order of the patients can be relied on more than the "
        "class that is named."
    )


def _held_back(confusion: NDArray[Any], classes: tuple[str, ...]) -> dict[str, Any]:
    """The sites' own patients: those of `before` fitted nothing, those of `after` the offsets, so that it flatters."""
    before, after = (np.asarray(one, np.float64) for one in confusion)
    sides = {"before": before, "after": after}
    return {
        "truth": _named(before.sum(axis=1), classes),
        **{when: {"mcc": _mcc(one), "predicted": _named(one.sum(axis=0), classes)} for when, one in sides.items()},
    }


def _mcc(confusion: NDArray[np.float64]) -> float | None:
    value = float(mcc(confusion[None])[0])
    return value if math.isfinite(value) else None


def _named(counts: NDArray[Any], classes: tuple[str, ...]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(classes, counts, strict=True)}
