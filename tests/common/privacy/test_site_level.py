"""Site-level privacy: the bound on one hospital, the size of the noise, and what is claimed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.sections import SiteLevelConfig
from common.privacy.site_level import clip_change, noise_to_signal, noised_change, site_level_claim


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.floats(1e-3, 1e3))
def test_a_change_is_shortened_to_the_clip_and_keeps_its_direction(values: list[float], clip: float) -> None:
    change = np.array(values)
    short = clip_change(change, clip)
    assert np.linalg.norm(short) <= clip * (1 + 1e-9)
    if np.linalg.norm(change) <= clip:
        np.testing.assert_array_equal(short, change)
    else:
        np.testing.assert_allclose(short * np.linalg.norm(change), change * clip, rtol=1e-9, atol=1e-12)


def test_the_noise_has_the_spread_of_the_clip_over_the_sites_and_no_seed() -> None:
    config = SiteLevelConfig(enabled=True, clip=0.5, noise=3.0)
    mean = np.full(40_000, 7.0)
    first, second = (noised_change(mean, np.ones(40_000, bool), 6, config) - mean for _ in range(2))
    assert first.std() == pytest.approx(3.0 * 0.5 / 6, rel=0.03)
    assert abs(first.mean()) < 5 * 0.25 / math.sqrt(40_000)
    assert not np.array_equal(first, second)
    assert noise_to_signal(40_000, 6, config) == pytest.approx(np.linalg.norm(first) / 0.5, rel=0.03)


def test_the_claim_is_the_gaussian_mechanisms() -> None:
    """One round, sensitivity C, noise z C: epsilon by Balle and Wang (ICML 2018), theorem 8, for z = 1 and delta 1e-3."""
    claim = site_level_claim(SiteLevelConfig(enabled=True, noise=1.0, site_delta=1e-3), 1, 10_000, 4)

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    def delta(epsilon: float) -> float:
        return phi(0.5 - epsilon) - math.exp(epsilon) * phi(-0.5 - epsilon)

    low, high = 0.0, 10.0
    for _ in range(60):
        low, high = ((low + high) / 2, high) if delta((low + high) / 2) > 1e-3 else (low, (low + high) / 2)
    assert claim["epsilon"] == pytest.approx(high, abs=0.05)
    assert claim["unit"] == "hospital"
    assert "25 times" in claim["warning"]
    assert site_level_claim(SiteLevelConfig(enabled=True, noise=0.0), 1, 10, 4)["epsilon"] is None


def test_what_the_round_does_not_train_gets_no_noise_and_stays() -> None:
    trained = np.array([True, False, True])
    found = noised_change(np.array([0.0, 1e-9, 0.0]), trained, 2, SiteLevelConfig(enabled=True, noise=100.0))
    assert found[1] == 0.0
    assert np.abs(found[trained]).min() > 0
