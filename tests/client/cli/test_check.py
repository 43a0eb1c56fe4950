"""`fedmri-site check` where something is in its way: it says so, never with a traceback, and never waits for ever."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.cli.main import main


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two patients of one small image each."""
    for patient in ("sub-1", "sub-2"):
        folder = tmp_path / "site" / patient / "anat"
        folder.mkdir(parents=True)
        voxels = np.random.default_rng(0 if patient == "sub-1" else 1).uniform(50, 200, (12, 12, 8)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([16.0, 16, 16, 1])), folder / f"{patient}_T1w.nii.gz")
    (tmp_path / "site" / "participants.tsv").write_text("participant_id\tsubtype\nsub-1\tn/a\nsub-2\tn/a\n")
    return tmp_path / "site"


def row_names(site: Path) -> None:
    (site / "participants.tsv").write_text('"participant_id"\t"subtype"\n"1"\t"sub-1"\t"n/a"\n"2"\t"sub-2"\t"n/a"\n')


def loop(site: Path) -> None:
    (site / "sub-3").symlink_to(site / "loop")
    (site / "loop").symlink_to(site / "sub-3")


def pipe(site: Path) -> None:
    os.mkfifo(site / "sub-1" / "anat" / "sub-1_T2w.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "codes", "used"),
    [(row_names, set(), ["sub-1", "sub-2"]), (loop, set(), ["sub-1", "sub-2"]), (pipe, {"file-absent"}, ["sub-2"])],
)
def test_a_table_with_row_names_links_in_a_loop_and_a_pipe(
    site: Path, spoil: Callable[[Path], None], codes: set[str], used: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(site)
    assert main(["check", str(site), "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["code"] for one in told["findings"] if one["level"] == "error" and one["patient"] != "sub-3"} == codes
    assert told["used"] == len(used)


def test_a_site_that_is_refused_whole_is_told_as_json_too(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "participants.tsv").write_text("participant_id;subtype\nsub-1;n/a\n")
    assert main(["check", str(site), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["usable"] is False
    assert "semicolons" in told["error"]


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(site), "--html", str(tmp_path / "absent" / "x.html")]) == 2
    assert "in a folder that is there and that you may write to" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "absent").exists()


def test_a_wrong_site_toml_is_told_as_json_too(tmp_path, capsys) -> None:
    (tmp_path / "site.toml").write_text("[files")
    assert main(["check", str(tmp_path), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["usable"] is False
    assert "not valid TOML" in told["error"]


def test_a_page_of_an_earlier_check_is_told_where_the_site_is_refused(site: Path, tmp_path: Path, capfd) -> None:
    page = tmp_path / "check.html"
    assert main(["check", str(site), "--html", str(page)]) == 0
    before = page.read_bytes()
    (site / "participants.tsv").write_text("patient,subtype\nsub-1,n/a\n")
    capfd.readouterr()
    assert main(["check", str(site), "--html", str(page)]) == 1
    assert f"{page} is of an earlier check and was not written anew." in capfd.readouterr().err
    assert page.read_bytes() == before  # nothing is lost
