"""A pattern of site.toml that fits nobody is a warning with the nearest name; one that fits anybody is none."""

from pathlib import Path

import pytest

from common.config.run import RunConfig
from common.data.cases import read_site
from common.data.gate.finding import Finding

FILES = ("t1.nii.gz", "t1ce.nii.gz", "t2.nii.gz", "flair.nii.gz", "seg.nii.gz")
TOML = """
[files]
t1 = "*_t1.nii.gz"
t1c = "*_t1ce.nii.gz"
t2 = "*_t2.nii.gz"
flair = ["*_flair.nii.gz", "*_FLAIR.nii.gz"]
mask = "*_seg.nii.gz"
"""


def told(site: Path, toml: str, patients: int = 3) -> list[Finding]:
    """What is found of the patterns of a site whose patients all have all files."""
    for number in range(patients):
        folder = site / f"sub-{number}"
        folder.mkdir(exist_ok=True)
        for name in (*FILES, "t1ce.json"):
            (folder / f"case{number}_{name}").write_bytes(b"")
    (site / "site.toml").write_text(toml)
    return [one for one in read_site(site, RunConfig()).findings if one.code == "pattern-nobody"]


@pytest.mark.parametrize(
    ("right", "wrong", "kind", "nearest"),
    [
        ('"*_t1ce.nii.gz"', '"*_t1c.nii.gz"', "t1c", "case0_t1ce.nii.gz"),
        ('"*_t1.nii.gz"', '"anat/*_t1.nii.gz"', "t1", "case0_t1.nii.gz"),
        ('["*_flair.nii.gz", "*_FLAIR.nii.gz"]', '["*_flair.nii", "*_FLAIR.nii"]', "flair", "case0_flair.nii.gz"),
        ('"*_seg.nii.gz"', '"*_mask.nii.gz"', "mask", "case0_seg.nii.gz"),
    ],
)
def test_a_pattern_that_fits_nobody_is_named_with_the_nearest_name(
    tmp_path: Path, right: str, wrong: str, kind: str, nearest: str
) -> None:
    (found,) = told(tmp_path, TOML.replace(right, wrong))
    assert found.level == "warning"
    assert found.file == "site.toml"
    assert found.patient == ""
    assert f"files.{kind} = " in found.found
    assert f"the nearest name is {nearest!r}" in found.found
    assert f'files.{kind} = ""' in found.do


@pytest.mark.parametrize("toml", [TOML, "", TOML.replace('"*_t2.nii.gz"', '""')])
def test_patterns_that_fit_and_kinds_that_the_site_says_it_has_not_are_no_matter(tmp_path: Path, toml: str) -> None:
    assert told(tmp_path, toml) == []


def test_one_patient_whom_it_fits_is_enough(tmp_path: Path) -> None:
    assert told(tmp_path, TOML.replace("*_t2", "case2_t2")) == []
    assert len(told(tmp_path, TOML.replace("*_t2", "case9_t2"))) == 1
