"""Reliability, coverage and abstention against naive loops and other libraries."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from common.evaluation.calibration.calibration import Calibration
from common.evaluation.calibration.reliability import abstention_curve, report_calibration, trust
from common.metrics.classification import evaluate

CLASSES = ("a", "b", "c")


def answers(n: int = 200):
    rng = np.random.default_rng(1)
    return rng.integers(0, 3, n), softmax(rng.normal(0, 1.5, (n, 3)), axis=1)


def test_what_stands_in_external_too_is_the_same_there() -> None:
    labels, told = answers()
    found, external = trust(labels, told), evaluate(labels, told, CLASSES, bootstrap=0, generator=np.random.default_rng(0))
    assert found["ece"] == pytest.approx(external["ece"], abs=1e-9)
    assert found["brier"] == pytest.approx(external["brier"], abs=1e-9)
    assert found["nll"] == pytest.approx(log_loss(labels, told), rel=1e-9)


def test_the_bins_are_those_of_scikit_learn_and_give_the_calibration_error() -> None:
    labels, told = answers()
    bins = [entry for entry in trust(labels, told)["reliability"] if entry["n"]]
    right = told.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, told.max(1), n_bins=15)
    assert [entry["accuracy"] for entry in bins] == pytest.approx(accuracy.tolist())
    assert [entry["confidence"] for entry in bins] == pytest.approx(confidence.tolist())
    assert sum(entry["n"] for entry in bins) == len(labels)
    ece = sum(entry["n"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins) / len(labels)
    assert trust(labels, told)["ece"] == pytest.approx(ece, abs=1e-6)


def test_the_surest_come_first_and_all_are_in_at_the_end() -> None:
    labels, told = answers(100)
    curve = abstention_curve(labels, told)
    assert len(curve) == 20
    order = sorted(range(100), key=lambda row: -told[row].max())
    for point in curve:
        rows = order[: round(point["coverage"] * 100)]
        assert point["risk"] == pytest.approx(np.mean([told[row].argmax() != labels[row] for row in rows]))
        assert point["low"] <= point["risk"] <= point["high"]
    assert curve[-1]["coverage"] == 1


def test_patients_who_cannot_be_told_apart_come_together() -> None:
    told = np.tile([0.6, 0.4], (10, 1))
    curve = abstention_curve(np.array([0] * 7 + [1] * 3), told)
    assert [(point["coverage"], point["risk"]) for point in curve] == [(1.0, 0.3)]


def test_the_whole_report_adds_up() -> None:
    labels, told = answers(100)
    labels[:10] = -1
    calibration = Calibration(2.0, 0.9, 0.8, patients=30, sites=("x", "y"))
    found = report_calibration(labels, told, calibration)
    assert (found["temperature"], found["sites"], found["patients"]) == (2.0, ["x", "y"], 30)
    roots = np.sqrt(told) / np.sqrt(told).sum(1, keepdims=True)
    assert found["before"]["nll"] == pytest.approx(log_loss(labels[10:], told[10:], labels=range(3)))
    assert found["after"]["nll"] == pytest.approx(log_loss(labels[10:], roots[10:], labels=range(3)))
    sets = [{c for c in range(3) if 1 - row[c] <= 0.8 or row[c] == row.max()} for row in roots[10:]]
    inside = [label in chosen for label, chosen in zip(labels[10:], sets, strict=True)]
    conformal = found["conformal"]
    assert conformal["observed"]["value"] == pytest.approx(np.mean(inside))
    assert conformal["mean_size"] == pytest.approx(np.mean([len(chosen) for chosen in sets]))
    assert conformal["sizes"] == {str(k): sum(len(c) == k for c in sets) for k in sorted({len(c) for c in sets})}


def test_without_labels_there_is_nothing_to_say() -> None:
    found = report_calibration(np.array([-1, -1]), np.full((2, 3), 1 / 3), Calibration())
    assert found["before"]["ece"] is None
    assert found["conformal"]["observed"] == {"value": None, "low": None, "high": None}
    assert (found["conformal"]["mean_size"], found["conformal"]["sizes"], found["abstention"]) == (None, {}, [])
