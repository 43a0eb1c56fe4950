"""Sites of phantoms to spoil: small ones (every second voxel in the plane), and full ones where the images are judged."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.config.modalities import MODALITIES
from simulation.phantom.hospitals import Patient, nifti_bytes, simulate_patient
from simulation.phantom.sites import EXTERNAL_HOSPITAL

HOSPITAL = replace(EXTERNAL_HOSPITAL, missing={})
PEOPLE = ("sub-0001", "sub-0002")
MakeSite = Callable[[], Path]


@pytest.fixture(scope="session")
def people() -> list[Patient]:
    """Two simulated patients with all modalities."""
    return [simulate_patient(HOSPITAL, number, 7) for number in range(len(PEOPLE))]


def write_site(root: Path, people: list[Patient], step: int) -> Path:
    """BIDS, every `step`-th voxel in the plane, with masks and a table."""
    affine = HOSPITAL.scanner.affine @ np.diag([step, step, 1, 1])
    rows = ["participant_id\tage\tsex\tsubtype"]
    for name, one in zip(PEOPLE, people, strict=True):
        folder = root / name / "anat"
        folder.mkdir(parents=True)
        for m, voxels in one.scan.images.items():
            stored = np.rint(voxels[::step, ::step]).astype(np.int16)
            (folder / f"{name}_{MODALITIES[m].suffix}.nii.gz").write_bytes(nifti_bytes(stored, affine))
        mask = one.scan.mask[::step, ::step].astype(np.uint8)
        (folder / f"{name}_desc-tumour_mask.nii.gz").write_bytes(nifti_bytes(mask, affine))
        rows.append(f"{name}\t61\tF\t{one.subtype}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="session")
def small(people, tmp_path_factory) -> Path:
    return write_site(tmp_path_factory.mktemp("small") / "site", people, 2)


@pytest.fixture(scope="session")
def full(people, tmp_path_factory) -> Path:
    return write_site(tmp_path_factory.mktemp("full") / "site", people, 1)


@pytest.fixture
def a_site(small, tmp_path) -> Path:
    """A copy of the small site, to be spoilt."""
    return Path(shutil.copytree(small, tmp_path / "site"))


@pytest.fixture
def a_full_site(full, tmp_path) -> Path:
    return Path(shutil.copytree(full, tmp_path / "site"))
