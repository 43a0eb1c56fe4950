"""Temperature against scipy's own minimum, sets against a naive split conformal, and the file against damage."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from common.errors import FedMRIError
from common.evaluation.calibration.calibration import (
    PRIOR,
    SCORE_BINS,
    TEMPERATURES,
    Calibration,
    apply_temperature,
    conformal_threshold,
    fit_temperature,
    load_calibration,
    nll_sums,
    prediction_sets,
    save_calibration,
    score_histogram,
)
from common.models.arrays import save_arrays

GOOD = Calibration(1.7, 0.9, 0.85, 0.05, 3.5, 41, ("a", "b"), (0.25, -1.0, 0.75))


def answers(n: int, too_sure: float, seed: int = 0, classes: int = 3):
    """Labels drawn from honest probabilities, and the same probabilities told `too_sure` times too surely."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    chances = softmax(logits, axis=1)
    labels = np.array([rng.choice(classes, p=row) for row in chances])
    return labels, softmax(logits * too_sure, axis=1)


@pytest.mark.parametrize("too_sure", [0.6, 1.0, 2.5, 6.0])
def test_the_temperature_is_where_scipy_finds_the_exact_minimum(too_sure) -> None:
    labels, told = answers(400, too_sure)
    logits = np.log(told)
    exact = minimize_scalar(
        lambda t: 0.5 * (t / PRIOR) ** 2 - log_softmax(logits / math.exp(t), axis=1)[np.arange(400), labels].sum(),
        bounds=(-1.3, 2.7),
        method="bounded",
    )
    assert fit_temperature(nll_sums(labels, told).astype(np.float32)) == pytest.approx(math.exp(exact.x), rel=2e-3)


def test_the_summed_loss_is_that_of_scikit_learn_and_adds_up_over_sites() -> None:
    labels, told = answers(60, 2.0)
    sums = nll_sums(labels, told)
    for number in (0, 32, 50, 96):
        calibrated = apply_temperature(told, TEMPERATURES[number])
        assert sums[number] == pytest.approx(log_loss(labels, calibrated, labels=range(3), normalize=False), rel=1e-9)
    assert nll_sums(labels[:20], told[:20]) + nll_sums(labels[20:], told[20:]) == pytest.approx(sums)
    assert TEMPERATURES[32] == 1


def test_temperature_one_and_no_patients_change_nothing() -> None:
    _, told = answers(5, 1.0)
    assert apply_temperature(told, 1.0) == pytest.approx(told)
    assert fit_temperature(nll_sums(np.empty(0, np.int64), np.empty((0, 3)))) == 1.0


def test_a_temperature_of_two_is_the_square_root_made_to_sum_to_one() -> None:
    told = np.array([[0.81, 0.18, 0.01], [1.0, 0.0, 0.0]])
    roots = np.sqrt(told)
    assert apply_temperature(told, 2.0) == pytest.approx(roots / roots.sum(1, keepdims=True))
    assert np.isfinite(apply_temperature(told, TEMPERATURES[0])).all()


def test_patients_who_are_all_right_or_all_wrong_stop_at_the_edge() -> None:
    for tell, edge in (([0.36, 0.32, 0.32], TEMPERATURES[0]), ([0.01, 0.98, 0.01], TEMPERATURES[-1])):
        labels = np.zeros(900, np.int64)
        assert fit_temperature(nll_sums(labels, np.tile(tell, (900, 1)))) == edge


def test_six_patients_of_a_calibrated_model_hardly_move_it() -> None:
    found = [fit_temperature(nll_sums(*answers(6, 1.0, seed))) for seed in range(60)]
    assert min(found) > 0.4
    assert max(found) < 2.5
    assert abs(np.log(found).mean()) < 0.1


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [40, 137])
def test_the_threshold_is_the_naive_one_up_to_its_bin(coverage, n) -> None:
    labels, told = answers(n, 1.0, seed=n)
    scores = np.sort(1 - told[np.arange(n), labels])
    naive = scores[math.ceil((n + 1) * coverage) - 1]
    found = conformal_threshold(score_histogram(labels, told), coverage)
    assert naive <= found <= naive + 1 / SCORE_BINS + 1e-12


@pytest.mark.parametrize(("n", "everything"), [(0, True), (8, True), (9, False)])
def test_too_few_patients_for_the_promise_give_every_class(n, everything) -> None:
    counts = np.zeros(SCORE_BINS, np.float32)
    counts[10] = n
    assert conformal_threshold(counts, 0.9) == (1.0 if everything else pytest.approx(11 / SCORE_BINS))


def test_scores_at_the_ends_and_on_an_edge_are_in_the_bin_below() -> None:
    chances = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    counts = score_histogram(np.array([0, 0, 0]), chances)
    assert counts.sum() == 3
    assert counts[[0, SCORE_BINS // 2 - 1, -1]].tolist() == [1, 1, 1]


def test_sets_of_new_patients_hold_the_truth_as_often_as_promised() -> None:
    """Over many draws of calibration and test patients; the bins can only add."""
    inside = []
    for seed in range(300):
        labels, told = answers(80, 3.0, seed)
        threshold = conformal_threshold(score_histogram(labels[:40], told[:40]), 0.9)
        inside.append(prediction_sets(told[40:], threshold)[np.arange(40), labels[40:]].mean())
    assert 0.895 < np.mean(inside) < 0.935


def test_a_set_is_never_empty_and_holds_all_at_one() -> None:
    told = np.array([[0.4, 0.35, 0.25], [0.98, 0.01, 0.01]])
    assert prediction_sets(told, 0.1).tolist() == [[True, False, False], [True, False, False]]
    assert prediction_sets(told, 0.65).tolist() == [[True, True, False], [True, False, False]]
    assert prediction_sets(told, 1.0).all()


@pytest.mark.parametrize("given", [GOOD, Calibration(), Calibration(patients=None, ood_threshold=math.inf)])
def test_it_is_read_as_it_was_written(tmp_path, given) -> None:
    assert Calibration.from_json(given.to_json()) == given
    moments = {"ood.count": np.arange(4, dtype=np.float32)}
    save_calibration(tmp_path / "c.safetensors", given, moments)
    told, arrays = load_calibration(tmp_path / "c.safetensors")
    assert told == given
    assert arrays["ood.count"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.0},
        {"temperature": None},
        {"temperature": True},
        {"temperature": 10**400},
        {"ood_threshold": -(10**400)},
        {"coverage": 1.0},
        {"set_threshold": 1.5},
        {"ood_rate": -0.1},
        {"ood_threshold": "much"},
        {"patients": -1},
        {"patients": 1.5},
        {"sites": "a"},
        {"sites": [1]},
        {"offsets": "a"},
        {"offsets": [0.1, None]},
        {"offsets": [0.1, 1e9]},
        {"more": 1},
    ],
)
def test_anything_wrong_is_refused_by_name(changes) -> None:
    with pytest.raises(FedMRIError, match=next(iter(changes)) if "more" not in changes else "expected a table"):
        Calibration.from_json(json.dumps(json.loads(GOOD.to_json()) | changes))


def test_a_file_of_before_offsets_has_none() -> None:
    table = json.loads(Calibration(1.7).to_json())
    del table["offsets"]
    assert Calibration.from_json(json.dumps(table)) == Calibration(1.7)


@pytest.mark.parametrize("text", ["", "[]", "NaN", '{"temperature": NaN}', "[" * 5000])
def test_no_json_or_no_table_is_refused(text) -> None:
    with pytest.raises(FedMRIError):
        Calibration.from_json(text)


def test_another_kind_of_file_is_refused(tmp_path) -> None:
    save_arrays(tmp_path / "m.safetensors", {"x": np.zeros(1, np.float32)}, {"classes": "[]"})
    with pytest.raises(FedMRIError, match="holds no calibration"):
        load_calibration(tmp_path / "m.safetensors")
    with pytest.raises(FedMRIError, match="absent"):
        load_calibration(tmp_path / "absent.safetensors")
