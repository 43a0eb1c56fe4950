"""Signal equations against their limits, Rician noise against scipy."""

import numpy as np
import pytest
from scipy.stats import kstest, rice

from simulation.phantom.signal import (
    bias_field,
    inversion_recovery,
    null_inversion_time,
    rician,
    spin_echo,
    with_gadolinium,
)


def test_long_tr_and_short_te_leave_proton_density() -> None:
    assert spin_echo(900.0, 80.0, 0.7, tr=1e9, te=1e-9) == pytest.approx(0.7)


def test_long_tr_decays_with_t2() -> None:
    assert spin_echo(900.0, 80.0, 0.7, tr=1e9, te=80.0) == pytest.approx(0.7 / np.e)


def test_short_te_recovers_with_t1() -> None:
    assert spin_echo(900.0, 80.0, 1.0, tr=900.0, te=1e-9) == pytest.approx(1.0 - 1.0 / np.e)


def test_spin_echo_agrees_with_the_bloch_equations_stepped_by_hand() -> None:
    t1, t2, tr, te = 800.0, 90.0, 600.0, 20.0
    longitudinal = 1.0
    for _ in range(50):  # repeat until steady: excite, invert at TE/2, recover to TR
        after_half = 1.0 - np.exp(-te / 2 / t1)
        before_next = 1.0 - (1.0 + after_half) * np.exp(-(tr - te / 2) / t1)
        longitudinal = before_next
    assert spin_echo(t1, t2, 1.0, tr=tr, te=te) == pytest.approx(longitudinal * np.exp(-te / t2))


def test_inversion_recovery_agrees_with_the_bloch_equations_stepped_by_hand() -> None:
    t1, t2, tr, te, ti = 1300.0, 90.0, 4000.0, 30.0, 1100.0
    start = 1.0
    for _ in range(50):  # invert, recover TI, excite, invert at TE/2, recover the rest of TR
        excited = 1.0 - (1.0 + start) * np.exp(-ti / t1)
        after_half = 1.0 - np.exp(-te / 2 / t1)
        start = 1.0 - (1.0 + after_half) * np.exp(-(tr - ti - te / 2) / t1)
    expected = excited * np.exp(-te / t2)
    assert inversion_recovery(t1, t2, 1.0, tr=tr, te=te, ti=ti) == pytest.approx(expected)


def test_fluid_is_nulled_at_ln2_t1_for_long_tr() -> None:
    assert null_inversion_time(4300.0, tr=1e9, te=100.0) == pytest.approx(4300.0 * np.log(2.0))
    assert inversion_recovery(4300.0, 2000.0, 1.0, tr=1e9, te=100.0, ti=4300.0 * np.log(2.0)) == pytest.approx(0.0, abs=1e-9)


def test_null_time_nulls_at_finite_tr() -> None:
    ti = null_inversion_time(4300.0, tr=9000.0, te=120.0)
    assert inversion_recovery(4300.0, 2000.0, 1.0, tr=9000.0, te=120.0, ti=ti) == pytest.approx(0.0, abs=1e-12)
    assert 2300.0 < ti < 2700.0  # what FLAIR protocols use


def test_gadolinium_adds_rates() -> None:
    assert with_gadolinium(1000.0, 0.0, 4.1) == pytest.approx(1000.0)
    assert with_gadolinium(1000.0, 1.0, 4.0) == pytest.approx(200.0)  # 1/s + 4/s


@pytest.mark.parametrize("clean", [0.0, 0.5, 3.0])
def test_noise_is_rician(clean: float) -> None:
    sigma = 0.7
    magnitude = rician(np.full(20000, clean, np.float32), sigma, np.random.default_rng(3))
    assert kstest(magnitude, rice(clean / sigma, scale=sigma).cdf).pvalue > 0.001
    assert kstest(magnitude, rice(clean / sigma, scale=1.1 * sigma).cdf).pvalue < 1e-6


def test_bias_is_smooth_and_bounded() -> None:
    axes = tuple(np.linspace(-90, 90, n).astype(np.float32) for n in (20, 24, 12))
    field = bias_field(axes, np.random.default_rng(0).normal(size=(4, 4, 4)), 0.2)  # type: ignore[arg-type]
    log = np.log(field)
    assert np.abs(log).max() == pytest.approx(0.2, rel=1e-3)
    assert np.abs(log.mean()) < 1e-4
    assert np.abs(np.diff(log, n=4, axis=0)).max() < 1e-4  # order three along each axis
    assert np.ptp(log) > 0.1
