"""Distances, moments and thresholds against scipy, scikit-learn and naive loops; what features must not depend on."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import empirical_covariance, oas

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.evaluation.ood.covariance import cube_root_variance, shrunk_covariance, typical_distance
from common.evaluation.ood.features import ALONE, KINDS, features, only
from common.evaluation.ood.modality_agreement import AGREEMENTS, modality_agreement
from common.evaluation.ood.score import (
    MIN_COUNT,
    SCANNER,
    SCORE_EDGES,
    WIDTH,
    Reference,
    add,
    histogram,
    moments,
    moments_like,
    pool,
    subtract,
    threshold,
)
from common.models.arrays import check_arrays, get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel

PAIRS = list(itertools.combinations(range(3), 2))


def made_up(patients: int, seed: int, modalities: int = 3, absent: float = 0.0, shift: float = 0.0) -> np.ndarray:
    """Features [N, M, F] of one Gaussian; agreement is the same from both sides; every patient has the last modality."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(ALONE, ALONE)) / np.sqrt(ALONE)
    found = np.full((patients, modalities, ALONE + modalities * AGREEMENTS), np.nan)
    found[:, :, :ALONE] = generator.normal(size=(patients, modalities, ALONE)) @ mixing + 2.0 + shift
    agreement = found[:, :, ALONE:].reshape(patients, modalities, modalities, AGREEMENTS)
    for i, j in itertools.combinations(range(modalities), 2):
        agreement[:, i, j] = agreement[:, j, i] = generator.normal(size=(patients, AGREEMENTS))
    found[:, :, ALONE:] = agreement.reshape(patients, modalities, modalities * AGREEMENTS)
    here = generator.random((patients, modalities)) >= absent
    here[:, -1] = True
    return only(found, here)


def by_hand(x: np.ndarray) -> tuple[np.ndarray, float]:
    """scikit-learn's shrunk covariance of standardised features, in their own units, inverted; the typical squared distance."""
    deviation, n = x.std(0), len(x)
    shrunk, share = oas((x - x.mean(0)) / deviation)
    inverse = np.linalg.inv((shrunk + 1e-3 * np.eye(len(shrunk))) * np.outer(deviation, deviation))
    own = np.mean([mahalanobis(row, x.mean(0), inverse) ** 2 for row in x])
    return inverse, own * (n + 1) / max(n - (1 - share) * own - 2 - share, n / 10)


def test_distances_are_scipys_with_the_covariance_shrunk_as_scikit_learn_does() -> None:
    training, patients = made_up(60, 0, absent=0.2), made_up(6, 1, absent=0.2)
    found = Reference.fit(moments(training)).distances(patients)
    assert found.shape == (6, 9, 2)
    for m, (k, part) in itertools.product(range(3), enumerate(KINDS)):
        r, column = (m, k) if k < 2 else (6 + m, 0)  # modalities, three pairs, modalities by their adapted features
        x = training[:, m, part]
        x = x[np.isfinite(x[:, 0])]
        inverse, typical = by_hand(x)
        for n in range(6):
            if np.isnan(patients[n, m, 0]):
                assert np.isnan(found[n, r, column])
            else:
                squared = mahalanobis(patients[n, m, part], x.mean(0), inverse) ** 2
                assert found[n, r, column] == pytest.approx(squared / typical, rel=1e-3)  # sums travel in float32


def test_pairs_are_scored_by_their_agreement_where_both_are_there() -> None:
    training, patients = made_up(60, 0), made_up(8, 1, absent=0.4)
    found = Reference.fit(moments(training)).distances(patients)
    for r, (i, j) in enumerate(PAIRS, start=3):
        start = ALONE + j * AGREEMENTS
        x = training[:, i, start : start + AGREEMENTS]
        inverse, typical = by_hand(x)
        here = np.isfinite(patients[:, i, 0]) & np.isfinite(patients[:, j, 0])
        assert 0 < here.sum() < 8
        assert np.isnan(found[~here, r]).all()
        for n in np.flatnonzero(here):
            away = patients[n, i, start : start + AGREEMENTS] - x.mean(0)
            worse = [max(away[0], 0.0), min(away[1], 0.0), away[2]]  # edges that agree better than others' are no fault
            squared = min(mahalanobis(x, np.zeros(AGREEMENTS), inverse) ** 2 for x in (worse, away))
            assert found[n, r, 0] == pytest.approx(squared / typical, rel=1e-3)
        assert np.isnan(found[:, r, 1]).all()


def test_edges_that_agree_better_are_no_fault_and_one_image_twice_is() -> None:
    reference, patient = Reference.fit(moments(made_up(60, 0))), made_up(1, 1)
    agreement = patient[:, :, ALONE:].reshape(1, 3, 3, AGREEMENTS)
    usual = reference.distances(patient)[0, 3, 0]
    moved = {}
    for name, change in {"better": [-5.0, 5.0, 0.0], "worse": [5.0, -5.0, 0.0], "one image twice": [-9.0, 9.0, 4.0]}.items():
        agreement[0, 0, 1] = agreement[0, 1, 0] = change
        moved[name] = reference.distances(patient)[0, 3, 0]
    assert moved["better"] <= usual + 1.0
    assert moved["worse"] > 5.0
    assert moved["one image twice"] > 3.0


def test_score_is_the_harmonic_mean_of_what_is_known() -> None:
    reference, patients = Reference.fit(moments(made_up(40, 0))), made_up(20, 1, absent=0.5)
    for patient, score in zip(reference.distances(patients), reference.score(patients), strict=True):
        inverse_probabilities = []
        for r, k in itertools.product(range(9), range(2)):
            if np.isfinite(patient[r, k]):
                scanner = SCANNER[k] if r < 3 else 0.0 if r < 6 else SCANNER[2]
                spread = reference.spread[r, k]
                z = (patient[r, k] ** (1 / 3) - (1 - spread)) / np.sqrt(spread + scanner**2)
                inverse_probabilities.append(np.exp(max(z, 0) ** 2 / 2))
        assert score == pytest.approx(np.log10(np.mean(inverse_probabilities)), abs=1e-9)


@pytest.mark.parametrize("patients", [16, 40, 300])
def test_new_patients_are_as_far_away_as_the_reference_expects_however_few_are_behind_it(patients: int) -> None:
    mean = [Reference.fit(moments(made_up(patients, s))).distances(made_up(100, 1000 + s)).mean(0) for s in range(8)]
    found = np.mean(mean, axis=0)
    pairs = found[3:6, 0].copy()
    found[3:6] = np.nan
    np.testing.assert_allclose(found[np.isfinite(found)], 1.0, atol=0.3 if patients < 40 else 0.12)
    assert (pairs < 1.0).all()  # half of their deviations are none


def test_typical_distance_without_shrinkage_is_hotellings() -> None:
    own = 5.0  # of 5 features, the inverse being that of the covariance itself
    expected = (
        own * (30 + 1) / (30 - 5 - 2)
    )  # f (n + 1) / (n - f - 2), of T squared over n / (n + 1) with n - 1 in the covariance
    assert typical_distance(np.eye(5), 0.0, 30) == pytest.approx(expected)


def test_cube_root_of_a_chi_squared_is_as_normal_as_said() -> None:
    for freedom in (3, 12):
        roots = np.cbrt(stats.chi2.rvs(freedom, size=20000, random_state=0) / freedom)
        spread = cube_root_variance(np.eye(freedom))
        assert roots.mean() == pytest.approx(1 - spread, abs=0.005)
        assert roots.var() == pytest.approx(spread, rel=0.05)
    uneven = np.diag([1.0, 1.0, 0.0])
    assert cube_root_variance(uneven) == pytest.approx(2 / 18)


def test_strangers_score_more() -> None:
    reference = Reference.fit(moments(made_up(300, 0)))
    assert np.median(reference.score(made_up(50, 2, shift=3.0))) > 5 * np.median(reference.score(made_up(50, 3)))


def test_shrinkage_is_scikit_learns_on_standardised_features_and_inverts_with_one_patient() -> None:
    x = np.random.default_rng(0).normal(size=(12, 30)) * np.linspace(0.5, 4.0, 30)
    x = (x - x.mean(0)) / x.std(0)
    found, share = shrunk_covariance(empirical_covariance(x, assume_centered=True), np.zeros(30), 12)
    truth, sklearn_share = oas(x, assume_centered=True)
    np.testing.assert_allclose(found, truth + 1e-3 * np.eye(30), atol=1e-8)
    assert share == pytest.approx(sklearn_share)
    assert np.isfinite(np.linalg.inv(shrunk_covariance(np.zeros((5, 5)), np.ones(5), 1)[0])).all()


def test_moments_add_up_and_a_site_takes_its_own_out() -> None:
    sites = [made_up(n, n, absent=0.3) for n in (12, 25, 31)]
    everyone = add(*map(moments, sites))
    together = moments(np.concatenate(sites))
    others = moments(np.concatenate(sites[1:]))
    left = subtract(everyone, moments(sites[0]))
    for name in together:
        np.testing.assert_allclose(everyone[name], together[name], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(left[name], others[name], rtol=1e-4, atol=1e-3)
    new = made_up(5, 77)
    np.testing.assert_allclose(Reference.fit(left).score(new), Reference.fit(others).score(new), rtol=1e-2, atol=1e-3)


def test_moments_against_a_loop_and_of_nobody() -> None:
    patients = made_up(9, 0, absent=0.4)
    sums = moments(patients)
    for m in range(3):
        mine = [patient[m, :WIDTH] for patient in patients if np.isfinite(patient[m, 0])]
        assert sums["ood.count"][m] == len(mine)
        np.testing.assert_allclose(sums["ood.sum"][m], np.sum(mine, axis=0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sums["ood.outer"][m], sum(np.outer(x, x) for x in mine), rtol=1e-4, atol=1e-4)
    config = config_from_table({"data": {"modalities": ["t1", "t2", "flair"]}})
    check_arrays(sums, moments_like(config))
    assert not any(array.any() for array in moments_like(config).values())
    assert sum(array.nbytes for array in moments_like(RunConfig()).values()) < 1e6


def test_adapted_features_are_known_by_patients_that_never_trained() -> None:
    """A model knows those it trained on: as far apart as they then lie, they say nothing of how far others may."""
    trained, held, new = made_up(60, 0), made_up(20, 1), made_up(30, 2)
    squeezed = trained.copy()
    squeezed[:, :, KINDS[2]] *= 0.01
    reference = Reference.fit(moments(squeezed, held))
    np.testing.assert_allclose(reference.distances(new), Reference.fit(moments(trained, held)).distances(new))
    np.testing.assert_allclose(reference.distances(new)[:, 6:, 0], Reference.fit(moments(held)).distances(new)[:, 6:, 0])
    np.testing.assert_allclose(reference.distances(new)[:, :6], Reference.fit(moments(trained)).distances(new)[:, :6])
    few = Reference.fit(moments(trained, held[: MIN_COUNT - 1]))
    assert np.isnan(few.distances(new)[:, 6:]).all()
    assert np.isfinite(few.score(new)).all()
    nobody = moments(trained, held[:0])
    assert not nobody["ood.count"][6:].any()


def test_rows_that_a_site_could_not_score_with_score_nobody() -> None:
    """Else the threshold would be made without them: 8% of like patients were flagged where 5% should be."""
    sizes = [(20, 6), (15, 3), (15, 4)]
    sites = [moments(made_up(n, n), made_up(held, 90 + held)) for n, held in sizes]
    together, plain = pool(*sites), add(*sites)
    assert (plain["ood.count"] == [50] * 6 + [13] * 3).all()
    assert (together["ood.count"] == [50] * 6 + [0] * 3).all()  # without the first site seven held-back patients are left
    for name in plain:
        np.testing.assert_array_equal(together[name][:6], plain[name][:6])
        assert not together[name][6:].any()
    whole, others = Reference.fit(together), Reference.fit(subtract(together, sites[0]))
    assert (whole.known == others.known).all()
    assert (pool(*[sites[0]] * 3)["ood.count"] == [60] * 6 + [18] * 3).all()
    assert not any(part.any() for part in pool(sites[0]).values())


def test_too_few_patients_leave_no_trace() -> None:
    patients = made_up(9, 0)
    patients = only(patients, np.array([[n < 4, True, True] for n in range(9)]))
    sums = moments(patients, least=5)
    kept_rows = [False, True, True, False, False, True, False, True, True]  # modalities, then 01, 02, 12, then adapted
    for r, kept in enumerate(kept_rows):
        assert bool(sums["ood.count"][r]) == bool(sums["ood.sum"][r].any()) == bool(sums["ood.outer"][r].any()) == kept
    assert np.isnan(Reference.fit(moments(patients[:4])).score(patients)).all()


def test_absent_modalities_change_nothing_else() -> None:
    reference, patients = Reference.fit(moments(made_up(50, 0))), made_up(10, 1)
    fewer = only(patients, np.tile([True, False, True], (10, 1)))
    all_of_them, some = reference.distances(patients), reference.distances(fewer)
    np.testing.assert_array_equal(some[:, [0, 2, 4, 6, 8]], all_of_them[:, [0, 2, 4, 6, 8]])
    assert np.isnan(some[:, [1, 3, 5, 7]]).all()


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_in_distribution_patients_are_flagged_at_the_rate_whatever_they_have(kept: int) -> None:
    """The threshold comes from patients with other subsets of modalities; a planted outlier is flagged in each of them."""
    reference = Reference.fit(moments(made_up(400, 0, absent=0.3)))
    limit = threshold(histogram(reference.score(made_up(1000, 1, absent=0.3))), 0.05)
    here = np.tile([n < kept for n in range(3)], (1000, 1))
    flagged = reference.score(only(made_up(1000, 2), here)) > limit
    assert 0.005 < flagged.mean() < 0.085
    outlier = only(made_up(10, 3), here[:10])
    outlier[:, 0, KINDS[0]] += 4.0  # one image of several
    assert (reference.score(outlier) > limit).all()


@given(st.lists(st.floats(0.011, 900.0), min_size=1, max_size=300), st.sampled_from([0.01, 0.05, 0.1, 0.5]))
@settings(max_examples=60, deadline=None)
def test_threshold_is_the_naive_quantile_rounded_up_to_an_edge(scores: list[float], rate: float) -> None:
    limit = threshold(histogram(np.array(scores)), rate)
    rank = int(np.ceil((len(scores) + 1) * (1 - rate) - 1e-9))
    if rank > len(scores):
        assert limit == np.inf
        return
    naive = sorted(scores)[rank - 1]
    assert naive <= limit <= naive * 1.021
    assert limit in SCORE_EDGES
    assert np.mean(np.array(scores) > limit) <= rate


def test_threshold_of_few_and_of_nobody_flags_nobody() -> None:
    assert threshold(histogram(np.array([])), 0.05) == np.inf
    assert threshold(histogram(np.full(18, 1.0)), 0.05) == np.inf
    assert threshold(histogram(np.full(19, 1.0)), 0.05) < 1.03
    assert histogram(np.array([np.nan, 1.0, 1e9])).sum() == 2
    assert threshold(histogram(np.full(19, 1e9)), 0.05) == np.inf


@given(st.integers(0, 6), st.integers(1, 4), st.integers(0, 2**31), st.floats(0.0, 1.0))
@settings(max_examples=10, deadline=None)
def test_any_number_of_patients_and_holes(patients: int, modalities: int, seed: int, holes: float) -> None:
    generator = np.random.default_rng(seed)
    found = made_up(patients, seed, modalities, absent=0.5)
    found[generator.random(found.shape) < holes / 50] = np.nan
    sums = moments(found)
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in sums.values())
    reference = Reference.fit(add(sums, moments(made_up(MIN_COUNT, seed, modalities, absent=0.3))))
    score = reference.score(found)
    known = np.isfinite(reference.distances(found)).any((1, 2))
    assert score.shape == (patients,)
    assert (np.isfinite(score) == known).all()


def a_site(patients: int, seed: int) -> tuple[SiteData, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.random((patients, 2, 4, 32, 32)).astype(np.float16)
    present = generator.random((patients, 4)) < 0.6
    present[:, 3] = True
    images[~present[:, None].repeat(2, 1)] = 0
    labels = np.zeros(patients, np.int64)
    return SiteData("site", tuple(map(str, range(patients))), images, present, labels, "key"), present


def small_model(config: RunConfig) -> tuple:
    model = build_model(config)
    arrays = get_arrays(model)
    generator = np.random.default_rng(0)
    return model, {name: a + generator.normal(0, 0.05, a.shape).astype(np.float32) for name, a in arrays.items()}


def test_features_of_a_modality_do_not_depend_on_the_others() -> None:
    config = config_from_table(
        {
            "data": {"size": 32, "slices": 2},
            "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2},
            "training": {"precision": "fp32"},
        }
    )
    model, arrays = small_model(config)
    patients, present = a_site(5, 0)
    found = features(TrainedModel(model, arrays, config), patients)
    assert found.shape == (5, 4, ALONE + 4 * AGREEMENTS)
    np.testing.assert_array_equal(np.isnan(found[:, :, 0]), ~present)
    kept = np.zeros_like(present)
    kept[:, 3] = True
    alone = features(TrainedModel(model, arrays, config), patients, kept)
    np.testing.assert_allclose(alone[:, 3, :ALONE], found[:, 3, :ALONE], atol=1e-5)
    assert np.isnan(alone[:, :3]).all()
    assert np.isnan(alone[:, 3, ALONE:]).all()
    np.testing.assert_allclose(only(found, kept), alone, atol=1e-5)
    images = np.array(patients.images)
    images[:, :, :3] *= 0.5
    others = replace(patients, images=images)
    np.testing.assert_allclose(
        features(TrainedModel(model, arrays, config), others)[:, 3, :ALONE], found[:, 3, :ALONE], atol=1e-5
    )
    agreement = found[:, :, ALONE:].reshape(5, 4, 4, AGREEMENTS)
    for n, i, j in zip(*np.nonzero(present[:, :, None] & present[:, None] & ~np.eye(4, dtype=bool)), strict=True):
        own = patients.images[n].astype(np.float64)
        np.testing.assert_allclose(agreement[n, i, j], modality_agreement(own[:, i], own[:, j]))
    untrained = features(TrainedModel(model, get_arrays(model), config), patients)
    np.testing.assert_array_equal(untrained[:, :, KINDS[1]], found[:, :, KINDS[1]])  # frozen: whatever the arrays
    assert np.nanmax(np.abs(untrained[:, :, KINDS[2]] - found[:, :, KINDS[2]])) > 1e-3
    assert features(TrainedModel(model, arrays, config), patients.select([])).shape == (0, 4, ALONE + 4 * AGREEMENTS)
