"""A disc with its index (DICOMDIR), written by pydicom: images come by themselves, and what only the index has is said."""

import shutil
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from client.cli.main import main
from simulation.phantom.dicom import write_classic
from tests.client.data.conftest import scans

SLICES = 4


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """Two series as a CD has them: PT000000/ST000000/SE000000/IM000000 and on, and DICOMDIR."""
    files = FileSet()
    for number, modality in enumerate(("t1", "flair")):
        for file in write_classic(
            scans(modality, shape=(12, 10, SLICES), StudyID="1", SeriesNumber=number), tmp_path / "scanner" / modality
        ):
            files.add(file)
    files.write(tmp_path / "disc")
    return tmp_path / "disc"


def outcomes(source: Path, home: Path, log_lines) -> dict[str, tuple[str, str]]:
    """What a plan's log says of each file: its outcome and why."""
    home.mkdir()
    assert main(["import", str(source), "--plan", str(home / "plan.tsv")]) == 0
    return {name: (row[3], row[4]) for name, row in log_lines(home / "state" / "import.tsv").items()}


def test_a_disc_in_a_folder(disc: Path, tmp_path: Path, log_lines, capsys) -> None:
    found = outcomes(disc.rename(disc.parent / "upper"), tmp_path / "home", log_lines)
    assert found.pop("DICOMDIR") == ("left out", "DICOMDIR: an index of 8 others, no image")
    assert sorted({name.rpartition("/")[0] for name in found}) == [f"PT000000/ST000000/SE00000{n}" for n in (0, 1)]
    assert len(found) == 2 * SLICES
    assert {outcome for outcome, _ in found.values()} == {"left out"}
    assert [line.split("\t")[:4:3] for line in (tmp_path / "home" / "plan.tsv").read_text().splitlines()[1:]] == [
        ["yes", "t1"],
        ["yes", "flair"],
    ]
    assert "DICOMDIR" not in capsys.readouterr().out


def test_a_disc_in_an_archive_below_a_folder(disc: Path, tmp_path: Path, log_lines) -> None:
    (tmp_path / "inbox").mkdir()
    shutil.make_archive(str(tmp_path / "inbox" / "cd"), "zip", tmp_path, "disc")
    found = outcomes(tmp_path / "inbox", tmp_path / "home", log_lines)
    assert found.pop("cd.zip!disc/DICOMDIR")[1] == "DICOMDIR: an index of 8 others, no image"
    assert len(found) == 2 * SLICES  # none that is absent: the index is read from where it lies
    assert {outcome for outcome, _ in found.values()} == {"left out"}


def test_a_copy_that_lacks_files_is_said(disc: Path, tmp_path: Path, log_lines, capsys) -> None:
    """Copied with names in lower case, as some systems show discs, and without a series."""
    lower = disc.parent / "copy"
    for file in disc.rglob("SE000000/*"):
        target = lower / str(file.relative_to(disc)).lower()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.copy(disc / "DICOMDIR", lower / "dicomdir")
    found = outcomes(lower, tmp_path / "home", log_lines)
    absent = {name: why for name, (outcome, why) in found.items() if outcome == "absent"}
    assert absent == {f"PT000000/ST000000/SE000001/IM00000{n}": "named by dicomdir, and not in the source" for n in range(SLICES)}
    assert f"{SLICES} files that a DICOMDIR names are not in the source" in capsys.readouterr().out


def test_an_index_alone(disc: Path, tmp_path: Path, capsys) -> None:
    assert main(["import", str(disc / "DICOMDIR"), "--plan", str(tmp_path / "plan.tsv")]) == 1
    assert "a DICOMDIR names the images and holds none" in capsys.readouterr().err
