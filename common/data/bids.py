"""What a site's folder holds besides images, so that a BIDS validator takes it: descriptions, sidecars, and where masks lie.

Checked with bids-validator-deno 3.0.2 (BIDS schema 1.2.7).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.files import write_atomic

VERSION = "1.10.0"  # of BIDS
MASKS = "tumour"  # folder under derivatives/ of the tumour's masks
MASK = "desc-tumour_mask"
IGNORED = ("site.toml",)  # of ours, and unknown to BIDS
DESCRIPTIONS = (  # that `describe_site` writes
    *("dataset_description.json", "README.md", "participants.json", ".bidsignore"),
    *(f"derivatives/{MASKS}/{name}" for name in ("dataset_description.json", "README.md", f"{MASK}.json")),
)

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
    "idh_mutant": {"Description": "IDH is mutant", "Levels": {"yes": "it is", "no": "it is wildtype"}},
    "codeleted_1p19q": {"Description": "1p and 19q are codeleted", "Levels": {"yes": "they are", "no": "they are not"}},
    "enhancing": {"Description": "The tumour takes up contrast agent", "Levels": {"yes": "it does", "no": "it does not"}},
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

    Each is written whole or not at all, and what is there stays, but that columns are added to participants.json: so a call
    that was broken off is ended by the next, and nobody's own text is lost.

    Args:
        site: the data folder.
        name: of the data set.
        made_by: program that made it.
        about: a few sentences for whoever opens the folder.
        columns: of participants.tsv; those of `COLUMNS` are described.
        extra: further fields of dataset_description.json, such as the licence.
    """
    made = {"GeneratedBy": [{"Name": made_by}]}
    raw = {"Name": name, "BIDSVersion": VERSION, "DatasetType": "raw", **(extra or {}), **made}
    _put(site / "dataset_description.json", _json(raw))
    _put(site / "README.md", f"# {name}\n\n{about}\n")
    _describe_columns(site / "participants.json", columns)
    _put(site / ".bidsignore", "".join(f"{line}\n" for line in IGNORED))
    masks = site / "derivatives" / MASKS
    if masks.is_dir():
        described = {
            "Name": f"{name}: tumour masks",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            **(extra or {}),
            **made,
        }
        _put(masks / "dataset_description.json", _json(described))
        _put(masks / "README.md", f"# Tumour masks\n\nOf {name}. 1: tumour, 0: not.\n")
        _put(masks / f"{MASK}.json", _json({"Type": "Lesion", "Description": "The tumour, oedema included"}))


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Indented, with a line end."""
    write_atomic(file, _json(content).encode())


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _put(file: Path, text: str) -> None:
    if not file.exists():
        write_atomic(file, text.encode())


def _describe_columns(file: Path, columns: Sequence[str]) -> None:
    """Add those of `COLUMNS`; a file that is no table of columns is somebody's own, and left alone."""
    try:
        there = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError:
        return
    new = {column: COLUMNS[column] for column in columns if column in COLUMNS and column not in there}
    if isinstance(there, dict) and (new or not file.exists()):
        write_json(file, {**there, **new})
