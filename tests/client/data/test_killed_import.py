"""An import that is killed, at whatever step, goes on and ends in the same bytes: real processes, ended by SIGKILL."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from client.cli.main import main
from client.data.volume import Volume, save_nifti
from simulation.phantom.dicom import write_classic
from tests.client.data import killed_imports
from tests.client.data.conftest import oblique, scans

pytestmark = pytest.mark.thorough
SHAPE = (12, 10, 4)
EVERY = 3  # steps: a third of them in ten seconds; all 95 were tried once (docs/results.md)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Two patients, of whom one has two modalities and lies in an archive."""
    folder, apart = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("apart")
    write_classic(scans("t1", shape=SHAPE, study="a", PatientID="P-1"), folder / "a")
    for number, modality in enumerate(("t2", "flair")):
        write_classic(scans(modality, shape=SHAPE, study="b", PatientID="P-2"), apart, name=f"{number}{{:03d}}")
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        for file in sorted(apart.iterdir()):
            archive.write(file, file.name)
    return folder


@pytest.fixture(scope="module")
def imported(source: Path, tmp_path_factory) -> Path:
    """Home after home: one that nobody killed, and one for each step."""
    home, work = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")
    lesion = np.zeros(SHAPE, np.float32)
    lesion[4:7, 3:6, 1:3] = 1
    save_nifti(Volume(lesion, oblique((2.5, 2.5, 3.0))), home / "mask.nii.gz", np.uint8)
    (home / "masks.csv").write_text("patient_id,file,modality\nP-2,mask.nii.gz,flair\n")
    (home / "labels.csv").write_text("patient_id,subtype\nP-1,idh-wildtype\nP-2,oligodendroglioma\n")
    assert main(["import", str(source), "--plan", str(home / "plan.tsv")]) == 0
    subprocess.run([sys.executable, killed_imports.__file__, source, home, work, str(EVERY)], check=True)
    return work


def content(home: Path) -> dict[str, bytes]:
    """All files by name, hidden ones too; where a home stands in its own log is taken out."""
    files = (path for path in home.rglob("*") if path.is_file())
    return {str(path.relative_to(home)): path.read_bytes().replace(str(home).encode(), b"HOME") for path in files}


def test_every_kill_ends_in_the_same_bytes(imported: Path) -> None:
    whole = content(imported / "whole")
    killed = sorted(imported.glob("step-*"))
    assert len(killed) > 90 // EVERY
    assert sum(name.startswith("site/sub-") for name in whole) == 6  # three images with their sidecars
    for home in killed:
        found = content(home)
        differing = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
        assert not differing, f"{home.name}: {differing}"
