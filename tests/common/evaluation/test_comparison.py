"""Differences between models: paired, over two reports, and how small a one can be seen."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

from common.config.run import config_from_table
from common.errors import FedMRIError
from common.evaluation.comparison import compare_reports, detectable, measure, measure_beside, measure_difference, warning

CLASSES = ["a", "b", "c"]
CONFIG = config_from_table({"data": {"classes": CLASSES}, "evaluation": {"bootstrap": 400}})


def models(generator, n, skills=(1.4, 0.9), correlation=0.6) -> tuple[Any, Any, Any]:
    labels = generator.integers(0, 3, n)
    noise, other = generator.normal(size=(2, n, 3))
    both = noise, correlation * noise + np.sqrt(1 - correlation**2) * other
    scores = [np.exp(each + skill * np.eye(3)[labels]) for each, skill in zip(both, skills, strict=True)]
    return labels, *(s / s.sum(1, keepdims=True) for s in scores)


def report(ids, labels, probabilities, classes=CLASSES):
    patients = [
        {"id": name, "label": None if y < 0 else classes[y], "probabilities": p.tolist()}
        for name, y, p in zip(ids, labels, probabilities, strict=True)
    ]
    return {"external": {"support": dict.fromkeys(classes, 1)}, "patients": patients}


def test_a_baseline_is_measured_like_the_federated_model_with_the_difference_beside_it():
    labels, first, second = models(np.random.default_rng(0), 80)
    found = measure_beside(labels, first, second, CONFIG)
    difference = found.pop("difference")
    assert found == measure(labels, second, CONFIG)
    ours, theirs = (matthews_corrcoef(labels, p.argmax(1)) for p in (first, second))
    assert difference["value"] == pytest.approx(ours - theirs)
    assert difference["low"] < ours - theirs < difference["high"]
    assert measure_difference(labels, second, first, CONFIG)["value"] == pytest.approx(theirs - ours)


def test_detectable_is_the_power_formula_over_the_paired_standard_error():
    labels, first, second = models(np.random.default_rng(1), 90)
    rows = np.random.default_rng(2).integers(0, 90, (600, 90))
    drawn = [[matthews_corrcoef(labels[r], p[r].argmax(1)) for p in (first, second)] for r in rows]
    error = np.std(np.diff(drawn, axis=1))
    found = detectable(labels, first, [second], CONFIG)
    assert found == {"n": 90, "difference": found["difference"], "power": 0.8, "level": 0.05, "others": 1}
    assert found["difference"] == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error, rel=0.15)
    alone = detectable(labels, first, [], CONFIG)
    assert alone["others"] == 0
    assert alone["difference"] == pytest.approx(2.802 * np.std(drawn, axis=0)[0], rel=0.15)


def test_detectable_leaves_out_whom_the_other_was_not_asked_about_and_takes_the_median():
    labels, first, second = models(np.random.default_rng(3), 60)
    part = second.copy()
    part[::2] = np.nan
    half = detectable(labels, first, [part], CONFIG)["difference"]
    assert half == pytest.approx(detectable(labels[1::2], first[1::2], [second[1::2]], CONFIG)["difference"])
    three = [detectable(labels, first, [other], CONFIG)["difference"] for other in (second, part, first[::-1])]
    assert detectable(labels, first, [second, part, first[::-1]], CONFIG)["difference"] == pytest.approx(np.median(three))


@pytest.mark.slow
def test_the_detectable_difference_is_detected_four_times_in_five():
    """Studies of n patients whose true difference is what such a study calls detectable: the interval leaves out 0 in 80%."""
    generator = np.random.default_rng(5)
    labels, first, second = models(generator, 200_000)
    truth = matthews_corrcoef(labels, first.argmax(1)) - matthews_corrcoef(labels, second.argmax(1))
    pilot = [detectable(*split(models(generator, 200)), CONFIG)["difference"] for _ in range(20)]
    n = round(200 * (np.mean(pilot) / truth) ** 2)  # the error falls with the root of n
    seen = []
    for _ in range(300):
        found = measure_difference(*models(generator, n), CONFIG)
        seen.append(found["low"] > 0 or found["high"] < 0)
    assert 0.72 < np.mean(seen) < 0.88  # binomial error 0.023
    few = [measure_difference(*models(generator, n // 3), CONFIG)["low"] > 0 for _ in range(150)]
    assert np.mean(few) < 0.6  # a third of the patients do not show it


def split(hospital) -> tuple[Any, Any, Any]:
    labels, first, second = hospital
    return labels, first, [second]


def test_it_is_said_out_loud_where_patients_are_few():
    few = detectable(*split(models(np.random.default_rng(6), 40)), CONFIG)
    assert warning(few).startswith("With 40 labelled patients, two models must differ by about 0.")
    many = detectable(*split(models(np.random.default_rng(6), 4000)), CONFIG)
    assert many["difference"] < 0.1
    assert warning(many) is None
    assert warning(None) is None


def test_nothing_to_detect_where_nothing_is_defined():
    labels, first, second = models(np.random.default_rng(7), 10)
    assert detectable(np.full(10, -1), first, [second], CONFIG) is None
    assert detectable(np.zeros(10, int), first, [second], CONFIG) is None
    assert detectable(labels, first, [first], CONFIG) is None  # the same model: no spread


def test_reports_are_compared_patient_by_patient():
    labels, first, second = models(np.random.default_rng(8), 50)
    labels[3] = -1
    ids = [f"sub-{i}" for i in range(50)]
    order = np.random.default_rng(9).permutation(np.arange(10, 50))  # another order, ten patients fewer, one more
    other = report([ids[i] for i in order], labels[order], second[order])
    other["patients"].append({"id": "new", "label": "a", "probabilities": [1, 0, 0]})
    found = compare_reports(report(ids, labels, first), other)
    assert (found["n"], found["only_first"], found["only_second"]) == (40, 9, 1)
    truth, ours, theirs = labels[10:], first[10:].argmax(1), second[10:].argmax(1)
    assert found["differences"]["mcc"]["value"] == pytest.approx(
        matthews_corrcoef(truth, ours) - matthews_corrcoef(truth, theirs)
    )
    accuracy = balanced_accuracy_score(truth, ours) - balanced_accuracy_score(truth, theirs)
    assert found["differences"]["balanced_accuracy"]["value"] == pytest.approx(accuracy)
    assert set(found["differences"]) == {"mcc", "balanced_accuracy", "macro_f1", "auroc_macro", "brier"}
    assert all(span["low"] <= span["value"] <= span["high"] for span in found["differences"].values())
    assert found["detectable"]["n"] == 40
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_labels_may_be_numbers_and_probabilities_tables():
    labels, first, second = models(np.random.default_rng(8), 30)
    ids = [str(i) for i in range(30)]
    plain, numbers = report(ids, labels, first), report(ids, labels, second)
    for patient, y in zip(numbers["patients"], labels, strict=True):
        patient |= {"label": int(y), "probabilities": dict(zip(CLASSES, patient["probabilities"], strict=True))}
    assert compare_reports(plain, numbers) == compare_reports(plain, report(ids, labels, second))


def test_reports_that_share_nobody_have_no_difference():
    labels, first, _ = models(np.random.default_rng(8), 5)
    found = compare_reports(report("abcde", labels, first), report("fghij", labels, first))
    assert (found["n"], found["only_first"], found["only_second"], found["detectable"]) == (0, 5, 5, None)
    assert found["differences"]["mcc"] == {"value": None, "low": None, "high": None}


def test_what_cannot_be_compared_is_refused():
    labels, first, _ = models(np.random.default_rng(8), 5)
    one = report("abcde", labels, first)
    with pytest.raises(FedMRIError, match="other classes"):
        compare_reports(one, report("abcde", labels, first, ["a", "c", "b"]))
    with pytest.raises(FedMRIError, match=r"Patient a .*another label"):
        compare_reports(one, report("abcde", (labels + 1) % 3, first))
