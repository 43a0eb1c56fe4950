"""The subtypes show the signs that radiology names, in the images and not only in the parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from simulation.phantom.lesion import SUBTYPES, sample_age, sample_lesion
from simulation.phantom.scanner import Scanner, clean_image, thick_slices


def _means(scanner: Scanner, grown: Any, modality: str, *names: str) -> list[float]:
    """Mean clean signal where a part, or normal white matter, fills nearly the whole voxel."""
    head, growth, _ = grown
    image = clean_image(scanner, modality, head, growth)
    result = []
    for name in names:
        share = thick_slices(growth.maps[name] if name in growth.maps else growth.shares[name], head)
        assert (share > 0.8).sum() > 5, name
        result.append(float(image[share > 0.8].mean()))
    return result


def test_strong_mismatch_is_bright_on_t2_and_dark_cored_on_flair(grow: Callable[..., Any], scanner: Scanner) -> None:
    grown = grow("idh-mutant-astrocytoma", mismatch=0.95, heterogeneity=0.05, patches=0.0)
    head, growth, lesion = grown
    edge = (growth.maps["core"] < 0.05) & (growth.maps["solid"] > 0.8)
    growth.maps["edge"] = edge.astype(np.float32)
    away = np.linalg.norm(head.points - np.array(lesion.centre)[:, None], axis=0)
    assert away[growth.maps["core"] > 0.9].mean() < away[edge].mean() - 3.0  # the core is the middle, the bright rim around it
    core, white = _means(scanner, grown, "t2", "core", "white")
    assert core > 2.0 * white
    core_flair, oedema_flair = _means(scanner, grown, "flair", "core", "oedema")
    assert core_flair < 0.75 * oedema_flair
    shell = thick_slices(growth.maps["edge"], head) > 0.6
    assert clean_image(scanner, "flair", head, growth)[shell].mean() > 1.4 * core_flair


def test_without_mismatch_flair_is_bright(grow: Callable[..., Any], scanner: Scanner) -> None:
    core, white = _means(scanner, grow("idh-mutant-astrocytoma", mismatch=0.1, heterogeneity=0.05), "flair", "core", "white")
    assert core > 1.4 * white


def test_ring_enhances_and_necrosis_does_not(grow: Callable[..., Any], scanner: Scanner) -> None:
    grown = grow("idh-wildtype", ring=0.5, necrosis=0.6, rim=6.0, patches=0.0, heterogeneity=0.1, roughness=2.0)
    before = _means(scanner, grown, "t1", "rim", "necrosis")
    after = _means(scanner, grown, "t1c", "rim", "necrosis")
    gain = np.array(after) - before
    assert gain[0] > 0.15
    assert gain[1] < 0.3 * gain[0]
    assert before[1] < before[0]


def test_gadolinium_changes_vessels_and_enhancing_tumour_only(grow: Callable[..., Any], scanner: Scanner) -> None:
    head, growth, _ = grow("idh-wildtype", ring=0.5, necrosis=0.5, patches=0.0)
    difference = clean_image(scanner, "t1c", head, growth) - clean_image(scanner, "t1", head, growth)
    rich = thick_slices(growth.maps["rim"] + growth.shares["blood"], head)
    assert np.abs(difference[rich == 0]).max() < 1e-6
    assert difference[rich > 0.5].min() > 0.02


def test_calcification_is_dark_on_t2(grow: Callable[..., Any], scanner: Scanner) -> None:
    head, growth, _ = grow("oligodendroglioma", calcification=1.0)
    image = clean_image(scanner, "t2", head, growth)
    calcium, solid = (thick_slices(growth.maps[name], head) for name in ("calcification", "solid"))
    assert image[calcium > 0.7].mean() < 0.5 * image[solid > 0.9].mean()


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Any]]:
    generator = np.random.default_rng(5)
    return {subtype: [sample_lesion(generator, subtype) for _ in range(600)] for subtype in SUBTYPES}


@pytest.mark.parametrize(
    ("subtype", "sign", "low", "high"),
    [
        ("idh-mutant-astrocytoma", lambda t: t.mismatch > 0.72, 0.48, 0.62),
        ("oligodendroglioma", lambda t: t.mismatch > 0.72, 0.0, 0.0),
        ("idh-wildtype", lambda t: t.ring + t.patches > 0, 0.82, 0.92),
        ("idh-mutant-astrocytoma", lambda t: t.ring + t.patches > 0, 0.14, 0.26),
        ("oligodendroglioma", lambda t: t.ring + t.patches > 0, 0.30, 0.50),
        ("oligodendroglioma", lambda t: t.calcification > 0, 0.60, 0.80),
        ("idh-wildtype", lambda t: t.calcification > 0, 0.0, 0.10),
    ],
)
def test_signs_are_as_frequent_as_the_literature_says(
    drawn: dict[str, list[Any]], subtype: str, sign: Callable[[Any], bool], low: float, high: float
) -> None:
    assert low <= np.mean([sign(lesion) for lesion in drawn[subtype]]) <= high


def test_sizes_overlap(drawn: dict[str, list[Any]]) -> None:
    spans = [np.percentile([lesion.size for lesion in lesions], (10, 90)) for lesions in drawn.values()]
    assert max(low for low, _ in spans) < min(high for _, high in spans) - 5.0


def test_ages_are_those_of_the_literature() -> None:
    """Medians of Reuss et al. 2015 (36 to 37 years) and CBTRUS 2022 (65; oligodendrogliomas most between 40 and 44), within 5."""
    generator = np.random.default_rng(0)
    medians = {name: float(np.median([sample_age(generator, name) for _ in range(2000)])) for name in SUBTYPES}
    for name, published in {"idh-mutant-astrocytoma": 36.5, "idh-wildtype": 65.0, "oligodendroglioma": 42.0}.items():
        assert abs(medians[name] - published) <= 5.5, name
