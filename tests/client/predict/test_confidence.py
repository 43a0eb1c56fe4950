"""What is said of how far to believe an answer: never more than is known."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.predict.card import render_card
from client.predict.confidence import calibration_words, likeness_words, set_words, warning
from client.predict.prediction import answer_table
from common.evaluation.calibration.calibration import Calibration

made_up = runpy.run_path(str(Path(__file__).with_name("test_card.py")))["made_up"]
GOOD = Calibration(1.5, 0.9, 0.6, 0.05, 2.0, 80, ("a", "b"))
TWO = np.array([True, True, False])


@pytest.mark.parametrize(
    ("calibration", "says"),
    [
        (None, "Probabilities are not calibrated"),
        (Calibration(), "Probabilities are not calibrated"),
        (replace(GOOD, patients=0), "Probabilities are not calibrated"),  # sites that hold back unlabelled patients only
        (GOOD, "calibrated on 80 patients held back at 2 sites."),
        (replace(GOOD, patients=None, sites=("a",)), "calibrated on patients held back at 1 site."),
        (replace(GOOD, offsets=(0.1, 0.2, -0.3)), "calibrated, class offsets included, on 80 patients"),
        (replace(GOOD, patients=1), "calibrated on 1 patient held back at 2 sites. So few"),
    ],
)
def test_who_is_behind_a_calibration(calibration, says):
    one = made_up(calibration=calibration)
    assert says in calibration_words(one)
    assert answer_table(one)["calibrated"] == ("not" not in says)


def test_a_set_is_worth_its_coverage_or_nothing():
    assert set_words(made_up()) == ""
    assert "hold the true class for 90%" in set_words(made_up(calibration=GOOD, in_set=TWO))
    assert "No class can be ruled out" in set_words(made_up(calibration=GOOD, in_set=np.ones(3, bool)))
    unknown = made_up(calibration=replace(GOOD, set_threshold=1.0), in_set=np.ones(3, bool))
    assert "90%" not in set_words(unknown)  # what holds every class holds the truth always, and promises nothing
    assert "says nothing" in set_words(unknown)


def test_a_patient_who_is_not_flagged_is_not_called_alike():
    told = made_up(calibration=GOOD, in_set=TWO, ood_score=1.0)
    assert likeness_words(told).startswith("Not flagged")
    assert "can still be wrong" in likeness_words(told)
    assert "do not rely" in likeness_words(replace(told, ood_score=3.0))
    open_ = replace(told, calibration=replace(GOOD, ood_threshold=np.inf))
    for one in (replace(told, ood_score=None), open_):
        assert likeness_words(one).startswith("Not known")
    assert answer_table(open_)["ood"] == {"score": 1.0, "threshold": None, "flagged": None}
    assert answer_table(told)["ood"] == {"score": 1.0, "threshold": 2.0, "flagged": False}


@pytest.mark.parametrize(("held_back", "vouches"), [(6, False), (19, False), (20, True), (None, True)])
def test_few_held_back_patients_raise_an_alarm_and_vouch_for_nobody(held_back, vouches):
    told = made_up(calibration=replace(GOOD, patients=held_back), in_set=TWO, ood_score=1.0)
    assert told.flagged is (False if vouches else None)
    assert likeness_words(told).startswith("Not flagged" if vouches else "Cannot be told")
    assert (f"{held_back} held-back patients" in likeness_words(told)) is not vouches
    assert replace(told, ood_score=3.0).flagged is True
    assert likeness_words(told) in " ".join(render_card(told).split())


def test_the_card_warns_beside_the_answer():
    told = made_up(calibration=GOOD, in_set=TWO, ood_score=1.0)
    assert warning(told) == ""
    for one in (replace(told, ood_score=3.0), replace(told, in_set=np.ones(3, bool))):
        page = render_card(one)
        assert page.index(warning(one)) < page.index("Predicted probabilities")
    assert "112 mm" in render_card(told)


def test_squares_are_counted_from_one_as_slices_are():
    places = np.zeros((5, 3, 8, 8), np.float32)
    places[1, 2, 0, 7] = 1.0
    table = answer_table(made_up(by_place=places))
    first = table["evidence"]["place"]["strongest"][0]
    assert first == {"slice": table["slices"]["numbers"][1], "modality": "flair", "row": 1, "column": 8, "logit": 1.0}
