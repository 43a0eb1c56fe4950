"""Clusters and subgroups, of made-up patients with planted groups."""

import json

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from common.config.run import config_from_table
from common.evaluation.comparison import measure
from common.evaluation.subgroups.acquisition import Acquisition
from common.evaluation.subgroups.clusters import cluster
from common.evaluation.subgroups.subgroups import measure_subgroups
from tests.common.evaluation.made_up import hospital

CONFIG = config_from_table({"data": {"classes": ["a", "b", "c"]}, "evaluation": {"bootstrap": 300}})


def scanner(spacing, matrix, noise, generator, n, dtype="int16", sharpness=0.08):
    """n patients of one scanner: noise and sharpness vary by 10%."""
    draws = np.exp(0.1 * generator.normal(size=(n, 2)))
    return [Acquisition("x", None, None, spacing, matrix, dtype, noise * d[0], sharpness * d[1]) for d in draws]


def test_planted_scanners_are_found_and_named_by_their_headers():
    generator = np.random.default_rng(0)
    fine = scanner((1.0, 1.0, 1.0), (240, 240), 0.02, generator, 12)
    thick = scanner((1.0, 1.0, 5.0), (160, 200), 0.05, generator, 9)
    old = scanner((1.0, 1.0, 1.0), (240, 240), 0.02, generator, 7, dtype="uint8")
    names = cluster(fine + thick + old)
    assert names[:12] == ["1.0 x 1.0 x 1.0 mm, matrix 240, int16"] * 12
    assert names[12:21] == ["1.0 x 1.0 x 5.0 mm, matrix 160 x 200, int16"] * 9
    assert names[21:] == ["1.0 x 1.0 x 1.0 mm, matrix 240, uint8"] * 7


def test_where_headers_are_equal_noise_tells_scanners_apart_and_names_them():
    generator = np.random.default_rng(1)
    quiet, loud = (scanner((1.0, 1.0, 5.0), (160, 160), noise, generator, 15) for noise in (0.02, 0.12))
    names = cluster(quiet + loud)
    assert len(set(names[:15])) == len(set(names[15:])) == 1
    assert names[0].startswith("1.0 x 1.0 x 5.0 mm, matrix 160, int16, noise 0.02")
    assert names[-1].startswith("1.0 x 1.0 x 5.0 mm, matrix 160, int16, noise 0.1")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 5, 40, 300])
def test_one_scanner_is_one_cluster(seed, n):
    names = cluster(scanner((1.0, 1.0, 5.0), (160, 160), 0.05, np.random.default_rng(seed), n))
    assert len(names) == n
    if n >= 40:
        assert set(names) == {"1.0 x 1.0 x 5.0 mm, matrix 160, int16"}


def test_equal_patients_and_none_at_all():
    one = Acquisition("x", None, None, (1.0, 1.0, 1.0), (8, 8), "int16", 0.0, 0.0)
    assert cluster([one] * 6) == ["1.0 x 1.0 x 1.0 mm, matrix 8, int16"] * 6
    assert cluster([]) == []


def test_a_cluster_depends_on_no_order():
    generator = np.random.default_rng(2)
    both = scanner((1.0, 1.0, 1.0), (240, 240), 0.02, generator, 9) + scanner((2.0, 2.0, 5.0), (96, 96), 0.05, generator, 8)
    order = generator.permutation(17)
    names = cluster(both)
    assert cluster([both[i] for i in order]) == [names[i] for i in order]


def cohort(n=120):
    """Patients of two sites, ages and sexes given to some; the model fails at the south site."""
    generator = np.random.default_rng(3)
    labels, p = hospital(generator, n, skill=2.0)
    places = np.where(np.arange(n) % 3 == 0, "south", "north")
    p[places == "south"] = generator.dirichlet((1, 1, 1), int((places == "south").sum()))
    ages = [None if i % 10 == 0 else float(generator.integers(20, 85)) for i in range(n)]
    sexes = [None if i % 7 == 0 else "MF"[i % 2] for i in range(n)]
    ids = [f"{place}/sub-{i}" for i, place in enumerate(places)]
    rows = zip(ids, places, ages, sexes, strict=True)
    images = (1.0, 1.0, 5.0), (160, 160), "int16", 0.05, 0.08
    return ids, labels, p, {name: Acquisition(place, age, sex, *images) for name, place, age, sex in rows}


def test_groups_are_measured_and_a_bad_site_stands_out():
    ids, labels, p, acquisitions = cohort()
    found = measure_subgroups(ids, labels, p, acquisitions, CONFIG)
    assert list(found) == ["site", "cluster", "age", "sex"]
    assert list(found["age"]) == ["under 40", "40 to 59", "60 and over"]
    south = np.array([name.startswith("south") for name in ids])
    whole = measure(labels[south], p[south], CONFIG)
    entry = found["site"]["south"]
    assert entry["n"] == 40
    assert entry["mcc"] == whole["mcc"]
    assert entry["auroc"] == {"macro": whole["auroc"]["macro"]}
    assert entry["balanced_accuracy"] == whole["balanced_accuracy"]
    parts = [matthews_corrcoef(labels[some], p[some].argmax(1)) for some in (south, ~south)]
    assert entry["difference"]["value"] == pytest.approx(parts[0] - parts[1])
    assert entry["difference"]["high"] < 0 < found["site"]["north"]["difference"]["low"]
    assert sum(group["n"] for group in found["age"].values()) == sum(a.age is not None for a in acquisitions.values())
    ages = np.array([np.nan if a.age is None else a.age for a in acquisitions.values()])
    assert found["age"]["40 to 59"]["n"] == ((ages >= 40) & (ages < 60)).sum()
    assert set(found["sex"]) == {"F", "M"}
    sexes = np.array([a.sex or "" for a in acquisitions.values()])  # whose sex is not known is in neither group
    parts = [matthews_corrcoef(labels[sexes == sex], p[sexes == sex].argmax(1)) for sex in "FM"]
    assert found["sex"]["F"]["difference"]["value"] == pytest.approx(parts[0] - parts[1])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_group_that_is_all_has_no_others():
    ids, labels, p, acquisitions = cohort()
    (group,) = measure_subgroups(ids, labels, p, acquisitions, CONFIG)["cluster"].values()
    assert group["n"] == 120
    assert group["mcc"]["low"] is not None
    assert group["difference"] == {"value": None, "low": None, "high": None}


def test_small_groups_are_counted_only():
    ids, labels, p, acquisitions = cohort(24)
    labels = np.where([name.startswith("south") for name in ids], -1, labels)
    labels[:12:3] = 0  # four labelled patients at the south site
    found = measure_subgroups(ids, labels, p, acquisitions, CONFIG)["site"]
    nothing = {"value": None, "low": None, "high": None}
    assert found["south"] == {"n": 4, "mcc": nothing, "balanced_accuracy": None, "auroc": {"macro": None}, "difference": nothing}
    assert found["north"]["n"] == 16
    assert found["north"]["difference"] == nothing


def test_who_is_not_known_is_in_no_group():
    ids, labels, p, acquisitions = cohort(30)
    north = {name: a for name, a in acquisitions.items() if a.site == "north"}
    found = measure_subgroups(ids, labels, p, north, CONFIG)
    assert list(found) == ["cluster", "age", "sex"]  # one site only
    assert sum(group["n"] for group in found["cluster"].values()) == 20
    assert measure_subgroups(ids, labels, p, {}, CONFIG) == {}
    assert measure_subgroups(ids, np.full(30, -1), p, acquisitions, CONFIG) == {}
