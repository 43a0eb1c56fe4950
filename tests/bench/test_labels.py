"""Labels that a measurement hides: whose, how many, and that the smaller share is a part of the larger one."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import SiteData

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def labels():
    sys.path.insert(0, str(BENCH))
    spec = importlib.util.spec_from_file_location("labels", BENCH / "labels.py")
    module = sys.modules["labels"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["labels"]
    sys.path.remove(str(BENCH))


def site_of(name: str = "a", count: int = 20) -> SiteData:
    truth = np.arange(count) % 3
    truth[::5] = -1  # four of twenty have none from the start
    images = np.zeros((count, 1, 1, 2, 2), np.float16)
    return SiteData(name, tuple(map(str, range(count))), images, np.ones((count, 1), bool), truth, name)


def test_a_share_keeps_its_labels_and_nobody_leaves(labels) -> None:
    site = site_of()
    kept = [labels.hide_labels(site, share, 0) for share in (0.01, 0.25, 0.5, 1.0)]
    assert [len(patients) for patients in kept] == [20] * 4
    assert [len(patients.labelled) for patients in kept] == [1, 4, 8, 16]
    for patients in kept:
        assert np.array_equal(patients.labels[patients.labelled], site.labels[patients.labelled])
    rows = [set(patients.labelled.tolist()) for patients in kept]
    assert rows[0] < rows[1] < rows[2] < rows[3]


def test_the_draw_is_the_sites_and_the_seeds_own(labels) -> None:
    def rows(name: str, seed: int) -> list[int]:
        return labels.hide_labels(site_of(name), 0.5, seed).labelled.tolist()

    assert rows("a", 0) == rows("a", 0)
    assert rows("a", 0) != rows("b", 0) != rows("b", 1)
    nobody = site_of(count=1)
    assert not len(labels.hide_labels(nobody, 0.5, 0).labelled)


def test_the_gain_is_the_mean_over_seeds_on_equal_patients(labels) -> None:
    right = {"truth": [0, 1, 2, 0], "said": [0, 1, 2, 0]}
    wrong = {"truth": [0, 1, 2, 0], "said": [1, 1, 1, 1]}
    counts = np.array([[1.0, 1, 1, 1], [2, 1, 1, 0]])
    assert labels.mcc_of([right], counts).tolist() == [1.0, 1.0]
    assert labels.mcc_of([right, wrong], counts).tolist() == [0.5, 0.5]
