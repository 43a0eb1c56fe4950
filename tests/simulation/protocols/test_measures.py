"""Measures of an answer: of one draw those of every other report, of several their mean."""

import numpy as np
import pytest

from common.metrics.classification import evaluate
from simulation.protocols.measures import measured

GENERATOR = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, -1, 1, 0, 2, 2, 1, 0] * 3)
SAID = GENERATOR.dirichlet(np.ones(3), (4, 30)) * 0.5 + np.eye(3)[np.maximum(LABELS, 0)] * 0.5 * GENERATOR.random((4, 30, 1))
SAID /= SAID.sum(2, keepdims=True)


def of(said):
    return measured(LABELS, said, bootstrap=200, generator=np.random.default_rng(1))


def test_of_one_draw_they_are_those_of_a_report():
    expected = evaluate(LABELS, SAID[0], ("a", "b", "c"), bootstrap=200, generator=np.random.default_rng(1))
    found = of(SAID[:1])
    assert found["n"] == 27
    assert found["mcc"] == {**expected["mcc"], "least": found["mcc"]["value"], "largest": found["mcc"]["value"]} | {
        "value": pytest.approx(expected["mcc"]["value"])
    }
    for name, value in (("auroc", expected["auroc"]["macro"]), ("balanced_accuracy", expected["balanced_accuracy"])):
        assert found[name]["value"] == pytest.approx(value)
    for name, other in (("auroc", "auroc_macro"), ("balanced_accuracy", "balanced_accuracy")):
        assert {key: found[name][key] for key in ("low", "high")} == pytest.approx(expected["intervals"][other])


def test_of_several_draws_they_are_the_mean_beside_the_ends():
    each = [of(SAID[number : number + 1])["mcc"]["value"] for number in range(4)]
    found = of(SAID)["mcc"]
    assert (found["value"], found["least"], found["largest"]) == pytest.approx((np.mean(each), min(each), max(each)))
    assert found["low"] < found["value"] < found["high"]


def test_without_labels_or_with_one_class_nothing_is_claimed():
    nobody = measured(np.full(30, -1), SAID, bootstrap=20, generator=np.random.default_rng(0))
    assert (nobody["n"], nobody["mcc"]["value"]) == (0, None)
    one = measured(np.zeros(30, int), SAID, bootstrap=20, generator=np.random.default_rng(0))
    assert (one["mcc"]["value"], one["auroc"]["value"]) == (None, None)
    assert one["balanced_accuracy"]["value"] is not None
