"""All files under a source: folders, folders in folders, zip archives (CD exports) and zips in zips."""

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError

MAX_DEPTH = 3  # archives in archives
MAX_MEMBER = 8 << 30  # bytes that one file of an archive may unpack to
MAX_TOTAL = 256 << 30  # and all of one source together
_BLOCK = 1 << 20

Problem = Callable[[str, str], None]
"""Called with a file's name and why it is left out."""


@dataclass(frozen=True)
class SourceFile:
    """A file that can be opened, and the name by which the person knows it (`cd.zip!IMG/0001`)."""

    path: Path
    name: str


def find_files(source: Path, scratch: Path, problem: Problem) -> Iterator[SourceFile]:
    """Every file of a source, sorted by name; archives are unpacked on the way.

    Args:
        source: a folder, a zip archive or one file.
        scratch: an empty folder that takes what archives hold, under names of our own: no name in an archive becomes a path.
        problem: told of every file that cannot be had.

    Raises:
        DataError: there is no such source.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. Name the folder, or the zip archive, that holds the DICOM files.")
    unpacking = _Unpacking(scratch, problem)
    for file in _walk(source, {os.path.realpath(scratch)} - {os.path.realpath(source)}, problem):
        yield from unpacking.open(file, depth=0)


def _walk(source: Path, seen: set[str], problem: Problem) -> Iterator[SourceFile]:
    """Files below a folder; linked folders too, each real folder once, and none of those `seen` already."""
    if source.is_file():
        yield SourceFile(source, source.name)
        return
    for folder, children, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            children.clear()
            continue
        seen = {*seen, real}
        children.sort()
        for name in sorted(names):
            file = SourceFile(Path(folder) / name, str((Path(folder) / name).relative_to(source)))
            if file.path.is_file():
                yield file
            else:
                problem(file.name, "a link to nothing, or no ordinary file")


class _Unpacking:
    """Unpacks archives within bounds; refuses by name what is encrypted, damaged, linked or too large."""

    def __init__(self, scratch: Path, problem: Problem) -> None:
        self._scratch, self._problem = scratch, problem
        self._count, self._bytes = 0, 0

    def open(self, file: SourceFile, depth: int) -> Iterator[SourceFile]:
        """The file itself, or what it holds."""
        if not zipfile.is_zipfile(file.path) or _is_dicom(file.path):
            yield file
        elif depth >= MAX_DEPTH:
            self._problem(file.name, f"an archive inside {MAX_DEPTH} others is not opened; unpack it by hand")
        else:
            yield from self._members(file, depth)

    def _members(self, archive: SourceFile, depth: int) -> Iterator[SourceFile]:
        try:
            with zipfile.ZipFile(archive.path) as opened:
                for member in sorted(opened.infolist(), key=lambda m: m.filename):
                    if not member.is_dir() and (file := self._unpack(opened, member, archive)):
                        yield from self.open(file, depth + 1)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            self._problem(archive.name, f"the archive cannot be read to its end ({error})")

    def _unpack(self, opened: zipfile.ZipFile, member: zipfile.ZipInfo, archive: SourceFile) -> SourceFile | None:
        name = f"{archive.name}!{member.filename}"
        if member.external_attr >> 16 & 0o170000 == 0o120000:
            self._problem(name, "a link inside an archive is not followed")
            return None
        if member.flag_bits & 1:
            self._problem(name, "encrypted; unpack the archive with its password and name the folder")
            return None
        self._count += 1
        target = self._scratch / f"{self._count:08d}"
        try:
            self._copy(opened, member, target)
        except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, DataError) as error:
            target.unlink(missing_ok=True)
            self._problem(name, f"cannot be unpacked ({error})")
            return None
        return SourceFile(target, name)

    def _copy(self, opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
        """Copy within bounds, counted as the bytes come: what an archive says of its own size is not believed."""
        written = 0
        with opened.open(member) as source, target.open("wb") as file:
            while block := source.read(_BLOCK):
                written += len(block)
                self._bytes += len(block)
                if written > MAX_MEMBER or self._bytes > MAX_TOTAL:
                    raise DataError("it unpacks to more than an export of images would")
                file.write(block)


def _is_dicom(path: Path) -> bool:
    """Whether the file says it is DICOM: such a file may hold a zip inside, and is none."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
