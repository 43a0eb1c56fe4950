"""Each fault does what its name says, to one image and inside the brain; and the folders that hold them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.config.site import find_sites
from simulation.phantom import write_hospitals
from simulation.phantom.broken import FAULTS, break_images
from simulation.phantom.scanner import Scanner, acquire


@pytest.fixture(scope="module")
def images(scanner: Scanner, grow: Callable[..., tuple]) -> dict[str, np.ndarray]:
    head, growth, _ = grow("idh-wildtype")
    return acquire(np.random.default_rng(1), scanner, head, growth, ("t1", "t1c", "t2", "flair")).images


@pytest.mark.parametrize("fault", FAULTS)
def test_one_image_is_struck_inside_the_brain_and_the_seed_decides(images: dict[str, np.ndarray], fault: str) -> None:
    before = {m: image.copy() for m, image in images.items()}
    broken = break_images(images, fault, np.random.default_rng(3))
    again = break_images(images, fault, np.random.default_rng(3))
    changed = [m for m in images if not np.array_equal(images[m], broken[m])]
    assert len(changed) == (2 if fault == "swapped" else 1)
    for m, image in images.items():
        assert np.array_equal(image, before[m])  # nothing mutated
        assert np.array_equal(broken[m], again[m])
        assert broken[m].dtype == np.float32
        assert np.isfinite(broken[m]).all()
        assert np.array_equal(broken[m] > 0, image > 0)
    struck = {
        tuple(m for m in images if not np.array_equal(images[m], break_images(images, fault, np.random.default_rng(s))[m]))
        for s in range(12)
    }
    assert len(struck) == (1 if fault == "swapped" else 4)


def strike(images: dict[str, np.ndarray], fault: str) -> tuple[np.ndarray, np.ndarray]:
    """The struck image before and after, and nothing of the others."""
    broken = break_images(images, fault, np.random.default_rng(3))
    m = next(m for m in images if not np.array_equal(images[m], broken[m]))
    return images[m].astype(float), broken[m].astype(float)


def test_inverted_is_anticorrelated_and_swapped_is_the_other(images: dict[str, np.ndarray]) -> None:
    before, after = strike(images, "inverted")
    brain = before > 0
    assert np.corrcoef(before[brain], after[brain])[0, 1] < -0.98
    swapped = break_images(images, "swapped", np.random.default_rng(0))
    assert np.array_equal(swapped["t1"], images["flair"])
    assert np.array_equal(swapped["flair"], images["t1"])
    assert np.array_equal(break_images({"t2": images["t2"]}, "swapped", np.random.default_rng(0))["t2"], images["t2"])


def test_saturated_noise_and_undersampled(images: dict[str, np.ndarray]) -> None:
    before, after = strike(images, "saturated")
    brain = before > 0
    assert (after[brain] == after.max()).mean() == pytest.approx(0.5, abs=0.02)
    before, after = strike(images, "noise")
    assert abs(np.corrcoef(before[brain], after[brain])[0, 1]) < 0.05
    before, after = strike(images, "undersampled")
    along_x, along_y = (np.abs(np.diff(after, axis=a)).mean() / np.abs(np.diff(before, axis=a)).mean() for a in (0, 1))
    assert along_y < 0.85 * along_x


def test_spikes_and_ghosts_keep_what_physics_keeps(images: dict[str, np.ndarray]) -> None:
    before, after = strike(images, "spikes")
    slice_number = before.shape[2] // 2
    added = np.abs(np.fft.fft2(after - before, axes=(0, 1)))[:, :, slice_number]
    assert np.sort(added.ravel())[-6:].min() > 8 * np.median(added)  # three sparks and their mirror images
    before, after = strike(images, "ghosts")
    assert np.corrcoef(before[before > 0], after[before > 0])[0, 1] < 0.9
    assert after.sum() == pytest.approx(before.sum(), rel=0.35)


@pytest.mark.slow
def test_folders_lie_deeper_than_hospitals_and_leave_these_as_they_were(tmp_path: Path) -> None:
    write_hospitals(tmp_path / "with", sites=2, patients=1, external=1, seed=5, broken=1, workers=1)
    write_hospitals(tmp_path / "without", sites=2, patients=1, external=1, seed=5, workers=1)
    assert [f.name for f in find_sites(tmp_path / "with")] == ["external", "hospital-a", "hospital-b"]
    assert tuple(f.name for f in find_sites(tmp_path / "with" / "broken")) == FAULTS

    def hashes(folder: Path) -> dict[str, str]:
        files = (p for p in folder.rglob("*") if p.is_file() and "broken" not in p.parts)
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert hashes(tmp_path / "with") == hashes(tmp_path / "without")
    noise = tmp_path / "with" / "broken" / "noise" / "sub-0001" / "anat"
    assert any(image.name.endswith("FLAIR.nii.gz") for image in noise.iterdir())
    assert {nibabel.Nifti1Image.from_filename(image).ndim for image in noise.glob("*.nii.gz")} == {3}
