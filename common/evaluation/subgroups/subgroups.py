"""Performance in subgroups: by site, by scanner-like cluster, by age and by sex.

N patients, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.evaluation.comparison import measure
from common.evaluation.subgroups.acquisition import Acquisition
from common.evaluation.subgroups.clusters import cluster
from common.metrics.bootstrap import NO_INTERVAL, confusion, draw_counts, mcc, t_interval

FEWEST = 5  # labelled patients of a group that is measured; fewer are counted only
AGES = ((40.0, "under 40"), (60.0, "40 to 59"), (float("inf"), "60 and over"))
UNKNOWN = ""  # a patient in no group


def measure_subgroups(
    ids: Sequence[str],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    acquisitions: Mapping[str, Acquisition],
    config: RunConfig,
) -> dict[str, Any]:
    """`subgroups` of report.json.

    Args:
        ids: of the N patients.
        labels: [N]; below 0: in no group.
        probabilities: [N, C].
        acquisitions: by id; a patient who is not there is in no group.
        config: the task, the bootstrap and the seed are read.

    Returns:
        {"site" | "cluster" | "age" | "sex": {group: {n, mcc {value, low, high}, balanced_accuracy, auroc {macro}, difference}}}.
        `difference` {value, low, high}: MCC of the group minus that of all patients of the other groups, both resampled by
        themselves; None for a group that is all. Values are None for under `FEWEST` labelled patients. A division of which
        nothing is known, and that by site where there is one, is not there.
    """
    rows = [row for row, patient in enumerate(ids) if patient in acquisitions and labels[row] >= 0]
    known = [acquisitions[ids[row]] for row in rows]
    divisions = {"site": _sites(known), "cluster": cluster(known), "age": _ages(known), "sex": _sexes(known)}
    truth, said = labels[rows], probabilities[rows]
    return {name: _measure(groups, truth, said, config) for name, groups in divisions.items() if any(groups)}


def _sites(known: Sequence[Acquisition]) -> list[str]:
    names = [a.site for a in known]
    return names if len(set(names)) > 1 else []


def _ages(known: Sequence[Acquisition]) -> list[str]:
    return [UNKNOWN if a.age is None else next(name for limit, name in AGES if a.age < limit) for a in known]


def _sexes(known: Sequence[Acquisition]) -> list[str]:
    return [a.sex or UNKNOWN for a in known]


def _measure(
    groups: Sequence[str], labels: NDArray[np.int64], probabilities: NDArray[np.float64], config: RunConfig
) -> dict[str, Any]:
    """Every group, in the order of ages, else of names."""
    order = {name: place for place, (_, name) in enumerate(AGES)}
    names = np.array(groups)
    found = {}
    for name in sorted(set(groups) - {UNKNOWN}, key=lambda name: (order.get(name, -1), name)):
        inside, outside = names == name, (names != name) & (names != UNKNOWN)
        found[name] = _group(labels[inside], probabilities[inside], config)
        pair = [(labels[some], probabilities[some].argmax(1)) for some in (inside, outside)]
        found[name]["difference"] = _difference(pair, probabilities.shape[1], config)
    return found


def _group(labels: NDArray[np.int64], probabilities: NDArray[np.float64], config: RunConfig) -> dict[str, Any]:
    few = {"n": len(labels), "mcc": {"value": None, **NO_INTERVAL}, "balanced_accuracy": None, "auroc": {"macro": None}}
    if len(labels) < FEWEST:
        return few
    result = measure(labels, probabilities, config)
    return {name: result[name] for name in ("n", "mcc", "balanced_accuracy")} | {"auroc": {"macro": result["auroc"]["macro"]}}


def _difference(
    pair: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], classes: int, config: RunConfig
) -> dict[str, float | None]:
    """MCC of the first patients minus that of the second, each resampled by themselves: they are other people."""
    generator = np.random.default_rng(config.seed)
    if min(len(labels) for labels, _ in pair) < FEWEST:
        return {"value": None, **NO_INTERVAL}
    values = [mcc(confusion(*some, classes, np.ones((1, len(some[0])))))[0] for some in pair]
    if not np.isfinite(values).all():
        return {"value": None, **NO_INTERVAL}
    drawn = []
    for some in pair:
        counts = draw_counts(len(some[0]), config.evaluation.bootstrap, generator)
        if counts is None:
            return {"value": float(values[0] - values[1]), **NO_INTERVAL}
        drawn.append(mcc(confusion(*some, classes, counts)))
    value = float(values[0] - values[1])
    return {"value": value, **t_interval(value, drawn[0] - drawn[1], min(len(labels) for labels, _ in pair))}
