"""What the report says of the decision, against scikit-learn and McNemar's test of SciPy's binomials."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from common.config.run import config_from_table
from common.evaluation.calibration.calibration import Scaling
from common.evaluation.calibration.decision import BEYOND_CHANCE, disagreement, report_decision

CONFIG = config_from_table({"task": {"classes": ["a", "b", "c"]}, "evaluation": {"bootstrap": 20}})


def told(drift):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, -1], [14, 14, 12, 3])
    logits = 1.6 * np.eye(4)[labels][:, :3] + rng.normal(size=(43, 3)) + drift
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_both_sides_are_measured_on_the_same_labelled_patients() -> None:
    labels, raw = told([0.0, 0.0, 2.0])
    offsets, known = (0.6, 0.6, -1.2), labels >= 0
    after = Scaling(1.0, offsets).apply(raw)
    found = report_decision(labels, raw, after, CONFIG, offsets, "", None)
    assert (found["offsets"], found["truth"]) == ({"a": 0.6, "b": 0.6, "c": -1.2}, {"a": 14, "b": 14, "c": 12})
    values = {}
    for when, said in (("before", raw), ("after", after)):
        guess = said[known].argmax(1)
        values[when] = matthews_corrcoef(labels[known], guess)
        assert found[when]["mcc"]["value"] == pytest.approx(values[when])
        assert found[when]["auroc"] == pytest.approx(roc_auc_score(labels[known], said[known], multi_class="ovr"))
        assert list(found[when]["predicted"].values()) == np.bincount(guess, minlength=3).tolist()
    assert found["gain"]["value"] == pytest.approx(values["after"] - values["before"])
    assert found["gain"]["low"] < found["gain"]["value"] < found["gain"]["high"]
    assert "c is named for" in report_decision(labels, raw, raw, CONFIG, (), "", None)["disagreement"]
    assert found["disagreement"] == ""


def test_the_sites_own_patients_are_told_by_their_counts() -> None:
    before, after = np.array([[4, 0, 2], [0, 4, 2], [0, 0, 6]]), np.array([[5, 1, 0], [0, 6, 0], [0, 1, 5]])
    labels, raw = told([0, 0, 0])
    found = report_decision(labels, raw, raw, CONFIG, (), "none", np.stack([before, after]))["held_back"]
    assert found["truth"] == {"a": 6, "b": 6, "c": 6}
    assert found["before"]["predicted"] == {"a": 4, "b": 4, "c": 10}
    for when, table in (("before", before), ("after", after)):
        pairs = [(t, g) for t in range(3) for g in range(3) for _ in range(table[t, g])]
        assert found[when]["mcc"] == pytest.approx(matthews_corrcoef(*zip(*pairs, strict=True)))


@pytest.mark.parametrize(("wrong", "back"), [(14, 0), (7, 0), (6, 0), (16, 2), (9, 5)])
def test_a_class_named_too_often_is_seen_where_mcnemar_sees_it(wrong, back) -> None:
    """`wrong` patients of a are called c, `back` of c are called a: two sides of McNemar's test."""
    table = np.array([[20 - wrong, 0, wrong], [0, 20, 0], [back, 0, 20 - back]])
    p = 2 * norm.sf(abs(wrong - back) / np.sqrt(wrong + back))
    said = disagreement(table, 0.9, ("a", "b", "c"))
    assert bool(said) == (p < 2 * norm.sf(BEYOND_CHANCE))
    if said:
        assert f"for {20 - wrong + back} of 60 patients and 20 have it" in said or f"c is named for {20 + wrong - back}" in said


def test_a_poor_ranking_is_not_said_to_be_wasted() -> None:
    table = np.array([[0, 0, 20], [0, 0, 20], [0, 0, 20]])
    assert disagreement(table, 0.6, ("a", "b", "c")) == ""
    assert disagreement(table, None, ("a", "b", "c")) == ""
    assert "c is named for 60 of 60" in disagreement(table, 0.9, ("a", "b", "c"))
    assert disagreement(np.zeros((3, 3)), 0.9, ("a", "b", "c")) == ""
