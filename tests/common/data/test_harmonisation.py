"""Nyul's landmarks and map, against closed forms, and that everybody who scales a volume scales it so."""

from dataclasses import replace

import numpy as np
import pytest

from client.review.picture import _own_slices
from common.config.run import config_from_table
from common.config.sections import DataConfig
from common.config.standard import PERCENTILES, Standard
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.harmonisation import landmarks, to_standard
from common.data.slices import intensity_rule, scaled_slab, slice_case
from common.data.survey import INTENSITIES, answer, site_facts
from common.data.volumes import Volume, levels_of
from common.errors import ConfigError

SQUARES = tuple((q / 100) ** 2 for q in PERCENTILES)
EVEN = tuple(q / 100 for q in PERCENTILES)
STANDARD = (Standard("t1", SQUARES),)


def head(power: float = 1.0) -> Volume:
    """A cube of values that rise evenly from 100 to 1100, to a power, in air."""
    voxels = np.zeros((30, 30, 10), np.float32)
    voxels[5:25, 5:25] = ((np.linspace(0, 1, 4000) ** power).reshape(20, 20, 10) * 1000 + 100).astype(np.float32)
    return Volume(voxels, np.eye(4))


def test_landmarks_of_even_values_are_even_and_of_a_power_its_power() -> None:
    """The window is whole here, so that the decile of a share q lies at q to the power."""
    for power in (1.0, 2.0):
        found = landmarks(head(power), (100.0, 1100.0))
        np.testing.assert_allclose(found, [(q / 100) ** power for q in PERCENTILES], atol=1e-3)
    assert landmarks(head(), None) == ()


def test_landmarks_by_levels_are_those_by_voxels() -> None:
    stored = np.random.default_rng(0).integers(0, 900, (12, 13, 14)).astype(np.int16)
    plain = Volume(stored.astype(np.float32), np.eye(4))
    known = replace(plain, levels=levels_of(stored, lambda raw: raw.astype(np.float32)))
    assert landmarks(known, (50.0, 800.0)) == pytest.approx(landmarks(plain, (50.0, 800.0)), abs=1e-12)


def test_the_map_is_linear_between_the_landmarks_and_leaves_the_ends() -> None:
    values = np.array([0.0, 0.05, 0.1, 0.15, 0.9, 0.95, 1.0], np.float32)
    expected = [0.0, 0.005, 0.01, 0.025, 0.81, 0.905, 1.0]
    np.testing.assert_allclose(to_standard(values, EVEN, SQUARES), expected, atol=1e-6)
    np.testing.assert_allclose(to_standard(values, EVEN, EVEN), values, atol=1e-6)
    assert to_standard(values, (), SQUARES) is values


def test_landmarks_that_coincide_are_one_and_those_at_the_ends_are_the_ends() -> None:
    own = (0.0, 0.0, 0.3, 0.3, 0.3, 0.6, 0.8, 1.0, 1.0)
    values = np.linspace(0, 1, 101).astype(np.float32)
    found = to_standard(values, own, EVEN)
    assert (found[0], found[-1]) == (0.0, 1.0)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(to_standard(np.array([0.3, 0.6, 0.8], np.float32), own, EVEN), [0.3, 0.6, 0.7], atol=1e-6)


def test_two_scanners_look_alike_and_alike_to_everybody() -> None:
    """A scanner that shows intensities squared differs within the window; at the landmarks the map takes that away."""
    data = DataConfig(standard=STANDARD, low_percentile=0.0, high_percentile=100.0)
    indices = np.arange(10)
    plain = [scaled_slab(head(power), "t1", indices, replace(data, standard=())) for power in (1.0, 2.0)]
    mapped = [scaled_slab(head(power), "t1", indices, data) for power in (1.0, 2.0)]
    assert np.abs(plain[0] - plain[1]).max() > 0.24
    assert np.abs(mapped[0] - mapped[1]).max() < 0.01  # between two landmarks a line stands for a curve
    inside = mapped[1][5:25, 5:25].ravel()
    np.testing.assert_allclose(np.percentile(inside, PERCENTILES), SQUARES, atol=2e-3)
    assert not mapped[0][:5].any()  # air stays air
    assert np.array_equal(scaled_slab(head(2.0), "t2", indices, data), plain[1])  # it has no standard
    shown, unmapped = (_own_slices(head(2.0), "t1", one) for one in (data, replace(data, standard=())))
    assert not np.array_equal(shown, unmapped)


def test_training_cuts_slices_by_it_and_their_key_is_another(write_site, run) -> None:
    case = read_site(write_site("one", {"sub-1": ["t1", "flair"]}), run).cases[0]
    mapped = replace(run.data, standard=STANDARD)
    plain, found = (slice_case(case, data).images for data in (run.data, mapped))
    assert np.array_equal(plain[:, 3], found[:, 3])
    assert not np.array_equal(plain[:, 0], found[:, 0])
    assert mapped.of_slices() != run.data.of_slices() == replace(run.data, harmonise=True).of_slices()
    names = {"modalities", "slices", "size", "field_of_view", "low_percentile", "high_percentile"}
    assert set(run.data.of_slices()) == names  # caches and notes of runs without it stay valid


def test_a_site_tells_the_mean_over_enough_patients(write_site, run) -> None:
    site = read_site(write_site("one", {"sub-1": ["t1", "flair"], "sub-2": ["t1"]}), run)
    facts = site_facts(site, run)
    told = answer(facts, run, 2, [INTENSITIES]).scales
    assert set(told) == {"t1"}  # one patient has FLAIR
    np.testing.assert_allclose(told["t1"], np.mean([one.scales["t1"] for one in facts], axis=0), atol=6e-4)
    np.testing.assert_allclose(
        told["t1"], (np.array(PERCENTILES) - 1) / 98.5, atol=0.03
    )  # uniform, between percentiles 1 and 99.5
    assert answer(facts, run, 2, ["classes"]).scales == {}
    volume = Volume(np.linspace(0, 3e-3, 1000).reshape(10, 10, 10).astype(np.float32), np.eye(4))
    assert intensity_rule(volume, "adc", run.data) == (0.0, 3.0e-3)  # a quantity has a rule of its own


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"standard": [{"name": "t1", "landmarks": [0.5]}]}, "9 rising landmarks"),
        ({"standard": [{"name": "t1", "landmarks": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]}]}, "9 rising landmarks"),
        ({"standard": [{"name": "adc", "landmarks": list(EVEN)}]}, "one of t1"),
        ({"standard": [{"name": "t1", "landmarks": list(EVEN)}], "modalities": ["flair"]}, "not among data.modalities"),
    ],
)
def test_a_standard_that_is_none_is_refused(table: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_from_table({"data": table})


def test_slices_of_a_run_that_has_no_standard_yet_are_not_cut(write_site, run, tmp_path) -> None:
    site = read_site(write_site("one", {"sub-1": ["t1"]}), run)
    awaiting = replace(run.data, harmonise=True)
    with pytest.raises(ConfigError, match=r"data\.standard is empty"):
        open_site(site, awaiting, tmp_path / "cache", workers=1)
    assert len(open_site(site, awaiting.unharmonised, tmp_path / "cache", workers=1)) == 1
    assert replace(awaiting, standard=STANDARD).unharmonised.standard == STANDARD


@pytest.mark.parametrize("section", ["secure", "site_level"])
def test_landmarks_in_the_clear_are_refused_where_all_else_is_hidden(section: str) -> None:
    table = {section: {"enabled": True}, "data": {"harmonise": True}}
    with pytest.raises(ConfigError, match=f"data.harmonise cannot run with {section}.enabled"):
        config_from_table(table)
    rows = [{"name": "t1", "landmarks": list(EVEN)}]
    assert config_from_table({**table, "data": {"harmonise": True, "standard": rows}}).data.standard == (Standard("t1", EVEN),)
