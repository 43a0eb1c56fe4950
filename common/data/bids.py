"""What a site's folder holds besides images, so that a BIDS validator takes it: descriptions, sidecars, and where masks lie.

Checked with bids-validator-deno 3.0.2 (BIDS schema 1.2.7).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

VERSION = "1.10.0"  # of BIDS
MASKS = "tumour"  # folder under derivatives/ of the tumour's masks
MASK = "desc-tumour_mask"
IGNORED = ("site.toml",)  # of ours, and unknown to BIDS

COLUMNS: Mapping[str, Mapping[str, object]] = {
    "age": {"Description": "Age at the time of the scan", "Units": "years"},
    "sex": {"Description": "Sex, as the patient's record has it", "Levels": {"F": "female", "M": "male", "O": "other"}},
    "subtype": {
        "Description": "Molecular subtype of the glioma (WHO 2021)",
        "Levels": {
            "idh-mutant-astrocytoma": "astrocytoma, IDH-mutant",
            "idh-wildtype": "glioblastoma, IDH-wildtype",
            "oligodendroglioma": "oligodendroglioma, IDH-mutant and 1p/19q-codeleted",
        },
    },
    "grade": {"Description": "CNS WHO grade", "Levels": {"2": "grade 2", "3": "grade 3", "4": "grade 4"}},
    "session_id": {"Description": "Session of the scan that the row is about"},
}


def mask_path(site: Path, patient: str, session: str = "") -> Path:
    """Where a patient's tumour mask lies.

    Args:
        site: the data folder.
        patient: name of the folder, such as `sub-0001`.
        session: such as `ses-01`; "": none.
    """
    folder = site / "derivatives" / MASKS / patient / session / "anat"
    return folder / f"{'_'.join(part for part in (patient, session, MASK) if part)}.nii.gz"


def describe_site(
    site: Path, name: str, made_by: str, about: str, columns: Sequence[str], extra: Mapping[str, object] | None = None
) -> None:
    """Write dataset_description.json, README.md, participants.json and .bidsignore beside the patients, and beside the masks.

    Args:
        site: the data folder.
        name: of the data set.
        made_by: program that made it.
        about: a few sentences for whoever opens the folder.
        columns: of participants.tsv; those of `COLUMNS` are described.
        extra: further fields of dataset_description.json, such as the licence.
    """
    made = {"GeneratedBy": [{"Name": made_by}]}
    write_json(
        site / "dataset_description.json", {"Name": name, "BIDSVersion": VERSION, "DatasetType": "raw", **(extra or {}), **made}
    )
    (site / "README.md").write_text(f"# {name}\n\n{about}\n", encoding="utf-8")
    write_json(site / "participants.json", {column: COLUMNS[column] for column in columns if column in COLUMNS})
    (site / ".bidsignore").write_text("".join(f"{line}\n" for line in IGNORED), encoding="utf-8")
    masks = site / "derivatives" / MASKS
    if masks.is_dir():
        described = {
            "Name": f"{name}: tumour masks",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            **(extra or {}),
            **made,
        }
        write_json(masks / "dataset_description.json", described)
        (masks / "README.md").write_text(f"# Tumour masks\n\nOf {name}. 1: tumour, 0: not.\n", encoding="utf-8")
        write_json(masks / f"{MASK}.json", {"Type": "Lesion", "Description": "The tumour, oedema included"})


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Indented, with a line end."""
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
