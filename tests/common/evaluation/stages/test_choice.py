"""The choice against a general optimiser on the patients themselves."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import recall_score

from common.cli import config_path
from common.config.run import config_from_table, load_config
from common.evaluation.calibration.calibration import PRIOR
from common.evaluation.calibration.offsets import WIDTH
from common.evaluation.stages.choice import choose, held_back_sums, losses, why_no_choice

HELD = {"evaluation": {"holdout": 0.2, "stage": "auto"}}
CONFIG = config_from_table(HELD)
LABELS = np.repeat([0, 1, 2], [14, 9, 7])


def told(signal, drift=(0.0, 0.0, 0.0), steepness=1.0):
    noise = np.random.default_rng(1).normal(size=(30, 3))
    return softmax(steepness * (signal * np.eye(3)[LABELS] + noise + np.array(drift)), axis=1)


def exact(probabilities):
    """The smallest loss a patient over temperature and offsets, priors included."""
    logits, shares = np.log(probabilities), np.log(np.bincount(LABELS) / 30)

    def loss(x):
        b = x[1:] - x[1:].mean()
        own = log_softmax(logits / math.exp(x[0]) + b + shares, axis=1)[np.arange(30), LABELS]
        return 0.5 * (x[0] / PRIOR) ** 2 + 0.5 * (b**2).sum() / WIDTH**2 - own.sum()

    return float(minimize(loss, np.zeros(4), tol=1e-10).fun) / 30


def test_each_loss_is_what_a_general_optimiser_finds() -> None:
    answers = [told(1.0), told(2.0, (0.5, -1.0, 0.5)), told(3.0, steepness=2.5), told(0.0)]
    found = losses([held_back_sums(LABELS, said, CONFIG) for said in answers])
    assert found == pytest.approx([exact(said) for said in answers], abs=1e-3)
    assert choose(found) == 2


def test_a_shift_that_offsets_mend_and_too_sure_a_model_are_not_held_against_a_candidate() -> None:
    weak, shifted = told(1.0), told(2.0, (0.0, 0.0, 3.0), steepness=2.0)
    found = losses([held_back_sums(LABELS, said, CONFIG) for said in (weak, shifted)])
    assert choose(found) == 1
    raw = [-np.log(said[np.arange(30), LABELS]).mean() for said in (weak, shifted)]
    assert raw[0] < raw[1]  # by its plain loss it would have lost


def test_of_equal_ones_the_first_is_kept() -> None:
    assert choose([0.7004, 0.7001, 0.9]) == 0
    assert choose([0.702, 0.7001, 0.9]) == 1


def test_without_offsets_or_a_class_the_temperature_alone_judges() -> None:
    off = config_from_table({"evaluation": {**HELD["evaluation"], "offsets": False}})
    shifted = [held_back_sums(LABELS, said, off) for said in (told(1.0), told(1.0, (0.0, 0.0, 2.0)))]
    assert shifted[0].offsets is None
    assert choose(losses(shifted)) == 0
    two = LABELS < 2
    lacking = [held_back_sums(LABELS[two], said[two], CONFIG) for said in (told(1.0), told(3.0))]
    assert choose(losses(lacking)) == 1
    nobody = held_back_sums(LABELS[:0], told(1.0)[:0], CONFIG)
    assert (losses([nobody, nobody]), nobody.recall) == ([0.0, 0.0], None)


def test_the_share_right_is_scikit_learns() -> None:
    said = told(1.0, (0.0, 0.0, 1.0))
    guess = said.argmax(1)
    assert held_back_sums(LABELS, said, CONFIG).recall == pytest.approx(recall_score(LABELS, guess, average="macro"))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"evaluation": {"holdout": 0.2, "stage": "auto"}}, ""),
        ({"evaluation": {"stage": "last"}}, ""),
        ({"evaluation": {"stage": "average"}}, ""),
        ({"evaluation": {"stage": "best"}}, "nobody is held back"),
        ({"evaluation": {"holdout": 0.2, "stage": "best"}, "secure": {"enabled": True}}, "in the clear"),
    ],
)
def test_why_nobody_is_asked_is_a_sentence(table, says) -> None:
    why = why_no_choice(config_from_table(table))
    assert (why == "") is (says == "")
    assert says in why


def test_a_private_run_asks_nobody() -> None:
    assert "holds nobody back" in why_no_choice(load_config(config_path("private"), ("evaluation.stage=auto",)))
