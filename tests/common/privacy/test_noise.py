import numpy as np
import pytest
import torch
from scipy import stats

from common.privacy import noise
from common.privacy.noise import GRID_BITS, noised, system_normal, system_sample


def test_the_noise_is_normal() -> None:
    values = system_normal((200, 250), 2.5).numpy().ravel()
    # One in a million honest runs fails; a wrong spread of 2% or uniforms in place of normals always do.
    assert stats.kstest(values, "norm", args=(0, 2.5)).pvalue > 1e-6
    assert values.std() == pytest.approx(2.5, rel=0.02)


def test_every_value_of_a_large_array_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "CHUNK", 100)
    values = system_normal((7, 36), 1.0).numpy().ravel()
    assert values.dtype == np.float32
    assert len(np.unique(values)) == 252


def test_no_seed_brings_the_noise_back() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)
        drawn.append((system_normal((50,), 1.0), system_sample(64, 0.5)))
    assert not torch.equal(drawn[0][0], drawn[1][0])
    assert not np.array_equal(drawn[0][1], drawn[1][1])


def test_noise_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("os.urandom", lambda count: asked.append(count) or bytes(count))
    system_normal((10,), 1.0)
    system_sample(10, 0.5)
    assert sum(asked) == 8 * (2 * 10 * noise.SUMMED // 2 + 10)


def test_a_poisson_sample_takes_each_by_itself() -> None:
    taken = np.zeros((4000, 6))
    for row in taken:
        row[system_sample(6, 0.3)] = 1
    sizes = np.bincount(taken.sum(1).astype(int), minlength=7)
    expected = stats.binom.pmf(np.arange(7), 6, 0.3) * 4000
    assert stats.chisquare(sizes, expected).pvalue > 1e-6
    assert np.allclose(taken.mean(0), 0.3, atol=0.05)


@pytest.mark.parametrize(("rate", "size"), [(0.0, 0), (1.0, 9)])
def test_the_ends_of_the_rate(rate: float, size: int) -> None:
    assert len(system_sample(9, rate)) == size


@pytest.mark.parametrize("std", [0.7, 3.0, 1e-4])
def test_the_low_bits_of_a_noised_sum_tell_nothing_of_what_was_added(std: float) -> None:
    """In float32 alone a sum of 1 and noise has other last bits than one of 0: who was in it can be read from them."""
    grid = 2.0 ** (np.floor(np.log2(std)) - GRID_BITS)
    for total in (torch.zeros(20_000), torch.full((20_000,), 1 / 3) * std, torch.rand(20_000) * 3 * std):
        found = noised(total, std)
        assert found.dtype == torch.float32
        steps = found.double() / grid
        assert torch.equal(steps, steps.round())
        noise_alone = ((found - total).double() / std).numpy()
        assert stats.kstest(noise_alone, "norm").pvalue > 1e-6
    plain = torch.full((20_000,), 1 / 3) * std + system_normal((20_000,), std)
    assert not torch.equal(plain.double() / grid, (plain.double() / grid).round())  # what the test above would show without it
