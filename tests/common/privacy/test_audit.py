"""The audit must pass what is right and catch each planted fault: clip per slice, no noise, seeded noise, a wrong rate."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from common.privacy.audit import (
    canary_audit,
    noise_checks,
    proved_epsilon,
    removal_check,
    sampling_check,
    the_optimizer,
)
from common.privacy.charge import Charge
from common.privacy.noise import system_sample
from common.privacy.optimizer import SystemNoiseOptimizer
from tests.common.privacy.naive_clipping import clipped_sum

CHARGE = Charge(4.2, 0.1, 200)
SLICES = 8


def no_noise(inner, noise, norm, expected) -> SystemNoiseOptimizer:
    return the_optimizer(inner, 0.0, norm, expected)


def clip_per_slice(inner, noise, norm, expected) -> SystemNoiseOptimizer:
    """A patient of eight slices moves the sum by eight norms, the noise stays as it was for one."""
    return the_optimizer(inner, noise / SLICES, norm * SLICES, expected)


class Seeded(SystemNoiseOptimizer):
    def add_noise(self) -> None:
        for parameter in self.params:
            noise = torch.randn(parameter.summed_grad.shape) * self.noise_multiplier * self.max_grad_norm
            parameter.grad = parameter.summed_grad + noise


def audit(gradients=lambda g: g, make=the_optimizer):
    return canary_audit(CHARGE, 1e-5, torch.Generator().manual_seed(0), gradients=gradients, make=make)


def test_what_is_right_passes() -> None:
    result = audit()
    assert result.claimed == pytest.approx(1.35, abs=0.05)
    assert result.passed
    assert all(check.passed for check in noise_checks(1.0, 0.5))


def test_clipping_per_slice_is_caught() -> None:
    result = audit(gradients=lambda g: SLICES * g, make=clip_per_slice)
    assert result.audited > 1.3 * result.claimed
    assert not result.passed


def test_no_noise_is_caught() -> None:
    assert not audit(make=no_noise).passed
    assert not noise_checks(1.0, 0.5, make=no_noise)[0].passed


def test_noise_from_a_seed_is_caught() -> None:
    def make(inner, noise, norm, expected):
        return Seeded(inner, noise_multiplier=noise, max_grad_norm=norm, expected_patients=expected)

    size, seed = noise_checks(1.0, 0.5, make=make)
    assert size.passed
    assert not seed.passed


@pytest.mark.parametrize("extra", [1, -1])
def test_a_rate_that_is_off_by_one_patient_is_caught(extra: int) -> None:
    assert sampling_check(system_sample, 40, 0.2).passed
    off = sampling_check(lambda count, rate: system_sample(count, rate + extra / count), 40, 0.2)
    assert not off.passed


def test_batches_of_one_size_are_no_poisson_samples() -> None:
    rng = np.random.default_rng(0)
    assert not sampling_check(lambda count, rate: rng.choice(count, int(count * rate), replace=False), 40, 0.2).passed


def test_honest_samples_of_few_patients_are_no_false_alarm() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.binomial(3, 0.005, (200, 2000))  # 30 patients drawn in 2000 steps: the spread strays by 9%
    for steps in sizes:
        draws = iter(steps)
        assert sampling_check(partial(lambda draws, count, rate: np.zeros(next(draws), np.int64), draws), 3, 0.005).passed
    assert not sampling_check(lambda count, rate: system_sample(count, 3 * rate), 3, 0.005).passed


def test_a_patient_who_counts_for_each_slice_is_caught() -> None:
    generator = torch.Generator().manual_seed(0)
    slices = torch.randn(5, SLICES, 30, generator=generator)

    def per_patient(rows: list[int]) -> dict[str, Tensor]:
        return clipped_sum({"w": slices[rows].mean(1)}, 0.1)

    def per_slice(rows: list[int]) -> dict[str, Tensor]:
        return clipped_sum({"w": slices[rows].flatten(0, 1)}, 0.1)

    assert removal_check(per_patient, 5, 0.1).passed
    assert not removal_check(per_slice, 5, 0.1).passed


@pytest.mark.parametrize(("share", "honest"), [(1.0, True), (1.0012, False)])
def test_the_optimizers_own_rounding_stays_within_the_bound(share: float, honest: bool) -> None:
    """Its float32 norms of large gradients are short by some 1e-6: it clips to a thousandth less, and more than that is seen."""
    gradients = torch.randn(4, 300_000, generator=torch.Generator().manual_seed(0)).abs()

    def sums(rows: list[int]) -> dict[str, Tensor]:
        weight = torch.zeros(300_000, requires_grad=True)
        the_optimizer(torch.optim.SGD([weight], lr=1.0), 0.0, share, 1.0).take({"w": weight}, {"w": gradients[rows]})
        return {"w": -weight.detach().double()}

    assert removal_check(sums, 4, 1.0).passed is honest


@pytest.mark.parametrize(("guesses", "right"), [(10, 9), (100, 70), (300, 195)])
def test_without_delta_the_bound_is_the_binomial_one(guesses: int, right: int) -> None:
    found = proved_epsilon(guesses, right, 600, 0.0, 0.05)

    def tail(epsilon: float) -> float:
        return float(binom.sf(right - 1, guesses, np.exp(epsilon) / (1 + np.exp(epsilon))))

    assert tail(found) <= 0.05 < tail(found + 0.01)


def test_chance_proves_nothing_and_delta_costs() -> None:
    assert proved_epsilon(100, 50, 600, 0.0, 0.05) == 0
    assert proved_epsilon(100, 80, 600, 1e-4, 0.05) < proved_epsilon(100, 80, 600, 0.0, 0.05)
