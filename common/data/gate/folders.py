"""Folders that are not read though they may hold patients: named otherwise than `patients` says, or one level off."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.names import ENDS

LEFT = Kind("folder-left", Level.WARNING, "a folder with images beside the patients' is not read, for its name is another")
NOT_LEFT_OUT = Kind(
    "exclude-nobody",
    Level.NOTE,
    "a name under exclude that fits no patient; a warning where another spelling fits one who trains",
)
KINDS = (LEFT, NOT_LEFT_OUT)
APART = "give each patient a folder, sub-NAME/anat, with the files named as BIDS has it (sub-NAME_T1w.nii.gz)."
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


def idle_exclusions(patterns: Sequence[str], read: Sequence[Path], excluded: Sequence[Path]) -> Iterator[Finding]:
    """Names under `exclude` that leave nobody out: somebody who withdrew may train under another spelling.

    Args:
        patterns: `exclude` of site.toml.
        read: the patients' folders.
        excluded: those that it leaves out.
    """
    for pattern in patterns:
        if any(fnmatchcase(folder.name, pattern) for folder in excluded):
            continue
        like = [folder.name for folder in read if _spelled(folder.name) == _spelled(pattern)]
        text = f"exclude names {pattern!r}, and no patient is called so" + (f"; is it {like[0]!r}, who is used?" if like else "")
        do = "Write the folder's name into site.toml." if like else "Correct it in site.toml; nothing, if the folder was deleted."
        found = NOT_LEFT_OUT.finding(text, "the name of a patient's folder", do, file="site.toml")
        yield replace(found, level=Level.WARNING) if like else found


def _spelled(name: str) -> str:
    """Without `sub-`, marks, case and zeros before a number."""
    return re.sub(r"(?<!\d)0+(?=\d)|[^a-z0-9]", "", re.sub(r"^sub[-_ ]?", "", name.lower()))


def where_patients_are(root: Path, pattern: str) -> str:
    """What to do with a folder in which no patient is; "": nothing shows it."""
    inner = _inner(root)
    if together := _in_one_folder(root, inner):
        return f"{together}: {APART}"
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


def _in_one_folder(root: Path, inner: Sequence[Path]) -> str:
    """What shows that files of several patients lie side by side; "": nothing does."""
    if any(f.name in ("imagesTr", "imagesTs") for f in inner):
        return "It is laid out for nnU-Net (images of all patients in one folder)"
    here = sorted({f.name.split("_")[0] for f in _images_in(root) if f.name.startswith("sub-")})
    return f"The files of {len(here)} patients lie in it side by side ({', '.join(here[:SHOWN])})" if len(here) > 1 else ""


def holds_images(folder: Path) -> bool:
    """Whether there is a volume or DICOM file somewhere under a folder."""
    for count, (_, _, files) in enumerate(os.walk(folder)):
        if count > MOST:
            return False
        if any(file.lower().endswith(IMAGES) for file in files):
            return True
    return False


def _images_in(folder: Path) -> list[Path]:
    return [f for f in folder.iterdir() if f.name.lower().endswith(ENDS)]


def _inner(folder: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.is_dir())
    except OSError:  # who may not look into it is not told what is in it
        return []
