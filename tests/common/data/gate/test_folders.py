"""Hints where patients are not where they were looked for, and columns under the names that hospitals give them."""

from pathlib import Path

import pytest

from common.config.run import RunConfig
from common.data.cases import read_site
from common.data.gate.mask_names import Says, reads_as
from common.data.gate.names import Name
from common.data.headings import looks_like
from common.errors import DataError


def patient(folder: Path) -> None:
    (folder / "anat").mkdir(parents=True)
    (folder / "anat" / f"{folder.name}_T1w.nii.gz").write_bytes(b"")


@pytest.mark.parametrize(
    ("made", "asked", "told"),
    [
        (["a/sub-1", "b/sub-2"], ".", "holds several sites (a, b)"),
        (["rawdata/sub-1"], ".", "They lie one folder further in"),
        (["sub-1"], "sub-1", "looks like one patient's folder"),
        (["sub-1"], "sub-1/anat", "looks like one patient's folder"),
        (["Mueller", "Maier"], ".", "Folders with images are Maier, Mueller"),
        (["SUB-0001"], ".", "Folders with images are SUB-0001"),
    ],
)
def test_a_folder_one_off(tmp_path, made, asked, told) -> None:
    for name in made:
        patient(tmp_path / name)
    with pytest.raises(DataError) as error:
        read_site(tmp_path / asked, RunConfig())
    assert told in str(error.value)


def test_folders_of_images_that_are_nobodys_are_told(tmp_path) -> None:
    for name in ("sub-1", "SUB-2", "Maier", "derivatives/tumour/sub-1", "sourcedata/sub-1"):
        patient(tmp_path / name)
    (tmp_path / "notes").mkdir()
    [left] = [one for one in read_site(tmp_path, RunConfig()).findings if one.code == "folder-left"]
    assert "2 folders with images not read: Maier, SUB-2" in left.found


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["imagesTr/GLIO_001_0000.nii.gz", "labelsTr/GLIO_001.nii.gz"], "laid out for nnU-Net"),
        (
            ["sub-1_T1w.nii.gz", "sub-1_T2w.nii.gz", "sub-2_T1w.nii.gz"],
            "files of 2 patients lie in it side by side (sub-1, sub-2)",
        ),
    ],
)
def test_patients_without_a_folder_each(tmp_path, files, told) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="give each patient a folder") as error:
        read_site(tmp_path, RunConfig())
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sub-0002", []),
        ("sub-000*", []),
        ("sub-2", ["warning"]),
        ("2", ["warning"]),
        ("SUB_0002", ["warning"]),
        ("sub-3", ["note"]),
    ],
)
def test_who_is_excluded_by_another_spelling_is_told(tmp_path, name: str, said: list[str]) -> None:
    """Somebody who withdrew and trains on is worse than a name too many."""
    for folder in ("sub-0002", "sub-0010", "sub-20"):
        patient(tmp_path / folder)
    (tmp_path / "site.toml").write_text(f'exclude = ["{name}"]')
    found = [one for one in read_site(tmp_path, RunConfig()).findings if one.code == "exclude-nobody"]
    assert [one.level.value for one in found] == said
    assert all("sub-0002" in one.found for one in found if one.level.value == "warning")


@pytest.mark.parametrize(
    ("wanted", "header", "like"),
    [
        ("participant_id", ["Patienten-Nr", "Alter"], "Patienten-Nr"),
        ("participant_id", ["PatientID", "Age"], "PatientID"),
        ("participant_id", ["Fall", "Alter"], ""),
        ("age", ["participant_id", "Alter (Jahre)"], "Alter (Jahre)"),
        ("sex", ["participant_id", "Geschlecht"], "Geschlecht"),
        ("subtype", ["participant_id", "Diagnose"], "Diagnose"),
        ("subtype", ["Diagnose", "Histologie"], ""),
        ("kps", ["participant_id", "K.P.S."], "K.P.S."),
    ],
)
def test_columns_by_other_names(wanted, header, like) -> None:
    assert looks_like(wanted, header) == like


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ms_lesion.nii.gz", Says.NOTHING),
        ("sub-1_desc-stroke_lesion.nii.gz", Says.NOTHING),
        ("sub-1_label-WMH_mask.nii.gz", Says.NOTHING),
        ("sub-1_desc-lesion_mask.nii.gz", Says.TUMOUR),
        ("sub-ms01_desc-tumour_mask.nii.gz", Says.TUMOUR),
        ("sub-1_desc-glioma_seg.nii.gz", Says.TUMOUR),
    ],
)
def test_lesions_of_other_diseases_are_not_the_tumour(name, says) -> None:
    assert reads_as(Name(name)) is says
