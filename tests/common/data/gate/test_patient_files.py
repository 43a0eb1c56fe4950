"""Folders as hospitals have them: links, sessions, twins, spaces, masks: which file must be used, or which error said."""

import os
from pathlib import Path

import pytest

from common.config.run import RunConfig, config_from_table
from common.config.site import bids_files
from common.data.cases import read_site
from common.data.gate.patient_files import PatientFiles, find_files

IMAGES = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return folder


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    folder = tmp_path / "site" / "sub-1"
    folder.mkdir(parents=True)
    return folder


def look(folder: Path, **changed: tuple[str, ...]) -> PatientFiles:
    return find_files(folder, {**bids_files(), **changed})


def names(found: PatientFiles) -> dict[str, str]:
    return {kind: file.name.removeprefix("sub-1_").removesuffix(".nii.gz") for kind, file in found.files.items()}


def codes(found: PatientFiles) -> list[tuple[str, str]]:
    return [(one.level.value, one.code) for one in found.findings]


def bids(*suffixes: str, prefix: str = "sub-1_", folder: str = "anat") -> list[str]:
    return [f"{folder}/{prefix}{suffix}.nii.gz" for suffix in suffixes]


# --- names


@pytest.mark.parametrize("word", ["ce-GD_T1w", "acq-postgd_T1w", "acq-post_T1w", "desc-postcontrast_T1w", "T1c", "t1ce", "T1Gd"])
def test_the_contrast_image_under_other_names(patient: Path, word: str) -> None:
    found = look(touch(patient, *bids("T1w", word)))
    assert names(found) == {"t1": "T1w", "t1c": word}
    assert codes(found) == ([] if word.startswith("ce-") else [("note", "contrast-by-name")])
    alone = look(touch(patient.parent / "sub-2", *bids(word, prefix="sub-2_")))
    assert set(alone.files) == {"t1c"}


def test_a_t1_that_may_be_either_is_refused_with_the_line_for_site_toml(patient: Path) -> None:
    found = look(touch(patient, *bids("ce-gd_acq-pre_T1w", "FLAIR")))
    assert codes(found) == [("error", "contrast-unclear")]
    assert 't1c = "**/*_ce-gd_acq-pre_T1w.nii*"' in found.findings[0].do
    said = look(patient, t1c=("**/*_ce-gd_acq-pre_T1w.nii*",))
    assert (names(said), codes(said)) == ({"t1c": "ce-gd_acq-pre_T1w", "flair": "FLAIR"}, [])


def test_a_sidecar_tells_what_the_name_does_not(patient: Path) -> None:
    touch(patient, *bids("T1w", "run-2_T1w"))
    (patient / "anat" / "sub-1_run-2_T1w.json").write_text('{"ContrastBolusAgent": "Gadobutrol"}')
    found = look(patient)
    assert names(found) == {"t1": "T1w", "t1c": "run-2_T1w"}
    assert codes(found) == [("note", "contrast-by-name")]


def test_a_t1_with_a_word_that_nobody_knows_is_said(patient: Path) -> None:
    found = look(touch(patient, *bids("acq-XY_T1w")))
    assert (names(found), codes(found)) == ({"t1": "acq-XY_T1w"}, [("warning", "contrast-assumed")])


@pytest.mark.parametrize(
    ("twins", "kind"),
    [
        (("T1w", "rec-norm_T1w"), "t1"),
        (("run-01_FLAIR", "run-02_FLAIR"), "flair"),
        (("echo-1_T2w", "echo-2_T2w"), "t2"),
        (("acq-ax_T2w", "acq-sag_T2w"), "t2"),
        (("ce-gadolinium_T1w", "acq-postgd_T1w"), "t1c"),
        (("desc-tumour_mask", "label-lesion_dseg"), "mask"),
    ],
)
def test_twins_are_an_error_that_names_both(patient: Path, twins: tuple[str, ...], kind: str) -> None:
    found = look(touch(patient, *bids("T1w", "FLAIR", *twins)))
    errors = [one for one in found.findings if one.level == "error"]
    assert [one.code for one in errors] == ["file-twins"]
    assert all(f"sub-1_{twin}.nii.gz" in errors[0].found for twin in twins)
    assert f"files.{kind}" in errors[0].do


def test_what_is_no_image_of_tissue_is_no_twin(patient: Path) -> None:
    touch(patient, *bids("T1w", "acq-localizer_T1w", "part-mag_T2w", "part-phase_T2w", "FLAIR", "T2map", "T1map"))
    touch(patient, "anat/sub-1_T1w.nii.gz.dvc", "anat/sub-1_T1w.json", "anat/.sub-1_T1w.nii.gz", "anat/sub-1_T1w.nii.gz.md5")
    found = look(patient)
    assert names(found) == {"t1": "T1w", "t2": "part-mag_T2w", "flair": "FLAIR"}
    assert codes(found) == []


def test_t2_and_flair_without_contrast_agent_go_before_those_with(patient: Path) -> None:
    found = look(touch(patient, *bids("FLAIR", "ce-gadolinium_FLAIR", "ce-gadolinium_T2w")))
    assert names(found) == {"flair": "FLAIR", "t2": "ce-gadolinium_T2w"}
    assert codes(found) == [("note", "file-left"), ("warning", "contrast-given")]


def test_a_pair_of_header_and_image_is_one_volume(patient: Path) -> None:
    found = look(touch(patient, "anat/sub-1_T1w.img", "anat/sub-1_T1w.hdr", "anat/sub-1_FLAIR.nii"))
    assert {kind: file.name for kind, file in found.files.items()} == {"t1": "sub-1_T1w.img", "flair": "sub-1_FLAIR.nii"}
    assert codes(found) == []


def test_files_of_two_patients_in_one_folder(patient: Path) -> None:
    assert codes(look(touch(patient, *bids("T1w"), *bids("FLAIR", prefix="sub-2_")))) == [("error", "name-other-patient")]
    renamed = touch(patient.parent / "sub-9", *bids("T1w", "FLAIR"))
    assert codes(look(renamed)) == [("warning", "name-other-patient")]


def test_nothing_is_lost_in_silence(patient: Path) -> None:
    found = look(touch(patient, *bids("T1w"), "perf/sub-1_FLAIR.nii.gz"))
    assert codes(found) == [("note", "file-unread")]
    none = look(touch(patient.parent / "sub-2", "anat/sub-2_bold.nii.gz"))
    assert codes(none) == [("error", "modality-none")]
    assert "anat/sub-2_bold.nii.gz" in none.findings[0].found


# --- spaces


@pytest.mark.parametrize(
    ("files", "expected", "said"),
    [
        (("T1w", "FLAIR", "space-MNI_T1w"), {"t1": "T1w", "flair": "FLAIR"}, [("note", "space-chosen")]),
        (
            ("space-MNI_T1w", "space-MNI_FLAIR", "T1w", "space-MNI_desc-tumour_mask"),
            {"t1": "space-MNI_T1w", "flair": "space-MNI_FLAIR", "mask": "space-MNI_desc-tumour_mask"},
            [("note", "space-chosen")],
        ),
        (("T1w", "space-T1w_FLAIR"), {"t1": "T1w", "flair": "space-T1w_FLAIR"}, []),
        (("T1w", "space-MNI_FLAIR"), {"t1": "T1w", "flair": "space-MNI_FLAIR"}, [("error", "space-mixed")]),
        (("T1w", "FLAIR", "space-MNI_desc-tumour_mask"), {"t1": "T1w", "flair": "FLAIR"}, [("warning", "mask-other-space")]),
    ],
)
def test_one_space(patient: Path, files: tuple[str, ...], expected: dict[str, str], said: list[tuple[str, str]]) -> None:
    found = look(touch(patient, *bids(*files)))
    assert (names(found), codes(found)) == (expected, said)


# --- masks


@pytest.mark.parametrize(
    ("place", "file", "taken", "said"),
    [
        ("derivatives/seg", "desc-tumour_mask", True, []),
        ("derivatives/nnunet", "desc-tumor_dseg", True, []),
        ("derivatives/manual", "label-lesion_roi", True, []),
        ("derivatives/lesions", "mask", True, []),
        ("derivatives/seg", "dseg", True, [("note", "mask-by-name")]),
        ("derivatives/manual", "roi", True, [("note", "mask-by-name")]),
        ("derivatives/masks", "mask", False, [("warning", "mask-not-taken")]),
        ("derivatives/hdbet", "desc-brain_mask", False, []),
        ("derivatives/fmriprep", "dseg", False, []),
        ("derivatives/seg", "desc-brain_mask", False, []),
    ],
)
def test_masks_under_derivatives(patient: Path, place: str, file: str, taken: bool, said: list[tuple[str, str]]) -> None:
    touch(patient, *bids("T1w"))
    touch(patient.parent / place / "sub-1", *bids(file))
    found = look(patient)
    assert ("mask" in found.files) is taken
    assert codes(found) == said


def test_a_raw_mask_goes_before_derivatives_and_a_glob_names_one_of_them(patient: Path) -> None:
    touch(patient, *bids("T1w", "desc-tumour_mask"))
    for place in ("a", "b"):
        touch(patient.parent / "derivatives" / place / "sub-1", *bids("desc-tumour_mask"))
    found = look(patient)
    assert (found.files["mask"], codes(found)) == (patient / "anat" / "sub-1_desc-tumour_mask.nii.gz", [])
    (patient / "anat" / "sub-1_desc-tumour_mask.nii.gz").unlink()
    assert codes(look(patient)) == [("error", "file-twins")]
    said = look(patient, mask=("derivatives/b/**/*_mask.nii.gz",))
    assert (said.files["mask"].parts[-4], codes(said)) == ("b", [])


def test_a_brain_mask_beside_the_images_is_not_the_tumours(patient: Path) -> None:
    found = look(touch(patient, *bids("T1w", "desc-brain_mask", "desc-aseg_dseg")))
    assert (names(found), codes(found)) == ({"t1": "T1w"}, [])


# --- sessions


def session(patient: Path, label: str, *suffixes: str) -> None:
    touch(patient, *bids(*suffixes, prefix=f"sub-1_{label}_" if label.startswith("ses-") else "sub-1_", folder=f"{label}/anat"))


@pytest.mark.parametrize(
    ("held", "used"),
    [
        ({"ses-1": ("T1w",), "ses-2": ("T1w", "FLAIR")}, "ses-2"),  # the most modalities
        ({"ses-1": ("T1w",), "ses-2": ("FLAIR",)}, "ses-1"),  # the earliest
        ({"ses-10": ("T1w",), "ses-9": ("FLAIR",)}, "ses-9"),
        ({"ses-1": ("T1w",), "ses-2": ("FLAIR", "desc-tumour_mask")}, "ses-2"),  # a mask
        ({"ses-preop": ("T1w",), "ses-postop": ("T1w", "FLAIR", "T2w")}, "ses-preop"),  # before treatment
        ({"ses-baseline": ("T1w",), "ses-a": ("T1w",)}, "ses-baseline"),
        ({"ses-postop": ("T1w",), "ses-recurrence": ("T1w", "T2w")}, "ses-recurrence"),
        ({"2020-01-03": ("T1w",), "2019-12-30": ("FLAIR",)}, "2019-12-30"),  # no BIDS, and never mixed either
        ({"ses-1": ("T1w",), "ses-2": ("bold", "T1w", "T2w")}, "ses-2"),
    ],
)
def test_one_session(patient: Path, held: dict[str, tuple[str, ...]], used: str) -> None:
    for label, suffixes in held.items():
        session(patient, label, *suffixes)
    found = look(patient)
    assert found.session == used
    assert {file.relative_to(patient).parts[0] for file in found.files.values()} == {used}
    lost = {"T1w", "FLAIR", "T2w"} & {s for suffixes in held.values() for s in suffixes} - set(held[used])
    assert codes(found) == [("warning" if lost else "note", "session-chosen")]


def test_the_order_of_sessions_tsv_goes_before_that_of_names(patient: Path) -> None:
    session(patient, "ses-a", "T1w")
    session(patient, "ses-b", "T1w")
    (patient / "sub-1_sessions.tsv").write_text("session_id\tacq_time\nses-a\t2021-05-01T10:00:00\nses-b\t2020-05-01T10:00:00\n")
    assert look(patient).session == "ses-b"


def test_the_site_chooses_the_session(patient: Path) -> None:
    for label in ("ses-1", "ses-2"):
        session(patient, label, "T1w", "FLAIR")
    for wanted in ("ses-2", "2", "*2"):
        assert find_files(patient, bids_files(), session=wanted).session == "ses-2"
    none = find_files(patient, bids_files(), session="pre*")
    assert (none.files, codes(none)) == ({}, [("error", "session-none")])


def test_a_mask_is_of_the_session_that_is_used(patient: Path) -> None:
    session(patient, "ses-1", "T1w", "FLAIR")
    session(patient, "ses-2", "T1w", "desc-tumour_mask")
    found = look(patient)
    assert (found.session, "mask" in found.files) == ("ses-1", False)
    assert ("warning", "mask-other-session") in codes(found)
    touch(patient.parent / "derivatives/seg/sub-1", *bids("desc-tumour_mask", prefix="sub-1_ses-1_", folder="ses-1/anat"))
    (patient / "ses-2" / "anat" / "sub-1_ses-2_desc-tumour_mask.nii.gz").unlink()
    assert look(patient).files["mask"].name == "sub-1_ses-1_desc-tumour_mask.nii.gz"


def test_a_mask_outside_of_the_only_session_is_of_it(patient: Path) -> None:
    session(patient, "ses-1", "T1w")
    touch(patient, "seg/sub-1_desc-tumour_mask.nii.gz")
    found = look(patient)
    assert (set(found.files), codes(found)) == ({"t1", "mask"}, [])


def test_globs_of_site_toml_do_not_mix_sessions_either(patient: Path) -> None:
    touch(patient, "ses-1/T1/a.nii.gz", "ses-1/FLAIR/b.nii.gz", "ses-2/FLAIR/c.nii.gz", "ses-2/T2/d.nii.gz")
    globs = {"t1": ("**/T1/*.nii.gz",), "flair": ("**/FLAIR/*.nii.gz",), "t2": ("**/T2/*.nii.gz",)}
    found = look(patient, **globs)
    assert {kind: file.name for kind, file in found.files.items()} == {"t1": "a.nii.gz", "flair": "b.nii.gz"}
    folders = look(touch(patient.parent / "sub-2", "T1/a.nii.gz", "FLAIR/b.nii.gz"), **globs)  # a folder a series is no session
    assert (set(folders.files), codes(folders)) == ({"t1", "flair"}, [])


def test_the_row_of_the_session_that_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "sub-1"
    for label, suffixes in (("ses-01", ("T1w",)), ("ses-02", ("T1w", "FLAIR"))):
        session(folder, label, *suffixes)
    run = config_from_table({"task": {"classes": ["a", "b"]}})
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tsession_id\tage\tsubtype\nsub-1\tses-01\t50\ta\nsub-1\tses-02\t51\tb\n")
    (case,) = read_site(tmp_path, run).cases
    assert (case.session, case.age, case.label) == ("ses-02", 51.0, 1)
    table.write_text("participant_id\tsubtype\nsub-1\ta\nsub-1\tb\n")
    assert "rows-contradict" in [one.code for one in read_site(tmp_path, run).findings if one.level == "error"]
    table.write_text("participant_id\tsubtype\nsub-1\ta\nsub-1\ta\n")
    assert "rows-same" in [one.code for one in read_site(tmp_path, run).findings]
    (folder / "sub-1_sessions.tsv").write_text("session_id\tage\tsubtype\nses-01\t50\ta\nses-02\t51\tb\n")
    table.write_text("participant_id\tage\nsub-1\t50\n")
    (case,) = read_site(tmp_path, run).cases
    assert (case.age, case.label) == (51.0, 1)


# --- links


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda file: os.symlink("../../.git/annex/objects/SHA256E-s3--1.nii.gz", file), "`datalad get sub-1_FLAIR.nii.gz`"),
        (lambda file: os.symlink("/nowhere/else.nii.gz", file), "is a link to nothing (/nowhere/else.nii.gz)"),
        (lambda file: os.symlink(file.name, file), "is a link to nothing"),
        (lambda file: file.write_text("/annex/objects/SHA256E-s3--1.nii.gz\n"), "`datalad get sub-1_FLAIR.nii.gz`"),
        (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"), "`git lfs pull`"),
    ],
)
def test_a_file_whose_content_is_not_here(patient: Path, make, words: str) -> None:
    touch(patient, *bids("T1w"))
    make(patient / "anat" / "sub-1_FLAIR.nii.gz")
    found = look(patient)
    assert codes(found) == [("error", "file-absent")]
    assert found.findings[0].file == "sub-1/anat/sub-1_FLAIR.nii.gz"
    assert words in str(found.findings[0])


def test_linked_sessions_patients_and_files_are_followed(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    touch(disk, *bids(*IMAGES, folder="s1/ses-01/anat"))
    site = tmp_path / "site"
    (site / "sub-1").mkdir(parents=True)
    (site / "sub-1" / "ses-01").symlink_to(disk / "s1" / "ses-01")
    (site / "sub-2").symlink_to(disk / "s1")
    touch(site, "sub-3/anat/x.txt")
    (site / "sub-3" / "anat" / "sub-3_T1w.nii.gz").symlink_to(disk / "s1/ses-01/anat/sub-1_T1w.nii.gz")
    (site / "sub-4").symlink_to(tmp_path / "unmounted")
    (site / "sub-5").mkdir()
    (site / "sub-5" / "ses-01").symlink_to(tmp_path / "unmounted")
    found = read_site(site, RunConfig())
    assert {case.id: sorted(case.files) for case in found.cases} == {
        **{name: ["flair", "t1", "t1c", "t2"] for name in ("sub-1", "sub-2")},
        **{"sub-3": ["t1"], "sub-4": [], "sub-5": []},
    }
    assert {one.patient: one.code for one in found.findings if one.level == "error"} == {
        "sub-4": "link-broken",
        "sub-5": "link-broken",
    }


def test_loops_end_and_no_link_lends_another_patients_files(patient: Path) -> None:
    touch(patient, *bids("T1w"))
    touch(patient.parent / "sub-2", *bids("FLAIR", prefix="sub-2_"))
    (patient / "self").symlink_to(patient)
    (patient / "anat" / "up").symlink_to(patient)
    (patient / "all").symlink_to(patient.parent)
    (patient / "a").mkdir()
    (patient / "b").mkdir()
    (patient / "a" / "x").symlink_to(patient / "b")
    (patient / "b" / "y").symlink_to(patient / "a")
    assert names(look(patient)) == {"t1": "T1w"}


def test_two_links_to_one_file_are_no_twins(patient: Path) -> None:
    touch(patient, *bids("T1w"))
    (patient / "anat" / "sub-1_run-1_T1w.nii.gz").symlink_to(patient / "anat" / "sub-1_T1w.nii.gz")
    found = look(patient)
    assert (names(found), codes(found)) == ({"t1": "T1w"}, [])


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("anat/sub-1_FLAIR_final2.nii.gz", "files.flair"),
        ("anat/t2_tirm_flair_neu.nii.gz", "files.flair"),
        ("anat/sub-1_FLAIR.mgz", "mri_convert"),
        ("anat/sub-1_FLAIR.nrrd", "Convert it"),
    ],
)
def test_a_modality_under_another_name_or_in_another_form_is_not_lost_in_silence(patient: Path, file: str, words: str) -> None:
    found = look(touch(patient, *bids("T1w", "T2w"), file))
    [one] = [one for one in found.findings if one.code == "file-unread"]
    assert one.file.endswith(file)
    assert words in one.do


def test_a_region_drawn_on_a_modality_that_is_not_there_is_not_taken_for_it(patient: Path) -> None:
    found = look(touch(patient, *bids("T1w", "T2w", "space-FLAIR_desc-brain_mask")))
    assert not [one for one in found.findings if one.code == "file-unread"]


def test_volumes_of_other_tools_alone_are_named_for_what_they_are(patient: Path) -> None:
    [one] = look(touch(patient, "anat/sub-1_T1w.mgz", "anat/sub-1_T1w.json")).findings
    assert (one.code, "Convert it" in one.do) == ("modality-none", True)


def test_what_other_programs_leave_behind_is_no_image(patient: Path) -> None:
    left = touch(
        patient, *bids("T1w"), *bids("T1w", prefix="._sub-1_"), *bids("T1w", prefix="~$sub-1_"), "anat/.nfs01.nii", "Thumbs.db"
    )
    assert names(look(left)) == {"t1": "T1w"}
