"""Folders that are not read though they may hold patients: named otherwise than `patients` says, or one level off."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.names import ENDS

LEFT = Kind("folder-left", Level.WARNING, "a folder with images beside the patients' is not read, for its name is another")
KINDS = (LEFT,)
SHOWN = 3  # folders spelled out in one finding
MOST = 200  # folders that one is searched for images through
NOT_PATIENTS = re.compile(r"derivatives|sourcedata|rawdata|code|stimuli|phenotype|templates?|atlas(?:es)?|\..*", re.IGNORECASE)
IMAGES = (*ENDS, ".dcm", ".ima", ".mgz", ".nrrd", ".mha")


def left_folders(root: Path, pattern: str, read: Sequence[Path], excluded: Sequence[Path]) -> Iterator[Finding]:
    """One warning for all folders with images that are nobody's.

    Args:
        root: the data folder.
        pattern: `patients` of site.toml.
        read: the patients' folders.
        excluded: those that site.toml leaves out.
    """
    known = {folder.relative_to(root).parts[0] for folder in (*read, *excluded) if folder.is_relative_to(root)}
    names = [f.name for f in _inner(root) if f.name not in known and not NOT_PATIENTS.fullmatch(f.name) and holds_images(f)]
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        found = f"{len(names)} folder{'s' * (len(names) > 1)} with images not read: {', '.join(names[:SHOWN])}{more}"
        do = "Rename what is a patient's; or set patients, or name under exclude what is none, in site.toml."
        yield LEFT.finding(found, f"patients' folders named {pattern}", do)


def where_patients_are(root: Path, pattern: str) -> str:
    """What to do with a folder in which no patient is; "": nothing shows it."""
    inner = _inner(root)
    if any(f.name in ("anat", "dwi") or f.name.lower().startswith("ses-") for f in inner) or _images_in(root):
        holder = root.parent.parent if root.name in ("anat", "dwi") else root.parent
        return f"It looks like one patient's folder: name the one that holds the patients ({holder}), whose names fit {pattern}."
    above = [f.name for f in inner if any(child.name.lower().startswith("sub-") for child in _inner(f))]
    if len(above) > 1:
        return f"It holds several sites ({', '.join(above[:SHOWN])}): name one of them."
    if above:
        return f"They lie one folder further in: name {root / above[0]}."
    other = [f.name for f in inner if not NOT_PATIENTS.fullmatch(f.name) and holds_images(f)]
    if other:
        named = ", ".join(other[:SHOWN])
        return f"Folders with images are {named}: rename them sub-NAME, or set patients in site.toml (a pattern that fits them)."
    return ""


def holds_images(folder: Path) -> bool:
    """Whether there is a volume or DICOM file somewhere under a folder."""
    for count, (_, _, files) in enumerate(os.walk(folder)):
        if count > MOST:
            return False
        if any(file.lower().endswith(IMAGES) for file in files):
            return True
    return False


def _images_in(folder: Path) -> bool:
    return any(f.name.lower().endswith(ENDS) for f in folder.iterdir())


def _inner(folder: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.is_dir())
    except OSError:  # who may not look into it is not told what is in it
        return []
