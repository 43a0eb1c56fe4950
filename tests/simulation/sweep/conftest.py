"""Hospitals of empty files, enough for a plan: it opens no image."""

from pathlib import Path

import pytest

from common.tasks.classification import Classification

SITES = {"a": 20, "b": 16, "far": 8}


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    folder = tmp_path / "hospitals"
    for site, patients in SITES.items():
        rows = ["participant_id\tsubtype"]
        for number in range(patients):
            name = f"sub-{number:02d}"
            file = folder / site / name / "anat" / f"{name}_T1w.nii.gz"
            file.parent.mkdir(parents=True)
            file.touch()
            rows.append(f"{name}\t{Classification.classes[number % 3]}")
        (folder / site / "participants.tsv").write_text("\n".join(rows) + "\n")
    return folder
