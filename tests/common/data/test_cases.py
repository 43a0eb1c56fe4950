"""Cases from folders and tables: BIDS, other names, and each kind of wrong site."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.config.run import RunConfig
from common.config.site import SitePolicy
from common.data.cases import Participant, read_participants, read_site
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
    assert site.notes == ("1 rows of participants.tsv have no patient folder",)


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
    ("table", "toml", "note"),
    [
        (None, "", "no participants.tsv"),
        ("participant_id\tage\nsub-1\t5\n", "", "no column subtype"),
        ("participant_id\tsubtype\nsub-1\ta\n", '[labels]\ncolumn = "none"', "column is none"),
    ],
)
def test_a_site_without_labels(write_site, run, table: str | None, toml: str, note: str) -> None:
    root = write_site("s", {"sub-1": ["t1"]})
    (root / "site.toml").write_text(toml)
    if table:
        (root / "participants.tsv").write_text(table)
    site = read_site(root, run)
    assert [case.label for case in site.cases] == [-1]
    assert note in site.notes[0]


def test_all_problems_are_reported_together(write_site, run) -> None:
    patients = {f"sub-{n:02}": ["mask"] for n in range(14)}
    root = write_site("s", patients | {"sub-99": ["t1"]}, {"sub-00": "glioma"})
    with pytest.raises(DataError) as caught:
        read_site(root, run)
    text = str(caught.value)
    assert "patient sub-00: no modality" in text
    assert "label 'glioma' is none of a, b" in text
    assert "sub-08" in text
    assert "sub-09" not in text
    assert text.endswith("and 5 more.")
    assert "sub-00" not in caught.value.public


def test_two_files_of_one_modality_are_refused(write_site, run) -> None:
    root = write_site("s", {"sub-1": ["t1"]})
    (root / "sub-1" / "anat" / "sub-1_run-2_T1w.nii.gz").touch()
    with pytest.raises(DataError, match=r"sub-1: 2 files match t1 \(anat/sub-1_T1w.nii.gz, .*narrow files.t1"):
        read_site(root, run)


def test_a_name_twice_is_refused(write_site, run) -> None:
    root = write_site("s", {"x/sub-1": [], "y/sub-1": []})
    (root / "site.toml").write_text('patients = "*/sub-*"\n[files]\nt1 = "t1.nii"')
    for side in "xy":
        (root / side / "sub-1" / "t1.nii").touch()
    with pytest.raises(DataError, match="patient sub-1: 2 folders have this name"):
        read_site(root, run)


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


CELL = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\ufeff"), max_size=8)
KEY = CELL.filter(bool)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.dictionaries(KEY, st.tuples(CELL, st.one_of(st.none(), st.integers(0, 120)), CELL)),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_is_read_back(tmp_path: Path, rows: dict[str, tuple[str, int | None, str]], ends: str) -> None:
    lines = ["age\tparticipant_id\tsubtype\tother"]
    lines += [f"{'n/a' if age is None else age}\t{key}\t{label}\t{other}" for key, (label, age, other) in rows.items()]
    file = tmp_path / "participants.tsv"
    file.write_bytes(("\ufeff" + ends.join(lines) + ends).encode())
    expected = {key: Participant(label, None if age is None else float(age), None) for key, (label, age, _) in rows.items()}
    assert read_participants(file, "subtype") == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=st.one_of(st.binary(max_size=60), st.text("participant_id\t\nab\r\"' ", max_size=60).map(str.encode)))
def test_any_bytes_give_a_table_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "participants.tsv"
    for start in (b"", b"participant_id\tsubtype\n"):
        file.write_bytes(start + content)
        with contextlib.suppress(DataError):
            read_participants(file, "subtype")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("participant_id\tage\nx\t1\nx\t2\n", "line 3: participant x occurs twice"),
        ("participant_id\tage\nx\t1\t2\n", "line 2: expected 2 cells between tabs, got 3"),
        ("participant_id,age\nx,1\n", "expected tab-separated columns"),
        ("age\tage\tparticipant_id\n", "each once"),
        ("", "participant_id"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "participants.tsv"
    file.write_text(text)
    with pytest.raises(DataError, match=expected):
        read_participants(file, "subtype")


@pytest.mark.parametrize(("word", "age"), [("89+", 89.0), ("n/a", None), ("", None), ("nan", None), ("inf", None), ("old", None)])
def test_ages(tmp_path: Path, word: str, age: float | None) -> None:
    file = tmp_path / "participants.tsv"
    file.write_text(f"participant_id\tage\nx\t{word}\n")
    assert read_participants(file, "subtype")["x"].age == age


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
