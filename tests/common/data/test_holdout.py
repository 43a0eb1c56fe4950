"""Who is held back: decided for each patient alone, whatever the others and the labels are."""

import hashlib

import numpy as np
import pytest

from common.data.dataset import SiteData
from common.data.holdout import held_back, split


def site(ids, labels=None) -> SiteData:
    n = len(ids)
    images = np.arange(n, dtype=np.float16).reshape(n, 1, 1, 1, 1) * np.ones((1, 1, 1, 2, 2), np.float16)
    return SiteData("a", tuple(ids), images, np.ones((n, 1), bool), np.array([0] * n if labels is None else labels), "key")


IDS = [f"sub-{number:04d}" for number in range(2000)]


def test_no_share_gives_the_patients_untouched() -> None:
    patients = site(IDS[:5])
    training, held = split(patients, 0.0)
    assert training is patients
    assert len(held) == 0


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_share_is_held_back_on_average(share) -> None:
    deviation = np.sqrt(share * (1 - share) / len(IDS))
    assert abs(held_back(IDS, share).mean() - share) < 4 * deviation


def test_each_patient_is_decided_by_the_hash_of_his_id() -> None:
    def naive(patient: str) -> bool:
        return int(hashlib.sha256(f"held back/{patient}".encode()).hexdigest()[:16], 16) < 0.3 * 16**16

    assert held_back(IDS, 0.3).tolist() == [naive(patient) for patient in IDS]


def test_all_patients_are_on_one_side_each_and_rows_stay_together() -> None:
    patients = site(IDS[:50], np.arange(50) % 4 - 1)
    training, held = split(patients, 0.2)
    assert set(training.ids) | set(held.ids) == set(patients.ids)
    assert not set(training.ids) & set(held.ids)
    for part in (training, held):
        rows = [int(patient[4:]) for patient in part.ids]
        assert part.labels.tolist() == [row % 4 - 1 for row in rows]
        assert np.array(part.images)[:, 0, 0, 0, 0].tolist() == rows


def test_nobody_changes_sides_when_the_folder_or_the_labels_change() -> None:
    held = set(split(site(IDS[:100]), 0.2)[1].ids)
    fewer = set(split(site(IDS[30:90], [-1] * 60), 0.2)[1].ids)
    assert fewer == held & set(IDS[30:90])


def test_a_larger_share_only_adds() -> None:
    assert not (held_back(IDS, 0.1) & ~held_back(IDS, 0.3)).any()


def test_a_site_that_would_keep_nobody_trains_on_all() -> None:
    victim = next(patient for patient in IDS if held_back([patient, "x", "y", "z"], 0.2)[0])
    patients = site([victim])
    training, held = split(patients, 0.2)
    assert training is patients
    assert len(held) == 0
