"""Two models on the same patients: the paired difference, its interval, and the smallest difference that can be detected.

N patients, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from common.config.run import RunConfig
from common.errors import FedMRIError
from common.metrics.bootstrap import (
    MEASURES,
    NO_INTERVAL,
    Interval,
    confusion,
    draw_counts,
    mcc,
    measure_all,
    t_interval,
)
from common.metrics.classification import labelled_only, paired_difference

POWER, SIGNIFICANCE = 0.8, 0.05
NOTABLE = 0.1  # a difference in MCC that matters; where a smaller one shows, nobody need be warned
ASSUMED_CORRELATION = 0.5  # of two models' MCCs over resamples of the same patients, where there is no second model to look at


def measure(labels: NDArray[Any], probabilities: NDArray[Any], config: RunConfig) -> dict[str, Any]:
    """The measures with the run's own resamples: the same ones for every model that is compared."""
    generator = np.random.default_rng(config.seed)
    return config.task.evaluate(labels, probabilities, bootstrap=config.evaluation.bootstrap, generator=generator)


def measure_difference(labels: NDArray[Any], first: NDArray[Any], second: NDArray[Any], config: RunConfig) -> Interval:
    """MCC of `first` minus that of `second`, {value, low, high}, on the resamples of `measure`."""
    generator = np.random.default_rng(config.seed)
    return paired_difference(labels, first, second, bootstrap=config.evaluation.bootstrap, generator=generator)


def measure_beside(labels: NDArray[Any], federated: NDArray[Any], other: NDArray[Any], config: RunConfig) -> dict[str, Any]:
    """An entry of `baselines`: the other model's measures, and `difference`, the federated model's MCC minus its own."""
    return measure(labels, other, config) | {"difference": measure_difference(labels, federated, other, config)}


def with_and_without(
    labels: NDArray[Any], told: NDArray[Any], untold: NDArray[Any], known: Mapping[str, NDArray[np.bool_]], config: RunConfig
) -> dict[str, Any]:
    """`covariates` of report.json: the model told what is known of the patients besides images, and told nothing.

    Args:
        labels: [N], below 0: left out of the measures.
        told: probabilities [N, C], with what is known.
        untold: the same model's without.
        known: [N] by covariate, whether it is known of a patient.
        config: the task, the bootstrap and the seed are read.

    Returns:
        `known`, counts by name; `of`, N; `with` and `without` as `measure`, the latter with `drop`: MCC with minus without.
    """
    drop = measure_difference(labels, told, untold, config)
    return {
        "known": {name: int(here.sum()) for name, here in known.items()},
        "of": len(labels),
        "with": measure(labels, told, config),
        "without": measure(labels, untold, config) | {"drop": drop},
    }


def detectable(
    labels: NDArray[Any], model: NDArray[Any], others: Sequence[NDArray[Any]], config: RunConfig
) -> dict[str, Any] | None:
    """The smallest true difference in MCC between two models that these patients would show in four of five such studies.

    (z(1 - level/2) + z(power)) * SE: the two-sided test that a normal estimate is 0 (Chow, Shao & Wang, Sample Size Calculations
    in Clinical Research, 2nd ed. 2008, section 3.1.1, solved for the difference). SE is that of the paired difference, by
    bootstrap over patients: between the model and each of the others, their median; without others, that of two models as good
    as this one whose MCCs correlate by 0.5, which equals the SE of one.

    Args:
        labels: [N], below 0: left out.
        model: probabilities [N, C].
        others: probabilities [N, C] of models to compare with; a row of NaN: this patient was not asked, and is left out.
        config: `evaluation.bootstrap` and the seed are read.

    Returns:
        `n`, `difference`, `power`, `level`, `others` (how many the SE comes from); None where it is not defined.
    """
    truth = np.asarray(labels)
    spreads = []
    for other in others:
        both = np.isfinite(other).all(1)
        spreads.append(_spread(truth[both], [model[both], other[both]], config))
    known = [spread for spread in spreads if spread is not None]
    spread = float(np.median(known)) if known else _spread(truth, [model], config)
    if not spread:
        return None
    smallest = (ndtri(1 - SIGNIFICANCE / 2) + ndtri(POWER)) * spread
    n = int((truth >= 0).sum())
    return {"n": n, "difference": float(smallest), "power": POWER, "level": SIGNIFICANCE, "others": len(known)}


def warning(found: Mapping[str, Any] | None) -> str | None:
    """A warning where the patients are too few to detect a notable difference between models; None where they are enough."""
    if found is None or found["difference"] <= NOTABLE:
        return None
    return (
        f"With {found['n']} labelled patients, two models must differ by about {found['difference']:.2f} in MCC before it shows "
        f"({found['power']:.0%} power, {found['level']:.0%} level): a smaller difference in this report may be chance, and none "
        "seen is no proof of none."
    )


def compare_reports(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs, as `report.json` has them, on the labelled patients that both have, matched by id.

    Returns:
        `n` patients in both; `only_first`, `only_second`: labelled patients that the other lacks; `differences`
        {mcc, balanced_accuracy, macro_f1, auroc_macro, brier: {value, low, high}}, first minus second, with intervals paired by
        patient; `detectable` as above (None for no patients).

    Raises:
        FedMRIError: other classes, or a patient with two labels: these runs are not to be compared.
    """
    classes = _classes(first)
    if classes != _classes(second):
        raise FedMRIError(
            f"The runs have other classes ({', '.join(classes)}; {', '.join(_classes(second))}). Compare equal ones."
        )
    one, two = _table(first, classes), _table(second, classes)
    shared = sorted(one.keys() & two.keys())
    conflicts = [patient for patient in shared if one[patient][0] != two[patient][0]]
    if conflicts:
        raise FedMRIError(f"Patient {conflicts[0]} has another label in the other run. Compare runs on the same patients.")
    labels = np.array([one[patient][0] for patient in shared], np.int64)
    answers = [np.array([table[patient][1] for patient in shared]).reshape(-1, len(classes)) for table in (one, two)]
    config = RunConfig()
    return {
        "n": len(shared),
        "only_first": len(one) - len(shared),
        "only_second": len(two) - len(shared),
        "differences": _differences(labels, answers[0], answers[1], config),
        "detectable": detectable(labels, answers[0], [answers[1]], config),
    }


def _differences(labels: NDArray[np.int64], first: NDArray[Any], second: NDArray[Any], config: RunConfig) -> dict[str, Interval]:
    """Every measure's, on the same resamples."""
    found: dict[str, Interval] = {name: {"value": None, **NO_INTERVAL} for name in MEASURES}
    counts = draw_counts(len(labels), config.evaluation.bootstrap, np.random.default_rng(config.seed))
    if counts is None:
        return found
    pair = [labelled_only(labels, p, p.shape[1])[1] for p in (first, second)]
    values, drawn = ([measure_all(labels, p, c) for p in pair] for c in (np.ones((1, len(labels))), counts))
    for name in MEASURES:
        value = float(values[0][name][0] - values[1][name][0])
        if np.isfinite(value):
            found[name] = {"value": value, **t_interval(value, drawn[0][name] - drawn[1][name], len(labels))}
    return found


def _spread(labels: NDArray[Any], models: Sequence[NDArray[Any]], config: RunConfig) -> float | None:
    """Bootstrap SE of one model's MCC, or of the difference between two; None where not defined."""
    truth = labels[labels >= 0].astype(np.int64)
    counts = draw_counts(len(truth), config.evaluation.bootstrap, np.random.default_rng(config.seed))
    if counts is None:
        return None
    drawn = [mcc(confusion(truth, p[labels >= 0].argmax(1), p.shape[1], counts)) for p in models]
    values = drawn[0] - drawn[1] if len(drawn) == 2 else drawn[0] * np.sqrt(2 * (1 - ASSUMED_CORRELATION))
    defined = values[np.isfinite(values)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else None


def _classes(report: Mapping[str, Any]) -> list[str]:
    return list(report["external"]["support"])


def _table(report: Mapping[str, Any], classes: list[str]) -> dict[str, tuple[int, list[float]]]:
    """Labelled patients by id: class index and probabilities."""
    table = {}
    for patient in report["patients"]:
        label, said = patient["label"], patient["probabilities"]
        index = classes.index(label) if isinstance(label, str) else -1 if label is None else int(label)
        if index >= 0:
            table[str(patient["id"])] = index, [said[name] for name in classes] if isinstance(said, Mapping) else list(said)
    return table
