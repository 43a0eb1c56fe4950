"""The diffusion coefficient against the tissues' own, in closed form where a voxel is full of one tissue."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulation.phantom.diffusion import acquire_adc, adc_map, sample_density
from simulation.phantom.lesion import CELLULAR
from simulation.phantom.scanner import B_VALUES, Scanner, brain_mask, clean_image, thick_slices
from simulation.phantom.signal import spin_echo
from simulation.phantom.tissue import TISSUES


def noiseless(scanner: Scanner, head: Any, growth: Any) -> np.ndarray:
    brain = brain_mask(head)
    image = np.zeros(brain.shape)
    image[brain] = adc_map(*[clean_image(scanner, name, head, growth)[brain].astype(float) for name in B_VALUES])
    return image


@pytest.mark.parametrize(("name", "published"), [("white", 700.0), ("grey", 890.0), ("csf", 3000.0), ("deep-grey", 750.0)])
def test_a_voxel_full_of_one_tissue_has_its_coefficient(
    grow: Callable[..., Any], scanner: Scanner, name: str, published: float
) -> None:
    """Helenius et al. 2002 and free water at 37 degrees Celsius, in 10^-6 mm^2/s."""
    head, growth, _ = grow("idh-wildtype")
    full = (thick_slices(growth.shares[name], head) > 0.9999) & brain_mask(head)
    assert full.sum() > 5
    np.testing.assert_allclose(noiseless(scanner, head, growth)[full], published, rtol=2e-3)


def test_a_mixed_voxel_is_the_ratio_of_summed_signals(grow: Callable[..., Any], scanner: Scanner) -> None:
    """Signals add up, coefficients do not: half grey matter and half fluid is no mean of 890 and 3000."""
    s = {n: spin_echo(TISSUES[n].t1(1.5), TISSUES[n].t2, TISSUES[n].pd, tr=5000.0, te=85.0) for n in ("grey", "csf")}
    mixed = [0.5 * (s["grey"] * np.exp(-b * 890e-6) + s["csf"] * np.exp(-b * 3000e-6)) for b in (0.0, 1000.0)]
    expected = np.log(mixed[0] / mixed[1]) * 1000
    head, growth, _ = grow("idh-wildtype")
    half = np.float32(0.5)
    shares = {name: np.zeros_like(share) for name, share in growth.shares.items()}
    shares["grey"], shares["csf"] = shares["grey"] + half, shares["csf"] + half
    found = noiseless(scanner, head, replace(growth, shares=shares, compartments=()))
    assert not np.isclose(expected, 1945.0, rtol=0.05)
    np.testing.assert_allclose(found[brain_mask(head)], expected, rtol=1e-3)


def test_the_subtypes_differ_as_published(grow: Callable[..., Any], scanner: Scanner) -> None:
    """Thust et al. 2018: wildtype below 1201, codeleted above it, intact highest; oedema and necrosis above the solid part."""
    means = {}
    for subtype in ("idh-wildtype", "oligodendroglioma", "idh-mutant-astrocytoma"):
        head, growth, _ = grow(subtype, heterogeneity=0.02, mismatch=0.0)
        solid = (thick_slices(growth.maps["solid"], head) > 0.98) & brain_mask(head)
        means[subtype] = float(noiseless(scanner, head, growth)[solid].mean())
    assert means["idh-wildtype"] < 1201 < means["oligodendroglioma"] < means["idh-mutant-astrocytoma"]
    assert TISSUES["white"].adc < TISSUES["solid-wildtype"].adc < TISSUES["oedema"].adc < TISSUES["necrosis"].adc


def test_noise_blurs_and_the_seed_decides(grow: Callable[..., Any], scanner: Scanner) -> None:
    head, growth, _ = grow("oligodendroglioma")
    image = acquire_adc(np.random.default_rng(1), scanner, head, growth)
    assert np.array_equal(image, acquire_adc(np.random.default_rng(1), scanner, head, growth))
    brain = brain_mask(head)
    assert not image[~brain].any()
    assert image[brain].min() >= 1
    white = (thick_slices(growth.shares["white"], head) > 0.9999) & brain
    # Error propagation of ln(S0/Sb)/b with noise sigma on both (Jones et al., Magn Reson Med 1999;42:515, equation 4).
    expected = 1000.0 / scanner.snr * np.sqrt(1 + np.exp(2 * 0.7))
    assert image[white].mean() == pytest.approx(700.0, rel=0.02)
    assert image[white].std() == pytest.approx(expected, rel=0.1)


def test_density_varies_living_tumour_alone(grow: Callable[..., Any]) -> None:
    _, growth, _ = grow("idh-wildtype")
    dense = sample_density(np.random.default_rng(0), growth)
    factors = [np.unique(np.round(b.adc / a.adc, 9)) for a, b in zip(growth.compartments, dense.compartments, strict=True)]
    count = len(CELLULAR)
    assert all(len(f) == 1 and f[0] == factors[0][0] != 1.0 for f in factors[:count])
    assert all(f[0] == 1.0 for f in factors[count:])
    drawn = [np.ravel(sample_density(np.random.default_rng(s), growth).compartments[0].adc)[0] for s in range(400)]
    assert np.log(drawn).std() == pytest.approx(0.12, rel=0.15)
