"""Cases from folders and tables: BIDS, other names, and each kind of wrong site."""

from pathlib import Path

import pytest

from common.config.run import RunConfig
from common.config.site import SitePolicy
from common.data.cases import read_site
from common.errors import ConfigError, DataError

ALL = ["t1", "t1c", "t2", "flair", "mask"]


def test_a_bids_site(write_site, run) -> None:
    root = write_site("bonn", {"sub-1": ALL, "sub-2": ["t1c"]}, {"sub-1": "b", "sub-2": "n/a", "sub-9": "a"})
    site = read_site(root, run)
    one, two = site.cases
    assert (site.name, one.id, two.id) == ("bonn", "sub-1", "sub-2")
    assert (one.label, two.label) == (1, -1)
    assert {m: f.name for m, f in one.files.items()} == {
        "t1": "sub-1_T1w.nii.gz",
        "t1c": "sub-1_ce-gadolinium_T1w.nii.gz",
        "t2": "sub-1_T2w.nii.gz",
        "flair": "sub-1_FLAIR.nii.gz",
    }
    assert one.mask is not None
    assert one.mask.name == "sub-1_desc-tumour_mask.nii.gz"
    assert list(two.files) == ["t1c"]  # its T1w suffix must not make it a t1
    assert two.mask is None
    assert [(one.level, one.found) for one in site.findings] == [("note", "1 rows of participants.tsv have no patient folder")]


def test_sessions_are_optional(write_site, run) -> None:
    root = write_site("s", {"sub-1": ["t1"]})
    (root / "sub-1" / "ses-pre").mkdir()
    (root / "sub-1" / "anat").rename(root / "sub-1" / "ses-pre" / "anat")
    assert list(read_site(root, run).cases[0].files) == ["t1"]


def test_hidden_files_are_not_images(write_site, run) -> None:
    root = write_site("s", {"sub-1": ["t1"]})
    (root / "sub-1" / "anat" / "._sub-1_T1w.nii.gz").touch()  # as macOS leaves them
    assert read_site(root, run).cases[0].files["t1"].name == "sub-1_T1w.nii.gz"


def test_policy_is_open_only_for_the_researchers_own_folder(write_site, run) -> None:
    root = write_site("s", {"sub-1": ["t1"]})
    assert read_site(root, run).config.policy == SitePolicy()
    assert read_site(root, run, simulated=True).config.policy == SitePolicy.simulation()
    (root / "site.toml").write_text("[policy]\nshare_counts = true")
    assert read_site(root, run, simulated=True).config.policy == SitePolicy(share_counts=True)


def test_site_toml_may_stand_elsewhere(write_site, run, tmp_path: Path) -> None:
    root = write_site("images", {"X1": ["t1"], "X2": ["t1"], "Y": ["t1"]}, {"X1": "a", "X2": "a"})
    home = tmp_path / "home"
    home.mkdir()
    (home / "site.toml").write_text(
        'data = "../images"\npatients = "X*"\nexclude = ["*2"]\n[labels]\ntable = "own.tsv"\n'
        'column = "who"\nmap = { "4" = "b", "?" = "n/a" }'
    )
    (home / "own.tsv").write_text("participant_id\twho\tage\tsex\nX1\t4\t61.5\tf\n")
    site = read_site(home, run)
    assert [(c.id, c.label, c.age, c.sex) for c in site.cases] == [("X1", 1, 61.5, "F")]
    assert (site.name, site.root) == ("home", root)
    assert read_site(home / "site.toml", run).cases == site.cases


@pytest.mark.parametrize(
    ("table", "toml", "level", "found"),
    [
        (None, "", "warning", "no participants.tsv: every patient is unlabelled"),
        ("participant_id\tage\nsub-1\t5\n", "", "warning", "no column subtype (it has participant_id, age)"),
        ("participant_id\tsubtype\nsub-1\tn/a\n", "", "warning", "no label for any patient here"),
        ("participant_id\tsubtype\nsub-9\tn/a\n", "", "warning", "(sub-9), and 1 patients no row (sub-1)"),
        ("participant_id\tsubtype\nsub-1\ta\n", '[labels]\ncolumn = "none"', "note", "column is none"),
    ],
)
def test_a_site_without_labels(write_site, run, table: str | None, toml: str, level: str, found: str) -> None:
    root = write_site("s", {"sub-1": ["t1"]}, None)
    (root / "site.toml").write_text(toml)
    if table:
        (root / "participants.tsv").write_text(table)
    site = read_site(root, run)
    assert [case.label for case in site.cases] == [-1]
    assert site.findings[0].level == level
    assert found in site.findings[0].found


def errors(site) -> dict[str, str]:
    return {one.patient: one.code for one in site.findings if one.level == "error"}


def test_who_has_an_error_stays_out_and_every_error_is_said(write_site, run) -> None:
    patients = {"sub-1": ["t1"], "sub-2": ["mask"], "sub-3": ["t1"], "sub-4": ["t1"]}
    root = write_site("s", patients, {"sub-1": "a", "sub-3": "glioma", "sub-4": "b"})
    (root / "sub-4" / "anat" / "sub-4_run-2_T1w.nii.gz").touch()
    site = read_site(root, run)
    assert errors(site) == {"sub-2": "modality-none", "sub-3": "label-unknown", "sub-4": "file-twins"}
    text = "\n".join(str(one) for one in site.findings)
    assert "Patient sub-2: no modality; among its files are anat/sub-2_desc-tumour_mask.nii.gz; expected a file for at" in text
    assert "label 'glioma' is none of a, b; expected one of these, or n/a. Map it in site.toml under labels.map" in text
    assert "2 files match t1 (anat/sub-4_T1w.nii.gz, anat/sub-4_run-2_T1w.nii.gz)" in text
    assert "narrow files.t1" in text
    assert [case.label for case in site.cases if case.id == "sub-1"] == [0]


def test_a_name_twice_keeps_both_out(write_site, run) -> None:
    root = write_site("s", {"x/sub-1": [], "y/sub-1": [], "y/sub-2": []}, {"sub-2": "a"})
    (root / "site.toml").write_text('patients = "*/sub-*"\n[files]\nt1 = "t1.nii"')
    for patient in ("x/sub-1", "y/sub-1", "y/sub-2"):
        (root / patient / "t1.nii").touch()
    assert errors(read_site(root, run)) == {"sub-1": "patient-twice"}


@pytest.mark.parametrize(
    ("toml", "expected", "kind"),
    [
        ('patients = "pat*"', r"no patient folder named pat\*", DataError),
        ('exclude = ["sub-*"]', r"1 excluded", DataError),
        ('data = "nowhere"', "does not exist", DataError),
        ('[labels]\ntable = "nowhere.tsv"', "nowhere.tsv", DataError),
        ('[labels]\ncolumn = "who"', "Site s: participants.tsv: no column who", DataError),
        ('[labels]\nmap = { "4" = "c" }', "Site s: labels.map: expected classes a, b", ConfigError),
    ],
)
def test_a_wrong_site_is_refused(write_site, run, toml: str, expected: str, kind: type[Exception]) -> None:
    root = write_site("s", {"sub-1": ["t1"]}, {"sub-1": "a"})
    (root / "site.toml").write_text(toml)
    with pytest.raises(kind, match=expected):
        read_site(root, run)


def test_no_folder_and_an_empty_folder(tmp_path: Path, run) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_site(tmp_path / "nowhere", run)
    with pytest.raises(DataError, match="no patient folder"):
        read_site(tmp_path, run)


@pytest.mark.parametrize(
    ("word", "age"),
    [("89+", 89.0), (" 54.5", 54.5), ("n/a", None), ("", None), ("nan", None), ("inf", None), ("old", None), ("5_4", None)],
)
def test_ages(write_site, run, word: str, age: float | None) -> None:
    root = write_site("s", {"sub-1": ["t1"]}, None)
    (root / "participants.tsv").write_text(f"participant_id\tage\tsubtype\nsub-1\t{word}\ta\n")
    site = read_site(root, run)
    assert site.cases[0].age == age
    assert [one.code for one in site.findings] == ["age-unread"] * (word in ("inf", "old", "5_4"))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "patients", "t1", "t1c"), [("du", 45, 44, 41), ("cs", 16, 16, 16), ("fg", 14, 13, 12), ("ez", 1, 1, 1)]
)
def test_the_real_hospitals(real_data: Path, name: str, patients: int, t1: int, t1c: int) -> None:
    site = read_site(real_data / "tcga-lgg" / name, RunConfig())
    assert len(site.cases) == patients
    assert sum("t1" in case.files for case in site.cases) == t1
    assert sum("t1c" in case.files for case in site.cases) == t1c
    assert all("flair" in case.files and "t2" not in case.files and case.mask for case in site.cases)
    assert all(case.label >= 0 for case in site.cases)
