"""Who is asked for: namings, folders of folders, and --files from anybody's keyboard."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from client.predict.inputs import find_patients, kinds, patient_of_files
from common.errors import ConfigError, DataError

NAMES = {
    "bids": ("anat/sub-1_T1w.nii.gz", "anat/sub-1_ce-gadolinium_T1w.nii.gz", "anat/sub-1_T2w.nii", "anat/sub-1_FLAIR.nii.gz"),
    "session": ("ses-1/anat/s_T1w.nii.gz", "ses-1/anat/s_ce-gd_T1w.nii.gz", "ses-1/anat/s_T2w.nii", "ses-1/anat/s_FLAIR.nii"),
    "flat": ("sub-1_T1w.nii.gz", "sub-1_ce-gadolinium_T1w.nii.gz", "sub-1_T2w.nii.gz", "sub-1_FLAIR.nii.gz"),
    "brats": ("B_t1.nii.gz", "B_t1ce.nii.gz", "B_t2.nii.gz", "B_flair.nii.gz"),
    "bare": ("t1.nii.gz", "t1ce.nii.gz", "t2.nii.gz", "flair.nii.gz"),
    "brats 2023": ("B-1-t1n.nii.gz", "B-1-t1c.nii.gz", "B-1-t2w.nii.gz", "B-1-t2f.nii.gz"),
}
MASKS = {"bids": "anat/sub-1_desc-tumour_mask.nii.gz", "brats": "B_seg.nii.gz", "brats 2023": "B-1-seg.nii.gz"}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("naming", NAMES)
def test_a_patient_under_every_naming(tmp_path, naming):
    mask = [MASKS[naming]] if naming in MASKS else []
    asked = find_patients(touch(tmp_path / "p", *NAMES[naming], *mask))
    assert asked.single
    (case,) = asked.cases
    found = dict(zip(("t1", "t1c", "t2", "flair"), NAMES[naming], strict=True))
    assert {m: file.relative_to(tmp_path / "p").as_posix() for m, file in case.files.items()} == found
    assert (case.mask is not None) == bool(mask)


def test_folders_of_patients_and_what_is_wrong_with_some(tmp_path):
    for name in ("one", "two"):
        touch(tmp_path / name, "t1.nii.gz", "flair.nii.gz")
    touch(tmp_path / "two", "other_t1.nii.gz")
    touch(tmp_path / "notes", "readme.txt")
    asked = find_patients(tmp_path)
    assert [case.id for case in asked.cases] == ["one"]
    assert "2 files match t1" in asked.broken["two"]
    with pytest.raises(DataError, match="2 files match t1"):
        find_patients(tmp_path / "two")


def test_two_patients_never_lend_each_other_a_modality(tmp_path):
    touch(tmp_path / "one" / "anat", "x_T1w.nii.gz")
    touch(tmp_path / "two" / "anat", "x_FLAIR.nii.gz")
    asked = find_patients(tmp_path)
    assert not asked.single
    assert {case.id: set(case.files) for case in asked.cases} == {"one": {"t1"}, "two": {"flair"}}


@pytest.mark.parametrize("mark", ["sub-1/anat/x_T1w.nii.gz", "p1/anat/x_T1w.nii.gz"])
def test_a_folder_of_sites_is_no_patient(tmp_path, mark):
    for site in ("hospital-a", "hospital-b"):
        touch(tmp_path / site, mark)
    with pytest.raises(DataError, match=r"several folders of patients \(hospital-a, hospital-b\)\. Name one"):
        find_patients(tmp_path)


def test_the_anat_folder_of_a_patient_of_a_site(tmp_path):
    touch(tmp_path / "sub-1" / "anat", "x_T1w.nii.gz")
    (tmp_path / "site.toml").write_text('name = "a"\n')
    asked = find_patients(tmp_path / "sub-1" / "anat")
    assert asked.single
    assert set(asked.cases[0].files) == {"t1"}


def test_a_site_toml_above_a_patient_counts_and_one_beside_his_files(tmp_path):
    touch(tmp_path / "site" / "mri" / "p1", "brain.nii.gz", "t2.nii.gz")
    text = 'data = "mri"\npatients = "p*"\n[files]\nflair = "brain.nii.gz"\nt2 = ""\n[connection]\nweights = "w.pth"\n'
    (tmp_path / "site" / "site.toml").write_text(text)
    asked = find_patients(tmp_path / "site" / "mri" / "p1")
    assert set(asked.cases[0].files) == {"flair"}
    assert asked.weights == str(tmp_path / "site" / "w.pth") == find_patients(tmp_path / "site").weights
    (touch(tmp_path / "own", "a.nii") / "site.toml").write_text('[files]\nt1 = "a.nii"\n')
    asked = find_patients(tmp_path / "own")
    assert (asked.single, set(asked.cases[0].files)) == (True, {"t1"})


def test_two_folders_of_one_name_are_told_apart(tmp_path):
    for ward in ("a", "b"):
        touch(tmp_path / ward / "sub-1", "t1.nii.gz")
    (tmp_path / "site.toml").write_text('patients = "*/sub-*"\n[files]\nt1 = "t1.nii.gz"\n')
    assert [case.id for case in find_patients(tmp_path).cases] == ["a/sub-1", "b/sub-1"]


@given(st.lists(st.one_of(st.text(max_size=12), st.sampled_from([f"{k}=here.nii" for k in kinds()])), max_size=5))
@example(["t1=here.nii", "T1 = here.nii"])
@example(["mask=here.nii"])
@example(["t1=\x00"])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_after_files_are_a_patient_or_a_clear_error(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.nii").touch()
    asked = None
    with suppress(ConfigError):  # any other error is one too many
        asked = patient_of_files(words)
    if asked is None:
        return
    (case,) = asked.cases
    found = set(case.files) | ({"mask"} if case.mask else set())
    assert found - {"mask"}
    assert {kinds()[word.partition("=")[0].strip().lower()] for word in words} == found
    assert len(found) == len(words)


def test_one_file_is_not_two_modalities(tmp_path):
    touch(tmp_path, "a.nii", "b.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")
    for second in ("a.nii", "link.nii"):
        with pytest.raises(ConfigError, match="is the file of t1 as well"):
            patient_of_files([f"t1={tmp_path / 'a.nii'}", f"t1c={tmp_path / second}"])
    assert len(patient_of_files([f"t1={tmp_path / 'a.nii'}", f"t1c={tmp_path / 'b.nii'}"]).cases[0].files) == 2


def test_a_further_modality_is_looked_for_when_the_model_knows_it(tmp_path):
    touch(tmp_path / "p", "anat/s_T1w.nii", "dwi/s_ADC.nii")
    assert set(find_patients(tmp_path / "p").cases[0].files) == {"t1"}
    asked = find_patients(tmp_path / "p", ("t1", "adc"))
    assert asked.single
    assert list(asked.cases[0].files) == ["t1", "adc"]
    touch(tmp_path / "p", "dwi/again_ADC.nii")
    assert find_patients(tmp_path / "p").cases
    with pytest.raises(DataError, match="2 files match adc"):
        find_patients(tmp_path / "p", ("t1", "adc"))
    assert list(patient_of_files([f"adc={tmp_path / 'p' / 'dwi' / 's_ADC.nii'}"]).cases[0].files) == ["adc"]
