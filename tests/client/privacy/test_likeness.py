"""A patient whose images come back in another form, under another name, has spent what they had spent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from client.cli.main import main
from client.privacy.budget import Budget, open_budget
from client.privacy.ledger import read_ledger
from client.privacy.likeness import images_path
from common.config.site import SiteConfig, SitePrivacy
from common.data.cases import Case, Site
from common.errors import PrivacyError
from common.privacy.charge import Charge

ROUND = Charge(1.5, 0.1, 20)
SHAPE, EDGE = (76, 92, 60), 2.0

Change = Callable[[np.ndarray], tuple[np.ndarray, float]]


def head(seed: int) -> np.ndarray:
    """An ellipsoid of smooth random tissue in a shell."""
    tissue = 1 + ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 3.0) / 0.06
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    voxels = np.where(radius < 0.9, 300 * np.clip(tissue, 0.3, None), 0)
    return np.where((radius > 0.98) & (radius < 1.05), 900, voxels)


def as_it_was(voxels: np.ndarray) -> tuple[np.ndarray, float]:
    return voxels, EDGE


def resampled(voxels: np.ndarray) -> tuple[np.ndarray, float]:
    shape = tuple(round(n / 1.3) for n in SHAPE)
    return ndimage.affine_transform(voxels, np.full(3, 1.3), output_shape=shape, order=1), 1.3 * EDGE


def stripped(voxels: np.ndarray) -> tuple[np.ndarray, float]:
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in SHAPE], indexing="ij")
    return np.where(np.sqrt(sum(axis**2 for axis in axes)) < 0.94, voxels, 0), EDGE


def cropped(voxels: np.ndarray) -> tuple[np.ndarray, float]:
    return voxels[8:-4, 5:-9, 8:-3], EDGE


@dataclass
class Folder:
    """A site's folder: each patient is a name, a head and the form of its image."""

    root: Path
    patients: dict[str, tuple[int, Change]] = field(default_factory=dict)

    def budget(self, limit: float = 0.0, same_patient: str = "charge") -> Budget:
        cases = tuple(
            Case(name, {"t1": self._file(seed, change)}, None, -1, None, None, self.root)
            for name, (seed, change) in sorted(self.patients.items())
        )
        privacy = SitePrivacy(epsilon=limit, same_patient=same_patient)
        site = Site("du", self.root, cases, SiteConfig())
        return open_budget(site, privacy, self.root / "ledger.jsonl", self.root / "cache")

    def _file(self, seed: int, change: Change) -> Path:
        path = self.root / f"{seed}-{change.__name__}.nii"
        if not path.exists():
            voxels, edge = change(head(seed))
            nib.save(nib.Nifti1Image(np.round(voxels).astype(np.int16), np.diag([edge] * 3 + [1.0])), path)
        return path


@pytest.mark.parametrize("change", [resampled, stripped, cropped])
def test_renamed_and_changed_at_once_is_the_same_patient(tmp_path: Path, change: Change) -> None:
    folder = Folder(tmp_path, {"a": (1, as_it_was)})
    spent = folder.budget().charge(ROUND, "run")
    folder.patients = {"z": (1, change), "other": (2, as_it_was)}
    budget = folder.budget()
    assert budget.spent() == pytest.approx(spent)
    assert budget.likenesses() == ("z",)
    folder.patients = {"other": (2, change)}
    assert folder.budget().spent() == 0


def test_the_link_stays_when_the_first_form_is_gone_and_the_budget_ends(tmp_path: Path) -> None:
    """Whole, resampled, stripped and cropped by turns, each under a new name: never more rounds than one patient has."""
    states = [as_it_was, resampled, stripped, cropped]
    folder = Folder(tmp_path, {"a": (1, as_it_was)})
    limit = folder.budget().spent(*[ROUND] * 4)
    for number, change in enumerate(states):
        folder.patients = {f"name-{number}": (1, change)}
        folder.budget(limit).charge(ROUND, "run")
    for number, change in enumerate(states):
        folder.patients = {f"again-{number}": (1, change)}
        with pytest.raises(PrivacyError, match="beyond the hospital's"):
            folder.budget(limit).charge(ROUND, "run")


def test_two_forms_side_by_side_are_one_person(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"a": (1, as_it_was), "b": (1, resampled), "c": (2, as_it_was)})
    assert folder.budget().twins() == (("a", "b"),)
    with pytest.raises(PrivacyError, match="a and b: one person"):
        folder.budget(1e5, "refuse").charge(ROUND, "run")
    pair = folder.budget(1e5).charge(ROUND, "run")
    folder.patients = {"c": (2, as_it_was)}
    assert pair > 1.5 * folder.budget().spent()


def test_fingerprints_that_were_lost_or_exchanged_close_training(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"a": (1, as_it_was)})
    folder.budget(1e5).charge(ROUND, "run")
    path = images_path(tmp_path / "ledger.jsonl")
    kept = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    folder.patients = {"b": (2, as_it_was)}
    directory = kept.rindex(b"PK\x01\x02")
    another_way = kept[: directory + 10] + b"\x63" + kept[directory + 11 :]  # of compression: zipfile knows none of this number
    for damaged in (None, b"PK", kept[: len(kept) // 2], another_way):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(PrivacyError, match="Restore it from the ledger's backup"):
            folder.budget(1e5).charge(ROUND, "run")
    path.write_bytes(kept)
    spent = folder.budget(1e5).charge(ROUND, "run")
    path.write_bytes(kept)  # an older copy
    with pytest.raises(PrivacyError, match="not the one that the ledger names"):
        folder.budget(1e5).charge(ROUND, "run")
    (tmp_path / "site.toml").write_text('[privacy]\nledger = "ledger.jsonl"\n')
    asked = ["ledger", "accept", str(tmp_path), "--reason", "disk lost, Dr A. decides"]
    assert main(asked) == 0
    assert main(asked) == 2  # nothing is lacking any more
    assert folder.budget(1e5).charge(ROUND, "run") > spent
    assert read_ledger(tmp_path / "ledger.jsonl").seen.count == 1


def test_ledgers_of_before_go_on_and_hold_no_plain_token(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"a": (1, as_it_was)})
    budget = folder.budget()
    old = Budget(budget.site, budget.limit, budget.delta, budget.path, budget.facts)
    spent = old.charge(ROUND, "run")
    assert read_ledger(budget.path).seen.count == 0
    assert folder.budget().charge(ROUND, "run") > spent
    assert read_ledger(budget.path).seen.count == 1
    with np.load(images_path(budget.path)) as kept:
        assert budget.images is not None
        assert not np.isin(budget.images[0], kept["tokens"]).any()
