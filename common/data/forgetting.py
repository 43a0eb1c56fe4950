"""What the cache holds of patients who are gone: whose files were replaced or deleted, or who are excluded.

An entry of slices is known by its index: the data folder, the patients, and the digests of the files that it was made of. One
that holds a patient who is none of the folder's now, or had other files, is deleted, with all that was computed of these files:
fingerprints, marks, embeddings.
"""

import json
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from common.data.cache import person
from common.data.cases import Case
from common.data.known_files import FOLDER as DIGESTS

PARTS = ("fingerprints", "voxel-marks")  # folders of files whose names hold the digest of the volume that they are of
EMBEDDINGS = "embeddings"  # by slices, not by files; computed anew where they are needed


@dataclass(frozen=True)
class Entry:
    """Slices of one data folder in the cache."""

    path: Path
    root: str  # the data folder; "": the entry is of an earlier version, which did not say
    patients: int
    people: frozenset[str]  # whose slices they are (`common.data.cache.person`)
    files: frozenset[str]  # digests of what the slices were made of
    size: int  # bytes


def entries(cache: Path) -> list[Entry]:
    """All of them, by name."""
    indices = sorted(cache.glob("*/index.json")) if cache.is_dir() else []
    return [entry for index in indices if (entry := _read(index)) is not None]


def of_folder(cache: Path, root: Path) -> list[Entry]:
    """Those that are of this data folder."""
    return [entry for entry in entries(cache) if entry.root == str(root)]


def gone(found: Iterable[Entry], cases: Iterable[Case]) -> list[Entry]:
    """Those that hold somebody who is not there any more.

    Args:
        found: entries of one data folder.
        cases: all patients that the folder has now.
    """
    found = list(found)
    there = {person(case) for case in cases} if found else set()
    return [entry for entry in found if not entry.people <= there]


def forget(cache: Path, wanted: Collection[Entry], left: Iterable[Entry]) -> None:
    """Delete entries, and what was computed of files that no entry which is left was made of."""
    files = {digest for entry in wanted for digest in entry.files} - {digest for entry in left for digest in entry.files}
    for entry in wanted:
        shutil.rmtree(entry.path, ignore_errors=True)
        for beside in (f"{entry.path.name}.lesions.npz", f".{entry.path.name}.lock"):
            (cache / beside).unlink(missing_ok=True)
    for folder in PARTS:
        for file in (cache / folder).glob("*"):
            if files & {*file.stem.split("-")}:
                file.unlink(missing_ok=True)
    if wanted:
        for computed in (EMBEDDINGS, DIGESTS):
            shutil.rmtree(cache / computed, ignore_errors=True)


def forget_gone(cache: Path, root: Path, cases: Iterable[Case], key: str = "") -> int:
    """Delete what the cache holds of patients of this data folder who are gone; returns how many entries that were.

    Args:
        cache: of the slices.
        root: the data folder.
        cases: all patients that it has now.
        key: of an entry that was just made of the files that are there now: what is of the same files needs no second look.
    """
    mine = of_folder(cache, root)
    now = frozenset().union(*(entry.people for entry in mine if entry.path.name == key))
    lost = gone([entry for entry in mine if not entry.people <= now], cases)
    if lost:
        forget(cache, lost, [entry for entry in mine if entry not in lost])
    return len(lost)


def _read(index: Path) -> Entry | None:
    try:
        table = json.loads(index.read_text(encoding="utf-8"))
        images = index.with_name("images.npy").stat().st_size
        sources = [source for each in table.get("sources", []) for source in each.values()]
        files = frozenset(digest for source in sources for digest in str(source).split())
        people, size = frozenset(map(str, table.get("people", []))), images + index.stat().st_size
        return Entry(index.parent, str(table.get("root", "")), len(table["rows"]), people, files, size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
