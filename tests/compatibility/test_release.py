"""A release of 2a60dec: its signature holds, and its model says what it said."""

import tarfile
from pathlib import Path

import pytest

from tests.compatibility.conftest import OLD, Asked, told


@pytest.fixture
def release(tmp_path: Path) -> Path:
    with tarfile.open(OLD / "release.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "release"


def test_it_is_verified(release: Path, asked: Asked) -> None:
    files = [path for path in release.rglob("*") if path.is_file() and not path.name.startswith("MANIFEST.json")]
    verified = asked("fedmri-server", "verify", release, "--key", OLD / "release.pub")
    assert verified["verified"] is True
    assert verified["files"] == len(files)


def test_it_says_of_every_patient_what_it_said(release: Path, asked: Asked) -> None:
    answers = asked("fedmri-site", "predict", OLD / "external", "--model", release / "model.safetensors")
    for now, then in zip(answers, told("release-predictions.json"), strict=True):
        assert now["patient"] == then["patient"]
        assert now["probabilities"] == pytest.approx(then["probabilities"], abs=1e-6)
        assert now["prediction_set"] == then["prediction_set"]
