"""Two imports into one site folder at once, from homes of their own: the second is refused, whatever it is. Real processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.cli.main import main
from client.data.collection import copy_collection
from client.data.preset import read_preset
from client.data.site_folder import SiteFolder
from common.errors import DataError
from simulation.phantom.dicom import write_classic
from tests.client.data.conftest import oblique, scans
from tests.client.data.test_collection import make

TOOL = """#!{python}
import pathlib, sys, time, nibabel
pathlib.Path("{here}/begun").touch()
while not pathlib.Path("{here}/go").exists():
    time.sleep(0.02)
image = nibabel.load(sys.argv[2])
nibabel.save(nibabel.Nifti1Image((image.get_fdata() > 0).astype("u1"), image.affine), sys.argv[4])
"""
SECONDS = 180  # until a process is given up


def planned(home: Path, patient: str) -> list[str]:
    """A home with a source of one patient, a head of a litre, and its plan; the command that follows it into one folder."""
    affine = oblique((15.0, 15.0, 20.0))
    write_classic(scans("t1", affine=affine, shape=(12, 10, 4), study=patient, PatientID=patient), home / "source")
    assert main(["import", str(home / "source"), "--plan", str(home / "plan.tsv")]) == 0
    go = ["--go", "--out", str(home.parent / "site"), "--brain", "mri_synthstrip"]
    return [sys.executable, "-m", "client.cli.main", "import", str(home / "source"), "--plan", str(home / "plan.tsv"), *go]


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A program in the place of mri_synthstrip that tells when it has begun, and waits to be let go; its folder."""
    program = tmp_path / "bin" / "mri_synthstrip"
    program.parent.mkdir()
    program.write_text(TOOL.format(python=sys.executable, here=tmp_path))
    program.chmod(0o755)
    return program.parent


def test_the_second_is_refused_and_the_first_is_whole(tool: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{tool}{os.pathsep}{os.environ['PATH']}"}
    one, other = planned(tmp_path / "one", "P-1"), planned(tmp_path / "other", "P-2")
    with subprocess.Popen(one, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        try:
            until = time.monotonic() + SECONDS
            while not (tmp_path / "begun").exists() and time.monotonic() < until and first.poll() is None:
                time.sleep(0.02)
            second = subprocess.run(other, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert second.returncode == 1
            assert second.stderr.strip() == (
                f"Error: Another import fills {tmp_path / 'site'}. Wait for its end, or name another --out."
            )
            assert first.poll() is None
        finally:
            (tmp_path / "go").touch()
        out = first.communicate(timeout=SECONDS)[0]
    assert "Imported: 1 patients. Not imported: 0." in out
    assert len(list((tmp_path / "site").glob("sub-*"))) == 1


def test_a_collection_is_refused_too(tmp_path: Path) -> None:
    make(tmp_path / "in" / "BraTS2021_00006", "BraTS2021_00006_{}.nii.gz", ("t1", "t1ce", "t2", "flair"))
    with SiteFolder(tmp_path / "site").alone(), pytest.raises(DataError, match="Another import fills"):
        copy_collection(read_preset("brats2021"), tmp_path / "in", tmp_path / "site", progress=lambda done, total: None)
    assert not list((tmp_path / "site").glob("sub-*"))
