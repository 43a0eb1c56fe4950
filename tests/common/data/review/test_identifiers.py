"""Identifiers in names, headers and tables: each kind is found, never shown whole, and what converters write is left alone."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from common.data.gate.finding import Level
from common.data.review.identifiers import column_findings, header_findings, masked, name_findings, traces

TELLING = {
    "MUELLER^HANS": "a person's name",
    "Mueller, Hans": "a person's name",
    "hans.mueller@example.org": "an e-mail address",
    "19540312": "a date",
    "1954-03-12": "a date",
    "12.03.1954": "a date",
    "03/12/1954": "a date",
    "1.2.840.113619.2.55.3.604688119": "a DICOM unique identifier",
    "0084512": "a number as of a medical record",
    "MRN 84512": "an accession or record number",
}
INNOCENT = [
    "sub-TCGADU7294", "sub-0001", "BraTS2021_00006", "UCSF-PDGM-0004_T1_bias.nii.gz", "UPENN-GBM-00001_11", "EGD-0001",
    "BraTS-GLI-00000-000", "FSL5.0", "SPM12", "6.0.5:9e026117", "time=1", "sub-01_acq-mprage_run-02_T1w.nii.gz", "1.5", "1e-6",
]  # fmt: skip


def image(**fields: bytes) -> nib.Nifti1Image:
    made = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    for name, value in fields.items():
        made.header[name] = value
    return made


@pytest.mark.parametrize(("text", "kind"), TELLING.items())
def test_each_kind_is_found_and_never_shown_whole(text: str, kind: str) -> None:
    (trace,) = traces(f"x {text} y")
    assert trace.kind == kind
    assert text not in trace.shown
    assert trace.shown.startswith(text[:2])


@pytest.mark.parametrize("text", INNOCENT)
def test_names_of_public_datasets_and_versions_are_left_alone(text: str) -> None:
    assert traces(text) == ()


def test_masked() -> None:
    assert masked("Mueller^Hans") == "Mu\N{HORIZONTAL ELLIPSIS} (12 characters)"


@pytest.mark.parametrize("field", ["descrip", "aux_file", "db_name", "intent_name"])
def test_header_fields(field: str) -> None:
    (finding,) = header_findings("sub-1", "sub-1/a.nii", image(**{field: b"MUELLER^HANS"}).header)
    assert (finding.code, finding.level, finding.patient, finding.file) == (
        "identifier-header", Level.WARNING, "sub-1", "sub-1/a.nii",
    )  # fmt: skip
    assert field in finding.found
    assert "HANS" not in str(finding)


def test_what_converters_write_into_headers_is_no_identifier() -> None:
    written = image(descrip=b"TE=2.9;Time=104512.123;phase=1", aux_file=b"GradientEcho", intent_name=b"")
    assert header_findings("sub-1", "a.nii", written.header) == ()


@pytest.mark.parametrize("explicit", [True, False])
def test_dicom_extension(explicit: bool, tmp_path) -> None:
    made = image()
    length = (b"PN" + (12).to_bytes(2, "little")) if explicit else (12).to_bytes(4, "little")
    made.header.extensions.append(Nifti1Extension(2, b"\x10\x00\x10\x00" + length + b"MUELLER^HANS"))
    nib.save(made, tmp_path / "a.nii.gz")
    (finding,) = header_findings("sub-1", "a.nii.gz", nib.load(tmp_path / "a.nii.gz").header)
    assert "extension 2 (DICOM) holds DICOM's PatientName: MU" in finding.found


@pytest.mark.parametrize(("code", "name"), [(4, "AFNI"), (6, "comment"), (40, "extension 40")])
def test_text_extensions(code: int, name: str, tmp_path) -> None:
    made = image()
    made.header.extensions.append(Nifti1Extension(code, b'history: "scan of Mueller, Hans"'))
    nib.save(made, tmp_path / "a.nii")
    (finding,) = header_findings("sub-1", "a.nii", nib.load(tmp_path / "a.nii").header)
    assert name in finding.found
    assert "Mueller" not in str(finding)


def test_names() -> None:
    (folder,) = name_findings("sub-MUELLER^HANS", ["sub-MUELLER^HANS/anat/sub-MUELLER^HANS_T1w.nii.gz"])
    assert (folder.code, folder.level, folder.file) == ("identifier-name", Level.WARNING, "")
    (date,) = name_findings("sub-1", ["sub-1/ses-20210315/anat/a.nii", "sub-1/ses-20210315/anat/b.nii"])
    assert (date.level, date.file) == (Level.NOTE, "sub-1/ses-20210315/anat/a.nii")
    assert name_findings("sub-1", ["sub-1/anat/sub-1_T1w.nii.gz"]) == ()


@pytest.mark.parametrize(
    "column",
    [
        "name",
        "patient_name",
        "Patient ID",
        "Surname",
        "birth_date",
        "dob",
        "date of birth",
        "address",
        "Geburtsdatum",
        "MRN",
        "phone",
    ],
)
def test_telling_headings(column: str) -> None:
    (finding,) = column_findings("participants.tsv", [{"participant_id": "sub-1", column: "xyzzy"}])
    assert (finding.code, finding.level) == ("identifier-column", Level.WARNING)
    assert column in finding.found
    assert "xyzzy" not in str(finding)


def test_telling_cells_and_ages() -> None:
    rows = [
        {"participant_id": "sub-1", "note": "n/a", "age": "61"},
        {"participant_id": "sub-2", "note": "12.03.1954", "age": "93"},
    ]
    cell, age = column_findings("participants.tsv", rows)
    assert "the column note holds a date" in cell.found
    assert (age.level, age.found) == (Level.NOTE, "1 ages over 89 years")


@pytest.mark.parametrize("column", ["sex", "subtype", "scanner_name_code", "gene", "site", "centre", "grade", "birthweight"])
def test_innocent_headings(column: str) -> None:
    assert (
        column_findings(
            "participants.tsv", [{"participant_id": "sub-1", column: "n/a"}, {"participant_id": "sub-2", column: "b"}]
        )
        == ()
    )
