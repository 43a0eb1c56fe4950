"""What arms are compared by: class-balanced log-loss and MCC, the mean over seeds, with intervals over patients.

A resample draws patients, and each patient brings their answers of all seeds and folds along: answers of one patient are no
independent evidence. Differences are paired: both arms on the same resamples.

N answers of one seed, P patients, C classes, R resamples.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.evaluation.calibration.calibration import SMALLEST
from common.metrics.bootstrap import NO_INTERVAL, Interval, bca_interval, confusion, draw_counts, leave_one_out, mcc, t_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LOG_LOSS, MCC = MEASURES = ("log_loss", "mcc")


class Answers(NamedTuple):
    """One seed's answers of all folds.

    Attributes:
        patients: index of each answer's patient [N], from 0 to P - 1.
        labels: [N].
        probabilities: [N, C].
    """

    patients: Ints
    labels: Ints
    probabilities: Floats


def balanced_log_loss(labels: Ints, probabilities: Floats, counts: Floats) -> Floats:
    """Mean over the classes of the mean -log p_true of the class [R]; NaN where a resample lacks a class that there is.

    Args:
        labels: [N].
        probabilities: [N, C].
        counts: how often each answer is in each resample [R, N].
    """
    losses = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], SMALLEST))
    member = np.eye(probabilities.shape[1])[labels][:, np.unique(labels)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(((counts @ (member * losses[:, None])) / (counts @ member)).mean(axis=1))


def on_resamples(arm: Sequence[Answers], counts: Floats) -> dict[str, Floats]:
    """Each measure's mean over the seeds, on each resample [R].

    Args:
        arm: by seed.
        counts: how often each patient is in each resample [R, P].
    """
    found: dict[str, list[Floats]] = {name: [] for name in MEASURES}
    for one in arm:
        own = counts[:, one.patients]
        found[LOG_LOSS].append(balanced_log_loss(one.labels, one.probabilities, own))
        found[MCC].append(mcc(confusion(one.labels, one.probabilities.argmax(1), one.probabilities.shape[1], own)))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def compare(arms: Sequence[Sequence[Answers] | None], patients: int, resamples: int, seed: int) -> list[dict[str, Any] | None]:
    """Each arm's measures, and their differences to those of the first.

    Args:
        arms: by seed each; None: an arm that has no figures.
        patients: P.
        resamples: R; 0: no intervals.
        seed: of the resamples.

    Returns:
        For each arm `patients`, P, and by measure {value, low, high, seeds}, `seeds` its values by seed, and beside it
        `difference` {value, low, high}: None for the first arm, and where that has no figures. None for an arm without any.
    """
    drawn = draw_counts(patients, resamples, np.random.default_rng(seed))
    first, found = None, list[dict[str, Any] | None]()
    for place, arm in enumerate(arms):
        known = None if arm is None or not patients else _Drawn.of(arm, patients, drawn)
        first = known if place == 0 else first
        found.append(None if known is None else known.told(None if place == 0 else first))
    return found


class _Drawn(NamedTuple):
    """An arm's measures on the patients as they are, by seed, on resamples, and on all patients but one."""

    patients: int
    value: dict[str, float]
    seeds: dict[str, list[float]]
    drawn: dict[str, Floats] | None
    without: dict[str, Floats] | None

    @classmethod
    def of(cls, arm: Sequence[Answers], patients: int, drawn: Floats | None) -> "_Drawn":
        once = np.ones((1, patients))
        seeds = [on_resamples([one], once) for one in arm]
        return cls(
            patients,
            {name: float(values[0]) for name, values in on_resamples(arm, once).items()},
            {name: [float(values[name][0]) for values in seeds] for name in MEASURES},
            None if drawn is None else on_resamples(arm, drawn),
            None if drawn is None else on_resamples(arm, leave_one_out(patients)),
        )

    def told(self, first: "_Drawn | None") -> dict[str, Any]:
        table: dict[str, Any] = {"patients": self.patients}
        for name in MEASURES:
            table[name] = _defined(self.value[name], self._interval(name)) | {"seeds": _finite(self.seeds[name])}
            table[name]["difference"] = None if first is None else self._difference(name, first)
        return table

    def _interval(self, name: str) -> Interval:
        if self.drawn is None or self.without is None or not np.isfinite(self.value[name]):
            return dict(NO_INTERVAL)
        return bca_interval(self.value[name], self.drawn[name], self.without[name], self.patients)

    def _difference(self, name: str, first: "_Drawn") -> dict[str, Any]:
        value = self.value[name] - first.value[name]
        if self.drawn is None or first.drawn is None or not np.isfinite(value):
            return _defined(value, dict(NO_INTERVAL))
        return _defined(value, t_interval(value, self.drawn[name] - first.drawn[name], self.patients))


def _defined(value: float, interval: Interval) -> dict[str, Any]:
    return {"value": _finite([value])[0], **interval}


def _finite(values: Iterable[float]) -> list[float | None]:
    """None in the place of what is not defined, so that the table is valid JSON."""
    return [value if np.isfinite(value) else None for value in values]
