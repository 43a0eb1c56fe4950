"""What lies in a patient's folder, links followed, and whether its content is here at all."""

import os
from collections.abc import Iterator
from pathlib import Path

MOST_FOLDERS = 20_000  # in one patient's folder: more are reached only by links that lead to each other
POINTER_BYTES = 32_768  # a longer file is no pointer (git-annex's own limit)
LFS, ANNEX = b"version https://git-lfs.github.com/spec/", (b"/annex/objects/", b".git/annex/objects/", b"../.git/annex/objects/")


def files_under(folder: Path) -> list[str]:
    """The files under a folder, relative to it, sorted; a link to a folder is followed, and one to nothing counts as a file.

    A link that leads back up, to where the walk came from or above the folder itself, is left alone: so loops end, and a patient
    never gets the files of another one by a link to the site. Hidden files and folders are left out.

    Raises:
        OSError: links lead to each other without end, or a folder cannot be read.
    """
    try:
        above = {str(parent) for parent in folder.resolve().parents}
    except RuntimeError as error:  # what pathlib makes of links that lead to each other
        raise OSError("links lead to each other") from error
    found: list[str] = []
    for count, (path, names) in enumerate(_walk(folder, "", above)):
        if count > MOST_FOLDERS:
            raise OSError(f"more than {MOST_FOLDERS} folders; do links lead to each other?")
        found += [path + name for name in names]
    return sorted(found)


def _walk(folder: Path, path: str, above: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder's path, with a slash at its end, and its files."""
    above = above | {str(folder.resolve())}
    with os.scandir(folder) as entries:
        here = sorted((entry for entry in entries if not entry.name.startswith((".", "~$"))), key=lambda entry: entry.name)
    inner = [entry for entry in here if Path(entry.path).is_dir()]  # a link to itself is none, where `entry.is_dir()` raises
    yield path, [entry.name for entry in here if entry not in inner]
    for entry in inner:
        if not entry.is_symlink() or str(Path(entry.path).resolve()) not in above:
            yield from _walk(Path(entry.path), f"{path}{entry.name}/", above)


def why_absent(file: Path) -> tuple[str, str] | None:
    """What keeps a file's content from being here, and what to do about it; None where it is here."""
    if not file.exists():
        return _dangling(file)
    if not file.is_dir() and not file.is_file():  # reading a pipe would wait for ever
        return "is no file (a pipe, a socket or a device)", "Put the image in its place."
    if file.is_dir() or file.stat().st_size > POINTER_BYTES:
        return None
    with file.open("rb") as content:
        start = content.read(64)
    if start.startswith(LFS):
        return "is a pointer of git-lfs, and its content was not fetched", f"Run `git lfs pull` in the data set, for {file.name}."
    if start.startswith(ANNEX):
        return "is a pointer of git-annex, and its content was not fetched", _get(file)
    return None


def _dangling(file: Path) -> tuple[str, str]:
    """A link whose target is not there."""
    target = os.readlink(file) if file.is_symlink() else ""
    if "annex/objects/" in target.replace("\\", "/"):
        return "is a link to nothing: git-annex (DataLad) holds its name, and its content was not fetched", _get(file)
    return f"is a link to nothing ({target})", "Mount or copy what it leads to, or remove the link."


def _get(file: Path) -> str:
    return f"Run `datalad get {file.name}` (or `git annex get`) in its folder."
