"""Small site folders of real NIfTI files."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.tasks.classification import Classification

SUFFIXES = {
    "t1": "T1w",
    "t1c": "ce-gadolinium_T1w",
    "t2": "T2w",
    "flair": "FLAIR",
    "mask": "desc-tumour_mask",
}
FIRST: dict[str, str] = {}  # labels of the first patient alone
WriteSite = Callable[..., Path]


@pytest.fixture
def small() -> DataConfig:
    return DataConfig(slices=2, size=16, field_of_view=16.0)


@pytest.fixture
def run(small: DataConfig) -> RunConfig:
    return RunConfig(data=small, task=Classification(("a", "b")))


@pytest.fixture
def write_site(tmp_path: Path) -> WriteSite:
    """write_site(name, patients={id: [kinds]}, labels={id: word}): a BIDS folder of noisy 20 x 24 x 6 volumes.

    Without `labels` the first patient is of class a, for a site without any is warned of; with `labels=None` there is no table.
    """

    def write(name: str, patients: dict[str, list[str]], labels: dict[str, str] | None = FIRST) -> Path:
        root = tmp_path / name
        for number, (patient, kinds) in enumerate(patients.items()):
            folder = root / patient / "anat"
            folder.mkdir(parents=True)
            for kind in kinds:
                generator = np.random.default_rng([number, list(SUFFIXES).index(kind)])
                voxels = generator.uniform(50, 200, (20, 24, 6)).astype(np.float32)
                if kind == "mask":
                    voxels = np.zeros_like(voxels)
                    voxels[8:12, 9:14, 2:4] = 1
                nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{patient}_{SUFFIXES[kind]}.nii.gz")
        labels = {min(patients): "a"} if labels is FIRST else labels
        if labels is not None:
            rows = "".join(f"{patient}\t{word}\n" for patient, word in labels.items())
            (root / "participants.tsv").write_text("participant_id\tsubtype\n" + rows)
        return root

    return write
