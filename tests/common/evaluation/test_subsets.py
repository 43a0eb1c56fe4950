"""Subsets of the modalities, with a model that is a table: what is asked, how often, and what is made of it."""

import numpy as np
import pytest

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.evaluation import subsets
from common.evaluation.calibration.calibration import Scaling, apply_temperature
from common.evaluation.comparison import measure, measure_difference
from common.evaluation.subsets import answer_subsets, measure_subsets, modality_subsets, name_of, subsets_of
from common.models.trained_model import TrainedModel

MODALITIES = ("t1", "t1c", "t2", "flair")
CONFIG = config_from_table({"data": {"classes": ["a", "b", "c"]}, "evaluation": {"bootstrap": 50}})


def patients(n=24, seed=0):
    """Every patient has a number in their images, by which the model knows them."""
    generator = np.random.default_rng(seed)
    present = generator.random((n, 4)) < 0.6
    present[~present.any(1), 2] = True
    images = np.zeros((n, 1, 4, 2, 2), np.float16)
    images[:, 0, 0, 0, 0] = np.arange(n)
    return SiteData("ext", tuple(f"sub-{i}" for i in range(n)), images, present, generator.integers(-1, 3, n), "key")


def answer(number, members):
    """What the model predicts for a patient seen with some modalities: drawn by the patient's number and these."""
    return np.random.default_rng([int(number), *map(int, members)]).dirichlet((1, 1, 1))


UNUSED = TrainedModel(None, {}, CONFIG)  # by the model below, that knows the answers


@pytest.fixture
def asked(monkeypatch):
    """How many patients each call had; the model answers by patient and by modalities that it really sees."""
    calls = []

    def predict_subsets(trained, patients, wanted):
        calls.append([(int(patients.images[row, 0, 0, 0, 0]), subset) for row, some in wanted.items() for subset in some])
        for row, some in wanted.items():
            for subset in some:
                yield row, subset, answer(patients.images[row, 0, 0, 0, 0], subset)

    monkeypatch.setattr(subsets, "predict_subsets", predict_subsets)
    return calls


def full_of(site):
    return np.array([answer(n, row) for n, row in zip(range(len(site)), site.present.tolist(), strict=True)])


def test_all_subsets_are_answered_as_by_asking_for_each_of_them(asked):
    site = patients()
    found = answer_subsets(UNUSED, site, full=full_of(site), scaling=Scaling())
    assert len(found) == 15
    assert next(iter(found)) == "t1"
    assert list(found)[-1] == "t1+t1c+t2+flair"
    for name, answers in found.items():
        chosen = np.array([m in name.split("+") for m in MODALITIES])
        for n, here in enumerate(site.present):
            seen = here & chosen
            if seen.any():
                assert answers[n] == pytest.approx(answer(n, seen.tolist()))
            else:
                assert np.isnan(answers[n]).all()


def test_nothing_is_asked_twice_nor_what_is_known(asked):
    site = patients()
    answer_subsets(UNUSED, site, full=full_of(site))
    every = [key for call in asked for key in call]
    assert len(every) == len(set(every))
    assert not [key for key in every if key[1] == tuple(site.present[key[0]].tolist())]  # all that they have: `full` is that
    assert len(asked) == 1
    assert len(every) == sum(2 ** int(count) - 2 for count in site.present.sum(1))


def test_the_temperature_is_the_calibrations(asked):
    site = patients()
    full = apply_temperature(full_of(site), 2.0)
    found = answer_subsets(UNUSED, site, full=full, scaling=Scaling(2.0))
    n = int(np.flatnonzero(site.present[:, 0] & (site.present.sum(1) > 1))[0])
    assert found["t1"][n] == pytest.approx(apply_temperature(answer(n, (True, False, False, False))[None], 2.0)[0])
    assert found["t1+t1c+t2+flair"] == pytest.approx(full)


def test_each_subset_is_measured_on_whom_it_concerns_with_the_paired_drop(asked):
    site = patients(40)
    full = full_of(site)
    found = modality_subsets(UNUSED, site, full=full)
    answers = answer_subsets(UNUSED, site, full=full)
    for name, entry in found.items():
        rows = (site.labels >= 0) & np.isfinite(answers[name]).all(1)
        assert entry["n"] == rows.sum()
        drop = entry.pop("drop")
        assert entry == measure(site.labels[rows], answers[name][rows], CONFIG)
        assert drop == measure_difference(site.labels[rows], full[rows], answers[name][rows], CONFIG)
    assert found["t1"]["n"] < found["t1+t2"]["n"] < found["t1+t1c+t2+flair"]["n"] == (site.labels >= 0).sum()
    assert drop == {"value": 0.0, "low": 0.0, "high": 0.0}  # of the full set


def test_a_subset_that_nobody_has_is_not_there_and_without_labels_nothing_is_asked(asked):
    site = patients(8)
    nobody = np.array([True, True, False, True])
    some = SiteData("ext", site.ids, site.images, np.tile(nobody, (8, 1)), np.arange(8) % 3, "key")
    found = modality_subsets(UNUSED, some, full=full_of(some))
    assert "t2" not in found
    assert found["t1+t2"]["n"] == 8
    asked.clear()
    unlabelled = SiteData("ext", site.ids, site.images, site.present, np.full(8, -1), "key")
    assert modality_subsets(UNUSED, unlabelled, full=full_of(unlabelled)) == {}
    assert not asked
    assert measure_subsets({}, np.zeros(0, int), np.zeros((0, 3)), CONFIG) == {}


def test_three_modalities_have_seven_subsets_the_smallest_first():
    names = [name_of(subset, ("t1", "t1c", "flair")) for subset in subsets_of(3)]
    assert names == ["t1", "t1c", "flair", "t1+t1c", "t1+flair", "t1c+flair", "t1+t1c+flair"]
